"""The MiniGPT-v2 dialect: `<p>sofas</p> {<4><50><30><65>}<delim>{<40><10><60><20>}`, hundredths.

Source: MiniGPT-v2 demo_v2.py and its evaluation (int(v / W * 100) to write, / 100 to read).
Deviates: "none" for absence is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grid import Grid
from parfocal.dialects.peer import Questions
from parfocal.dialects.reader import Reader
from parfocal.dialects.tagged import Tagged, Tags

_TOKEN = re.compile(r"<([0-9]+)>")
TAGS = Tags(
    ("<p>", "</p>"),
    ("", ""),
    bare=r"\{\s*<[0-9<>\s]*+(?:\}|\Z)",
    between=r"\s*<delim>\s*|\s*",
)


class MiniGPTv2(Tagged):
    """MiniGPT-v2's dialect; see the module."""

    name = "minigpt_v2"
    special_tokens = ("<p>", "</p>", "<delim>")
    grid = Grid(100, cut=True)
    tags, markup = TAGS, re.compile(rf"{TAGS.markup.pattern}|<delim>")
    questions = Questions(
        locate="[refer] give me the location of {words}",
        locate_all="[detection] {words}",
        describe="[grounding] describe this image in detail",
        describe_region="[identify] what is this {}",
    )

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """Four tokens in braces."""
        return "{" + "".join(f"<{number}>" for number in numbers) + "}"

    def join(self, boxes: Sequence[str]) -> str:
        """Delimiters between boxes."""
        return "<delim>".join(boxes)

    def write_phrase(self, words: str, boxes: str) -> str:
        """A blank between the phrase and its boxes."""
        return super().write_phrase(words, f" {boxes}" if words and boxes else boxes)

    def read_group(
        self, inside: str, whole: str, cut: bool, reader: Reader, view: View
    ) -> list[Boxes] | None:
        """The four tokens of one pair of braces."""
        numbers = [float(digits) for digits in _TOKEN.findall(inside)]
        if not inside.endswith("}"):
            reader.note("truncated_box", f"{whole!r} lacks its brace")
            if len(numbers) != 4:
                return []
        if re.search(r">\s+<", inside):
            reader.note_once("token_spacing", f"{whole!r} has blanks between its tokens")
        box = self.place(numbers, whole, reader)
        return [] if box is None else [box]
