"""Questions and answers about a scene whose objects are known: what mini learns to talk about.

All turns are GroundedText; the answers' boxes are the objects' own. A turn never depends on another
turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from parfocal.boxes import Boxes
from parfocal.data.sample import JSON, Sample, Turn
from parfocal.data.scenes.catalogue import FAMILIES, KINDS, Kind, article, kind_by_name
from parfocal.data.scenes.expressions import COMPARISONS, Expression, referring_expressions
from parfocal.dialects import Dialect
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef

Pair = tuple[GroundedText, GroundedText]

# Wordings of every sort of question; `{}` is the phrase, the plural or the region asked about.
# fmt: off
WHERE = (
    "Where is {}?", "where is {}", "Where's {}?", "Find {}.", "Find {}", "Point to {}.",
    "Show me {}.", "Locate {}.", "Please locate {}.", "Which one is {}?", "I am looking for {}.",
    "{}", "Can you find {}?", "Look for {}.",
)
EXISTS = ("Is there {} in the picture?", "Is there {}?", "Do you see {}?", "Can you see {}?")
COUNT = (
    "How many {} are there?", "How many {} are in the picture?", "Count the {}.", "how many {}",
    "How many {} do you see?",
)
ALL = (
    "Where are the {}?", "Find all {}.", "Show me all the {}.", "Find all of the {}.",
    "Point to all the {}.",
)
NAME_REGION = ("What is {}?", "What is this? {}", "Name {}.", "Which object is {}?")
CAPTION = (
    "Describe the picture.", "What is in the picture?", "What do you see?", "Describe this image.",
    "What is in this image?", "List the objects.", "Describe the image.",
    "What can you see in the picture?",
)
# fmt: on
SYNONYMS = {
    "largest": ("largest", "biggest"),
    "smallest": ("smallest", "tiniest"),
    "topmost": ("topmost", "top", "highest"),
    "bottommost": ("bottommost", "bottom", "lowest"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "below": ("below", "under"),
}


@dataclasses.dataclass(frozen=True)
class TurnCounts:
    """How many turns of each sort a scene gets; of `where` and `regions`, at most so many."""

    where: int = 6
    absent: int = 1
    count: int = 1
    all: int = 1
    exists: int = 1
    regions: int = 2
    captions: int = 1


class TurnMaker:
    """Makes the turns of one scene from one generator.

    Args:
        names: names of the scene's objects.
        boxes: their boxes, in the picture's frame, in the same order.
        hidden: names that are painted but not annotated; never asked about.
        dialect: whose canonical questions are mixed with free ones.
        rng: decides everything.
        kinds: that there are in scenes; of them is what is said to be absent.
    """

    def __init__(
        self,
        names: Sequence[str],
        boxes: Boxes,
        hidden: set[str],
        dialect: Dialect,
        rng: np.random.Generator,
        kinds: Sequence[Kind] = KINDS,
    ) -> None:
        self.names, self.boxes, self.dialect, self.rng = list(names), boxes, dialect, rng
        self.hidden, self.kinds = hidden, [kind.name for kind in kinds]
        self.left_to_right = [int(index) for index in np.argsort(boxes.cxcywh[:, 0], kind="stable")]
        self.expressions = clear_expressions(self.names, boxes, self.hidden)

    def where(self) -> Pair | None:
        """One object by a referring expression; twins come more often than they occur."""
        twins = [item for item in self.expressions if item.twin]
        pool = twins if twins and self.rng.random() < 0.65 else self.expressions
        if not pool:
            return None
        relations = sorted({item.relation for item in pool})
        # every comparison equally often
        relation = relations[int(self.rng.integers(len(relations)))]
        pool = [item for item in pool if item.relation == relation]
        chosen = pool[int(self.rng.integers(len(pool)))]
        return self._asked(self._reworded(chosen), self.boxes[[chosen.target]])

    def absent(self) -> Pair:
        """Something that is not there: any kind, a colour twin, or a word that means nothing."""
        draw = self.rng.random()
        name = self._absent_name() if draw < 0.85 else _invented_word(self.rng)
        if self.rng.random() < 0.35:
            name = f"{self._pick(COMPARISONS)} {name}"
        elif self.rng.random() < 0.25 and self.names:
            side = ("left of", "right of", "above", "below")[int(self.rng.integers(4))]
            name = f"{name} {side} the {self.names[int(self.rng.integers(len(self.names)))]}"
        return self._asked(name, self.boxes[[]])

    def count(self) -> Pair:
        """How many of one name; sometimes none."""
        name = (
            self._absent_name()
            if self.rng.random() < 0.2 or not self._askable()
            else self._any_name(prefer_many=True)
        )
        members = self._members(name)
        kind = kind_by_name(name)
        question = GroundedText.of(self._pick(COUNT).format(kind.plural))
        if not members:
            return question, GroundedText.of(Nothing(kind.plural))
        words = f"{len(members)} {name if len(members) == 1 else kind.plural}"
        return question, GroundedText.of(Phrase(words, self.boxes[members]))

    def all(self) -> Pair:
        """Every object of one name, left to right."""
        absent = self.rng.random() < 0.15 or not self._askable()
        name = self._absent_name() if absent else self._any_name(prefer_many=True)
        plural, members = kind_by_name(name).plural, self._members(name)
        if self.rng.random() < 0.6:
            phrase = plural if self.rng.random() < 0.5 else name
            answer = Phrase("", self.boxes[members]) if members else Nothing()
            # a name without an article means all of them, whichever way it is asked
            ask = self.dialect.locate_all if self.rng.random() < 0.6 else self.dialect.locate
            return ask(phrase), GroundedText.of(answer)
        question = GroundedText.of(self._pick(ALL).format(plural))
        found = Phrase(f"the {plural}", self.boxes[members]) if members else Nothing(plural)
        return question, GroundedText.of(found)

    def exists(self) -> Pair:
        """Yes, with boxes, or no."""
        name = (
            self._absent_name()
            if self.rng.random() < 0.5 or not self._askable()
            else self._any_name(prefer_many=False)
        )
        members = self._members(name)
        question = GroundedText.of(self._pick(EXISTS).format(f"{article(name)} {name}"))
        if not members:
            return question, GroundedText.of("No, ", Nothing(name))
        words = (
            f"{article(name)} {name}"
            if len(members) == 1
            else f"{len(members)} {kind_by_name(name).plural}"
        )
        return question, GroundedText.of("Yes, ", Phrase(words, self.boxes[members]))

    def region(self, index: int, name: str) -> Pair:
        """What the user's region `index` shows."""
        answer = GroundedText.of(f"{article(name)} {name}")
        if self.rng.random() < 0.5:
            return self.dialect.describe_region(index), answer
        before, after = self._pick(NAME_REGION).split("{}")
        spans = [span for span in (before, RegionRef(index), after) if span]
        return GroundedText.of(*spans), answer

    def caption(self) -> Pair:
        """Every object, left to right, each with its own box."""
        question = (
            self.dialect.describe()
            if self.rng.random() < 0.6
            else GroundedText.of(self._pick(CAPTION))
        )
        names = [self.names[index] for index in self.left_to_right]
        return question, caption_text(names, self.boxes[self.left_to_right])

    def _asked(self, phrase: str, target: Boxes) -> Pair:
        """A locating question: tagged (answered by boxes alone) or free (the phrase with boxes)."""
        the = f"the {phrase}" if self.rng.random() < 0.8 else phrase
        if self.rng.random() < 0.5:
            bare = Phrase("", target) if len(target) else Nothing()
            return self.dialect.locate(the), GroundedText.of(bare)
        question = GroundedText.of(self._pick(WHERE).format(the))
        named = Phrase(f"the {phrase}", target) if len(target) else Nothing(phrase)
        return question, GroundedText.of(named)

    def _reworded(self, chosen: Expression) -> str:
        words = self._pick(words_for(chosen.relation))
        return chosen.text.replace(chosen.relation, words, 1)

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _members(self, name: str) -> list[int]:
        return [index for index in self.left_to_right if self.names[index] == name]

    def _askable(self) -> list[str]:
        return sorted(set(self.names) - self.hidden)

    def _any_name(self, prefer_many: bool) -> str:
        names = self._askable()
        many = [name for name in names if self.names.count(name) > 1]
        return self._pick(many if many and prefer_many and self.rng.random() < 0.6 else names)

    def _absent_name(self) -> str:
        present = set(self.names) | self.hidden
        if self.rng.random() < 0.4:
            relatives = sorted(
                relative
                for name in present
                for relative in colour_relatives(name)
                if relative in self.kinds and relative not in present
            )
            if relatives:
                return self._pick(relatives)
        # a scene may show all kinds that there are in scenes
        all_shown = present.issuperset(self.kinds)
        kinds = [kind.name for kind in KINDS] if all_shown else self.kinds
        while True:
            name = self._pick(kinds)
            if name not in present:
                return name


