"""Region proposals: a dense head, and the one selection rule that all proposers share.

Shapes: B images, K candidate boxes, U user boxes (padded), R region slots. Boxes are cxcywh in the
unit frame of the model's square input (0 to 1) unless the name says xyxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou, nms

from parfocal.errors import ShapeError
from parfocal.models.config_regions import ProposerConfig
from parfocal.models.deformable_detr import DeformableDetrProposer
from parfocal.models.detr_settings import DetrSettings


@dataclass
class Candidates:
    """What a proposer suggests before selection. `training` holds what its loss needs.

    Attributes:
        boxes: float[B, K, 4], cxcywh.
        scores: float[B, K], 0 to 1.
        training: the proposer's own output, for the loss that belongs to it.
    """

    boxes: Tensor
    scores: Tensor
    training: object


@dataclass
class Regions:
    """A fixed number of region slots an image; live slots come first.

    Attributes:
        boxes: float[B, R, 4], cxcywh; zeros in dead slots.
        scores: float[B, R]; user boxes score 1, dead slots 0.
        mask: bool[B, R], which slots are live.
        features: float[B, R, D] in the language model's width, or None before they are computed.
    """

    boxes: Tensor
    scores: Tensor
    mask: Tensor
    features: Tensor | None = None


def of_first(regions: Regions, counts: Sequence[int]) -> Regions:
    """Return the regions of each row's first picture, without vectors.

    Args:
        regions: of every picture of every row, at least one.
        counts: number of pictures of each row; one of none has no live slot.
    """
    first = torch.tensor([0, *counts]).cumsum(0)[:-1].clamp(max=len(regions.mask) - 1)
    first = first.to(regions.mask.device)
    shown = torch.tensor(counts, device=regions.mask.device) > 0
    mask = regions.mask[first] & shown[:, None]
    return Regions(regions.boxes[first], regions.scores[first], mask, None)


@dataclass
class DenseOutput:
    """Raw output of the dense head on a G x G grid.

    Attributes:
        logits: float[B, G, G], objectness.
        ltrb: float[B, G, G, 4], distances from the cell's centre to the left, top, right and bottom
            side, unit frame, positive.
    """

    logits: Tensor
    ltrb: Tensor


class DenseProposer(nn.Module):
    """One box a grid cell: objectness and the distances from the cell's centre to the four sides.

    A cell is a candidate when no neighbour in its 3 x 3 window scores higher. Source: FCOS
    (arXiv:1904.01355) for the box parametrisation, CenterNet (arXiv:1904.07850) for the peaks.
    Deviates: one level, class-agnostic.
    """

    typical_side = 0.13  # half of a typical object's side in the unit frame; where exp() starts

    def __init__(self, config: ProposerConfig, in_channels: Sequence[int]) -> None:
        super().__init__()
        width = config.hidden_size
        self.candidates = config.candidates
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels[0], width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(),
        )  # fmt: skip
        self.score = nn.Conv2d(width, 1, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.score.bias, -4.0)
        nn.init.normal_(self.sides.weight, std=0.01)
        nn.init.zeros_(self.sides.bias)

    def forward(self, levels: Sequence[Tensor]) -> Candidates:
        """Propose from the finest level, float[B, C, G, G]."""
        hidden = self.stem(levels[0])
        logits = self.score(hidden)[:, 0].float()
        ltrb = self.sides(hidden).float().clamp(-4, 4).exp().permute(0, 2, 3, 1) * self.typical_side
        output = DenseOutput(logits, ltrb)
        return self._peaks(output)

    def _peaks(self, output: DenseOutput) -> Candidates:
        """Turn the best local maxima of objectness into boxes; no gradient flows through them."""
        with torch.no_grad():
            height, width = output.logits.shape[1:]
            probability = output.logits.sigmoid()
            best = nn.functional.max_pool2d(probability[:, None], 3, stride=1, padding=1)[:, 0]
            peaks = torch.where(probability == best, probability, torch.zeros_like(probability))
            scores, cells = peaks.flatten(1).topk(min(self.candidates, height * width), dim=1)
            ltrb = output.ltrb.flatten(1, 2).gather(1, cells[..., None].expand(-1, -1, 4))
            x, y = (cells % width + 0.5) / width, (cells // width + 0.5) / height
            corners = torch.stack(
                (x - ltrb[..., 0], y - ltrb[..., 1], x + ltrb[..., 2], y + ltrb[..., 3]), dim=-1
            )
            return Candidates(box_convert(corners.clamp(0, 1), "xyxy", "cxcywh"), scores, output)


class DetrProposer(nn.Module):
    """The deformable DETR of Groma behind the proposers' common `forward(levels) -> Candidates`."""

    def __init__(self, config: ProposerConfig, in_channels: Sequence[int]) -> None:
        super().__init__()
        settings = DetrSettings(
            in_channels=tuple(in_channels),
            input_kind="single_map_pyramid" if config.pyramid_levels else "levels",
            num_levels=config.pyramid_levels or len(in_channels),
            hidden_size=config.hidden_size,
            num_encoder_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            num_heads=config.heads,
            ffn_size=config.ffn_size,
            num_points=config.points,
            decoder_heads=config.decoder_heads,
            decoder_ffn_size=config.decoder_ffn_size,
            decoder_points=config.decoder_points,
            num_queries=config.queries,
            dropout=config.dropout,
            box_head_size=config.box_head_size or config.hidden_size,
            score_heads=config.score_heads,
            score_exponents=config.score_exponents,
        )
        self.detr = DeformableDetrProposer(settings)

    def forward(self, levels: Sequence[Tensor]) -> Candidates:
        """Propose from all levels, float[B, C_l, G_l, G_l] each."""
        output = self.detr(list(levels))
        return Candidates(output.boxes.float().detach(), output.scores.float().detach(), output)


