"""Features among words: which placeholder takes which vector, and which positions are seen.

Pure functions of tensors; the model says which ids are placeholders.

Shapes: B rows, P pictures of all rows, L tokens, R region slots, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parfocal.errors import ShapeError
from parfocal.models.config import TokenIds


def rows_of(values: Tensor, pictures: Sequence[int]) -> Tensor:
    """Put what belongs to the pictures of a row side by side.

    Args:
        values: [P, N, ...], one entry a picture: image tokens, region features or region masks.
        pictures: number of pictures of each row, in order; 0 for text alone.

    Returns:
        [B, most * N, ...], zeros where a row has fewer pictures than the one that has most.

    Raises:
        ShapeError: if the numbers do not add up to P.

    Example:
        >>> rows_of(torch.tensor([[1, 2], [3, 4], [5, 6]]), (2, 0, 1)).tolist()
        [[1, 2, 3, 4], [0, 0, 0, 0], [5, 6, 0, 0]]
    """
    if sum(pictures) != len(values):
        raise ShapeError(f"rows of {list(pictures)} pictures cannot share {len(values)} pictures.")
    if all(count == 1 for count in pictures):
        return values
    rows = values.new_zeros(len(pictures), max(pictures, default=0), *values.shape[1:])
    start = 0
    for row, count in enumerate(pictures):
        rows[row, :count] = values[start : start + count]
        start += count
    return rows.flatten(1, 2)


def fill(embeds: Tensor, where: Tensor, values: Tensor, unit: int, what: str) -> Tensor:
    """Overwrite embeds float[B, L, D] at where bool[B, L] by values float[B, N, D], in order.

    A row takes all of its values or, when it has fewer pictures than others, the first of them, in
    multiples of `unit`; compiled code takes that for granted.

    Raises:
        ShapeError: if a row does neither; `what` says what its placeholders are for.
    """
    if not torch.compiler.is_compiling():
        counts = where.sum(1)
        fits = (counts == values.shape[1]) | ((counts < values.shape[1]) & (counts % unit == 0))
        if not bool(fits.all()):
            raise ShapeError(
                f"rows hold {counts.tolist()} placeholders for {values.shape[1]} {what} each; "
                "make the inputs with this model's processor."
            )
    return _put(embeds, where, values, where.cumsum(1) - 1)


def place_mentions(embeds: Tensor, input_ids: Tensor, regions: Tensor, ids: TokenIds) -> Tensor:
    """Put regions float[B, R, D] where a user's region is mentioned inside the text.

    It is the slot whose index token stands two places before: <rk></roi><refer_feat>.

    Args:
        embeds: float[B, L, D].
        input_ids: int[B, L].
        regions: float[B, R, D], the vectors of all slots.
        ids: the placeholders.

    Raises:
        ShapeError: if a mention follows no region name.
    """
    if ids.region_feature < 0:
        return embeds
    where = input_ids == ids.region_feature
    slots = input_ids.roll(2, dims=1) - ids.first_region
    known = (slots >= 0) & (slots < regions.shape[1])
    if not torch.compiler.is_compiling() and bool((where & ~known).any()):
        raise ShapeError(
            f"a mention of a region does not follow one of the {regions.shape[1]} region names "
            "by two places; make the inputs with this model's processor."
        )
    return _put(embeds, where, regions, slots)


def live_mask(
    slots: Tensor, attention_mask: Tensor, region_mask: Tensor, interleaved: bool
) -> Tensor:
    """Return attention_mask int[B, L] with the dead region slots of each row switched off.

    Args:
        slots: bool[B, L], where region slots stand.
        attention_mask: int[B, L], 0 at padding.
        region_mask: bool[B, R], live slots; of a row with fewer than others, the first ones count.
        interleaved: each slot has its index token right before it, which lives and dies with it.
    """
    mask = attention_mask.clone()
    rows, columns = torch.nonzero(slots, as_tuple=True)
    alive = _first(region_mask, slots.sum(1)).reshape(-1).to(mask.dtype)
    mask[rows, columns] = alive
    if interleaved:
        mask[rows, columns - 1] = alive
    return mask


def _put(embeds: Tensor, where: Tensor, values: Tensor, place: Tensor) -> Tensor:
    """Overwrite embeds [B, L, D] at where bool[B, L] by values [B, N, D] of index place int[B, L].

    No shape depends on what the tensors hold, so that it compiles in one piece.
    """
    if values.shape[1] == 0:  # no row has a picture
        return embeds
    index = place.clamp(0, values.shape[1] - 1)[..., None].expand(-1, -1, values.shape[2])
    return torch.where(where[..., None], values.gather(1, index).to(embeds.dtype), embeds)


def _first(values: Tensor, counts: Tensor) -> Tensor:
    """Return the first counts[b] of each row of values [B, N, ...]; as they are if that is all."""
    if bool((counts == values.shape[1]).all()):
        return values
    place = torch.arange(values.shape[1], device=values.device)
    return values[place < counts[:, None]]
