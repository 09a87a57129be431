"""Projector: neighbouring vision tokens are merged, then lifted to the language model's width.

Shapes: B images, C channels, G grid side, m merge, D text width. float[B, C, G, G] -> float[B, (G /
m)^2, D].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from parfocal.errors import ConfigError
from parfocal.models.config_vision import ProjectorConfig


def merge_tokens(tokens: Tensor, merge: int) -> Tensor:
    """Concatenate each m x m square of a map on channels.

    Within a square the order is column by column: for 2 x 2 top-left, bottom-left, top-right,
    bottom-right.

    Args:
        tokens: float[B, C, G, G]; m divides G.
        merge: m.

    Returns:
        float[B, (G / m)^2, m * m * C], squares row by row.

    Source: Groma, section 3.3; official groma/model/groma.py (token merge).
    Deviates: no.
    """
    views = [
        tokens[:, :, row::merge, column::merge] for column in range(merge) for row in range(merge)
    ]
    return torch.cat(views, dim=1).flatten(2).transpose(1, 2)


def mlp(channels: int, width: int, depth: int) -> nn.Sequential:
    """Return `depth` linear layers from `channels` to `width` with GELU between them."""
    layers: list[nn.Module] = [nn.Linear(channels, width)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


class ScaledNorm(nn.Module):
    """Layer norm whose gain starts at the scale of token embeddings: features drown no words."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, width**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        """Normalise the last dimension of float[..., D]."""
        return self.norm(values)


class Projector(nn.Module):
    """`depth` linear layers with GELU between them, after the token merge, optionally normed.

    Args:
        config: depth, merge and norm.
        in_channels: C of the fused token map.
        grid: G of the fused token map.
        width: D of the language model.
    """

    def __init__(self, config: ProjectorConfig, in_channels: int, grid: int, width: int) -> None:
        super().__init__()
        if grid % config.merge:
            raise ConfigError(
                f"projector.merge {config.merge} does not divide the {grid} x {grid} token grid."
            )
        self.merge = config.merge
        self.num_tokens = (grid // config.merge) ** 2
        channels = in_channels * config.merge**2
        if config.depth == 0 and channels != width:
            raise ConfigError(
                f"projector.depth is 0 but tokens have {channels} channels and the language model "
                f"a width of {width}; give it layers, or fuse with a resampler."
            )
        self.layers = mlp(channels, width, config.depth) if config.depth else nn.Sequential()
        self.norm = ScaledNorm(width) if config.norm else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """Project float[B, C, G, G] to float[B, num_tokens, D]."""
        return self.norm(self.layers(merge_tokens(tokens, self.merge)))