PROPOSERS: dict[str, type[DenseProposer] | type[DetrProposer]] = {
    "dense": DenseProposer,
    "deformable_detr": DetrProposer,
}


def build_proposer(
    config: ProposerConfig, in_channels: Sequence[int]
) -> DenseProposer | DetrProposer | None:
    """Build the proposer that `config.kind` names; None for 'none'."""
    return None if config.kind == "none" else PROPOSERS[config.kind](config, in_channels)


def select_regions(
    candidates: Candidates | None, user_boxes: Tensor, user_mask: Tensor, config: ProposerConfig
) -> Regions:
    """Fill the region slots: all user boxes in their order, then the best proposals.

    A proposal is kept when its score is above `score_threshold` and no user box and no better
    proposal overlaps it by more than `nms_threshold`. Proposals stand in the order that
    `config.order` names.

    Args:
        candidates: what the proposer suggests; None for models without one.
        user_boxes: float[B, U, 4], cxcywh, unit frame, padded.
        user_mask: bool[B, U], False in padding.
        config: thresholds and the number of slots.

    Raises:
        ShapeError: if an image has more user boxes than slots.

    Source: Groma, section 3.2 (suppression, threshold, cap); official model/groma.py.
    Deviates: official code also suppresses user boxes and shuffles the result; ours keeps every
    user box and has a fixed order. tests/parity/test_groma.py injects the official order.
    """
    batch, slots = user_boxes.shape[0], config.max_regions
    boxes = user_boxes.new_zeros(batch, slots, 4)
    scores, mask = user_boxes.new_zeros(batch, slots), user_mask.new_zeros(batch, slots)
    for row in range(batch):
        own = user_boxes[row][user_mask[row]]
        if len(own) > slots:
            raise ShapeError(
                f"{len(own)} user boxes for one image, the model has {slots} region slots; "
                "ask in parts."
            )
        kept, kept_scores = own, own.new_ones(len(own))
        if candidates is not None:
            found, found_scores = candidates.boxes[row], candidates.scores[row]
            extra = _keep(found, found_scores, own, config)[: slots - len(own)]
            if config.keep_best and len(own) + len(extra) == 0:
                extra = found_scores.argmax()[None]
            if config.order == "left_to_right":
                extra = extra[found[extra, 0].argsort(stable=True)]
            kept = torch.cat((own, found[extra].to(own)))
            kept_scores = torch.cat((kept_scores, found_scores[extra].to(own)))
        boxes[row, : len(kept)] = kept
        scores[row, : len(kept)] = kept_scores
        mask[row, : len(kept)] = True
    return Regions(boxes, scores, mask)


def offer_ground_boxes(
    candidates: Candidates, boxes: Tensor, mask: Tensor, score: float
) -> Candidates:
    """Add the boxes of answers to the proposals, so that training can name what was missed.

    Args:
        candidates: what the proposer suggests.
        boxes: float[B, G, 4], cxcywh, unit frame, padded.
        mask: bool[B, G], False in padding, which no threshold lets pass.
        score: of every added box; a better proposal of the same place suppresses it.

    Returns:
        New candidates with K + G boxes.

    Source: Groma, official model/groma.py (score 0.2). Deviates: no.
    """
    scores = torch.where(mask, score, 0.0).to(candidates.scores)
    return Candidates(
        torch.cat((candidates.boxes, boxes.to(candidates.boxes)), dim=1),
        torch.cat((candidates.scores, scores), dim=1),
        candidates.training,
    )


def _keep(boxes: Tensor, scores: Tensor, own: Tensor, config: ProposerConfig) -> Tensor:
    """Return indices int[P] of the surviving proposals, best first.

    Args:
        boxes: float[K, 4], cxcywh, unit frame.
        scores: float[K].
        own: float[U, 4], the user's boxes, cxcywh, unit frame.
        config: thresholds.
    """
    passing = torch.nonzero(scores > config.score_threshold)[:, 0]
    corners = box_convert(boxes[passing].float(), "cxcywh", "xyxy")
    if len(own):
        users = box_convert(own.float(), "cxcywh", "xyxy")
        free = box_iou(corners, users.to(corners)).max(dim=1).values <= config.nms_threshold
        passing, corners = passing[free], corners[free]
    return passing[nms(corners, scores[passing].float(), config.nms_threshold)]
