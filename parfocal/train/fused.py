"""Fused attention on the meta device, where Transformers' `sdpa` would keep all pairs.

PyTorch chooses among its kernels by device, and for tensors without numbers it takes the one that
is not fused. What a GPU keeps for the way back is queries, keys, values, the outcome and one number
a query; with a mask the memory-efficient kernel is the one it has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import repeat_kv

NAME = "fused_on_meta"
"""Of this attention, for Transformers."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as Transformers asks for it: float[R, H, M, d] each -> float[R, M, H, d]."""
    groups: Any = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    bias = None if attention_mask is None else attention_mask.expand(-1, query.shape[1], -1, -1)
    out = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, scale=scaling
    )[0]
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
