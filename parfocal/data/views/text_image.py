"""T-I of TinyGroundingGPT: object images answer questions, and questions are about object images.

Source: TinyGroundingGPT, section 3.1 (object texts and images) and Fig. 10 (prompts 1 and 2,
postprocess 3 and 4).
Deviates: the paper's questions come from a teacher, these from labels and relations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, leave_out
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import Named, read_named
from parfocal.data.views.names import may_be_same
from parfocal.data.views.objects import NO_CHOICE, ObjectView
from parfocal.data.views.relations import SEVERAL_ANSWERS, Relation, Relations
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, ObjectRef, Phrase

OF_NAMES = ("which", "name")
OF_RELATIONS = ("missing", "relation")

Subject = Callable[[str, Draw], Draft | str]  # kind -> a question about it, or why there is none


@dataclass(frozen=True)
class TextImage(ObjectView):
    """Ask "Which is the hat? a. [object 1]; b. [object 2]." -> "The answer is a.", and others.

    The kinds of `asks`:
        which: a phrase, answered by one of several object images.
        name: an object image, answered by its name.
        missing: a subject (an object image) and a predicate, answered by one of several others.
        relation: two object images, answered by what the first is or does to the second.
    """

    name: ClassVar[str] = "text_image"
    known: ClassVar[tuple[str, ...]] = (*OF_NAMES, *OF_RELATIONS)
    slots: ClassVar[Slots] = {
        "which": ("phrase", "options"), "name": ("object",),
        "missing": ("subject", "predicate", "options"), "relation": ("subject", "object"),
        "answer": ("letter",),
    }  # fmt: skip

    wording: str = "text_image"

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask about everything that is named and about every relation."""
        of_names = [kind for kind in self.asks if kind in OF_NAMES]
        of_relations = [kind for kind in self.asks if kind in OF_RELATIONS]
        subjects: list[tuple[list[str], Subject]] = []
        if of_names:
            subjects += [(of_names, subject) for subject in self._named(sample, skipped)]
        if of_relations:
            subjects += [(of_relations, subject) for subject in self._related(sample, skipped)]
        for known, subject in self.order(subjects, draw):
            for kind in self.kinds(known, draw):
                draft = subject(kind, draw)
                if isinstance(draft, str):
                    leave_out(skipped, draft)
                else:
                    yield draft

    def _named(self, sample: Sample, skipped: Counter[str]) -> list[Subject]:
        named = read_named(sample, skipped)
        single = [item for item in named if len(item.boxes) == 1]
        reason = "phrases for several boxes, which no one image shows"
        leave_out(skipped, reason, len(named) - len(single))
        rows = self.showable([item.boxes for item in single], skipped)
        shown = [single[row] for row in rows]
        return [partial(self._about_name, item, shown) for item in shown]

    def _about_name(self, item: Named, named: list[Named], kind: str, draw: Draw) -> Draft | str:
        crop = self.rules.crop(item.boxes, draw)
        if kind == "name":
            question = self.ask(kind, draw, object=ObjectRef(1))
            return Draft.of(question, GroundedText.of(item.text), crops=crop)
        wrong = [other.boxes for other in named if not may_be_same(item.text, other.text)]
        options = self.choices(crop, wrong, draw)
        if options is None:
            return NO_CHOICE
        question = self.ask(kind, draw, phrase=Phrase(item.text), options=options.text())
        return Draft.of(question, self.answer(options, draw), crops=options.crops)

    def _related(self, sample: Sample, skipped: Counter[str]) -> list[Subject]:
        relations = Relations(sample, skipped)
        usable = set(self.rules.usable(relations.boxes))
        shown = [item for item in relations.all if {item.subject, item.object} <= usable]
        reason = "relations of what is too small or too large to be shown"
        leave_out(skipped, reason, len(relations.all) - len(shown))
        return [partial(self._about_relation, item, relations, usable) for item in shown]

    def _about_relation(
        self, item: Relation, relations: Relations, usable: set[int], kind: str, draw: Draw
    ) -> Draft | str:
        boxes, names = relations.boxes, relations.names
        subject = self.rules.crop(boxes[[item.subject]], draw)
        crop = self.rules.crop(boxes[[item.object]], draw)
        if not self.rules.distinct(crop, subject):
            return "relations of objects that overlap too much to be shown apart"
        if kind == "relation":
            if not relations.is_clear(item, "predicate"):
                return SEVERAL_ANSWERS
            question = self.ask(kind, draw, subject=ObjectRef(1), object=ObjectRef(2))
            return Draft.of(
                question, GroundedText.of(item.predicate), crops=Boxes.concat([subject, crop])
            )
        if item.is_vague:
            return "relations that what is not annotated may also be in"
        right = {other.object for other in relations.alike(item, "object")}
        wrong = [
            boxes[[row]]
            for row in sorted(usable - right)
            if not may_be_same(names[row], names[item.object])
        ]
        options = self.choices(crop, wrong, draw, shown=subject)
        if options is None:
            return NO_CHOICE
        question = self.ask(
            kind, draw, subject=ObjectRef(1), predicate=item.predicate, options=options.text(2)
        )
        crops = Boxes.concat([subject, options.crops])
        return Draft.of(question, self.answer(options, draw), crops=crops)
