"""The Rex-Omni dialect: a label and `<|box_start|><0><35><980><987>, ...<|box_end|>`, 999ths.

Four tokens are a box, two a point, more an even number of a polygon, which is read as its bounds.
`None` in place of boxes says that there is none. Keypoint answers, which are JSON, are not read.

Source: Rex-Omni rex_omni/parser.py (v / 999 to read) and its training code (int(v * 999) to write).
Deviates: questions for captions are ours.
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
    ("<|object_ref_start|>", "<|object_ref_end|>"),
    ("<|box_start|>", "<|box_end|>"),
    bare=r"<[0-9]{1,4}>(?:<[0-9]{1,4}>)++(?:\s*,\s*<[0-9]{1,4}>(?:<[0-9]{1,4}>)++)*+",
)


class RexOmni(Tagged):
    """Rex-Omni's dialect; see the module."""

    name = "rex_omni"
    special_tokens = (
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
        *(f"<{index}>" for index in range(1000)),
    )
    grid = Grid(999, cut=True)
    has_points = True
    tags, markup = TAGS, TAGS.markup
    questions = Questions(
        locate="Detect {words}. Output the bounding box coordinates in [x0, y0, x1, y1] format.",
        locate_all="Detect {words}. Output the bounding box coordinates in [x0, y0, x1, y1] "
        "format.",
        describe="Describe the image.",
        describe_region="Describe {}.",
    )

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """A token a number."""
        return "".join(f"<{number}>" for number in numbers)

    def join(self, boxes: Sequence[str]) -> str:
        """All boxes of a phrase in one group."""
        return f"<|box_start|>{', '.join(boxes)}<|box_end|>"

    def write_nothing(self, phrase: str) -> str:
        """`None` in place of boxes, after the phrase."""
        return self.write_phrase(phrase, "<|box_start|>None<|box_end|>")

    def read_group(
        self, inside: str, whole: str, cut: bool, reader: Reader, view: View
    ) -> list[Boxes] | None:
        """Runs of tokens with commas between."""
        if inside.strip() == "None":
            return None
        found = []
        parts = inside.split(",")
        for part in parts:
            numbers = [float(digits) for digits in _TOKEN.findall(part)]
            if cut and part is parts[-1] and len(numbers) != 4:
                continue  # noted as cut off
            if len(numbers) > 4 and len(numbers) % 2 == 0:
                xs, ys = numbers[::2], numbers[1::2]
                numbers = [min(xs), min(ys), max(xs), max(ys)]
            box = self.place(numbers, part.strip(), reader)
            found.extend([] if box is None else [box])
        return found
