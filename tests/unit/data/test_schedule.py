from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data import schedule as module
from parfocal.data.schedule import Interleave, make_schedule

COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=5)
KEYS = st.integers(0, 2**64 - 1)


@given(st.sampled_from(get_args(Interleave)), COUNTS, KEYS)
def test_every_row_of_every_source_comes_once(kind: Interleave, counts: list[int], key) -> None:
    schedule = make_schedule(kind, counts, key, [1.0 + row for row in range(len(counts))])
    assert len(schedule) == sum(counts)
    assert schedule.counts(len(schedule)).tolist() == counts
    labels, numbers = schedule.window(0, len(schedule))
    for source, count in enumerate(counts):
        assert numbers[labels == source].tolist() == list(range(count))


@given(COUNTS, KEYS, st.data())
def test_a_window_is_a_part_of_the_whole(counts: list[int], key: int, data) -> None:
    schedule = make_schedule("shuffle", counts, key)
    first = data.draw(st.integers(0, len(schedule)))
    last = data.draw(st.integers(first, len(schedule)))
    for part, whole in zip(
        schedule.window(first, last), schedule.window(0, len(schedule)), strict=True
    ):
        assert part.tolist() == whole[first:last].tolist()


def test_long_schedules_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [700, 1, 299]
    for kind in get_args(Interleave):
        whole = make_schedule(kind, counts, 5, [1, 2, 3])
        _, numbers = whole.window(0, len(whole))
        monkeypatch.setattr(module, "CHUNK", 64)
        monkeypatch.setattr(module, "STEP", 32)
        pieces = make_schedule(kind, counts, 5, [1, 2, 3])
        assert pieces.labels.tolist() == whole.labels.tolist(), kind
        assert pieces.counts(999).tolist() == np.bincount(whole.labels[:999]).tolist()
        assert [part.tolist() for part in pieces.window(100, 107)] == [
            whole.labels[100:107].tolist(),
            numbers[100:107].tolist(),
        ]
        monkeypatch.undo()


@settings(max_examples=30)
@given(COUNTS, KEYS, st.integers(1, 80))
def test_proportional_windows_hold_every_source_in_proportion(counts, key, size) -> None:
    schedule = make_schedule("proportional", counts, key)
    total = max(1, sum(counts))
    for first in range(0, max(0, len(schedule) - size)):
        found = schedule.counts(first + size) - schedule.counts(first)
        for own, count in zip(found, counts, strict=True):
            assert abs(own - size * count / total) < 2 + 2 * len(counts) * count / total


def test_proportional_does_not_meet_a_regular_split_over_ranks() -> None:
    labels = make_schedule("proportional", [5000, 5000], 1).labels
    assert abs(labels[::2].mean() - 0.5) < 0.03  # 0 or 1 if sources took turns


def test_shuffled_halves_are_alike() -> None:
    labels = make_schedule("shuffle", [3000, 9000], 1).labels
    assert abs(labels[:6000].mean() - 0.75) < 0.02
    assert len(set(labels[:50].tolist())) == 2


def test_sequential_is_in_order() -> None:
    assert make_schedule("sequential", [2, 0, 3], 1).labels.tolist() == [0, 0, 2, 2, 2]


def test_weighted_draws_by_weight() -> None:
    labels = make_schedule("weighted", [50_000, 50_000, 50_000], 1, [1, 2, 5]).labels[:40_000]
    shares = np.bincount(labels) / len(labels)
    assert np.abs(shares - [1 / 8, 2 / 8, 5 / 8]).max() < 0.01


def test_weighted_stops_with_the_first_source_that_runs_out() -> None:
    both = make_schedule("weighted", [10, 1000], 3, [1, 1], "all")
    first = make_schedule("weighted", [10, 1000], 3, [1, 1], "first")
    assert len(both) == 1010 and 10 < len(first) < 60
    assert first.labels.tolist() == both.labels[: len(first)].tolist()
    assert first.labels[-1] == 0 and (first.labels == 0).sum() == 10
    assert both.labels[len(first) :].tolist() == [1] * (1010 - len(first))
    empty = make_schedule("weighted", [0, 20], 3, [1, 1], "first")
    assert len(empty) == 20, "a source without rows has not run out"


def test_orders_are_the_same_in_every_version() -> None:
    found = {kind: "".join(map(str, make_schedule(kind, [4, 8], 9, [1, 1]).labels))
             for kind in get_args(Interleave)}  # fmt: skip
    assert found == {
        "shuffle": "111101100011",
        "proportional": "011110101101",
        "weighted": "110100110111",
        "sequential": "000011111111",
    }


def test_many_sources_fit_their_labels() -> None:
    schedule = make_schedule("sequential", [1] * 300, 0)
    assert schedule.labels.tolist() == list(range(300))
    assert schedule.labels.itemsize == 2
    assert make_schedule("shuffle", [2, 3], 0).labels.itemsize == 1
