"""What every objective is: a module that owns the model and its loss.

The loop is `objective(**batch).loss`; nothing in it knows which objective it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.nn.functional import cross_entropy

from parfocal.models.modeling import ParfocalForConditionalGeneration


@dataclass
class ObjectiveOutput:
    """A loss to descend and the named terms behind it (detached, for the log)."""

    loss: Tensor
    terms: dict[str, Tensor]


class Objective(Protocol):
    """A module with a model, whose call takes a batch of its collator.

    Attributes:
        model: trains.
    """

    model: ParfocalForConditionalGeneration

    def __call__(
        self, *, counts: Mapping[str, float] | None = None, **batch: Any
    ) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            counts: what the sums of the terms are divided by, instead of the batch's own counts.
            **batch: from the collator.
        """

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """How much of each term a batch holds, so that a mean can be taken over many batches."""


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of float[n, K] logits; 0, not NaN, for a batch that holds none."""
    return cross_entropy(logits, labels, reduction="sum") / max(1, len(labels))
