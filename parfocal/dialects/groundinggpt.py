"""The GroundingGPT dialect: `[0.25, 0.325, 0.5, 0.625]`, fractions of the padded square.

As `coordinates`, but zeros at the end of decimals are not written.

Source: GroundingGPT lego/mm_utils.py expand2square, postprocess_output; questions of its README.
Deviates: the official reader leaves boxes without ", " between numbers in the padded frame, here
they are read; "none" for absence is ours.
"""

from __future__ import annotations

from parfocal.boxes import Frame, Warp
from parfocal.dialects.brackets import Brackets
from parfocal.dialects.coordinates import OFFICIAL
from parfocal.dialects.frames import padded_unit_square
from parfocal.dialects.grid import Grid
from parfocal.dialects.peer import Questions


class GroundingGPT(Brackets):
    """GroundingGPT's dialect; see the module."""

    name = "groundinggpt"
    grid = Grid(1, decimals=3, least=0)
    official = OFFICIAL
    questions = Questions(
        locate="Where is {} in the image? Include the object positions in [x0, y0, x1, y1] format.",
        locate_all="Where are all {} in the image? "
        "Include the object positions in [x0, y0, x1, y1] format.",
        describe="Please describe the image and include the object positions in "
        "[x0, y0, x1, y1] format.",
        describe_region="Describe the object at {}.",
    )

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> the padded unit square."""
        return padded_unit_square(image)
