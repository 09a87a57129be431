"""Draw: choices that depend on a key and on nothing else.

The same key gives the same choices in every process, order and version of Python: of the standard
generator only `random()`, whose sequence is promised to stay, is used.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A stream of choices.

    Args:
        key: what the choices depend on: a seed and names.

    Example:
        >>> Draw(0, "coco:9", "rec").pick("abcdef") == Draw(0, "coco:9", "rec").pick("abcdef")
        True
    """

    def __init__(self, *key: int | str) -> None:
        digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).digest()
        self._random = random.Random(int.from_bytes(digest, "big")).random

    def uniform(self, low: float, high: float) -> float:
        """A number between two others."""
        return low + (high - low) * self._random()

    def below(self, bound: int) -> int:
        """A whole number from 0 that is smaller than `bound`."""
        return int(self._random() * bound)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Iterable[T]) -> Iterator[T]:
        """All items, one at a time; what is not asked for is not drawn."""
        left = list(items)
        while left:
            chosen = self.below(len(left))
            left[chosen], left[-1] = left[-1], left[chosen]
            yield left.pop()
