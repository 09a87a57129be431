"""Region encoder of MG-LLaVA: the mean of what a box covers, over all levels at once.

The mean of a RoIAlign is a weighted sum of cells whose weights are a product of one vector across
and one down, and so is the stretching of a coarse level to the finest one. So the mean is two small
matrix products a level, and neither the stretched map nor the cells of a box are ever made.

Shapes: B images, R region slots, C_l channels and G_l grid side of level l, D text width. Boxes are
cxcywh in the unit frame of the model's square input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import box_convert

from parfocal.models.config_regions import RegionsConfig
from parfocal.models.fusion import CrossAttention
from parfocal.models.projector import ScaledNorm, mlp
from parfocal.models.proposer import Regions
from parfocal.models.roi_align import full_precision

WHOLE = 1e-5  # a number this close above a whole one is that one: boxes went through float32


class MultiscaleMean(nn.Module):
    """Mean of a RoIAlign over the joined levels, then a projector.

    Source: MG-LLaVA, section 3.2; official mg_llava/module/fuse_model.py (align_box).
    Deviates: no; the same numbers without the grid of cells, see `axis_weights`.
    """

    def __init__(self, config: RegionsConfig, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.roi_size = config.roi_size
        self.appearance_size = sum(channels)
        self.project = None
        if config.in_text:
            self.project = mlp(self.appearance_size, width, config.depth)
        self.norm = ScaledNorm(width) if config.norm and config.in_text else nn.Identity()

    def prepare(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps that `appearance` reads: the levels as they are."""
        return list(levels)

    def appearance(
        self, levels: Sequence[Tensor], boxes: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Average each box over the levels.

        Args:
            levels: float[B, C_l, G_l, G_l] each, fine to coarse.
            boxes: float[B, R, 4], cxcywh, unit frame.
            mask: bool[B, R], which of them to describe; all when None.

        Returns:
            float[B, R, sum of C_l], or float[n, sum of C_l] of the n boxes in the mask.
        """
        height, width = levels[0].shape[-2:]
        x1, y1, x2, y2 = box_convert(boxes.float(), "cxcywh", "xyxy").unbind(-1)
        pooled = []
        with full_precision(levels[0].device.type):
            across = axis_weights(x1 * width, x2 * width, width, self.roi_size)
            down = axis_weights(y1 * height, y2 * height, height, self.roi_size)
            for level in levels:
                columns = across @ _stretch(level.shape[-1], across)
                rows = down @ _stretch(level.shape[-2], down)
                lines = torch.einsum("brh,bchw->brcw", rows, level.float())
                pooled.append(torch.einsum("brcw,brw->brc", lines, columns))
        found = torch.cat(pooled, dim=-1).to(levels[0].dtype)
        return found if mask is None else found[mask]

    def describe(self, appearance: Tensor, regions: Regions) -> Tensor:
        """Lift appearance float[B, R, C] to float[B, R, D], zero in dead slots."""
        return self.norm(self.project(appearance)) * regions.mask[..., None]

    def forward(self, levels: Sequence[Tensor], regions: Regions) -> Tensor:
        """Encode every slot, float[B, R, D]."""
        return self.describe(self.appearance(levels, regions.boxes), regions)


def axis_weights(low: Tensor, high: Tensor, size: int, bins: int) -> Tensor:
    """Return how much each cell of one axis adds to the mean of a RoIAlign.

    RoIAlign (adaptive sampling, not aligned) cuts the box into `bins`, takes enough samples a bin
    that none is further than a cell from the next, and reads each between its two neighbours.
    Samples beyond the map count as zero, those within a cell of its border as the border.

    Args:
        low: float[...], where the box starts, in cells.
        high: float[...], where it ends; a box thinner than a cell is widened to one.
        size: number of cells.
        bins: RoIAlign's output size.

    Returns:
        float[..., size].

    Source: torchvision.ops.roi_align (sampling_ratio=-1, aligned=False), then the mean of its bins.
    Deviates: no.
    """
    extent = (high - low).clamp(min=1)
    most = -(-2 * size // bins)  # enough for a box of twice the map's side
    samples = (extent / bins - WHOLE).ceil().clamp(min=1, max=most)  # a bin
    step = torch.arange(bins * most, device=low.device, dtype=low.dtype)
    total = samples[..., None] * bins
    place = low[..., None] + (step + 0.5) * extent[..., None] / total  # [..., bins * most]
    inside = (step < total) & (place >= -1) & (place <= size)
    place = place.clamp(min=0, max=size - 1)
    before = place.floor().clamp(max=size - 1)
    after = (before + 1).clamp(max=size - 1)
    share = place - before
    weight = inside / total
    weights = torch.zeros(*low.shape, size, device=low.device, dtype=low.dtype)
    weights = weights.scatter_add(-1, before.long(), weight * (1 - share))
    return weights.scatter_add(-1, after.long(), weight * share)


def _stretch(size: int, weights: Tensor) -> Tensor:
    """Return the matrix float[G_0, size] that stretches `size` cells to the last side of weights.

    Bilinear, corners not aligned, as in `join_levels`.
    """
    full = weights.shape[-1]
    eye = torch.eye(size, device=weights.device, dtype=weights.dtype)
    if size == full:
        return eye
    return interpolate(eye[None], size=full, mode="linear", align_corners=False)[0].T


class RegionsReadTokens(nn.Module):
    """Each region looks at the first tower's tokens before its projector.

    Source: MG-LLaVA, Table 5b and appendix C (B-to-F).
    Deviates: no from the official code; the paper says fused tokens, the code reads those before
    fusion.
    """

    def __init__(self, appearance_size: int, channels: int) -> None:
        super().__init__()
        self.attention = CrossAttention(appearance_size, channels)

    def forward(self, appearance: Tensor, tokens: Tensor) -> Tensor:
        """Return float[B, R, A] from appearance float[B, R, A] and tokens float[B, C, G, G]."""
        return appearance + self.attention(appearance, tokens.flatten(2).transpose(1, 2))


class TokensReadRegions(nn.Module):
    """Each fused token looks at all regions; these do not enter the text themselves.

    Source: MG-LLaVA, Table 5b and appendix C (F-to-B).
    Deviates: no.
    """

    def __init__(self, appearance_size: int, channels: int) -> None:
        super().__init__()
        self.attention = CrossAttention(channels, appearance_size)

    def forward(self, tokens: Tensor, appearance: Tensor, mask: Tensor) -> Tensor:
        """Return float[B, C, G, G].

        Args:
            tokens: float[B, C, G, G], fused.
            appearance: float[B, R, A].
            mask: bool[B, R], live slots.
        """
        queries = tokens.flatten(2).transpose(1, 2)
        seen = queries + self.attention(queries, appearance, mask)
        return seen.transpose(1, 2).reshape(tokens.shape)


Merge = RegionsReadTokens | TokensReadRegions


def build_merge(
    config: RegionsConfig, appearance_size: int, tower_channels: int, fused_channels: int
) -> Merge | None:
    """Build what `config.merge` names; None for `concat`, where regions are only put into the text.

    Args:
        config: how regions meet the text.
        appearance_size: of the region encoder.
        tower_channels: of the first tower's token map.
        fused_channels: of the fused token map.
    """
    if config.merge == "b2f_attention":
        return RegionsReadTokens(appearance_size, tower_channels)
    if config.merge == "f2b_attention":
        return TokensReadRegions(appearance_size, fused_channels)
    return None
