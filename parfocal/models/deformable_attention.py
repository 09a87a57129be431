"""Deformable attention, the geometry it needs, and the layers of a DETR built from it.

Only `grid_sample` is needed, no compiled operator. Sampling positions are computed in float32
whatever the type of the weights or of an autocast region.

Shapes: B pictures, Q queries, T tokens (all levels, row-major, finest first), D width. Boxes are
cxcywh in the unit frame (0 to 1 of the model input).

Source: Deformable DETR (arXiv:2010.04159).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parfocal.models.detr_settings import LayerSizes

SizesHW = Sequence[tuple[int, int]]


def sine_features(values: Tensor, num_features: int) -> Tensor:
    """Write each number as interleaved sines and cosines.

    Args:
        values: float[...], 0 to 1.
        num_features: even; feature k uses wavelength 10000^(2*floor(k/2)/num_features).

    Returns:
        float[..., num_features], float32.
    """
    exponent = torch.arange(0, num_features, 2, device=values.device) / num_features
    angle = values.float()[..., None] * 2 * math.pi / 10000.0**exponent
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def inverse_sigmoid(values: Tensor) -> Tensor:
    """Turn 0..1 into logits, at most about 11.5 in size (clamped 1e-5 from both ends)."""
    values = values.float().clamp(0, 1)
    return torch.log(values.clamp(min=1e-5) / (1 - values).clamp(min=1e-5))


def sine_positions(size_hw: tuple[int, int], hidden_size: int, device: torch.device) -> Tensor:
    """Positions of one level: float[H * W, D], D/2 features of y, then D/2 of x."""
    height, width = size_hw
    y = (torch.arange(height, device=device) + 0.5) / (height + 1e-6)
    x = (torch.arange(width, device=device) + 0.5) / (width + 1e-6)
    y_features = sine_features(y, hidden_size // 2)[:, None].expand(-1, width, -1)
    x_features = sine_features(x, hidden_size // 2)[None].expand(height, -1, -1)
    return torch.cat((y_features, x_features), dim=-1).flatten(0, 1)


def initial_token_boxes(sizes_hw: SizesHW, scale: float, device: torch.device) -> Tensor:
    """Boxes the encoder tokens start from.

    Args:
        sizes_hw: rows and columns of each level, finest first.
        scale: side of a finest-level box; level l has scale * 2^l.
        device: where to build them.

    Returns:
        float[T, 4], cxcywh, unit frame, centred on the token's cell.
    """
    boxes = []
    for level, (height, width) in enumerate(sizes_hw):
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centre = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
        side = torch.full_like(centre, scale * 2.0**level)
        boxes.append(torch.cat((centre, side), dim=-1).flatten(0, 1))
    return torch.cat(boxes)


class DeformableAttention(nn.Module):
    """Every query looks at a few learned positions around its reference point or box."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        width = sizes.width
        self.grid = (sizes.heads, sizes.levels, sizes.points)
        samples = math.prod(self.grid)
        self.offsets = nn.Linear(width, 2 * samples)
        self.weights = nn.Linear(width, samples)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def reset_parameters(self) -> None:
        """Start as uniform attention to points on a ray per head, one cell apart."""
        heads, levels, points = self.grid
        angle = torch.arange(heads) * (2 * math.pi / heads)
        ray = torch.stack((angle.cos(), angle.sin()), dim=-1)
        ray = ray / ray.abs().amax(-1, keepdim=True)  # [heads, 2], on the unit square's edge
        steps = torch.arange(1, points + 1)[:, None]
        bias = (ray[:, None, None] * steps).expand(heads, levels, points, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.reshape(-1))
        for parameter in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(parameter)

    def forward(self, query: Tensor, memory: Tensor, reference: Tensor, sizes: SizesHW) -> Tensor:
        """Attend.

        Args:
            query: float[B, Q, D].
            memory: float[B, T, D], all levels flattened row-major, finest first.
            reference: float32[B, Q, 2] points, or [B, Q, 4] cxcywh boxes; unit frame.
            sizes: rows and columns of each level; their products add up to T.

        Returns:
            float[B, Q, D].
        """
        heads, levels, points = self.grid
        offsets = self.offsets(query).float().unflatten(-1, (heads, levels, points, 2))
        weights = self.weights(query).float().unflatten(-1, (heads, levels * points))
        weights = weights.softmax(-1).unflatten(-1, (levels, points))
        around = reference[:, :, None, None, None]  # [B, Q, 1, 1, 1, 2 or 4]
        if reference.shape[-1] == 2:
            cells_wh = offsets.new_tensor([[width, height] for height, width in sizes])
            where = around + offsets / cells_wh[:, None]
        else:
            where = around[..., :2] + offsets / points * around[..., 2:] * 0.5
        where = (2 * where - 1).transpose(1, 2).flatten(0, 1)  # [B * heads, Q, levels, points, 2]
        weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # [B * heads, 1, Q, L, points]

        value = self.value(memory).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
        maps = value.split([height * width for height, width in sizes], dim=-1)  # [B * heads, d, .]
        result = value.new_zeros((), dtype=torch.float32)
        for level, (flat, size_hw) in enumerate(zip(maps, sizes, strict=True)):
            grid = flat.float().unflatten(-1, size_hw)
            sampled = F.grid_sample(grid, where[:, :, level], align_corners=False)
            result = result + (sampled * weights[:, :, :, level]).sum(-1)  # [B * heads, d, Q]
        result = result.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)
        return self.output(result.to(value.dtype))


class SelfAttention(nn.Module):
    """Multi-head attention among queries; positions join queries and keys, not values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Attend among x, float[B, Q, D], placed by position, float[B, Q, D]."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        placed = x + position
        mixed = F.scaled_dot_product_attention(
            split(self.query(placed)), split(self.key(placed)), split(self.value(x))
        )
        return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with ReLU between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform float[..., D]."""
        return self.down(F.relu(self.up(x)))


class EncoderLayer(nn.Module):
    """Deformable self-attention, then feed-forward; the norm comes after each sum."""

    def __init__(self, sizes: LayerSizes, dropout: float) -> None:
        super().__init__()
        width = sizes.width
        self.attention = DeformableAttention(sizes)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, sizes.ffn_size)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, sizes: SizesHW) -> Tensor:
        """Update x, float[B, T, D]; reference is float32[B, T, 2], unit frame."""
        x = self.attention_norm(x + self.dropout(self.attention(x + position, x, reference, sizes)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention to the memory, feed-forward; norms after sums."""

    def __init__(self, sizes: LayerSizes, dropout: float) -> None:
        super().__init__()
        width = sizes.width
        self.self_attention = SelfAttention(width, sizes.heads)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = DeformableAttention(sizes)
        self.cross_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, sizes.ffn_size)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, position: Tensor, memory: Tensor, reference: Tensor, sizes: SizesHW
    ) -> Tensor:
        """Update x, float[B, Q, D]; reference is float32[B, Q, 4], cxcywh, unit frame."""
        x = self.self_norm(x + self.dropout(self.self_attention(x, position)))
        attended = self.cross_attention(x + position, memory, reference, sizes)
        x = self.cross_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))
