"""The LLaVA-1.5 dialect: `[0.25, 0.32, 0.5, 0.62]`, fractions with two decimals.

Whether they are fractions of the padded square or of the picture itself is disputed: samples of the
training data were found to agree with the square, two evaluation suites score against the picture.
Both are here, under two names; a checkpoint is asked in one of them.

Source: LLaVA mix665k questions; haotian-liu/LLaVA#606, #623, #822.
Deviates: "none" for absence is ours.
"""

from __future__ import annotations

from parfocal.boxes import Frame, Warp
from parfocal.dialects.brackets import Brackets
from parfocal.dialects.coordinates import OFFICIAL
from parfocal.dialects.frames import padded_unit_square
from parfocal.dialects.grid import Grid
from parfocal.dialects.peer import Questions


class Llava(Brackets):
    """LLaVA-1.5's dialect in the padded square; see the module."""

    name = "llava_1_5"
    grid = Grid(1, decimals=2, least=1)
    official = OFFICIAL
    questions = Questions(
        locate="Please provide the bounding box coordinate of the region this sentence "
        "describes: {}.",
        locate_all="Please provide the bounding box coordinates of all regions this phrase "
        "describes: {}.",
        describe="Describe this image in detail.",
        describe_region="Please provide a short description for this region: {}.",
    )

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> the padded unit square."""
        return padded_unit_square(image)


class LlavaUnpadded(Llava):
    """LLaVA-1.5's dialect in the picture's own frame; see the module."""

    name = "llava_1_5_unpadded"

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> fractions of the picture."""
        return Warp.to_unit(image)
