"""Percentile bootstrap intervals for ratios whose items come in clusters.

Items of one picture are not independent, so pictures are resampled, never items. Every number of a
report is a ratio of two sums (hits over trials, matches over predictions), hence one function
serves them all.

Shape legend: N items, C clusters, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parfocal.errors import ConfigError, ShapeError

Floats = NDArray[np.float64]


def bootstrap_interval(
    numerators: Floats,
    denominators: Floats,
    clusters: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of ``sum(numerators) / sum(denominators)`` under resampling of whole clusters.

    The draw depends on the seed and on the sorted cluster names, never on the order of the items.

    Args:
        numerators: float64[N], what each item adds above the line.
        denominators: float64[N], what each item adds below the line.
        clusters: N names, which picture each item belongs to.
        resamples: how many times the pictures are drawn with replacement.
        confidence: the share of resampled ratios inside the interval, between 0 and 1.
        seed: of the draw.

    Returns:
        (low, high), in the unit of the ratio. Resamples whose denominator is zero are left out.

    Raises:
        ShapeError: if the three inputs disagree on N.
        ConfigError: if the denominators add up to nothing, or an option is out of range.

    Example:
        >>> import numpy as np
        >>> bootstrap_interval(np.ones(4), np.ones(4), ["a", "a", "b", "c"])
        (1.0, 1.0)
    """
    _check(len(numerators), len(denominators), len(clusters), resamples, confidence)
    index = {name: row for row, name in enumerate(sorted(set(clusters)))}
    rows = np.array([index[name] for name in clusters], dtype=np.int64)
    above = np.bincount(rows, weights=numerators, minlength=len(index))  # [C]
    below = np.bincount(rows, weights=denominators, minlength=len(index))  # [C]
    if not below.sum() > 0:
        raise ConfigError(
            "bootstrap_interval has nothing below the line: the ratio does not exist."
        )
    draws = np.random.default_rng(seed).multinomial(
        len(index), np.full(len(index), 1.0 / len(index)), size=resamples
    )  # [R, C]
    above_draws, below_draws = draws @ above, draws @ below
    kept = below_draws > 0
    ratios = above_draws[kept] / below_draws[kept]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(ratios, [tail, 100.0 - tail])
    return float(low), float(high)


def _check(above: int, below: int, clusters: int, resamples: int, confidence: float) -> None:
    """Refuse inputs of different lengths and options out of range."""
    if not above == below == clusters:
        raise ShapeError(
            f"bootstrap_interval got {above} numerators, {below} denominators and {clusters} "
            "cluster names. Give one of each per item."
        )
    if resamples < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"bootstrap_interval got resamples={resamples} and confidence={confidence}; allowed "
            "are resamples >= 1 and 0 < confidence < 1."
        )
