"""Referring expressions: a phrase, and the box of the one thing that it can mean.

Source: Groma (arXiv:2404.13013), official loaders of RefCOCO and GRIT at d3a95b6.
Deviates: a phrase that may mean something else in the picture as well is left out; Groma asks about
whatever stands in the file. The wording is drawn from the seed, not anew at every access.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, QuestionView
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import read_inexhaustive, read_named, unique
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, Phrase


@dataclass(frozen=True)
class Rec(QuestionView):
    """Ask "Locate the red hat in the image." -> its box.

    Of regions their labels are asked for, of captions the phrases with boxes; a phrase for several
    boxes ("two men") is answered by all of them.
    """

    name: ClassVar[str] = "rec"
    slots: ClassVar[Slots] = {"question": ("phrase",)}

    wording: str = "groma_rec"

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask for every phrase that is clear."""
        clear = unique(read_named(sample, skipped), read_inexhaustive(sample), skipped)
        for item in self.order(clear, draw):
            question = self.ask("question", draw, phrase=Phrase(item.text))
            yield Draft.of(question, GroundedText.of(Phrase("", item.boxes)))
