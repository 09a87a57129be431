"""The detection objective: find the objects and, where their kinds are known, tell them apart.

Shapes: B pictures, N annotated objects (padded), K kinds of object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.deformable_detr import ProposerOutput
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.proposer import DenseOutput
from parfocal.train.detection_losses import (
    DetectionTarget,
    dense_box_loss,
    dense_targets,
    ltrb_to_xyxy,
    object_gaussians,
    penalty_reduced_focal,
    set_prediction_loss,
)
from parfocal.train.objectives import ObjectiveOutput, mean_cross_entropy
from parfocal.train.refinement import jittered, refinement_terms


class DetectionObjective(nn.Module):
    """Find the objects and, where their kinds are known, tell them apart.

    The terms: proposals, kinds on the finest level, kinds and likeness of regions, and the second
    look at boxes if the model takes one: features that are to place a side must learn to.
    The class heads live here, not in the model: they only teach the features to tell kinds apart.

    Args:
        model: trains; it has a proposer.
        num_kinds: K; 0 for objects without kinds: then proposals and the second look are all that
            is learned.

    Raises:
        ConfigError: if the model has no proposer, or there are kinds and it cannot learn them, or
            has several score heads, of which it would learn one.
    """

    jitter = 0.04  # of a box's sides: regions are learned from boxes as imprecise as proposals
    refine_jitter = 0.06  # the second look is learned from somewhat worse ones

    def __init__(self, model: ParfocalForConditionalGeneration, num_kinds: int) -> None:
        super().__init__()
        if model.proposer is None:
            raise ConfigError(
                "detection trains a proposer, and this model has none: proposer.kind is 'none'. "
                "Build it with 'deformable_detr' or 'dense'."
            )
        self.model, self.num_kinds = model, num_kinds
        if num_kinds:
            _check_kinds(model.config)
            self.cell_kind = nn.Linear(model.vision.level_channels[0], num_kinds)
            self.region_kind = nn.Linear(model.config.regions.hidden_size, num_kinds)

    def train(self, mode: bool = True) -> DetectionObjective:
        """Keep frozen towers in evaluation mode: their statistics must not move."""
        super().train(mode)
        if not any(value.requires_grad for value in self.model.vision.parameters()):
            self.model.vision.eval()
        return self

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """How many objects a batch holds."""
        return {"objects": float(batch["mask"].sum())}

    def forward(
        self,
        pixel_values: list[Tensor],
        boxes: Tensor,
        mask: Tensor,
        labels: Tensor | None = None,
        *,
        heads: Sequence[str] | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            pixel_values: one float[B, 3, S, S] a tower.
            boxes: float[B, N, 4], cxcywh, unit frame.
            mask: bool[B, N], False in padding.
            labels: int[B, N], kinds; None where there are no kinds.
            heads: score head that each picture trains, of a proposer with several; the first one
                when None.
            counts: see `Objective`.
        """
        features = self.model.vision(pixel_values)
        candidates = self.model.proposer(features.proposer)
        terms, parts = self._proposer_terms(candidates.training, boxes, mask, heads)
        if self.num_kinds:
            assert labels is not None  # the collator of an objective with kinds gives them
            terms["cell_kind"] = self._cell_kind_loss(features.levels[0], boxes, mask, labels)
            terms.update(self._region_terms(features.levels, boxes, mask, labels))
        if self.model.refiner is not None:
            start = jittered(boxes, self.refine_jitter)
            refined = self.model.refiner.refine(features.levels, start, mask)
            terms.update(refinement_terms(refined, boxes[mask]))
        loss = torch.stack(list(terms.values())).sum()
        if counts is not None:  # each term is a mean over objects, or a sum where there are none
            loss = loss * (max(float(mask.sum()), 1.0) / max(counts["objects"], 1.0))
        logged = {name: term.detach() for name, term in (terms | parts).items()}
        return ObjectiveOutput(loss, logged)

    def _proposer_terms(
        self,
        output: DenseOutput | ProposerOutput,
        boxes: Tensor,
        mask: Tensor,
        heads: Sequence[str] | None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the proposer's own terms, and the parts of them that are for the log alone.

        The parts are those of the last layer, before they are weighted; the loss has them already.
        """
        if isinstance(output, DenseOutput):
            return dense_terms(output, boxes, mask), {}
        if heads is None:
            heads = [self.model.config.proposer.score_heads[0]] * len(boxes)
        targets = [
            DetectionTarget(row[live], head)
            for row, live, head in zip(boxes, mask, heads, strict=True)
        ]
        found = set_prediction_loss(output, targets)
        parts = {f"proposer_{name}": found[name] for name in ("score", "l1", "giou")}
        return {"proposer": found["total"]}, parts

    def _cell_kind_loss(self, level: Tensor, boxes: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        gaussians = object_gaussians(boxes, mask, (level.shape[-2], level.shape[-1]))
        strength, owner = gaussians.max(dim=1)  # [B, G, G] each, over the N objects
        rows, down, across = torch.nonzero(strength > 0.3, as_tuple=True)
        logits = self.cell_kind(level.permute(0, 2, 3, 1)[rows, down, across]).float()
        return mean_cross_entropy(logits, labels[rows, owner[rows, down, across]])

    def _region_terms(
        self, levels: list[Tensor], boxes: Tensor, mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        imprecise = jittered(boxes, self.jitter)
        maps = self.model.regions.prepare(levels)
        live = self.model.regions.appearance(maps, imprecise, mask)  # [n, H]
        kinds = labels[mask]
        logits = self.region_kind(live).float()
        terms = {"region_kind": mean_cross_entropy(logits, kinds)}
        context = self.model.regions.context
        if context is not None:
            terms["likeness"] = _likeness_loss(context.similarity(live[None])[0], kinds)
        return terms


def _check_kinds(config: ParfocalConfig) -> None:
    """Refuse a model that cannot learn kinds of objects, or would keep a score head as it began."""
    if config.regions.kind != "multilevel_roi":
        raise ConfigError(
            "detection on scenes learns what regions look like as well, and regions.kind is "
            f"{config.regions.kind!r}. Set it to 'multilevel_roi', or give the stage a mixture."
        )
    heads = config.proposer.score_heads
    if config.proposer.kind == "deformable_detr" and len(heads) > 1:
        raise ConfigError(
            f"detection on scenes trains one score head, and proposer.score_heads are {heads}: the "
            "others would stay as they began and blur every score. Set proposer.score_heads to "
            "('object',) and proposer.score_exponents to (1.0,)."
        )


def _likeness_loss(pairs: Tensor, kinds: Tensor) -> Tensor:
    """Return the cross entropy of "same kind"; alike and different pairs weigh the same in all.

    Args:
        pairs: float[n, n], logits; the diagonal does not count.
        kinds: int[n].
    """
    same = (kinds[:, None] == kinds[None, :]).float()
    other = 1 - torch.eye(len(kinds), device=kinds.device)
    loss = binary_cross_entropy_with_logits(pairs, same, reduction="none") * other
    alike, different = same * other, (1 - same) * other
    alike_mean = (loss * alike).sum() / alike.sum().clamp(min=1)
    return alike_mean + (loss * different).sum() / different.sum().clamp(min=1)


def dense_terms(output: DenseOutput, boxes: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Losses of the dense proposer: objectness (penalty-reduced focal) and boxes (GIoU and L1).

    Args:
        output: of the dense head.
        boxes: float[B, N, 4], cxcywh, unit frame, the objects.
        mask: bool[B, N], False in padding.
    """
    targets = dense_targets(boxes, mask, (output.logits.shape[1], output.logits.shape[2]))
    predicted = ltrb_to_xyxy(output.ltrb)
    return {
        "objectness": penalty_reduced_focal(output.logits, targets.heatmap),
        "boxes": dense_box_loss(predicted, targets.boxes, targets.weights),
    }
