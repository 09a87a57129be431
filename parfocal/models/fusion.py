"""Fusions: from the towers' token maps to one map, each with the same `forward(maps, levels)`.

Shapes: B images, C channels and G grid side of a token map, T = G * G tokens, D text width. Of two
towers the first sees the picture at low resolution and the second at high resolution; `levels` are
the maps that regions read, float[B, C_l, G_l, G_l], fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from parfocal.errors import ConfigError
from parfocal.models.config_vision import FusionConfig


@dataclass(frozen=True)
class FusionInputs:
    """What a fusion may know of what enters and leaves it.

    Attributes:
        channels: of each tower's token map.
        grids: side of each tower's token map, in tokens.
        level_channels: of each level.
        level_grids: side of each level.
        width: of the language model, D.
    """

    channels: Sequence[int]
    grids: Sequence[int]
    level_channels: Sequence[int] = ()
    level_grids: Sequence[int] = ()
    width: int = 0


class NoFusion(nn.Module):
    """One tower: its map as it is."""

    def __init__(self, config: FusionConfig, inputs: FusionInputs) -> None:
        super().__init__()
        self.out_channels, self.out_grid = inputs.channels[0], inputs.grids[0]

    def forward(self, maps: Sequence[Tensor], levels: Sequence[Tensor] = ()) -> Tensor:
        """Return float[B, C, G, G] of the only tower."""
        return maps[0]


class ConcatFusion(nn.Module):
    """Channel concatenation, first tower first.

    Source: TinyGroundingGPT, section 3.3; MG-LLaVA, Table 5a (channel concat).
    Deviates: no.
    """

    def __init__(self, config: FusionConfig, inputs: FusionInputs) -> None:
        super().__init__()
        self.out_channels, self.out_grid = sum(inputs.channels), _equal_grid("concat", inputs)

    def forward(self, maps: Sequence[Tensor], levels: Sequence[Tensor] = ()) -> Tensor:
        """Return float[B, C1 + C2, G, G]."""
        return torch.cat(list(maps), dim=1)


class DualConv(nn.Module):
    """Brings both token maps to the first tower's channels by a pair of convolutions each.

    Both start so that the low-resolution map passes unchanged and the high-resolution one is zero.

    Source: MG-LLaVA, section 3.1; official mg_llava/module/fuse_modules (slow and fast path).
    Deviates: no.
    """

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.high = nn.Sequential(nn.Conv2d(high, high, 1), nn.GELU(), nn.Conv2d(high, low, 1))
        self.low = nn.Sequential(
            nn.Conv2d(low, low, 7, padding=3, groups=low), nn.GELU(), nn.Conv2d(low, low, 1)
        )
        for path in (self.high, self.low):
            nn.init.xavier_uniform_(path[0].weight)
            nn.init.zeros_(path[0].bias)
            nn.init.zeros_(path[2].weight)
            nn.init.zeros_(path[2].bias)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return two float[B, C1, G, G], low resolution first."""
        return low + self.low(low), self.high(high)


