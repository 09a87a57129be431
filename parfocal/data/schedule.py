"""Which source comes when: the order of an epoch, before it is known which of its rows comes.

One label a row, a byte each while there are at most 256 sources, and the counts so far every 65,536
rows, so that reading can start anywhere. Twenty million rows take 20 MB.

Shapes: S sources, N rows of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parfocal.data.permute import Ints, Permutation, hashed, key_of, uniform

Interleave = Literal["shuffle", "proportional", "weighted", "sequential"]
Stop = Literal["first", "all"]

CHUNK = 1 << 16  # rows whose 64-bit numbers are in memory at a time: they stay in the cache
STEP = 1 << 16  # rows between two counts


class Schedule:
    """The sources of an epoch's rows, in order.

    Args:
        parts: the labels, piece by piece.
        limit: no fewer than the number of labels.
        num_sources: S.
    """

    def __init__(self, parts: Iterator[Ints], limit: int, num_sources: int) -> None:
        labels = np.empty(limit, np.uint8 if num_sources <= 256 else np.uint16)
        self.num_sources, size = num_sources, 0
        for part in parts:
            labels[size : size + len(part)] = part
            size += len(part)
        self.labels: NDArray[Any] = labels[:size]
        self._counts = np.zeros((size // STEP + 1, num_sources), np.int64)
        for row in range(1, len(self._counts)):
            step = self._counted((row - 1) * STEP, row * STEP)
            self._counts[row] = self._counts[row - 1] + step

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, position: int) -> Ints:
        """int64[S]: rows of each source before a position."""
        row = position // STEP
        found: Ints = self._counts[row] + self._counted(row * STEP, position)
        return found

    def window(self, first: int, last: int) -> tuple[Ints, Ints]:
        """What comes at positions first..last-1.

        Returns:
            int64[last - first] the source, and int64[last - first] how many rows of it came before
            in this epoch.
        """
        labels = self.labels[first:last].astype(np.int64)
        numbers = np.empty_like(labels)
        for source, before in enumerate(self.counts(first)):
            own = np.flatnonzero(labels == source)
            numbers[own] = np.arange(before, before + len(own))
        return labels, numbers

    def _counted(self, first: int, last: int) -> Ints:
        return np.bincount(self.labels[first:last], minlength=self.num_sources)


def make_schedule(
    kind: Interleave,
    counts: Sequence[int],
    key: int,
    weights: Sequence[float] = (),
    stop: Stop = "all",
) -> Schedule:
    """Lay out an epoch.

    - "shuffle": all orders are equally likely.
    - "proportional": each source's rows are spread evenly, at a random place of each of its equal
      intervals. Of any k rows in a row, the share of a source with n of N rows differs from k*n/N
      by less than 2 + 2*S*n/N. The random places keep a regular pattern from meeting a regular
      split over ranks.
    - "weighted": every row's source is drawn by weight among those that have rows left.
    - "sequential": one source after the other.

    Args:
        kind: see above.
        counts: rows of each source in this epoch.
        key: from `key_of`.
        weights: of each source, above 0; "weighted" only.
        stop: "weighted" only: "first" ends the epoch after the last row of the source that runs out
            first, "all" goes on with the others.
    """
    limit = int(sum(counts))
    if kind == "shuffle":
        parts = _shuffled(counts, key)
    elif kind == "proportional":
        parts = _proportional(counts, key)
    elif kind == "weighted":
        parts = _weighted(counts, key, weights, stop)
    else:
        parts = (np.full(count, source) for source, count in enumerate(counts))
    return Schedule(parts, limit, len(counts))


def _shuffled(counts: Sequence[int], key: int) -> Iterator[Ints]:
    ends = np.cumsum(np.asarray(counts, np.int64))
    size = int(ends[-1])
    if size:
        order = Permutation(size, key)
        for first in range(0, size, CHUNK):
            numbers = order(np.arange(first, min(first + CHUNK, size)))
            yield np.searchsorted(ends, numbers, side="right").astype(np.int64)


def _proportional(counts: Sequence[int], key: int) -> Iterator[Ints]:
    """Rows by their time: row j of n comes at (j + u) / n, u a random number of its own."""
    slices = max(1, -(-sum(counts) // CHUNK))
    for part in range(slices):
        start, end = part / slices, (part + 1) / slices
        times, labels = [np.empty(0)], [np.empty(0, np.int64)]
        for source, count in enumerate(counts):
            first, last = max(0, int(start * count) - 1), min(count, int(end * count) + 2)
            rows = np.arange(first, last)
            jitter = (hashed(key_of(key, source), rows) >> np.uint64(44)).astype(np.float64)
            time = (rows + jitter * 2.0**-20) / max(count, 1)  # the sum is exact, 20 bits suffice
            times.append(time[(time >= start) & (time < end)])
            labels.append(np.full(len(times[-1]), source))
        order = np.argsort(np.concatenate(times), kind="stable")
        yield np.concatenate(labels)[order]


def _weighted(
    counts: Sequence[int], key: int, weights: Sequence[float], stop: Stop
) -> Iterator[Ints]:
    left = np.asarray(counts, np.int64).copy()
    drawn = 0
    while left.any():
        bounds = np.cumsum(np.where(left > 0, np.asarray(weights, np.float64), 0.0))
        places = np.arange(drawn, drawn + min(CHUNK, 2 * int(left.sum()) + 16))
        labels = np.searchsorted(bounds / bounds[-1], uniform(key, places), side="right")
        cut, ran_out = len(labels), False
        for source in np.flatnonzero(left):
            own = np.flatnonzero(labels == source)
            if len(own) >= left[source] and own[left[source] - 1] < cut:
                cut, ran_out = int(own[left[source] - 1]) + 1, True
        yield labels[:cut].astype(np.int64)
        left -= np.bincount(labels[:cut], minlength=len(left))
        drawn += cut
        if ran_out and stop == "first":
            return
