"""Seeded orders that take no memory: every number is a function of a key and a place.

NumPy promises the bits of its generators but not what it draws from them, so an order made by
`Generator.permutation` could change with an update. Here all is integer arithmetic modulo 2**64,
the same on every platform and in every version, and any place can be asked for by itself.

Shapes: N places.
"""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

ROUNDS = 6  # four are proven to suffice for a good round function and large sizes
SORTED = 4096  # up to this size an order is a sort of hashes: small Feistel networks are not even

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def key_of(*parts: int | str) -> int:
    """64 bits that stand for what an order is for, such as `key_of(seed, "ratio", name)`."""
    text = json.dumps(parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def hashed(key: int, places: Ints | Words) -> Words:
    """Mix key and places to 64 bits each.

    Source: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    Deviates: no; place i is its output i, from the state `key` on.
    """
    words = (places.astype(np.uint64) + np.uint64(1)) * _GOLDEN + np.uint64(key)
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    return words ^ (words >> np.uint64(31))


def uniform(key: int, places: Ints) -> NDArray[np.float64]:
    """Numbers in [0, 1), 53 bits each."""
    return (hashed(key, places) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Permutation:
    """A seeded order of 0..size-1, computed place by place.

    Args:
        size: how many numbers, at least 1.
        key: from `key_of`.

    Source: Feistel network over mixed radices with cycle walking (Black, Rogaway: Ciphers with
    arbitrary finite domains, CT-RSA 2002, section 5).

    Example:
        >>> sorted(Permutation(5, key_of(0, "demo"))(np.arange(5)).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, size: int, key: int) -> None:
        self.size, self._table = size, None
        if size <= SORTED:
            self._table = np.argsort(hashed(key, np.arange(size)), kind="stable")
        self._left = math.isqrt(size - 1) + 1  # left * right is the least above size, or near it
        self._right = -(-size // self._left)
        self._keys = [int(word) for word in hashed(key, np.arange(ROUNDS))]

    def __call__(self, places: Ints) -> Ints:
        """The numbers at some places.

        Args:
            places: int[N], each in 0..size-1.

        Returns:
            int64[N].
        """
        if self._table is not None:
            return self._table[places]
        found = self._rounds(np.asarray(places).astype(np.uint64))
        outside = np.flatnonzero(found >= self.size)
        while len(outside):  # few: left * right exceeds size by less than left
            found[outside] = self._rounds(found[outside])
            outside = outside[found[outside] >= self.size]
        return found.astype(np.int64)

    def _rounds(self, values: Words) -> Words:
        sides = np.uint64(self._left), np.uint64(self._right)
        top = values // sides[1]
        halves = [top, values - top * sides[1]]
        for number, key in enumerate(self._keys):
            this, side = number % 2, sides[number % 2]
            high = hashed(key, halves[1 - this]) >> np.uint64(32)
            shift = (high * side) >> np.uint64(32)  # 0..side-1; a side is below 2**32
            moved = halves[this] + shift
            halves[this] = np.where(moved < side, moved, moved - side)
        joined: Words = halves[0] * sides[1] + halves[1]
        return joined
