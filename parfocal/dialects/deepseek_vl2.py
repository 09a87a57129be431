"""The DeepSeek-VL2 dialect: `<|ref|>a cat<|/ref|><|det|>[[580, 270, 999, 900]]<|/det|>`, 999ths.

Source: DeepSeek-VL2 README and demo (v / 999).
Deviates: how the data was rounded is not published, here to the nearest; "none" for absence is
ours.
"""

from __future__ import annotations

from typing import ClassVar

from parfocal.dialects.grid import Grid
from parfocal.dialects.internvl import BARE, NestedLists
from parfocal.dialects.peer import Questions
from parfocal.dialects.tagged import Tags


class DeepSeekVL2(NestedLists):
    """DeepSeek-VL2's dialect; see the module."""

    name = "deepseek_vl2"
    special_tokens = ("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>")
    grid = Grid(999)
    tags: ClassVar[Tags] = Tags(("<|ref|>", "<|/ref|>"), ("<|det|>", "<|/det|>"), BARE)
    markup = tags.markup
    questions = Questions(
        locate="{}.",
        locate_all="Find all the {}",
        describe="<|grounding|>Describe the image.",
        describe_region="Describe the object at {}.",
    )
