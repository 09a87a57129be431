"""The refinement objective: move imprecise boxes onto their objects, on frozen features.

Shapes: B pictures, N annotated objects (padded), K boxes that are refined.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou

from parfocal.models.modeling import MATCH_IOU, ParfocalForConditionalGeneration
from parfocal.train.detection_losses import jittered, refinement_terms
from parfocal.train.objectives import ObjectiveOutput


class RefinementObjective(nn.Module):
    """Trains `model.refiner` on the proposer's best candidates and on jittered annotations.

    A box learns from the object it overlaps best, if that reaches the matching IoU; the loss is
    2 * (1 - GIoU) plus the L1 distance of the sides relative to the object's size.
    """

    candidates = 24
    jitter = 0.06  # of a box's sides

    def __init__(self, model: ParfocalForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> RefinementObjective:
        """Keep the frozen parts in evaluation mode: their statistics must not move."""
        super().train(mode)
        self.model.eval()
        self.model.refiner.train(mode)
        return self

    def forward(
        self, pixel_values: list[Tensor], boxes: Tensor, mask: Tensor, labels: Tensor
    ) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            pixel_values: one float[B, 3, S, S] a tower.
            boxes: float[B, N, 4], cxcywh, unit frame.
            mask: bool[B, N].
            labels: int[B, N]; not used, kinds do not matter here.
        """
        with torch.no_grad():
            levels = self.model.vision(pixel_values).levels
            found = self.model.proposer(levels).boxes[:, : self.candidates]
            start = torch.cat((found, jittered(boxes, self.jitter)), dim=1)  # [B, K, 4]
            target, weight = _nearest(start, boxes, mask)
        refined = self.model.refiner.refine(levels, start)
        terms = refinement_terms(refined, target, weight)
        loss = terms["giou"] + terms["sides"]
        return ObjectiveOutput(loss, {name: value.detach() for name, value in terms.items()})


def _nearest(start: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return each box's best object float[B, K, 4], and 1 where that overlaps it enough, else 0."""
    targets, weights = [], []
    for row in range(len(start)):
        overlap = box_iou(
            box_convert(start[row], "cxcywh", "xyxy"), box_convert(boxes[row], "cxcywh", "xyxy")
        ).masked_fill(~mask[row], 0)
        best, index = overlap.max(dim=1)
        targets.append(boxes[row][index])
        weights.append((best >= MATCH_IOU).float())
    return torch.stack(targets), torch.stack(weights)