def words_for(relation: str) -> tuple[str, ...]:
    """Return every wording of a relation, its own name first."""
    return SYNONYMS.get(relation, (relation,))


def hidden_names(sample: Sample) -> set[str]:
    """Return the names of what a scene shows but does not annotate."""
    listed = sample.meta.get("hidden", [])
    return {str(name) for name in listed} if isinstance(listed, list) else set()


def clear_expressions(names: Sequence[str], boxes: Boxes, hidden: set[str]) -> list[Expression]:
    """Return the expressions that nothing hidden makes ambiguous, as a target or as a landmark.

    Args:
        names: one a box.
        boxes: the objects, in the picture's frame.
        hidden: names of what is shown but not annotated.
    """
    return [
        item
        for item in referring_expressions(names, boxes)
        if names[item.target] not in hidden and item.text.rpartition(" the ")[2] not in hidden
    ]


def caption_text(names: Sequence[str], boxes: Boxes) -> GroundedText:
    """Write "a dog, an apple and a car." with a box a noun; `Nothing` for an empty picture."""
    if not names:
        return GroundedText.of(Nothing())
    spans: list[str | Phrase] = []
    for index, name in enumerate(names):
        if index:
            spans.append(" and " if index == len(names) - 1 else ", ")
        spans.append(Phrase(f"{article(name)} {name}", boxes[[index]]))
    return GroundedText.of(*spans, ".")


