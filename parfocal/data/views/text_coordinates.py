"""T-C of TinyGroundingGPT: what a phrase names is located, what a region shows is described.

Source: TinyGroundingGPT, section 3.1 (object texts and coordinates) and Fig. 10 (postprocess 1).
Deviates: a phrase that may mean something else in the picture as well is not asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, QuestionView, leave_out, require_kinds
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import read_inexhaustive, read_named, unique
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef

Ask = Literal["to_coordinates", "to_text"]
ASKS: tuple[Ask, ...] = ("to_coordinates", "to_text")


@dataclass(frozen=True)
class TextCoordinates(QuestionView):
    """Ask "In this image, where is the hat located?" -> its box, and the other way round.

    Args:
        asks: "to_coordinates", "to_text"; both if empty.
    """

    name: ClassVar[str] = "text_coordinates"
    slots: ClassVar[Slots] = {"to_coordinates": ("phrase",), "to_text": ("region",)}

    wording: str = "text_coordinates"
    asks: Sequence[Ask] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        object.__setattr__(self, "asks", require_kinds(self.asks, ASKS))
        super().__post_init__()

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask both ways about everything that is named."""
        named = read_named(sample, skipped)
        clear: set[int] = set()
        if "to_coordinates" in self.asks:
            clear = set(map(id, unique(named, read_inexhaustive(sample), skipped)))
        single = {id(item) for item in named if len(item.boxes) == 1}
        if "to_text" in self.asks:
            reason = "phrases for several boxes, which describe no one region"
            leave_out(skipped, reason, len(named) - len(single))
        usable = {"to_coordinates": clear, "to_text": single}
        for item in self.order(named, draw):
            possible = [kind for kind in self.asks if id(item) in usable[kind]]
            for kind in self.kinds(possible, draw):
                if kind == "to_coordinates":
                    question = self.ask(kind, draw, phrase=Phrase(item.text))
                    yield Draft.of(question, GroundedText.of(Phrase("", item.boxes)))
                else:
                    question = self.ask(kind, draw, region=RegionRef(0))
                    yield Draft.of(question, GroundedText.of(item.text), item.boxes)
