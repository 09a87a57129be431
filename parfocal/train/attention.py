"""Attention for training on a CPU: Transformers' eager numbers in fewer passes over the scores.

Eager attention goes over the scores of all pairs of tokens once for every operation, and keeps
several copies of them for the way back; on a CPU this is a third of a small language model's step.
Here queries are scaled instead of scores, and the softmax and its gradient are computed in place.

Shapes: B rows, H heads, G key heads, L tokens, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface, eager_mask

LEAN = "lean_eager"
PLAIN = frozenset({"llama", "mistral", "phi3", "qwen2", "qwen3"})
"""Model types whose scores are scaled products plus a mask, without caps and sinks."""


def attention_of(text: PretrainedConfig) -> str:
    """The attention of a language model in training, a name that Transformers knows.

    Fused attention keeps far less in memory; on a CPU its way back takes longer with the masks of
    packed rows.
    """
    if torch.cuda.is_available():
        return "sdpa"
    plain = text.model_type in PLAIN and not getattr(text, "attention_dropout", 0.0)
    return LEAN if plain else "eager"


def lean_eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend, as a function of Transformers' `AttentionInterface`.

    Where `scaling` is a power of two, as with heads 16, 64 or 256 wide, values and gradients are
    those of eager attention to the bit.

    Args:
        module: the layer.
        query: float[B, H, L, D].
        key: float[B, G, L, D], H a multiple of G.
        value: the same.
        attention_mask: float, added to the scores; it broadcasts to [B, H, L, L].
        scaling: of the scores.
        **kwargs: what other layers need than those that `attention_of` chooses it for; not read.

    Returns:
        float[B, L, H, D], and None: the probabilities are not kept.
    """
    groups, device = query.shape[1] // key.shape[1], query.device.type
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    attended: Tensor = _Attention.apply(query * scaling, key, value, attention_mask)
    return attended.transpose(1, 2).contiguous(), None


class _Attention(torch.autograd.Function):
    """Softmax attention of scaled queries, whose only temporaries are the scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        scores = query @ key.transpose(2, 3)
        scores = scores.float() if mask is None else scores + mask.float()
        chances = torch.softmax(scores, -1, out=scores)
        weights = chances.to(value.dtype)
        ctx.save_for_backward(query, key, value, chances, weights)
        return weights @ value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, chances, weights = ctx.saved_tensors
        (grad,) = grads
        back = (grad @ value.transpose(2, 3)).float()
        softmax_backward = torch.ops.aten._softmax_backward_data.out
        softmax_backward(back, chances, -1, torch.float32, grad_input=back)
        to_scores = back.to(query.dtype)
        return (
            to_scores @ key,
            (query.transpose(2, 3) @ to_scores).transpose(2, 3),
            weights.transpose(2, 3) @ grad,
            None,
        )


AttentionInterface.register(LEAN, lean_eager)
AttentionMaskInterface.register(LEAN, eager_mask)
