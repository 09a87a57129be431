"""Fusions: from the towers' token maps to one map, each with the same `forward(maps) -> map`.

Shapes: B images, C channels and G grid side of a token map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parfocal.errors import ConfigError
from parfocal.models.config import FusionConfig


class NoFusion(nn.Module):
    """One tower: its map as it is."""

    def __init__(self, channels: Sequence[int], grids: Sequence[int]) -> None:
        super().__init__()
        self.out_channels, self.out_grid = channels[0], grids[0]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return float[B, C, G, G] of the only tower."""
        return maps[0]


class ConcatFusion(nn.Module):
    """Channel concatenation, first tower first.

    Source: TinyGroundingGPT, section 3.3.
    Deviates: no.
    """

    def __init__(self, channels: Sequence[int], grids: Sequence[int]) -> None:
        super().__init__()
        if len(set(grids)) != 1:
            raise ConfigError(
                f"concat needs equal grids, the towers have {list(grids)}; change an image_size."
            )
        self.out_channels, self.out_grid = sum(channels), grids[0]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return float[B, C1 + C2, G, G]."""
        return torch.cat(list(maps), dim=1)


FUSIONS = {"none": NoFusion, "concat": ConcatFusion}


def build_fusion(
    config: FusionConfig, channels: Sequence[int], grids: Sequence[int]
) -> NoFusion | ConcatFusion:
    """Build the fusion that `config.kind` names.

    Args:
        config: which fusion.
        channels: of each tower's token map.
        grids: side of each tower's token map, in tokens.
    """
    return FUSIONS[config.kind](channels, grids)
