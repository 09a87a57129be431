"""What shares a row of the language model, and the mask and positions that part it.

A Sample is `[prefix | turn 1 | turn 2 | ...]`. Every turn sees the live part of the prefix and
itself, and counts its positions from the end of the live prefix, so that each turn computes exactly
what it would alone.

Several Samples can share a row, each a block of it: `[prefix | turn 1 | ... | prefix | turn 1 | ...
| padding]`. A block sees nothing of the others and counts from its own start, so that it computes
what a row of its own does.

Shapes: B Samples, L tokens of the longest one, R rows that are shared, M tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def turn_mask(turn: Tensor, live: Tensor, block: Tensor | None = None) -> Tensor:
    """Return which tokens see which, bool[R, 1, M, M] (query, key).

    Args:
        turn: int[R, M], 0 in a prefix, k in turn k, -1 in padding.
        live: int[R, M], 0 at dead region slots and padding.
        block: int[R, M], which Sample a token is of; None where a row is one.
    """
    length = turn.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=turn.device).tril()
    same = turn[:, :, None] == turn[:, None, :]
    shared = (turn == 0)[:, None, :]
    allowed = causal & (same | shared) & live.bool()[:, None, :]
    if block is not None:
        allowed = allowed & (block[:, :, None] == block[:, None, :])
    # a dead query must see something
    allowed = allowed | torch.eye(length, dtype=torch.bool, device=turn.device)
    return allowed[:, None]


def turn_positions(turn: Tensor, live: Tensor) -> Tensor:
    """Return the position_ids int[B, L] of Samples; the arguments are those of a row a Sample."""
    prefix_live = live * (turn == 0)
    inside = torch.zeros_like(turn)
    for number in range(1, int(turn.max()) + 1):
        inside = torch.where(turn == number, (turn == number).cumsum(1) - 1, inside)
    positions = torch.where(
        turn == 0, prefix_live.cumsum(1) - 1, prefix_live.sum(1, keepdim=True) + inside
    )
    return positions.clamp(min=0)


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


def share_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Divide Samples among rows: each goes to the first row that has room for it.

    Args:
        lengths: tokens of each Sample, in the order of the batch.
        row_length: tokens of a row; a Sample of more has a row of its own.

    Returns:
        Indices of the Samples of each row, in increasing order.

    Example:
        >>> share_rows([5, 4, 3, 12, 2], 8)
        [[0, 2], [1, 4], [3]]
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index, length in enumerate(lengths):
        row = next((place for place, left in enumerate(room) if length <= left), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(row_length)
        rows[row].append(index)
        room[row] -= length
    return rows


def row_places(lengths: Sequence[int], row_length: int) -> Tensor:
    """Return what each place of rows that Samples share holds.

    Args:
        lengths: tokens of each Sample, which come first in its row of [B, L].
        row_length: see `share_rows`.

    Returns:
        int[R, M], indices of tokens in the flattened [B, L], -1 in padding.
    """
    rows, longest = share_rows(lengths, row_length), max(lengths)
    width = max(sum(lengths[index] for index in row) for row in rows)
    places = torch.full((len(rows), width), -1)
    for own, row in zip(places, rows, strict=True):
        tokens = [torch.arange(lengths[index]) + index * longest for index in row]
        held = torch.cat(tokens)
        own[: len(held)] = held
    return places


def in_rows(values: Tensor, places: Tensor, fill: float = 0) -> Tensor:
    """Move what belongs to the tokens of Samples into the rows that they share.

    Args:
        values: [B, L, ...].
        places: int[R, M] of `row_places`.
        fill: of padding.

    Returns:
        [R, M, ...].
    """
    held = values.flatten(0, 1).index_select(0, places.clamp(min=0).flatten())
    empty = (places < 0).view(*places.shape, *[1] * (values.ndim - 2))
    return held.view(*places.shape, *values.shape[2:]).masked_fill(empty, fill)
