"""The Shikra dialect: `a dog[0.100,0.200,0.300,0.400;0.500,0.500,0.900,0.900]`.

Fractions of the padded square with three decimals and no blanks; a semicolon between the boxes of
one phrase. Two numbers are a point.

Source: Shikra PlainBoxFormatter, Expand2square; first lines of its REC, GC and caption templates.
Deviates: "none" for absence is ours.
"""

from __future__ import annotations

import re

from parfocal.boxes import Frame, Warp
from parfocal.dialects.brackets import Brackets
from parfocal.dialects.frames import padded_unit_square
from parfocal.dialects.grid import Grid
from parfocal.dialects.peer import Questions

_BOX = r"[0-9](?:\.[0-9]*)?(?:,[0-9](?:\.[0-9]*)?){3}"
_POINT = r"[0-9](?:\.[0-9]*)?,[0-9](?:\.[0-9]*)?"


class Shikra(Brackets):
    """Shikra's dialect; see the module. `<image>` in a question is the family's own mark."""

    name = "shikra"
    grid = Grid(1, decimals=3)
    comma, joiner = ",", ";"
    official = re.compile(rf"\[(?:{_BOX}(?:;{_BOX})*|{_POINT}(?:;{_POINT})*)\]")
    has_points = True
    questions = Questions(
        locate="Can you point out {} in the image <image> and provide the coordinates of its "
        "location?",
        locate_all="Can you point out all {} in the image <image> and provide the coordinates of "
        "their locations?",
        describe="Can you provide a description of the image <image> and include the coordinates "
        "[x0,y0,x1,y1] for each mentioned object?",
        describe_region="Can you give me a description of the region {} in image <image>?",
    )

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> the padded unit square."""
        return padded_unit_square(image)

    def write_phrase(self, words: str, boxes: str) -> str:
        """The bracket touches its phrase."""
        return words + boxes
