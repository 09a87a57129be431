"""Relations of the objects of a picture, as `Sample.meta["relations"]` holds them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from parfocal.data.sample import Sample
from parfocal.data.views.base import leave_out
from parfocal.data.views.named import bare, same_things
from parfocal.data.views.names import Words, clean, says_nothing, words_of
from parfocal.errors import DataError

Part = Literal["subject", "predicate", "object"]
PARTS: tuple[Part, ...] = ("subject", "predicate", "object")
SEVERAL_ANSWERS = "questions about relations that have several answers"  # a reason

# Where things are and what they have on: annotators name a few of many.
_VAGUE = frozenset({
    "above", "across from", "against", "along", "and", "around", "at", "behind", "below", "beneath",
    "beside", "between", "by", "close to", "far from", "from", "has", "have", "in", "in front of",
    "inside", "near", "near by", "next", "next to", "of", "on", "on side of", "on top of", "over",
    "outside", "surrounded by", "to", "to the left of", "to the right of", "under", "underneath",
    "wearing", "wears", "with",
})  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """Two regions, by row, and what the first is or does to the second: man, riding, horse."""

    subject: int
    predicate: str
    object: int

    @property
    def is_vague(self) -> bool:
        """Whether more than what is annotated is likely to be in this relation."""
        return self.predicate in _VAGUE


class Relations:
    """The relations of one picture, and what the others say to two of their three parts.

    An object that was annotated twice, under one name, counts as one: its first row.

    Args:
        sample: its regions are labelled with the names of objects.
        skipped: counts the relations that cannot be asked about.

    Attributes:
        boxes: of every region.
        names: of every region.
        all: the relations, each once.

    Raises:
        DataError: if an entry is not [row, words, row].
    """

    def __init__(self, sample: Sample, skipped: Counter[str]) -> None:
        self.boxes = bare(sample.regions)
        self.names = [clean(label) for label in sample.regions.labels or [""] * len(self.boxes)]
        found = self._merged(read_relations(sample))
        self.all = [item for item in found if self._is_named(item)]
        self._others: defaultdict[tuple[object, ...], list[Relation]] = defaultdict(list)
        for item in self.all:
            for part in PARTS:
                self._others[_without(item, part)].append(item)
        if not found:
            leave_out(skipped, "samples without relations")
        leave_out(skipped, "relations of what has no name", len(found) - len(self.all))

    def alike(self, item: Relation, part: Part) -> list[Relation]:
        """All relations with the same other two parts, itself among them."""
        return self._others[_without(item, part)]

    def is_clear(self, item: Relation, part: Part) -> bool:
        """Whether the other two parts leave no other answer, as far as is annotated."""
        return len(self.alike(item, part)) == 1

    def _is_named(self, item: Relation) -> bool:
        ends = (self.names[item.subject], self.names[item.object])
        nameless = any(map(says_nothing, ends)) or not item.predicate
        return not nameless and item.subject != item.object

    def _merged(self, relations: list[Relation]) -> list[Relation]:
        """The relations between first rows, without repetitions."""
        first: dict[int, int] = {}
        rows: defaultdict[Words, list[int]] = defaultdict(list)  # the first rows of each name
        for row, name in enumerate(self.names):
            known = rows[words_of(name)]
            twins = (old for old in known if same_things(self.boxes[[old]], self.boxes[[row]]))
            first[row] = next(twins, row)
            if first[row] == row:
                known.append(row)
        merged = (
            Relation(first[item.subject], item.predicate, first[item.object]) for item in relations
        )
        return list(dict.fromkeys(merged))


def _without(item: Relation, part: Part) -> tuple[object, ...]:
    return (part, *(getattr(item, name) for name in PARTS if name != part))


def read_relations(sample: Sample) -> list[Relation]:
    """Read `meta["relations"]`; none if it is not there.

    Raises:
        DataError: if an entry is not [row, words, row].
    """
    rows: Any = sample.meta.get("relations", [])
    if not isinstance(rows, list) or not all(_is_triple(row, len(sample.regions)) for row in rows):
        raise DataError(
            f"sample {sample.id!r}: meta['relations'] must be a list of [subject, predicate, "
            f"object], words between two of the {len(sample.regions)} regions (from 0)."
        )
    return [Relation(first, clean(words).lower(), second) for first, words, second in rows]


def _is_triple(row: Any, num_regions: int) -> bool:
    if not isinstance(row, list) or len(row) != 3 or not isinstance(row[1], str):
        return False
    return all(type(end) is int and 0 <= end < num_regions for end in (row[0], row[2]))
