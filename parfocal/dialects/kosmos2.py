"""The Kosmos-2 dialect: `<phrase> a dog</phrase><object><patch_index_0044>...</object>`.

A box is the cell of its top left and of its bottom right corner on a grid of 32 by 32 cells of the
picture. Reading takes the centres of the two cells, or their outer edges along both axes if they
share a row or a column, so that writing and reading is not the identity.

Source: Transformers processing_kosmos2 coordinate_to_patch_index, patch_index_to_coordinate.
Deviates: indices are checked, swapped corners put right, a missing `</object>` and blanks between
tokens are read; a box without phrase gets no made-up name; "none" for absence is ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grid import SLACK, Grid
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef
from parfocal.dialects.peer import Questions
from parfocal.dialects.reader import Reader
from parfocal.dialects.tagged import Tagged, Tags

CELLS = 32  # a side

_BETWEEN = "</delimiter_of_multi_objects/>"
_TOKEN = re.compile(r"<patch_index_([0-9]{1,9})>")
TAGS = Tags(
    ("<phrase>", "</phrase>"),
    ("<object>", "</object>"),
    bare=r"<patch_index_[0-9]+>(?:\s*<patch_index_[0-9]+>)*+",
)


class Kosmos2(Tagged):
    """Kosmos-2's dialect; see the module."""

    name = "kosmos2"
    special_tokens = (
        "<grounding>",
        "<phrase>",
        "</phrase>",
        "<object>",
        "</object>",
        _BETWEEN,
        *(f"<patch_index_{index:04d}>" for index in range(CELLS * CELLS)),
    )
    grid = Grid(CELLS, cut=True, shift=0.5)
    tags, markup = TAGS, re.compile(rf"{TAGS.markup.pattern}|{re.escape(_BETWEEN)}")
    prefix = "<grounding>"
    blank_inside = leading_blank = True
    questions = Questions(
        locate="<grounding>{}",
        locate_all="<grounding>{}",
        describe="<grounding>An image of",
        describe_region="<grounding>{} is",
    )

    def describe_region(self, index: int) -> GroundedText:
        """The phrase "It" with the region's box, for the model to go on."""
        return GroundedText.of("<grounding>", Phrase("It"), RegionRef(index), " is")

    def encode(self, boxes: Boxes, view: View) -> Iterator[tuple[str, ...]]:
        """The cells of the two corners; the far corner belongs to the cell that it closes."""
        for x1, y1, x2, y2 in self.fractions(boxes, view):
            left, top = (min(math.floor(v * CELLS + SLACK), CELLS - 1) for v in (x1, y1))
            right = max(math.ceil(x2 * CELLS - SLACK) - 1, left)
            bottom = max(math.ceil(y2 * CELLS - SLACK) - 1, top)
            yield f"{top * CELLS + left:04d}", f"{bottom * CELLS + right:04d}"

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """Two tokens."""
        return "".join(f"<patch_index_{number}>" for number in numbers)

    def join(self, boxes: Sequence[str]) -> str:
        """All boxes of a phrase in one group."""
        return f"<object>{_BETWEEN.join(boxes)}</object>"

    def read_group(
        self, inside: str, whole: str, cut: bool, reader: Reader, view: View
    ) -> list[Boxes] | None:
        """Pairs of cells between delimiters."""
        found = []
        for part in inside.split(_BETWEEN):
            cells = [int(digits) for digits in _TOKEN.findall(part)]
            if re.search(r">\s+<", part):
                reader.note_once("token_spacing", f"{part!r} has blanks between its tokens")
            if len(cells) == 2:
                box = self._box(cells, part, reader)
                found.extend([] if box is None else [box])
            elif not cut:
                reader.note("wrong_arity", f"{part!r} is not two patch indices")
        return found

    def _box(self, cells: list[int], whole: str, reader: Reader) -> Boxes | None:
        if any(cell >= CELLS * CELLS for cell in cells):
            reader.note("out_of_range", f"{whole!r} has an index from {CELLS * CELLS}, left out")
            return None
        (y1, x1), (y2, x2) = (divmod(cell, CELLS) for cell in cells)
        if x1 > x2 or y1 > y2:
            reader.note("inverted", f"{whole!r} has x2 < x1 or y2 < y1, they are swapped")
        low, high = (min(x1, x2), min(y1, y2)), (max(x1, x2), max(y1, y2))
        edge = x1 == x2 or y1 == y2
        near, far = (0.0, 1.0) if edge else (0.5, 0.5)
        corners = [v + near for v in low] + [v + far for v in high]
        return reader.box([v / CELLS for v in corners], whole)
