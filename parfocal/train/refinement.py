"""The second look at boxes in training: boxes to start from, and what a moved box should be.

Shapes: n boxes. Boxes are in the unit frame (0 to 1 of the model input).
"""

from __future__ import annotations

import torch
from torch import Tensor

from parfocal.train.detection_losses import cxcywh_to_xyxy, paired_giou


def refinement_terms(refined: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Losses of a second look: 2 * (1 - GIoU), and the sides' L1 distance relative to the object.

    Means over boxes; 0 where there are none.

    Args:
        refined: float[n, 4], cxcywh, unit frame, from `BoxRefiner.refine`.
        target: float[n, 4], cxcywh, unit frame, the object of each box.
    """
    corners, truth = cxcywh_to_xyxy(refined), cxcywh_to_xyxy(target)
    giou = 1 - paired_giou(corners, truth)
    scale = target[:, 2:].repeat(1, 2).clamp(min=1e-3)
    sides = ((corners - truth).abs() / scale).sum(-1)
    total = max(1, len(target))
    return {"giou": 2 * giou.sum() / total, "sides": sides.sum() / total}


def jittered(boxes: Tensor, spread: float) -> Tensor:
    """Move float[..., 4] cxcywh boxes, unit frame, by Gaussian noise of `spread` of their sides."""
    noise = torch.randn_like(boxes) * spread * boxes[..., 2:].repeat(1, 1, 2)
    return (boxes + noise).clamp(1e-3, 1)
