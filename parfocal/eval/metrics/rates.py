"""A measured rate: its value, how many items it rests on, and its bootstrap interval by picture.

A rate is a ratio of two sums over items, usually hits over trials. With no items it has no value,
which is ``None`` and never 0: nothing was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parfocal.eval.metrics.bootstrap import bootstrap_interval
from parfocal.eval.metrics.checks import check_some


@dataclass(frozen=True)
class Rate:
    """One number of a report.

    Attributes:
        value: the ratio times the scale, or None when there was nothing to measure.
        n: number of items behind it.
        low: lower end of the bootstrap interval, in the unit of value.
        high: upper end.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None

    def to_flat(self, key: str, digits: int = 2) -> dict[str, float | int | None]:
        """Four report entries: ``key``, ``key_n``, ``key_low``, ``key_high``.

        Example:
            >>> Rate(50.0, 4, 20.0, 80.0).to_flat("rec_acc_50")
            {'rec_acc_50': 50.0, 'rec_acc_50_n': 4, 'rec_acc_50_low': 20.0, 'rec_acc_50_high': 80.0}
        """

        def rounded(value: float | None) -> float | None:
            return None if value is None else round(value, digits)

        return {
            key: rounded(self.value),
            f"{key}_n": self.n,
            f"{key}_low": rounded(self.low),
            f"{key}_high": rounded(self.high),
        }


def rate(
    numerators: Sequence[float],
    clusters: Sequence[str],
    denominators: Sequence[float] | None = None,
    *,
    n: int | None = None,
    scale: float = 100.0,
    seed: int = 0,
) -> Rate:
    """Ratio of two sums over items, with its interval.

    Args:
        numerators: N values, what each item adds above the line (a hit is 1).
        clusters: N names, the picture of each item.
        denominators: N values below the line; None means one for each item.
        n: the count to report; None means the sum of the denominators.
        scale: 100 for percent, 1 for plain numbers.
        seed: of the bootstrap.

    Returns:
        The rate; value, low and high are None when the denominators add up to nothing.

    Raises:
        ShapeError: if the lengths differ.

    Example:
        >>> rate([1, 0, 1, 1], ["a", "a", "b", "b"]).value
        75.0
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = (
        np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    )
    total = float(below.sum())
    count = round(total) if n is None else n
    if not total > 0:
        return Rate(None, count)
    low, high = bootstrap_interval(above, below, clusters, seed=seed)
    return Rate(scale * float(above.sum()) / total, count, scale * low, scale * high)


def split_mean(values: Mapping[str, float]) -> float:
    """Plain mean over the files of a benchmark, whatever their sizes (POPE's F1, ChartQA).

    Args:
        values: one a file, by its name.

    Raises:
        DataError: if there is none.

    Example:
        >>> split_mean({"human": 0.5, "augmented": 1.0})
        0.75
    """
    check_some("splits", values)
    return sum(values.values()) / len(values)
