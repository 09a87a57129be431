"""The CogVLM-grounding dialect: `[[086,540,400,760;500,100,600,200]]`, thousandths, three digits.

Source: CogVLM README and its grounding parser (v / 1000); the questions of its README.
Deviates: how the data was rounded is not published, here numbers are rounded to the nearest;
"none" for absence is ours.
"""

from __future__ import annotations

import re

from parfocal.dialects.brackets import Brackets
from parfocal.dialects.grid import Grid
from parfocal.dialects.peer import Questions

_BOX = r"[0-9]{3}(?:,[0-9]{3}){3}"


class CogVLM(Brackets):
    """CogVLM-grounding's dialect; see the module."""

    name = "cogvlm_grounding"
    grid = Grid(1000, top=999, width=3)
    comma, joiner, opening, closing = ",", ";", "[[", "]]"
    official = re.compile(rf"\[\[{_BOX}(?:;{_BOX})*\]\]")
    questions = Questions(
        locate="Where is {}? answer in [[x0,y0,x1,y1]] format.",
        locate_all="Can you point out all {} in the image and provide the bounding boxes of their "
        "locations?",
        describe="Can you provide a description of the image and include the coordinates "
        "[[x0,y0,x1,y1]] for each mentioned object?",
        describe_region="Tell me what you see within the designated area {} in the picture.",
    )
