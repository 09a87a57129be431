"""The Gemini dialect: `[{"box_2d": [y1, x1, y2, x2], "label": "topping"}]` in thousandths.

Source: Gemini cookbook, Spatial_understanding.
Deviates: points and the empty list for absence are not documented.
"""

from __future__ import annotations

from parfocal.dialects.grid import Grid
from parfocal.dialects.json_boxes import JsonBoxes
from parfocal.dialects.peer import Questions


class Gemini(JsonBoxes):
    """Gemini's dialect; see the module."""

    name = "gemini"
    grid = Grid(1000)
    y_first = True
    box_key, point_key = "box_2d", "point"
    fence, indent = ("", ""), "  "
    questions = Questions(
        locate="Return the bounding box of {} as a JSON array with labels. Never return masks or "
        "code fencing.",
        locate_all="Return bounding boxes of all {} as a JSON array with labels. Never return "
        "masks or code fencing. Limit to 25 objects.",
        describe="Describe this image.",
        describe_region="What is inside {}?",
    )
