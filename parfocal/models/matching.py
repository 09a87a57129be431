"""Which region stands for a given box.

Shapes: B pictures, G boxes (padded), R region slots.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from parfocal.models.proposer import Regions

FOUND_IOU = 0.5  # a box and a region show the same thing from here on


def match_boxes(
    boxes: Tensor, mask: Tensor, regions: Regions, threshold: float = FOUND_IOU
) -> Tensor:
    """Find the region slot of each box: the live one of best overlap, the first of several.

    Args:
        boxes: float[B, G, 4], cxcywh, unit frame of the model's square input, padded.
        mask: bool[B, G], False in padding.
        regions: from `ParfocalForConditionalGeneration.propose`.
        threshold: IoU that a match must reach. With 0 every box has one, the first live slot if it
            overlaps none.

    Returns:
        int[B, G], slot numbers, -1 in padding and where no live slot overlaps enough.

    Source: Groma, official model/groma.py (the arg-max). Deviates: official code has no threshold;
    see `ProposerConfig.match_threshold`.
    """
    slots = []
    for row in range(boxes.shape[0]):
        overlap = box_iou(
            box_convert(boxes[row].float(), "cxcywh", "xyxy"),
            box_convert(regions.boxes[row].float(), "cxcywh", "xyxy"),
        )
        # the IoU of two boxes of no size is no number; a dead slot is worse than no overlap
        overlap = overlap.nan_to_num(0).masked_fill(~regions.mask[row], -1)
        best, slot = overlap.max(dim=1)
        slots.append(torch.where((best >= threshold) & mask[row], slot, -1))
    return torch.stack(slots)
