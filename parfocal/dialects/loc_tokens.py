"""Dialects whose boxes are runs of location tokens: `car<loc_52><loc_332><loc_932><loc_774>`."""

from __future__ import annotations

import re
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.dialects.listing import Listing
from parfocal.dialects.reader import Reader

DIGITS = re.compile(r"[0-9]+")


class LocTokens(Listing):
    """A dialect of location tokens: a run of them is read four at a time.

    Attributes:
        token: how one number is written, for `str.format`.
    """

    token: ClassVar[str]

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """Four tokens."""
        return "".join(self.token.format(number) for number in numbers)

    def read_run(self, run: str, reader: Reader, cut: bool, dangling: str) -> list[Boxes]:
        """Boxes of a run of tokens, image pixels.

        Args:
            run: the tokens.
            reader: takes numbers and problems.
            cut: True if the output ends with the run and may have been cut there.
            dangling: the problem if the tokens do not come out even and the run is not cut.
        """
        if re.search(r">\s+<", run):
            reader.note_once("token_spacing", f"{run!r} has blanks between its tokens")
        numbers = [float(digits) for digits in DIGITS.findall(run)]
        whole = len(numbers) - len(numbers) % 4
        if whole < len(numbers):
            kind = "truncated_box" if cut else dangling
            reader.note(
                kind, f"{run!r} is {len(numbers)} tokens, boxes have four; the rest is left out"
            )
        boxes = (self.place(numbers[i : i + 4], run, reader) for i in range(0, whole, 4))
        return [box for box in boxes if box is not None]
