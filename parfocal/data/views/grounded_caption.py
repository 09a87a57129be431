"""Grounded captions: the question that a caption with boxes answers.

Source: Groma (arXiv:2404.13013), official loader of Flickr30k Entities at d3a95b6.
Deviates: Groma's `[grounding]` in front of the question is written only when asked for
(`mark=[grounding]`): it is markup of one family of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.sample import Sample
from parfocal.data.views.base import PHRASE_KEYS, Draft, QuestionView, leave_out
from parfocal.data.views.draw import Draw
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import ObjectRef, RegionRef


@dataclass(frozen=True)
class GroundedCaption(QuestionView):
    """Ask "What does this picture show?" -> "A dog runs past a car.", both with boxes."""

    name: ClassVar[str] = "grounded_caption"
    keeps: ClassVar[frozenset[str]] = PHRASE_KEYS
    slots: ClassVar[Slots] = {"question": ()}

    wording: str = "groma_grounded_caption"

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask for every caption that has boxes."""
        if not sample.turns:
            leave_out(skipped, "samples without a caption")
        if any(turn.role == "user" for turn in sample.turns):
            leave_out(skipped, "captions that have a question")
            return
        for turn in self.order(sample.turns, draw):
            if any(isinstance(span, RegionRef | ObjectRef) for span in turn.text.spans):
                leave_out(skipped, "captions that speak of a region or object image")
            elif not any(len(phrase.boxes) for phrase in turn.text.phrases):
                leave_out(skipped, "captions without boxes")
            else:
                yield Draft.of(self.ask("question", draw), turn.text)
