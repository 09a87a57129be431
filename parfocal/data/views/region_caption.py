"""Region captions: a region, and what is said of it.

Source: Groma (arXiv:2404.13013), official loaders at d3a95b6: one region of Visual Genome
(SingleRoundVG, the default here), up to ten of them in one conversation (MultiRoundsVG: `rounds=10,
limit=1`), regions of RefCOCOg (RefCOCOCap: `wording="groma_detail"`).
Deviates: no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.boxes import nms
from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, QuestionView, leave_out
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import bare, read_regions
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, RegionRef
from parfocal.errors import ConfigError


@dataclass(frozen=True)
class RegionCaption(QuestionView):
    """Ask "What is [region 0]?" -> "A red hat".

    Args:
        max_iou: in conversations of several rounds, of regions that overlap more only one is asked
            about, whichever the seed ranks first.
    """

    name: ClassVar[str] = "region_caption"
    slots: ClassVar[Slots] = {"question": ("region",)}

    wording: str = "groma_short"
    max_iou: float = 0.6

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 <= self.max_iou <= 1:
            raise ConfigError(f"max_iou is {self.max_iou!r}, must be a number from 0 to 1.")
        super().__post_init__()

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask about every region, or about those that differ."""
        found = read_regions(sample, skipped)
        for row, label in self._distinct(sample, found, draw, skipped):
            question = self.ask("question", draw, region=RegionRef(0))
            answer = GroundedText.of(caption(label))
            yield Draft.of(question, answer, regions=bare(sample.regions[[row]]))

    def _distinct(
        self, sample: Sample, found: list[tuple[int, str]], draw: Draw, skipped: Counter[str]
    ) -> Iterable[tuple[int, str]]:
        if self.rounds == 1:
            return self.order(found, draw)
        regions = sample.regions[[row for row, _ in found]]
        kept = nms(regions, self.max_iou, scores=[draw.uniform(0, 1) for _ in found])
        leave_out(skipped, "regions that overlap another one", len(found) - len(kept))
        return [found[index] for index in kept]


def caption(label: str) -> str:
    """A caption as Groma writes it: lower case, the first letter a capital.

    >>> caption("A Red Car near the Tree ")
    'A red car near the tree'
    """
    return label.strip().lower().capitalize()
