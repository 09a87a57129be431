"""Constraints on generated tokens that make malformed region names impossible.

Shapes: B rows, L tokens so far, V vocabulary, R region slots.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor


class LiveRegions(LogitsProcessor):
    """Only regions that exist can be named; with `unique`, each at most once (for enumerations).

    Args:
        first_region: id of `<r0>`; -1 where regions have no names, which forbids nothing.
        mask: bool[B, R], live slots.
        prompt_length: tokens before the answer, the same in every row.
        unique: forbid naming a region twice in one answer.
    """

    def __init__(
        self, first_region: int, mask: Tensor, prompt_length: int, unique: bool = False
    ) -> None:
        self.first, self.mask = first_region, mask
        self.prompt_length, self.unique = prompt_length, unique

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores of forbidden names to -inf.

        Args:
            input_ids: int[B * n, L], n rows a question (beams), next to each other.
            scores: float[B * n, V].

        Returns:
            float[B * n, V], a new tensor.
        """
        if self.first < 0:  # regions have no names in this dialect
            return scores
        slots = self.mask.shape[1]
        allowed = self.mask.repeat_interleave(scores.shape[0] // self.mask.shape[0], dim=0).clone()
        if self.unique:
            said = input_ids[:, self.prompt_length :] - self.first
            rows, columns = torch.nonzero((said >= 0) & (said < slots), as_tuple=True)
            allowed[rows, said[rows, columns]] = False
        window = slice(self.first, self.first + slots)
        scores = scores.clone()
        scores[:, window] = scores[:, window].masked_fill(~allowed, float("-inf"))
        return scores
