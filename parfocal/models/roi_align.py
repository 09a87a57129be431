"""RoIAlign: the same grid of samples in every box.

Shapes: B images, K boxes each, C channels, a map of H x W cells.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torchvision import ops

SAMPLES = 2  # along each axis of a bin; a bin is their mean


def align_boxes(level: Tensor, boxes: Tensor, bins: int, mask: Tensor | None = None) -> Tensor:
    """Sample a grid inside each box.

    On a CPU this is two products of matrices, since a sample's bilinear weights are those of its
    row times those of its column: several times faster than a loop over samples, above all on the
    way back (`benchmarks/bench_roi_align.py`). Elsewhere it is torchvision's, which keeps less.

    Args:
        level: float[B, C, H, W].
        boxes: float[B, K, 4], xyxy, in cells; a cell's centre is half a cell from its sides.
        bins: of each axis of the grid.
        mask: bool[B, K], which boxes to look into; all when None.

    Returns:
        float32[n, C, bins, bins] of the n boxes, in order.

    Source: torchvision.ops.roi_align (sampling_ratio=2, aligned=True).
    Deviates: no, up to rounding.
    """
    with full_precision(level.device.type):
        level, boxes = level.float(), boxes.float()
        if level.device.type != "cpu":
            return _by_torchvision(level, boxes, bins, mask)
        if mask is not None:  # the live boxes of each image first, and no more than needed
            most = int(mask.sum(1).max())
            order = mask.int().argsort(dim=1, descending=True, stable=True)[:, :most]
            boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
            mask = mask.gather(1, order)
        grids = _by_products(level, boxes - 0.5, bins)
        return grids.flatten(0, 1) if mask is None else grids[mask]


def _by_torchvision(level: Tensor, boxes: Tensor, bins: int, mask: Tensor | None) -> Tensor:
    image = torch.arange(len(boxes), device=boxes.device, dtype=torch.float32)
    rois = torch.cat((image[:, None, None].expand(*boxes.shape[:2], 1), boxes), dim=-1)
    rois = rois.flatten(0, 1) if mask is None else rois[mask]
    return ops.roi_align(level, rois, bins, sampling_ratio=SAMPLES, aligned=True)


def _by_products(level: Tensor, boxes: Tensor, bins: int) -> Tensor:
    """Return float[B, K, C, bins, bins]; a cell's place is its centre."""
    (images, channels, height, width), count = level.shape, boxes.shape[1]
    down = _axis_weights(boxes[..., 1], boxes[..., 3], height, bins)
    across = _axis_weights(boxes[..., 0], boxes[..., 2], width, bins)
    lines = level.permute(0, 2, 1, 3).reshape(images, height, channels * width)
    rows = down.flatten(1, 2) @ lines
    grids = rows.view(images, count, bins * channels, width) @ across.mT
    return grids.view(images, count, bins, channels, bins).transpose(2, 3)


def _axis_weights(low: Tensor, high: Tensor, size: int, bins: int) -> Tensor:
    """Return how much each cell of one axis adds to each bin.

    A sample lies between two cells and takes from both. Within a cell of the border it counts as
    the border, beyond that as zero.

    Args:
        low: float[...], where the box starts.
        high: float[...], where it ends.
        size: number of cells.
        bins: B of the box.

    Returns:
        float[..., B, size].
    """
    cells = torch.arange(size, device=low.device, dtype=low.dtype)
    share = (torch.arange(bins * SAMPLES, device=low.device) + 0.5) / (bins * SAMPLES)
    place = low[..., None] + share * (high - low)[..., None]
    inside = (place >= -1) & (place <= size)
    distance = (place.clamp(0, size - 1)[..., None] - cells).abs()
    weights = (1 - distance).clamp(min=0) * inside[..., None] / SAMPLES
    return weights.unflatten(-2, (bins, SAMPLES)).sum(-2)


def full_precision(device: str) -> AbstractContextManager[Any]:
    """Switch autocast off, where there is one: pooling in bfloat16 would lose small boxes."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