class ConvGateFusion(nn.Module):
    """Adds the high-resolution map to the low-resolution one, weighed by one number a picture.

    Source: MG-LLaVA, section 3.1 and equation 3; official DualPathFuseModule and its variants.
    Deviates: no; equation 3 leaves out the residual path of the low-resolution map and that the
    gate is a tanh of one scalar, the official code and its weights have both.
    """

    def __init__(self, config: FusionConfig, inputs: FusionInputs) -> None:
        super().__init__()
        low, high = inputs.channels
        self.join, self.out_grid = config.join, _equal_grid("conv_gate", inputs)
        self.out_channels = low if config.join == "add" else 2 * low
        self.convs = DualConv(low, high)
        self.gate = None
        if config.gated:
            self.gate = nn.Sequential(
                nn.Linear(2 * low, low // 2), nn.GELU(), nn.Linear(low // 2, 1)
            )

    def forward(self, maps: Sequence[Tensor], levels: Sequence[Tensor] = ()) -> Tensor:
        """Return float[B, C1, G, G], or float[B, 2 * C1, G, G] when joined as channels."""
        low, high = self.convs(*maps)
        if self.gate is not None:
            mean = torch.cat((low, high), dim=1).mean(dim=(2, 3))  # [B, 2 * C1]
            high = high * torch.tanh(self.gate(mean))[..., None, None]
        return low + high if self.join == "add" else torch.cat((low, high), dim=1)


class PatchInfoMining(nn.Module):
    """Each low-resolution token looks into its own window of the high-resolution map.

    Source: MG-LLaVA, Table 5a; Mini-Gemini (arXiv:2403.18814), section 3.2 and its official code.
    Deviates: no.
    """

    def __init__(self, config: FusionConfig, inputs: FusionInputs) -> None:
        super().__init__()
        self.out_channels, self.out_grid = inputs.channels[0], inputs.grids[0]
        self.mined = config.mined
        if config.mined == "levels":
            detail, grid = sum(inputs.level_channels), inputs.level_grids[0]
        else:
            detail, grid = inputs.channels[1], inputs.grids[1]
        if grid % self.out_grid:
            raise ConfigError(
                f"patch_info_mining needs a fine grid that is a multiple of the coarse one, got "
                f"{grid} and {self.out_grid}; change an image_size."
            )
        self.attention = CrossAttention(self.out_channels, detail)

    def forward(self, maps: Sequence[Tensor], levels: Sequence[Tensor] = ()) -> Tensor:
        """Return float[B, C1, G, G]."""
        low = maps[0]
        fine = join_levels(levels) if self.mined == "levels" else maps[1]
        batch, channels, grid = low.shape[:3]
        side = fine.shape[-1] // grid
        windows = fine.to(low.dtype).unflatten(3, (grid, side)).unflatten(2, (grid, side))
        windows = windows.permute(0, 2, 4, 3, 5, 1).reshape(batch * grid * grid, side * side, -1)
        queries = low.flatten(2).transpose(1, 2).reshape(-1, 1, channels)
        mined = queries + self.attention(queries, windows)
        return mined.view(batch, grid * grid, channels).transpose(1, 2).reshape(low.shape)


class Resampler(nn.Module):
    """A grid of learned queries reads both maps side by side and answers in the text's width.

    The projector after it has depth 0.

    Source: MG-LLaVA, Table 5a; Qwen-VL (arXiv:2308.12966), section 2.1; the official module was
    shipped as bytecode only.
    Deviates: no.
    """

    def __init__(self, config: FusionConfig, inputs: FusionInputs) -> None:
        super().__init__()
        (low, high), width = inputs.channels, inputs.width
        self.out_channels, self.out_grid = width, _equal_grid("resampler", inputs)
        if width % config.heads or width % 4:
            raise ConfigError(
                f"a resampler of {config.heads} heads does not fit a language model of width "
                f"{width}; fusion.heads and 4 must divide it."
            )
        self.convs = DualConv(low, high)
        self.query = nn.Parameter(torch.empty(self.out_grid**2, width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.lift = nn.Linear(low, width, bias=False)
        self.norm_query = nn.LayerNorm(width, eps=1e-6)
        self.norm_memory = nn.LayerNorm(width, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Parameter(width**-0.5 * torch.randn(width, width))
        # saved with the weights, because a buffer that is not would be lost on the meta device
        self.register_buffer("position", sine_grid(width, self.out_grid))

    def forward(self, maps: Sequence[Tensor], levels: Sequence[Tensor] = ()) -> Tensor:
        """Return float[B, D, G, G]."""
        low, high = self.convs(*maps)
        tokens = torch.cat((low.flatten(2), high.flatten(2)), dim=2).transpose(1, 2)
        memory = self.norm_memory(self.lift(tokens))  # [B, 2 * T, D]
        position = self.position.to(memory.dtype)
        query = (self.norm_query(self.query) + position).expand(len(memory), -1, -1)
        key = memory + torch.cat((position, position))  # both maps lie on the same grid
        found = self.attention(query, key, memory, need_weights=False)[0]
        out = self.norm_out(found) @ self.project
        return out.transpose(1, 2).reshape(len(memory), -1, self.out_grid, self.out_grid)


class CrossAttention(nn.Module):
    """One head of attention whose queries, keys and values are normed and then lifted.

    Args:
        channels: of the queries and of the result.
        memory_channels: of what is looked at.

    Source: Mini-Gemini's official code; MG-LLaVA uses it for Table 5a and 5b.
    Deviates: no.
    """

    def __init__(self, channels: int, memory_channels: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels))
        self.key, self.value = (
            nn.Sequential(nn.LayerNorm(memory_channels), nn.Linear(memory_channels, channels))
            for _ in range(2)
        )

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Look.

        Args:
            queries: float[B, Q, C].
            memory: float[B, K, M].
            mask: bool[B, K], what may be seen; a row without any gives zero.

        Returns:
            float[B, Q, C], without the residual.
        """
        key, value = self.key(memory), self.value(memory)
        scores = self.query(queries) @ key.transpose(1, 2) * key.shape[-1] ** -0.5
        scores = torch.nan_to_num(scores)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights * mask[:, None]
        return weights @ value


def join_levels(levels: Sequence[Tensor]) -> Tensor:
    """Stretch all levels to the finest and stack their channels.

    Args:
        levels: float[B, C_l, G_l, G_l] each, finest first.

    Returns:
        float[B, sum of C_l, G_0, G_0], float32.

    Source: MG-LLaVA, section 3.2; official mg_llava/module/fuse_model.py (align_box).
    Deviates: no.
    """
    size = levels[0].shape[-2:]
    stretched = [
        interpolate(level.float(), size=size, mode="bilinear", align_corners=False)
        for level in levels[1:]
    ]
    return torch.cat((levels[0].float(), *stretched), dim=1)


def sine_grid(width: int, grid: int) -> Tensor:
    """Return the fixed position code float[G * G, D]: half of D for the column, half for the row.

    Each half is sines, then cosines, of frequencies 10000^(-i / (D / 4)). Source: MAE
    (arXiv:2111.06377), official util/pos_embed.py, used by Qwen-VL's resampler. Deviates: no.
    """
    step = torch.arange(width // 4, dtype=torch.float64) / (width / 4)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] / 10000**step
    code = torch.cat((angles.sin(), angles.cos()), dim=1)  # [G, D / 2]
    column, row = code.expand(grid, -1, -1), code[:, None].expand(-1, grid, -1)
    return torch.cat((column, row), dim=-1).flatten(0, 1).float()


def _equal_grid(kind: str, inputs: FusionInputs) -> int:
    if len(set(inputs.grids)) != 1:
        raise ConfigError(
            f"{kind} needs equal grids, the towers have {list(inputs.grids)}; change an image_size."
        )
    return inputs.grids[0]


Fusion = NoFusion | ConcatFusion | ConvGateFusion | PatchInfoMining | Resampler

FUSIONS: dict[str, type[Fusion]] = {
    "none": NoFusion,
    "concat": ConcatFusion,
    "conv_gate": ConvGateFusion,
    "patch_info_mining": PatchInfoMining,
    "resampler": Resampler,
}


def build_fusion(config: FusionConfig, inputs: FusionInputs) -> Fusion:
    """Build the fusion that `config.kind` names.

    Args:
        config: which fusion.
        inputs: what enters and leaves it.
    """
    return FUSIONS[config.kind](config, inputs)
