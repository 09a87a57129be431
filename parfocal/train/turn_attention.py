"""Attention of packed Samples that computes only what their mask allows.

A Sample is `[prefix | turn 1 | turn 2 | ...]`, and a turn sees the prefix and itself (see
`parfocal.models.packing`). With a mask, a row of L tokens takes L^2 scores, most of them thrown
away. Here the turns of all Samples are laid out anew, padded to the longest of their group, and
each takes the scores of the prefix and its own only: a third of them at mini's size. The numbers
are those of the masked row, up to rounding.

Turns are grouped by length: the longest of each Sample, then those that come next.

Shapes: S Samples, R rows of M tokens, H heads of d numbers; P tokens of the longest live prefix; a
group has N turns a Sample, of up to T tokens.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import repeat_kv

from parfocal.models.packing import additive
from parfocal.train.runtime import attention

NAME = "turns"
"""Of this attention, for Transformers."""

FAMILIES = frozenset({"llama", "mistral", "phi3", "qwen2", "qwen3"})
"""Language models whose attention is scores, softmax and a mean, and nothing else."""


def attention_for(family: str, cuda: bool | None = None) -> str:
    """The attention that a language model trains with, a name that Transformers knows.

    Args:
        family: `model_type` of its configuration.
        cuda: on a GPU; None: if one is here.
    """
    cuda = torch.cuda.is_available() if cuda is None else cuda
    return NAME if family in FAMILIES and not cuda else attention(cuda)


@dataclass
class _Group:
    """Turns of similar length.

    Attributes:
        turns: N, of each Sample.
        length: T.
        mask: float[S, 1, N T, P + T], additive, over the prefix and the turn itself.
    """

    turns: int
    length: int
    mask: Tensor


@dataclass
class TurnLayout:
    """Where the live tokens of Samples stand for attention: prefixes first, then group by group.

    Attributes:
        tokens: int[K], which of the R M tokens of the rows stands at each place.
        places: int[R M], where each token stands.
        empty: int[...], places that hold no token.
        dead: int[...], tokens that stand nowhere: padding and dead region slots.
        prefix_mask: float[S, 1, P, P], additive.
        groups: of turns.
    """

    tokens: Tensor
    places: Tensor
    empty: Tensor
    dead: Tensor
    prefix_mask: Tensor
    groups: list[_Group]


def lay_out(turn: Tensor, live: Tensor, rows: Tensor | None = None) -> TurnLayout:
    """Find a place for every live token.

    Args:
        turn: int[S, L], 0 in a prefix, k in turn k, -1 in padding.
        live: int[S, L], 0 at dead region slots and padding.
        rows: int[R, M], which of the S L tokens stands where in rows that Samples share, -1 in
            padding; None where a Sample is a row.
    """
    alive = live.bool() & (turn >= 0)
    numbers = torch.arange(int(turn.max()) + 1, device=turn.device)
    inside = (turn[..., None] == numbers) & alive[..., None]  # [S, L, turns]
    lengths = inside.sum(1)
    offset = (inside.cumsum(1) * inside).sum(-1) - 1
    width = int(lengths[:, 0].max())
    ranked, order = lengths[:, 1:].sort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    own = rank.gather(1, (turn - 1).clamp(min=0)) if rank.shape[1] else torch.zeros_like(turn)
    sample = torch.arange(len(turn), device=turn.device)[:, None]
    place = torch.where(turn == 0, sample * width + offset, -1)
    groups, end = [], len(turn) * width
    prefix = torch.arange(width, device=turn.device) < lengths[:, :1]  # [S, P]
    for start, stop in _cuts(ranked.amax(0).tolist()):
        count, length = stop - start, int(ranked[:, start].max())
        at = end + (sample * count + own - start) * length + offset
        place = torch.where((turn > 0) & (own >= start) & (own < stop), at, place)
        mask = _group_mask(prefix, ranked[:, start:stop], length)
        groups.append(_Group(count, length, mask))
        end += len(turn) * count * length
    held = torch.arange(turn.numel(), device=turn.device)
    if rows is not None:
        filled = torch.nonzero(rows.flatten() >= 0).flatten()
        held = held.index_copy(0, rows.flatten()[filled], filled)
    held = held.view_as(turn)  # where each token is in the rows
    total = turn.numel() if rows is None else rows.numel()
    tokens = torch.full((end,), -1, device=turn.device).index_copy(0, place[alive], held[alive])
    places = torch.full((total,), -1, device=turn.device).index_copy(0, held[alive], place[alive])
    causal = torch.ones(width, width, dtype=torch.bool, device=turn.device).tril()
    prefix_mask = additive((causal & prefix[:, None])[:, None], torch.float32)
    empty, dead = (torch.nonzero(index < 0).flatten() for index in (tokens, places))
    return TurnLayout(tokens.clamp(min=0), places.clamp(min=0), empty, dead, prefix_mask, groups)


def _cuts(longest: list[int]) -> list[tuple[int, int]]:
    """Divide turns, longest first, among up to three groups with as little padding as possible.

    Args:
        longest: tokens of the longest turn of each rank, falling.

    Example:
        >>> _cuts([90, 30, 29, 16, 15])
        [(0, 1), (1, 3), (3, 5)]
    """
    count = len(longest)
    if not count:
        return []
    rank = torch.arange(count + 1)
    length = torch.tensor([*longest, 0])
    first, second = rank[:, None], rank[None]
    cost = first * length[0] + (second - first) * length[:, None] + (count - second) * length
    cost = cost.masked_fill(second < first, int(cost.max()) + 1)
    one, two = divmod(int(cost.argmin()), count + 1)
    bounds = sorted({0, one, two, count})
    return [(start, stop) for start, stop in itertools.pairwise(bounds) if longest[start]]


def _group_mask(prefix: Tensor, lengths: Tensor, length: int) -> Tensor:
    """Return a group's mask, float[S, 1, N T, P + T].

    Args:
        prefix: bool[S, P], where a token is.
        lengths: int[S, N], tokens of the turns.
        length: T.
    """
    inside = torch.arange(length, device=prefix.device)
    causal = inside[:, None] >= inside
    own = causal & (inside < lengths[..., None])[:, :, None]  # [S, N, T, T]
    seen = prefix[:, None, None].expand(*own.shape[:3], -1)
    return additive(torch.cat((seen, own), -1).flatten(1, 2)[:, None], torch.float32)


class _Take(torch.autograd.Function):
    """Rows in another order: the way back takes them in the order they had.

    An ordinary `index_select` adds gradients up one row at a time.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor, missing: Tensor, unused: Tensor
    ) -> Tensor:
        """Return `rows[index]`, zero where nothing is to be taken.

        Args:
            ctx: of autograd.
            rows: [n, D].
            index: int[m].
            inverse: int[n], where each row went.
            missing: int[...], places of the result that are empty.
            unused: int[...], rows that go nowhere.
        """
        ctx.save_for_backward(inverse, unused)
        return rows.index_select(0, index).index_fill_(0, missing, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Take the gradients back."""
        inverse, unused = ctx.saved_tensors
        return grads[0].index_select(0, inverse).index_fill_(0, unused, 0), None, None, None, None


def turn_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    turns: TurnLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as Transformers asks its attention functions to.

    Args:
        module: the attention layer.
        query: float[R, H, M, d].
        key: float[R, H', M, d]; H' divides H.
        value: the same shape.
        attention_mask: not looked at where there is a layout.
        scaling: of the scores.
        dropout: of the weights, in training.
        turns: of the tokens; None to attend under the mask.
        **kwargs: of Transformers.

    Returns:
        float[R, M, H, d], zero at dead tokens, and None in place of the weights.
    """
    if turns is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return out, None
    repeats = query.shape[1] // key.shape[1]
    shape = query.transpose(1, 2).shape
    rows = [
        _Take.apply(
            part.transpose(1, 2).flatten(0, 1).flatten(1),
            turns.tokens, turns.places, turns.empty, turns.dead,
        )
        for part in (query, repeat_kv(key, repeats), repeat_kv(value, repeats))
    ]  # fmt: skip
    out = _attend(rows, turns, shape[2:], scaling, dropout if module.training else 0.0)
    out = _Take.apply(out, turns.places, turns.tokens, turns.dead, turns.empty)
    return out.view(shape), None


def _attend(
    rows: list[Tensor], turns: TurnLayout, heads: torch.Size, scaling: float, drop: float
) -> Tensor:
    """Attend within the layout, [K, H d]."""
    samples, width = turns.prefix_mask.shape[0], turns.prefix_mask.shape[-1]

    lengths = [width, *(group.turns * group.length for group in turns.groups)]

    def parts(values: Tensor) -> list[Tensor]:  # [S, H, length, d]: the prefix, then every group
        held = values.split([samples * length for length in lengths])
        shapes = [(samples, length, *heads) for length in lengths]
        return [part.view(shape).transpose(1, 2) for part, shape in zip(held, shapes, strict=True)]

    def weights(scores: Tensor, mask: Tensor) -> Tensor:
        found = F.softmax(scores * scaling + mask, dim=-1, dtype=torch.float32)
        return F.dropout(found.to(scores.dtype), drop)

    (query, key, value), *grouped = zip(*map(parts, rows), strict=True)
    seen = weights(query @ key.mT, turns.prefix_mask) @ value
    out = [seen.transpose(1, 2).flatten(2).flatten(0, 1)]
    for group, (asked, own, told) in zip(turns.groups, grouped, strict=True):
        apart = (samples, heads[0], group.turns, group.length)
        scores = asked.reshape(*apart, -1) @ own.reshape(*apart, -1).mT
        scores = torch.cat((asked @ key.mT, scores.flatten(2, 3)), -1)
        found = weights(scores, group.mask)
        inner = found[..., width:].reshape(*apart, -1) @ told.reshape(*apart, -1)
        answer = found[..., :width] @ value + inner.flatten(2, 3)
        out.append(answer.transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(out)


AttentionInterface.register(NAME, turn_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
