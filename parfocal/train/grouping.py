"""Batches of Samples of similar length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parfocal.data.sample import Sample
from parfocal.models.pictures import num_pictures

WINDOW = 50
"""Batches that are sorted together. Source: LLaVA's length-grouped sampler."""


def rough_length(sample: Sample) -> tuple[int, int]:
    """How long a Sample is, without a tokenizer: its pictures, then its characters."""
    return num_pictures(sample), sum(len(turn.text.plain) for turn in sample.turns)


def group(samples: Sequence[Sample], batch_size: int, seed: Sequence[int]) -> list[list[Sample]]:
    """Cut a window of Samples into batches of similar length, in random order.

    Words alone, pictures and videos share a batch only where one kind ends within it.

    Args:
        samples: of the window.
        batch_size: Samples a batch.
        seed: decides the order, which is the same for windows of as many batches, so that processes
            with the same seed have long batches at the same time.

    Returns:
        Batches with each Sample once. One that is not full is the last.
    """
    ordered = sorted(samples, key=rough_length)
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    full = len(ordered) // batch_size
    order = np.random.default_rng(list(seed)).permutation(full)
    return [batches[place] for place in order] + batches[full:]
