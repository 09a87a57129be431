"""Things that are not there: a phrase, and the answer that there is none.

The sentences must be those of a view whose questions have boxes for an answer: if only absent
things were asked for in some way, the way would give the answer away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, QuestionView, leave_out, require_count
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import NEGATIVES, read_inexhaustive, read_names, read_texts
from parfocal.data.views.names import category_name, mentioned, names_of, says_nothing, words_of
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase
from parfocal.errors import ConfigError


@dataclass(frozen=True)
class Absent(QuestionView):
    """Ask "Locate zebra in the image." -> Nothing.

    Where a picture has a list of verified negatives, as LVIS has in `meta["neg_categories"]`, only
    those are asked for: what else is not annotated there may still be in the picture. Elsewhere
    names come from the vocabulary, without what the picture's labels and texts may mean.

    Args:
        vocabulary: names of which every instance is annotated in every picture, such as the
            categories of COCO for pictures of COCO.
        count: how many to ask for, at most.
    """

    name: ClassVar[str] = "absent"
    slots: ClassVar[Slots] = {"question": ("phrase",)}

    wording: str = "groma_rec"
    vocabulary: Sequence[str] = ()
    count: int = 1

    def __post_init__(self) -> None:
        """Check the options."""
        require_count("count", self.count, 1)
        if isinstance(self.vocabulary, str) or any(map(says_nothing, self.vocabulary)):
            raise ConfigError(
                f"vocabulary is {self.vocabulary!r}, must be a list of names that tell what a "
                "thing is."
            )
        object.__setattr__(self, "vocabulary", tuple(map(category_name, self.vocabulary)))
        super().__post_init__()

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask for what is known not to be there."""
        found = False
        for name in islice(self._absent(sample, draw), self.count):
            found = True
            question = self.ask("question", draw, phrase=Phrase(name))
            yield Draft.of(question, GroundedText.of(Nothing()))
        if not found:
            leave_out(skipped, "pictures of which nothing is known to be absent")

    def _absent(self, sample: Sample, draw: Draw) -> Iterator[str]:
        verified = read_names(sample, NEGATIVES)
        if verified is not None:
            labels = set(map(category_name, sample.regions.labels or ()))
            names = dict.fromkeys(map(category_name, verified))
            yield from (name for name in draw.shuffled(names) if name not in labels)
            return
        said = [*read_texts(sample), *read_inexhaustive(sample)]
        there = {words_of(text) for text in said}
        for name in draw.shuffled(dict.fromkeys(self.vocabulary)):
            if not names_of(name) & there and not mentioned(name, said):
                yield name
