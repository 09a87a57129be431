"""Region encoder: a box on the feature levels becomes one vector in the language model's width.

Shapes: B images, R slots, C level channels, H `hidden_size`, D text width. Boxes are cxcywh in the
unit frame of the model's square input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from torchvision.ops import box_convert

from parfocal.models.config_regions import RegionsConfig
from parfocal.models.multiscale_mean import MultiscaleMean
from parfocal.models.projector import ScaledNorm
from parfocal.models.proposer import Regions
from parfocal.models.roi_align import align_boxes


class MultilevelRoi(nn.Module):
    """Cross-level fusion, RoIAlign on every level, a linear map over the grid, the box's position.

    Source: Groma, section 3.2; official groma/model/roi_align.py.
    Deviates: unless `roi_boxes`, `roi_canvas` and `roi_strides` say otherwise, boxes reach RoIAlign
    as corners in true level scale (the official code gives it centres and sizes, at half the true
    strides); `context`, `norm` and the level settings are ours. The convolutions after RoIAlign
    start as PyTorch's do, the official ones from normal(0, 0.01) with zero biases.
    """

    def __init__(self, config: RegionsConfig, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.config = config
        self.num_levels = len(config.level_scales)
        base, hidden = channels[0], config.hidden_size
        self.fuse = LevelFusion(config, channels[: self.num_levels]) if config.fuse_rounds else None
        inputs = [base if self.fuse else level for level in channels[: self.num_levels]]
        self.pool = nn.ModuleList([nn.Conv2d(level, base, 3, padding=1) for level in inputs])
        self.flatten = nn.Linear(base * config.roi_size**2, hidden)
        self.position = nn.Sequential(
            nn.Linear(4, config.position_size),
            nn.ReLU(),
            nn.LayerNorm(config.position_size),
            nn.Linear(config.position_size, hidden),
            nn.ReLU(),
            nn.LayerNorm(hidden),
        )
        self.context = RankContext(hidden) if config.context == "rank" else None
        # appearances are an order of magnitude larger than positions and ranks; unbalanced, the
        # language model learns names and never learns to compare
        ranked = self.context is not None
        self.balance = nn.LayerNorm(hidden) if ranked else nn.Identity()
        self.lift = nn.Linear(hidden, width)
        self.norm = ScaledNorm(width) if config.norm else nn.Identity()

    def prepare(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps that `appearance` reads: what depends on the picture alone, done once.

        Args:
            levels: float[B, C_l, G_l, G_l] each, fine to coarse.
        """
        used = list(levels[: self.num_levels])
        return used if self.fuse is None else self.fuse(used)

    def appearance(
        self, maps: Sequence[Tensor], boxes: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Describe what is inside each box, whatever the other boxes are.

        Args:
            maps: from `prepare`.
            boxes: float[B, R, 4], cxcywh, unit frame.
            mask: bool[B, R], which of them to describe; all when None.

        Returns:
            float[B, R, H], or float[n, H] of the n boxes in the mask.
        """
        pooled: Tensor | int = 0
        for index, (conv, level) in enumerate(zip(self.pool, maps[: self.num_levels], strict=True)):
            pooled = pooled + conv(self.cells(level, boxes, index, mask).to(level.dtype))
        found: Tensor = self.flatten(torch.relu(pooled).flatten(1))
        return found.view(*boxes.shape[:2], -1) if mask is None else found

    def cells(self, level: Tensor, boxes: Tensor, index: int, mask: Tensor | None = None) -> Tensor:
        """Sample a grid inside each box: float32[B * R or n, C, roi_size, roi_size].

        Args:
            level: float[B, C, G, G], the map of level `index`.
            boxes: float[B, R, 4], cxcywh, unit frame.
            index: of the level.
            mask: as in `appearance`.
        """
        config, sides = self.config, boxes.float()
        if config.roi_boxes == "corners":
            sides = box_convert(sides, "cxcywh", "xyxy")
        canvas, stride = level.shape[-1], 1.0
        if config.roi_canvas:
            canvas, stride = config.roi_canvas, config.roi_strides[index]
        return align_boxes(level, sides * canvas * (1 / stride), config.roi_size, mask)

    def describe(self, appearance: Tensor, regions: Regions) -> Tensor:
        """Add position and context to appearance and lift it to the language model's width.

        Args:
            appearance: float[B, R, H] of all slots.
            regions: their boxes, scores and mask.

        Returns:
            float[B, R, D], zero in dead slots.
        """
        hidden = self.balance(appearance) + self.position(regions.boxes.to(appearance.dtype))
        if self.context is not None:
            hidden = hidden + self.context(appearance, regions)
        return self.norm(self.lift(hidden)) * regions.mask[..., None]

    def forward(self, levels: Sequence[Tensor], regions: Regions) -> Tensor:
        """Encode every slot from the levels themselves, float[B, R, D]."""
        return self.describe(self.appearance(self.prepare(levels), regions.boxes), regions)


class LevelFusion(nn.Module):
    """Rounds in which every level takes a quarter of its channels from each of its neighbours.

    Source: Groma official groma/model/roi_align.py (mlvl_fuse); specs: resize with corners aligned,
    weights shared by the levels within a round.
    Deviates: convolutions start as PyTorch's do; the official ones of the rounds are Kaiming normal
    by their outputs.
    """

    def __init__(self, config: RegionsConfig, channels: Sequence[int]) -> None:
        super().__init__()
        base = channels[0]
        extra = 2 if config.coordinate_channels else 0
        self.scales, self.coordinates = config.level_scales, config.coordinate_channels
        self.quarter = base // 4
        self.inputs = nn.ModuleList([nn.Conv2d(level + extra, base, 1) for level in channels])
        groups = config.norm_groups or (64 if base % 64 == 0 else 8)
        self.rounds = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(base, base, 3, padding=1, bias=False),
                nn.GroupNorm(groups, base),
                nn.ReLU(),
            )
            for _ in range(config.fuse_rounds)
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Let the levels exchange channels.

        Args:
            levels: float[B, C_l, G_l, G_l] each, fine to coarse.

        Returns:
            float[B, C_0, scales[l] * G_l, scales[l] * G_l] each.
        """
        maps = []
        for conv, scale, level in zip(self.inputs, self.scales, levels, strict=True):
            if scale != 1:
                level = interpolate(
                    level, scale_factor=float(scale), mode="bilinear", align_corners=True
                )
            maps.append(conv(_with_coordinates(level) if self.coordinates else level))
        for fuse in self.rounds:
            maps = [fuse(self._mix(maps, index)) for index in range(len(maps))]
        return maps

    def _mix(self, maps: list[Tensor], index: int) -> Tensor:
        own, quarter, width = maps[index], self.quarter, maps[index].shape[1]
        coarser, finer = maps[min(index + 1, len(maps) - 1)], maps[max(index - 1, 0)]
        taken = [own[:, : width - 2 * quarter]]
        for neighbour, part in (
            (coarser, slice(width - quarter, width)),
            (finer, slice(width - 2 * quarter, width - quarter)),
        ):
            resized = interpolate(
                neighbour[:, part].float(), size=own.shape[-2:], mode="bilinear", align_corners=True
            )
            taken.append(resized.to(own.dtype))
        return torch.cat(taken, dim=1)


def _with_coordinates(level: Tensor) -> Tensor:
    """Append planes of x and y from -1 to 1, float[B, C, G, G] -> float[B, C + 2, G, G]."""
    height, width = level.shape[-2:]
    across = torch.linspace(-1, 1, width, device=level.device, dtype=level.dtype)
    down = torch.linspace(-1, 1, height, device=level.device, dtype=level.dtype)
    x = across.expand(level.shape[0], 1, height, width)
    return torch.cat((level, x, down[:, None].expand_as(x)), dim=1)


class RankContext(nn.Module):
    """What a region knows about the others: how many lie to each side, are larger or are smaller.

    It knows so of all other regions and of those of its kind.
    "Of its kind" is a learned soft comparison of appearances, so the counts are differentiable and
    need no class list. Counts up to `bins` are written as interpolated one-hot vectors, which makes
    "the second from the left" a look-up.
    """

    bins = 10
    sharpness = 0.01  # unit-frame distance at which one centre is clearly left of another

    def __init__(self, hidden: int, identity_size: int = 64) -> None:
        super().__init__()
        self.identity = nn.Linear(hidden, identity_size)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.threshold = nn.Parameter(torch.tensor(0.5))
        self.project = nn.Sequential(
            nn.Linear(13 * (self.bins + 1) + 1, hidden), nn.LayerNorm(hidden)
        )

    def similarity(self, appearance: Tensor) -> Tensor:
        """Return logits float[B, R, R] that two regions show the same kind of thing."""
        identity = normalize(self.identity(appearance).float(), dim=-1)
        return self.scale * (identity @ identity.transpose(1, 2) - self.threshold)

    def forward(self, appearance: Tensor, regions: Regions) -> Tensor:
        """Return float[B, R, H], what to add to appearance float[B, R, H].

        Args:
            appearance: float[B, R, H].
            regions: their boxes, scores and mask; dead slots are nobody's neighbours.
        """
        diagonal = torch.eye(regions.mask.shape[1], device=appearance.device)
        others = regions.mask[:, None, :].float() * (1 - diagonal)
        alike = self.similarity(appearance).sigmoid() * others
        order = self._order(regions.boxes.float())  # [B, R, R, 6]
        counts = [(order * weight[..., None]).sum(2) for weight in (others, alike)]
        counts.append(alike.sum(2, keepdim=True))
        encoded = self._soft_one_hot(torch.cat(counts, dim=-1))  # [B, R, 13, bins + 1]
        values = torch.cat((encoded.flatten(2), regions.scores[..., None].float()), dim=-1)
        return self.project(values.to(appearance.dtype))

    def _order(self, boxes: Tensor) -> Tensor:
        """Return how true it is, float[B, R, R, 6], that region j stands in a relation to region i.

        The relations: left of, right of, above, below, larger than, smaller than.
        """
        x, y = boxes[..., 0], boxes[..., 1]
        size = (boxes[..., 2] * boxes[..., 3]).clamp(min=1e-6).log()
        pairs = []
        for value, unit in ((x, self.sharpness), (y, self.sharpness), (size, 10 * self.sharpness)):
            later = ((value[:, :, None] - value[:, None, :]) / unit).sigmoid()  # j before i
            pairs += [later, 1 - later]
        left, right, above, below, smaller, larger = pairs
        return torch.stack((left, right, above, below, larger, smaller), dim=-1)

    def _soft_one_hot(self, counts: Tensor) -> Tensor:
        steps = torch.arange(self.bins + 1, device=counts.device, dtype=counts.dtype)
        return (1 - (counts.clamp(max=self.bins)[..., None] - steps).abs()).clamp(min=0)


REGION_ENCODERS: dict[str, type[MultilevelRoi] | type[MultiscaleMean]] = {
    "multilevel_roi": MultilevelRoi,
    "multiscale_mean": MultiscaleMean,
}


def build_regions(
    config: RegionsConfig, channels: Sequence[int], width: int
) -> MultilevelRoi | MultiscaleMean | None:
    """Build the region encoder that `config.kind` names; None for 'none' and 'crop'."""
    if not config.from_levels:
        return None
    return REGION_ENCODERS[config.kind](config, channels, width)
