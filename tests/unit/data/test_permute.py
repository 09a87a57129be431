import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data.permute import SORTED, Permutation, hashed, key_of, uniform

SIZES = st.integers(1, 300) | st.integers(SORTED - 2, SORTED + 200) | st.just(10_007)
MASK = 2**64 - 1


def naive_hash(key: int, place: int) -> int:
    """SplitMix64 in Python's own integers."""
    word = ((place + 1) * 0x9E3779B97F4A7C15 + key) & MASK
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) & MASK
    return word ^ word >> 31


def naive_place(size: int, key: int, place: int) -> int:
    """The network once more, one place at a time."""
    left = math.isqrt(size - 1) + 1
    right = -(-size // left)
    top, low = divmod(place, right)
    for number in range(6):
        round_key = naive_hash(key, number)
        if number % 2 == 0:
            top = (top + ((naive_hash(round_key, low) >> 32) * left >> 32)) % left
        else:
            low = (low + ((naive_hash(round_key, top) >> 32) * right >> 32)) % right
    found = top * right + low
    return found if found < size else naive_place(size, key, found)


@settings(max_examples=60)
@given(SIZES, st.integers(0, 2**64 - 1))
def test_every_number_comes_once(size: int, key: int) -> None:
    order = Permutation(size, key)(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))


@settings(max_examples=60)
@given(SIZES, st.integers(0, 2**64 - 1), st.data())
def test_a_place_does_not_depend_on_the_others_asked_for(
    size: int, key: int, data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, size - 1), max_size=5))
    order = Permutation(size, key)
    assert order(np.array(places, np.int64)).tolist() == order(np.arange(size))[places].tolist()


def test_numbers_are_the_same_on_every_platform_and_in_every_version() -> None:
    assert key_of(7, "order", "caf\u00e9", 0) == 12405928843925622075
    # From the reference implementation of SplitMix64, started at 1234567.
    reference = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert hashed(1234567, np.arange(3)).tolist() == reference
    assert hashed(MASK, np.array([5])).tolist() == [naive_hash(MASK, 5)]
    assert uniform(9, np.array([5])).tolist() == [(naive_hash(9, 5) >> 11) / 2**53]
    by_hash = sorted(range(10), key=lambda place: naive_hash(1, place))
    assert Permutation(10, 1)(np.arange(10)).tolist() == by_hash
    for size in (SORTED + 1, 999_983, 10**12):
        places = [0, 1, 2, size // 2, size - 1]
        expected = [naive_place(size, 77, place) for place in places]
        assert Permutation(size, 77)(np.array(places)).tolist() == expected


@pytest.mark.parametrize("size", [4, 5000], ids=["sorted", "network"])
def test_all_orders_are_about_equally_likely(size: int) -> None:
    """Where the first two places lead, over many keys: chi-square with 15 degrees of freedom."""
    counts = np.zeros((4, 4))
    for seed in range(800):
        first, second = Permutation(size, key_of(seed))(np.arange(2)) * 4 // size
        counts[first, second] += 1
    expected = np.full((4, 4), 800 / 16)
    if size == 4:  # the second differs from the first
        assert np.trace(counts) == 0
        expected = np.where(np.eye(4, dtype=bool), 1.0, 800 / 12)
    assert ((counts - expected) ** 2 / expected).sum() < 40  # p = 0.0005


def test_uniform_numbers_fill_their_interval() -> None:
    numbers = uniform(key_of("u"), np.arange(10_000))
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01


def test_keys_differ() -> None:
    parts = [(1,), (2,), (1, 1), ("1",), (1, "a"), ("a", 1)]
    assert len({key_of(*part) for part in parts}) == len(parts)
