"""The TinyGroundingGPT dialect: boxes are numbers, `a dog [0.120, 0.300, 0.450, 0.800]`.

Numbers are x1, y1, x2, y2 as a fraction of the picture padded to a square. Three decimals are
always written; fewer, more, and drifted spacing are read.

Source: TinyGroundingGPT A.1 and section 4.2; its codec is that of GroundingGPT, lego/mm_utils.py
postprocess_output.
Deviates: spacing drift is read (the official reader leaves such boxes in the padded frame), "none"
for absence is ours.
"""

from __future__ import annotations

import re

from parfocal.boxes import Frame, Warp
from parfocal.dialects.brackets import LIKE_BOX, Brackets
from parfocal.dialects.frames import padded_unit_square
from parfocal.dialects.grid import Grid
from parfocal.dialects.objects import OBJECT_MARK, object_mark
from parfocal.dialects.peer import Questions

OFFICIAL = re.compile(r"\[[0-9.]+, [0-9.]+, [0-9.]+, [0-9.]+\]")


class Coordinates(Brackets):
    """TinyGroundingGPT's dialect; see the module.

    `View.coordinates` must be given: our models may speak this dialect of pictures that they see
    in another shape.

    Example:
        >>> from parfocal.dialects.base import View
        >>> frame = Frame("image", 640, 480)
        >>> view = View(frame, coordinates=padded_unit_square(frame))
        >>> parsed = Coordinates().parse("a cat [0.250, 0.325, 0.500, 0.625]", view)
        >>> parsed.text.boxes(frame).to_json()
        [[160.0, 128.0, 320.0, 320.0]]
    """

    name = "coordinates"
    grid = Grid(1, decimals=3)
    official = OFFICIAL
    markup = re.compile(f"{LIKE_BOX.pattern}|{OBJECT_MARK.pattern}")
    needs_coordinates = True
    questions = Questions(
        # the question of all reported REC numbers (section 4.2)
        locate="Output the coordinate of {}",
        # ours: the paper has none for several instances
        locate_all="Output the coordinates of all {}",
        # GroundingGPT's
        describe="Describe the image and provide the coordinates for the objects mentioned.",
        describe_region="Describe the object at {}.",
    )

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> the padded unit square."""
        return padded_unit_square(image)

    def write_object(self, image: int) -> str:
        """The place of an object image: `<object1>`."""
        return object_mark(image)
