"""All of a kind: a category, and the boxes of everything of that category.

Source: Groma (arXiv:2404.13013), official loaders of COCO and LVIS at d3a95b6: one random category
of a COCO picture (`limit=1`), of an LVIS picture up to three (`rounds=3, limit=1`).
Deviates: categories of which not everything has a box are left out; negatives are ours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, QuestionView, leave_out, require_count
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import (
    NEGATIVES,
    bare,
    read_inexhaustive,
    read_names,
    read_regions,
)
from parfocal.data.views.names import category_name
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase


@dataclass(frozen=True)
class GroundAll(QuestionView):
    """Ask "Locate all dog in this image." -> the boxes of all dogs, in their order.

    Args:
        negatives: how many of the categories that are verified to be absent, as LVIS lists them in
            `meta["neg_categories"]`, to ask for as well, at most; the answer is Nothing.
    """

    name: ClassVar[str] = "ground_all"
    slots: ClassVar[Slots] = {"question": ("phrase",)}

    wording: str = "groma_all"
    negatives: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        require_count("negatives", self.negatives, 0)
        super().__post_init__()

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask for every category, and for some that are not there."""
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for row, label in read_regions(sample, skipped):
            rows[category_name(label)].append(row)
        for name in set(map(category_name, read_inexhaustive(sample))) & set(rows):
            leave_out(skipped, "categories of which not everything has a box")
            del rows[name]
        absent = [category_name(name) for name in read_names(sample, NEGATIVES) or ()]
        absent = [name for name in dict.fromkeys(absent) if name not in rows]
        names = [*rows, *islice(draw.shuffled(absent), self.negatives)]
        for name in self.order(names, draw):
            boxes = bare(sample.regions[rows[name]]) if name in rows else None
            answer = Nothing() if boxes is None else Phrase("", boxes)
            yield Draft.of(self.ask("question", draw, phrase=Phrase(name)), GroundedText.of(answer))
