"""Conversations that a dataset has already, as they are; a task's mark may lead their questions.

Source: Groma (arXiv:2404.13013), official loader of Groma Instruct at d3a95b6, which puts
`[grounding]` before every question.
Deviates: no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.sample import Sample
from parfocal.data.views.base import PHRASE_KEYS, REGION_KEYS, Draft, TaskView, leave_out, led
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import bare
from parfocal.dialects.grounded import ObjectRef


@dataclass(frozen=True)
class Conversation(TaskView):
    """The questions and answers that are there: "What is it?" -> "A dog.".

    Args:
        mark: what every question starts with, such as Groma's `[grounding]`; "" for none.
    """

    name: ClassVar[str] = "conversation"
    keeps: ClassVar[frozenset[str]] = REGION_KEYS | PHRASE_KEYS

    mark: str = ""

    def drafts(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Yield one draft for a Sample with questions and answers."""
        roles = [turn.role for turn in sample.turns]
        spans = [span for turn in sample.turns for span in turn.text.spans]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            leave_out(skipped, "samples that are not questions and answers in turn")
        elif any(isinstance(span, ObjectRef) for span in spans):
            leave_out(skipped, "conversations that speak of an object image")
        else:
            yield Draft(led(sample.turns, self.mark), bare(sample.regions))
