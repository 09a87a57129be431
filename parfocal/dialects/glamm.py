"""The GLaMM dialect: a phrase and the mark of its mask, `<p> A man </p> [SEG]`.

The text holds no coordinates: the k-th `[SEG]` of an output stands for the k-th mask of the same
forward pass. `View.regions` holds the bounds of those masks when an output is read; while they are
not known, phrases stay without boxes. A region in a question is `<bbox>`; its box goes beside the
text.

Source: GLaMM GranDf_gcg_ds.py, its evaluation and README.
Deviates: "none" for absence is ours.
"""

from __future__ import annotations

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects.base import View
from parfocal.dialects.grid import Grid
from parfocal.dialects.peer import Questions
from parfocal.dialects.reader import Reader
from parfocal.dialects.tagged import Tagged, Tags

MASK = "[SEG]"
TAGS = Tags(("<p>", "</p>"), ("", ""), bare=r"\[SEG\]")


class Glamm(Tagged):
    """GLaMM's dialect; see the module."""

    name = "glamm"
    special_tokens = ("<bbox>", "<p>", "</p>", MASK)
    grid = Grid(1)
    writes_boxes = False
    tags, markup = TAGS, TAGS.markup
    questions = Questions(
        locate="Please segment {words} in this image.",
        locate_all="Please segment {words} in this image.",
        describe="Could you please give me a detailed description of the image? Please respond "
        "with interleaved segmentation masks for the corresponding parts of the answer.",
        describe_region="Can you provide me with a detailed description of the region in the "
        "picture marked by {}?",
    )

    def coordinate_frame(self, image: Frame) -> Warp:
        """The identity: the text holds no numbers."""
        return Warp.identity(image)

    def write_region(self, boxes: Boxes, view: View) -> str:
        """The mark of a region."""
        return "<bbox>"

    def write_boxes(self, boxes: Boxes, view: View) -> str:
        """A mask token a box, whatever its place."""
        return " ".join([MASK] * len(boxes))

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """A mask token."""
        return MASK

    def write_phrase(self, words: str, boxes: str) -> str:
        """Blanks around the phrase, as in the training data."""
        marked = super().write_phrase(f" {words.strip()} " if words else "", "")
        return f"{marked} {boxes}" if marked and boxes else marked + boxes

    def read_group(
        self, inside: str, whole: str, cut: bool, reader: Reader, view: View
    ) -> list[Boxes] | None:
        """The bounds of the next mask."""
        index, known = reader.count, view.regions
        reader.count += 1
        if known is None:
            return []
        if index >= len(known):
            detail = f"{MASK} number {index} has no mask (there are {len(known)}), it is left out"
            reader.note("unknown_region_index", detail)
            return []
        return [known[index]]