def colour_relatives(name: str) -> tuple[str, ...]:
    """Return the kinds that share `name`'s noun and differ in colour."""
    return tuple(
        other for family in FAMILIES.values() if name in family for other in family if other != name
    )


def _invented_word(rng: np.random.Generator) -> str:
    """A pronounceable word that means nothing, so that unknown words are known to be absent."""
    consonants, vowels = "bcdfghjklmnprstvwz", "aeiou"
    return "".join(
        consonants[int(rng.integers(len(consonants)))] + vowels[int(rng.integers(5))]
        for _ in range(int(rng.integers(2, 4)))
    ) + ("" if rng.random() < 0.5 else consonants[int(rng.integers(len(consonants)))])


def with_turns(
    sample: Sample,
    dialect: Dialect,
    rng: np.random.Generator,
    counts: TurnCounts = TurnCounts(),
    kinds: Sequence[Kind] = KINDS,
) -> Sample:
    """Return a scene's Sample with turns about it.

    Its objects move to `meta["objects"]`; its regions become the user's, slightly jittered.

    Args:
        sample: from `parfocal.data.readers.scenes`, objects as labelled regions.
        dialect: whose questions are used beside free ones.
        rng: decides everything.
        counts: how many turns of each sort.
        kinds: that there are in scenes.
    """
    names, boxes = list(sample.regions.labels or ()), sample.regions
    maker = TurnMaker(names, boxes, hidden_names(sample), dialect, rng, kinds)
    pairs: list[Pair | None] = [maker.where() for _ in range(counts.where)]
    repeated: tuple[tuple[Callable[[], Pair], int], ...] = (
        (maker.absent, counts.absent),
        (maker.count, counts.count),
        (maker.all, counts.all),
        (maker.exists, counts.exists),
        (maker.caption, counts.captions),
    )
    pairs += [make() for make, times in repeated for _ in range(times)]
    chosen: list[int] = []
    if names and rng.random() < 0.6:
        amount = min(len(names), int(rng.integers(1, counts.regions + 1)))
        chosen = [int(index) for index in rng.choice(len(names), size=amount, replace=False)]
        pairs += [maker.region(slot, names[index]) for slot, index in enumerate(chosen)]
    turns: list[Turn] = []
    for question, answer in filter(None, pairs):
        turns += [Turn("user", question), Turn("assistant", answer)]
    objects: list[JSON] = [
        {"name": name, "xyxy": list(box)} for name, box in zip(names, boxes.to_json(), strict=True)
    ]
    regions = _jittered(boxes[chosen], rng)
    meta = {**sample.meta, "objects": objects}
    return dataclasses.replace(sample, turns=tuple(turns), regions=regions, meta=meta)


def _jittered(boxes: Boxes, rng: np.random.Generator) -> Boxes:
    """Move every side by about 3 % of the box, as a hand-drawn box would be."""
    sides = np.tile(boxes.cxcywh[:, 2:], 2)
    moved = np.sort(
        (boxes.xyxy + rng.normal(0, 0.03, boxes.xyxy.shape) * sides).reshape(-1, 2, 2), axis=1
    ).reshape(-1, 4)
    return Boxes(moved, boxes.frame).clip()
