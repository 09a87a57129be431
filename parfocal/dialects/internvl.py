"""The InternVL dialect: `<ref>a cat</ref><box>[[243, 469, 558, 746]]</box>`, thousandths.

Lists of boxes between tags, relative to the picture itself; tiling does not change that. InternVL's
`chat` drops the tags; what is left, `a cat[[243, 469, 558, 746]]`, is read too.

Source: InternVL chat_data_format and eval/refcoco.
Deviates: numbers are rounded, as the documentation does (a maintainer names cutting); "none" for
absence is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grid import Grid
from parfocal.dialects.peer import Questions
from parfocal.dialects.reader import Reader, read_numbers
from parfocal.dialects.tagged import Tagged, Tags

_INNER = re.compile(r"\[([^\[\]]*)\]")
_NUMBERS = r"\s*[0-9.+\-]+(?:\s*,\s*[0-9.+\-]+)++\s*"
# One bracket of numbers, or a list of such.
BARE = rf"\[(?:{_NUMBERS}|\s*\[{_NUMBERS}\](?:\s*,\s*\[{_NUMBERS}\])*+\s*)\]"


class NestedLists(Tagged):
    """A dialect whose boxes are lists of four numbers in one list."""

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """A list of four numbers."""
        return f"[{', '.join(numbers)}]"

    def join(self, boxes: Sequence[str]) -> str:
        """All boxes of a phrase in one group."""
        opening, closing = self.tags.box
        return f"{opening}[{', '.join(boxes)}]{closing}"

    def read_group(
        self, inside: str, whole: str, cut: bool, reader: Reader, view: View
    ) -> list[Boxes] | None:
        """The innermost lists."""
        rows = _INNER.findall(inside)
        if re.search(r"[0-9]", _INNER.sub("", inside)) and not cut:
            reader.note("format_drift", f"{whole!r} has numbers outside its boxes")
        elif not rows and not cut:
            reader.note("wrong_arity", f"{whole!r} holds no box")
        boxes = (self.place(read_numbers(row), whole, reader) for row in rows)
        return [box for box in boxes if box is not None]


class InternVL(NestedLists):
    """InternVL's dialect; see the module."""

    name = "internvl"
    special_tokens = ("<ref>", "</ref>", "<box>", "</box>")
    grid = Grid(1000)
    tags: ClassVar[Tags] = Tags(("<ref>", "</ref>"), ("<box>", "</box>"), BARE)
    markup = tags.markup
    questions = Questions(
        locate="Please provide the bounding box coordinate of the region this sentence "
        "describes: {}",
        locate_all="Please detect and label all {} in the following image and mark their "
        "positions.",
        describe="Please describe the image in detail.",
        describe_region="Please describe the region {} in the image.",
    )
