"""Relations: two of subject, predicate and object, and the third.

Source: TinyGroundingGPT, section 3.2, where a teacher makes questions of relations; here they are
made without one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, QuestionView, leave_out, require_kinds
from parfocal.data.views.draw import Draw
from parfocal.data.views.relations import PARTS, SEVERAL_ANSWERS, Part, Relation, Relations
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef


@dataclass(frozen=True)
class RelationQa(QuestionView):
    """Ask "Complete the relation: man [region 0] riding what?" -> "horse", with its box.

    What is given stands in the question with its name and as a region, so that it is clear which
    man is meant. A question that has several answers is not asked.

    Args:
        asks: the parts to ask for: "subject", "predicate", "object"; all of them if empty.
    """

    name: ClassVar[str] = "relation_qa"
    slots: ClassVar[Slots] = {
        part: tuple(other for other in PARTS if other != part) for part in PARTS
    }

    wording: str = "relation_qa"
    asks: Sequence[Part] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        object.__setattr__(self, "asks", require_kinds(self.asks, PARTS))
        super().__post_init__()

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask for the parts of every relation."""
        relations = Relations(sample, skipped)
        for item in self.order(relations.all, draw):
            clear = [part for part in self.asks if relations.is_clear(item, part)]
            leave_out(skipped, SEVERAL_ANSWERS, len(self.asks) - len(clear))
            for part in self.kinds(clear, draw):
                yield self._draft(relations, item, part, draw)

    def _draft(self, relations: Relations, item: Relation, part: Part, draw: Draw) -> Draft:
        values: dict[str, str | GroundedText] = {}
        regions: list[Boxes] = []
        for end, row in (("subject", item.subject), ("object", item.object)):
            if end == part:
                answer = GroundedText.of(Phrase(relations.names[row], relations.boxes[[row]]))
            else:
                values[end] = GroundedText.of(f"{relations.names[row]} ", RegionRef(len(regions)))
                regions.append(relations.boxes[[row]])
        if part == "predicate":
            answer = GroundedText.of(item.predicate)
        else:
            values["predicate"] = item.predicate
        return Draft.of(self.ask(part, draw, **values), answer, Boxes.concat(regions))
