"""The Ferret dialect: `the cat [100, 200, 500, 800].`, thousandths of the picture.

The picture is squashed to a square, so that fractions are those of the picture itself.

Source: Ferret evaluation (int(v * 1000 / W) to write, v * W / 1000 to read) and its questions.
Deviates: pixels are not cut to whole ones on reading; "none" for absence is ours.
"""

from __future__ import annotations

import re

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.brackets import Brackets
from parfocal.dialects.grid import Grid
from parfocal.dialects.grounded import GroundedText
from parfocal.dialects.peer import Questions


class Ferret(Brackets):
    """Ferret's dialect; see the module."""

    name = "ferret"
    special_tokens = ("<region_fea>",)
    grid = Grid(1000, top=999, cut=True)
    official = re.compile(r"\[[0-9]+, [0-9]+, [0-9]+, [0-9]+\]")
    questions = Questions(
        locate="What is the location of {} in the image?",
        locate_all="What are the locations of {}?",
        describe="Describe the image in detail, with the locations of the objects.",
        describe_region="What is the object {}?",
    )

    def write_region(self, boxes: Boxes, view: View) -> str:
        """The box, and the token that the region's feature replaces."""
        return f"{self.write_boxes(boxes, view)} <region_fea>"

    def locate(self, phrase: str) -> GroundedText:
        """The question of its REC evaluation, which takes commas out of the phrase."""
        return super().locate(phrase.replace(",", ""))
