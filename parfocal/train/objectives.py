"""Objectives: a module that owns the model and what it is trained towards, so that the loop is `objective(**batch).loss`.

Shapes: B pictures, N annotated objects (padded), R region slots, K kinds of object, D text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.proposer import DenseOutput, Regions
from parfocal.train.detection_losses import (
    DetectionTarget,
    dense_box_loss,
    dense_targets,
    ltrb_to_xyxy,
    object_gaussians,
    penalty_reduced_focal,
    set_prediction_loss,
)


@dataclass
class ObjectiveOutput:
    """A loss to descend and the named terms behind it (detached, for the log)."""

    loss: Tensor
    terms: dict[str, Tensor]


class DetectionObjective(nn.Module):
    """Find the objects and tell them apart: proposals, kinds on the finest level, kinds and likeness of regions.

    The class heads live here, not in the model: they only teach the features to tell kinds apart.
    """

    jitter = 0.04  # of a box's sides, so that regions are learned from boxes as imprecise as proposals

    def __init__(self, model: ParfocalForConditionalGeneration, num_kinds: int) -> None:
        super().__init__()
        self.model = model
        self.cell_kind = nn.Conv2d(model.vision.level_channels[0], num_kinds, 1)
        self.region_kind = nn.Linear(model.config.regions.hidden_size, num_kinds)

    def forward(self, pixel_values: list[Tensor], boxes: Tensor, mask: Tensor, labels: Tensor) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            pixel_values: one float[B, 3, S, S] a tower.
            boxes: float[B, N, 4], cxcywh, unit frame. mask: bool[B, N]. labels: int[B, N], kinds.
        """
        features = self.model.vision(pixel_values)
        candidates = self.model.proposer(features.levels)
        if isinstance(candidates.training, DenseOutput):
            terms = dense_terms(candidates.training, boxes, mask)
        else:
            head = self.model.config.proposer.score_heads[0]
            targets = [DetectionTarget(row[live], head) for row, live in zip(boxes, mask, strict=True)]
            terms = {"proposer": set_prediction_loss(candidates.training, targets)["total"]}
        terms["cell_kind"] = self._cell_kind_loss(features.levels[0], boxes, mask, labels)
        terms.update(self._region_terms(features.levels, boxes, mask, labels))
        loss = torch.stack(list(terms.values())).sum()
        return ObjectiveOutput(loss, {name: term.detach() for name, term in terms.items()})

    def _cell_kind_loss(self, level: Tensor, boxes: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        logits = self.cell_kind(level).float()
        gaussians = object_gaussians(boxes, mask, (level.shape[-2], level.shape[-1]))  # [B, N, G, G]
        strength, owner = gaussians.max(dim=1)
        rows, down, across = torch.nonzero(strength > 0.3, as_tuple=True)
        chosen = logits.permute(0, 2, 3, 1)[rows, down, across]
        return cross_entropy(chosen, labels[rows, owner[rows, down, across]])

    def _region_terms(self, levels: list[Tensor], boxes: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        noise = torch.randn_like(boxes) * self.jitter * boxes[..., 2:].repeat(1, 1, 2)
        appearance = self.model.regions.appearance(levels, (boxes + noise).clamp(1e-3, 1))  # [B, N, H]
        live, kinds = appearance[mask], labels[mask]
        logits = self.region_kind(live).float()
        terms = {"region_kind": cross_entropy(logits, kinds)}
        context = self.model.regions.context
        if context is not None:
            pairs = context.similarity(live[None])[0]
            same = (kinds[:, None] == kinds[None, :]).float()
            other = 1 - torch.eye(len(kinds))
            loss = binary_cross_entropy_with_logits(pairs, same, reduction="none") * other
            alike, different = same * other, (1 - same) * other
            balanced = (loss * alike).sum() / alike.sum().clamp(min=1) + (loss * different).sum() / different.sum().clamp(min=1)
            terms["likeness"] = balanced
        return terms


def dense_terms(output: DenseOutput, boxes: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Losses of the dense proposer: objectness (penalty-reduced focal) and boxes (GIoU and L1)."""
    targets = dense_targets(boxes, mask, (output.logits.shape[1], output.logits.shape[2]))
    predicted = ltrb_to_xyxy(output.ltrb)
    return {
        "objectness": penalty_reduced_focal(output.logits, targets.heatmap),
        "boxes": dense_box_loss(predicted, targets.boxes, targets.weights),
    }


def shuffle_slots(regions: Regions, num_user: Tensor, generator: torch.Generator) -> Regions:
    """Scatter proposals over all slots behind the user's, so that every region name is learned. Training only.

    Args:
        regions: from `select_regions`. num_user: int[B], user boxes of each row, which keep their slots.
    """
    order = []
    for row in range(regions.mask.shape[0]):
        first, slots = int(num_user[row]), regions.mask.shape[1]
        order.append(torch.cat((torch.arange(first), first + torch.randperm(slots - first, generator=generator))))
    index = torch.stack(order).to(regions.mask.device)
    boxes = regions.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Regions(boxes, regions.scores.gather(1, index), regions.mask.gather(1, index))
