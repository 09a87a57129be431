"""Many independent turns about one picture in one row: the mask and positions that part them.

A row is `[prefix | turn 1 | turn 2 | ...]`. Every turn sees the live part of the prefix and itself,
and counts its positions from the end of the live prefix, so that each turn computes exactly what it
would alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def packed_attention(turn: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask and the positions of packed rows of L tokens.

    Args:
        turn: int[B, L], 0 in the prefix, k in turn k, -1 in padding.
        live: int[B, L], 0 at dead region slots and padding.

    Returns:
        allowed bool[B, 1, L, L] (query, key) and position_ids int[B, L].
    """
    length = turn.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=turn.device).tril()
    same = turn[:, :, None] == turn[:, None, :]
    shared = (turn == 0)[:, None, :]
    allowed = causal & (same | shared) & live.bool()[:, None, :]
    # a dead query must see something
    allowed = allowed | torch.eye(length, dtype=torch.bool, device=turn.device)
    prefix_live = live * (turn == 0)
    inside = torch.zeros_like(turn)
    for number in range(1, int(turn.max()) + 1):
        inside = torch.where(turn == number, (turn == number).cumsum(1) - 1, inside)
    positions = torch.where(
        turn == 0, prefix_live.cumsum(1) - 1, prefix_live.sum(1, keepdim=True) + inside
    )
    return allowed[:, None], positions.clamp(min=0)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a boolean mask into the additive one that the language model takes.

    Args:
        allowed: bool of any shape.
        dtype: of the result.

    Returns:
        The same shape: 0 where allowed, the lowest value of `dtype` elsewhere.
    """
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
        ~allowed, torch.finfo(dtype).min
    )
