"""Class-agnostic detection: every region is an object, and nothing is said.

Source: Groma (arXiv:2404.13013), section 3.3 (detection pretraining leaves categories out).
Deviates: no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.sample import Sample
from parfocal.data.views.base import REGION_KEYS, Draft, TaskView, leave_out
from parfocal.data.views.draw import Draw


@dataclass(frozen=True)
class Detect(TaskView):
    """The picture with all its regions, each labelled "object", without turns."""

    name: ClassVar[str] = "detect"
    keeps: ClassVar[frozenset[str]] = REGION_KEYS

    def drafts(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Yield one draft for a picture with regions."""
        if len(sample.regions) == 0:
            leave_out(skipped, "samples without regions")
        else:
            yield Draft(regions=sample.regions.replace(labels=["object"] * len(sample.regions)))
