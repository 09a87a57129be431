"""Losses that teach a proposer where objects are.

Two kinds of proposer, two kinds of loss. A *set* proposer (deformable DETR) predicts a fixed
number of boxes that are matched one to one with the objects of the picture. A *dense* proposer
(FCOS or CenterNet style) predicts an objectness and a box in every cell of a grid; its cells are
given to objects by a Gaussian around each object's centre.

All box arithmetic runs in float32, whatever the type of the predictions.

Shapes: B pictures, N objects (padded, with a mask), Q queries, L decoder layers, T encoder tokens,
H x W grid cells. Boxes are in the unit frame (0 to 1 of the model input).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from parfocal.errors import ConfigError, DataError, ShapeError
from parfocal.models.deformable_detr import ProposerOutput

_EPS = 1e-9
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
GAUSSIAN_SIGMA = 0.15
"""Standard deviation of an object's Gaussian, as a share of its width and of its height."""
BOX_CELL_THRESHOLD = 0.3
"""Cells whose Gaussian is above this train the box branch, weighted by it."""


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turn float[..., 4] centre-size boxes into corner boxes; sizes are not checked."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Compute the generalised IoU of broadcast pairs of boxes.

    Args:
        a: float[..., 4], xyxy; any frame that `b` shares.
        b: float[..., 4], xyxy, broadcastable with `a`.

    Returns:
        float[...], -1 to 1. Two boxes without area give a finite value (0 for the same point).
    """
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(
        min=0
    )
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    inter, enclosing = overlap.prod(-1), hull.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    return inter / union.clamp(min=_EPS) - (enclosing - union) / enclosing.clamp(min=_EPS)


@dataclass(frozen=True)
class DenseTargets:
    """What every grid cell should say.

    Attributes:
        heatmap: float[B, H, W], 1 in each object's centre cell, falling off as its Gaussian.
        boxes: float[B, H, W, 4], xyxy, unit frame: the box of the object that owns the cell
            (zeros in a picture without objects).
        weights: float[B, H, W], the heatmap where it is above BOX_CELL_THRESHOLD, else 0.
    """

    heatmap: Tensor
    boxes: Tensor
    weights: Tensor


def object_gaussians(boxes: Tensor, mask: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Draw one Gaussian per object on the grid.

    Args:
        boxes: float[B, N, 4], cxcywh, unit frame.
        mask: bool[B, N], True where the row is an object; other rows draw zeros.
        grid_hw: cells down, cells across. Cell (r, c) is sampled at ((c+0.5)/W, (r+0.5)/H).

    Returns:
        float[B, N, H, W], 0 to 1; exactly 1 in the cell that holds the object's centre (a centre
        outside the picture uses the nearest cell). A box without area lights only that cell.

    Raises:
        ShapeError: if boxes and mask disagree.
    """
    if boxes.dim() != 3 or boxes.shape[-1] != 4 or boxes.shape[:2] != mask.shape:
        raise ShapeError(
            f"boxes have shape {tuple(boxes.shape)} and mask {tuple(mask.shape)}, expected "
            "[B, N, 4] and [B, N]. Pad every picture to the same number of boxes."
        )
    height, width = grid_hw
    cx, cy, w, h = boxes.float().unbind(-1)  # [B, N] each
    columns = torch.arange(width, device=boxes.device)
    rows = torch.arange(height, device=boxes.device)
    dx = (columns + 0.5) / width - cx[..., None]  # [B, N, W]
    dy = (rows + 0.5) / height - cy[..., None]  # [B, N, H]
    sigma_x = (GAUSSIAN_SIGMA * w).clamp(min=1e-6)[..., None]
    sigma_y = (GAUSSIAN_SIGMA * h).clamp(min=1e-6)[..., None]
    across, down = (dx / sigma_x).square(), (dy / sigma_y).square()
    gaussian = torch.exp(-0.5 * (down[..., :, None] + across[..., None, :]))  # [B, N, H, W]
    in_column = columns == (cx * width).floor().clamp(0, width - 1)[..., None]
    in_row = rows == (cy * height).floor().clamp(0, height - 1)[..., None]
    gaussian = gaussian.masked_fill(in_row[..., :, None] & in_column[..., None, :], 1.0)
    return gaussian.masked_fill(~mask[..., None, None], 0.0)


def gaussian_heatmap(boxes: Tensor, mask: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Draw the objectness target, float[B, H, W]: the largest object Gaussian of each cell."""
    return dense_targets(boxes, mask, grid_hw).heatmap


def dense_targets(boxes: Tensor, mask: Tensor, grid_hw: tuple[int, int]) -> DenseTargets:
    """Give every grid cell to one object and state what the cell should predict.

    A cell belongs to the object with the larger Gaussian there; on a tie to the one with the
    smaller area, then to the earlier one. The result is the same on every device.

    Args:
        boxes: float[B, N, 4], cxcywh, unit frame.
        mask: bool[B, N], True where the row is an object.
        grid_hw: cells down, cells across.

    Returns:
        The targets of every cell, without gradient.
    """
    with torch.no_grad():
        if boxes.shape[1] == 0:  # keep the reductions below defined
            boxes, mask = boxes.new_zeros(boxes.shape[0], 1, 4), mask.new_zeros(mask.shape[0], 1)
        gaussian = object_gaussians(boxes, mask, grid_hw)
        heatmap = gaussian.amax(1)  # [B, H, W]
        boxes = boxes.float().masked_fill(~mask[..., None], 0.0)
        # Rank by area first, so that the tie rule is a single integer minimum per cell.
        area = (boxes[..., 2] * boxes[..., 3]).masked_fill(~mask, torch.inf)
        by_area = area.argsort(dim=1, stable=True)
        rank = by_area.argsort(dim=1)[..., None, None].expand_as(gaussian)  # [B, N, H, W]
        best = rank.masked_fill(gaussian < heatmap[:, None], boxes.shape[1]).amin(1)  # [B, H, W]
        corners = cxcywh_to_xyxy(boxes).gather(1, by_area[..., None].expand(-1, -1, 4))
        owned = corners.gather(1, best.flatten(1)[..., None].expand(-1, -1, 4))
        weights = heatmap * (heatmap > BOX_CELL_THRESHOLD)
        return DenseTargets(heatmap, owned.unflatten(1, grid_hw), weights)


def penalty_reduced_focal(
    logits: Tensor, heatmap: Tensor, *, alpha: float = 2.0, beta: float = 4.0
) -> Tensor:
    """Focal loss that forgives cells close to a centre.

    Centre cells (heatmap exactly 1) pay -(1-p)^alpha log p, all others
    -(1-heatmap)^beta p^alpha log(1-p); the sum is divided by the number of centre cells (at
    least 1).

    Args:
        logits: float[B, H, W] (or [B, 1, H, W]).
        heatmap: float of as many elements, 0 to 1, from `gaussian_heatmap`.
        alpha: how strongly easy cells are discounted.
        beta: how strongly cells near a centre are forgiven.

    Raises:
        ShapeError: if the two do not have the same number of cells.

    Source: CornerNet (arXiv:1808.01244), eq. 1; CenterNet (arXiv:1904.07850), eq. 1.
    Deviates: no.
    """
    if logits.numel() != heatmap.numel():
        raise ShapeError(
            f"logits have shape {tuple(logits.shape)}, the heatmap {tuple(heatmap.shape)}. Draw "
            "the heatmap on the grid of the logits."
        )
    x, target = logits.float().reshape(heatmap.shape), heatmap.float()
    p = x.sigmoid()
    centre = target == 1
    at_centre = (1 - p).pow(alpha) * F.logsigmoid(x)
    elsewhere = (1 - target).pow(beta) * p.pow(alpha) * F.logsigmoid(-x)
    return -torch.where(centre, at_centre, elsewhere).sum() / centre.sum().clamp(min=1)


def ltrb_to_xyxy(ltrb: Tensor) -> Tensor:
    """Turn each cell's distances to the four box sides into corner boxes.

    Args:
        ltrb: float[B, H, W, 4], distances left, top, right, bottom of the cell's centre, in the
            unit frame (shares of the picture's width and height).

    Returns:
        float[B, H, W, 4], xyxy, unit frame, float32, not clipped.
    """
    ltrb = ltrb.float()
    height, width = ltrb.shape[1:3]
    x = (torch.arange(width, device=ltrb.device) + 0.5) / width
    y = (torch.arange(height, device=ltrb.device) + 0.5) / height
    centre = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
    return torch.cat((centre - ltrb[..., :2], centre + ltrb[..., 2:]), dim=-1)


def dense_box_loss(
    predicted: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    giou_weight: float = 2.0,
    l1_weight: float = 1.0,
) -> Tensor:
    """Weighted box loss over grid cells: 2 * (1 - GIoU) + L1.

    L1 is the sum of the four absolute side differences in the unit frame, so it equals the L1 of
    the left/top/right/bottom distances. The sum is divided by the total weight (at least 1).

    Args:
        predicted: float[B, H, W, 4], xyxy, unit frame (see `ltrb_to_xyxy`).
        target: float[B, H, W, 4], xyxy, unit frame (DenseTargets.boxes).
        weights: float[B, H, W], 0 for cells that do not train the box (DenseTargets.weights).
        giou_weight: factor of 1 - GIoU.
        l1_weight: factor of L1.

    Returns:
        float[]; 0 (with zero gradient) when all weights are 0.

    Raises:
        ShapeError: if the shapes disagree.
    """
    if predicted.shape != target.shape or predicted.shape[:-1] != weights.shape:
        raise ShapeError(
            f"predicted boxes {tuple(predicted.shape)}, target boxes {tuple(target.shape)} and "
            f"weights {tuple(weights.shape)} disagree; expected [B, H, W, 4] twice and [B, H, W]."
        )
    predicted, target, weights = predicted.float(), target.float(), weights.float()
    per_cell = giou_weight * (1 - paired_giou(predicted, target))
    per_cell = per_cell + l1_weight * (predicted - target).abs().sum(-1)
    return (weights * per_cell).sum() / weights.sum().clamp(min=1)


@dataclass(frozen=True)
class DetectionTarget:
    """The objects of one picture.

    Attributes:
        boxes: float[N, 4], cxcywh, unit frame; N may be 0.
        head: which score head this picture trains (the kind of annotation it comes from).
    """

    boxes: Tensor
    head: str


@dataclass(frozen=True)
class SetWeights:
    """How much each term counts in matching or in a loss. Source: Groma, official train_det.py."""

    score: float = 2.0
    l1: float = 5.0
    giou: float = 2.0


def sigmoid_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the binary focal loss (alpha 0.25, gamma 2) over float[...] logits and 0/1 targets."""
    return torchvision.ops.sigmoid_focal_loss(
        logits.float(), targets.float(), alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA, reduction="sum"
    )


def matching_cost(logits: Tensor, boxes: Tensor, target_boxes: Tensor, costs: SetWeights) -> Tensor:
    """Price every pair of a prediction and an object: float[Q, N], lower is a better match.

    Arguments are those of `hungarian_match`.

    Source: DETR matcher in the focal form of Deformable DETR (arXiv:2010.04159). Deviates: no.
    """
    p = logits.float().sigmoid()
    hit = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * -(p + 1e-8).log()
    miss = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * -(1 - p + 1e-8).log()
    boxes, target_boxes = boxes.float(), target_boxes.float()
    l1 = (boxes[:, None] - target_boxes[None]).abs().sum(-1)
    giou = paired_giou(cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(target_boxes)[None])
    return costs.score * (hit - miss)[:, None] + costs.l1 * l1 - costs.giou * giou


@torch.no_grad()
def hungarian_match(
    logits: Tensor, boxes: Tensor, target_boxes: Tensor, costs: SetWeights | None = None
) -> tuple[Tensor, Tensor]:
    """Pair the predictions of one picture with its objects at the least total cost.

    Args:
        logits: float[Q].
        boxes: float[Q, 4], cxcywh, unit frame.
        target_boxes: float[N, 4], cxcywh, unit frame.
        costs: what counts how much; 2 / 5 / 2 by default.

    Returns:
        int64[K] predictions (ascending) and int64[K] objects, K = min(Q, N), on the device of
        `logits`. Each prediction and each object occurs at most once.

    Raises:
        ConfigError: if SciPy is not installed.
        DataError: if predictions or targets are not finite.
    """
    if len(target_boxes) == 0:
        empty = torch.zeros(0, dtype=torch.int64, device=logits.device)
        return empty, empty.clone()
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as err:
        raise ConfigError(
            "matching boxes needs SciPy, which is not installed. Run: pip install 'parfocal[train]'"
        ) from err
    cost = matching_cost(logits, boxes, target_boxes, costs or SetWeights())
    if not cost.isfinite().all():
        raise DataError(
            "the matching cost is not finite: a prediction or a target box is NaN or infinite. "
            "Check the target boxes; if they are fine, training has diverged: lower the rate."
        )
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)


def _one_set_terms(
    logits: Tensor, boxes: Tensor, targets: Sequence[DetectionTarget], costs: SetWeights
) -> dict[str, Tensor]:
    """Match and score one set of predictions: logits float[B, Q], boxes float[B, Q, 4]."""
    is_object = torch.zeros_like(logits)
    matched, wanted = [], []
    for row, target in enumerate(targets):
        goal = target.boxes.to(boxes)
        queries, objects = hungarian_match(logits[row], boxes[row], goal, costs)
        is_object[row, queries] = 1.0
        matched.append(boxes[row, queries])
        wanted.append(goal[objects])
    found, goal = torch.cat(matched), torch.cat(wanted)
    count = max(sum(len(target.boxes) for target in targets), 1)
    giou = paired_giou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(goal))
    return {
        "score": sigmoid_focal_loss(logits, is_object) / count,
        "l1": (found - goal).abs().sum() / count,
        "giou": (1 - giou).sum() / count,
    }


def set_prediction_loss(
    output: ProposerOutput,
    targets: Sequence[DetectionTarget],
    *,
    match_weights: SetWeights | None = None,
    loss_weights: SetWeights | None = None,
) -> dict[str, Tensor]:
    """Train a set proposer: last layer, every earlier decoder layer and all encoder tokens.

    Each set is matched on its own. A picture trains only its own score head; the other heads get a
    zero gradient, so that distributed training sees every parameter in every step.

    Args:
        output: the proposer's output for B pictures.
        targets: one per picture.
        match_weights: costs of the matching; 2 / 5 / 2 by default.
        loss_weights: weights in "total"; 2 / 5 / 2 by default.

    Returns:
        Scalars: "score", "l1", "giou" of the last layer; "layer0.score" and so on of the earlier
        decoder layers; "tokens.score" and so on of the encoder; all unweighted and divided by the
        number of objects in the batch (at least 1). "total" is their weighted sum.

    Raises:
        ShapeError: if there is not one target per picture.
        DataError: if the proposer lacks a target's score head.

    Source: Groma (arXiv:2404.13013), section 3.1; official model/ddetr.py.
    Deviates: the official code needs one head per batch; here pictures may differ.
    """
    if len(targets) != len(output.boxes):
        raise ShapeError(f"{len(targets)} targets for {len(output.boxes)} pictures; pass one each.")
    heads = list(output.layer_logits)
    for row, target in enumerate(targets):
        if target.head not in heads:
            raise DataError(
                f"target {row} is for score head {target.head!r}, the proposer has {heads}. Use "
                "one of these, or build the proposer with that head."
            )
    stacked = torch.stack([output.layer_logits[name] for name in heads])  # [heads, L, B, Q]
    mine = [stacked[heads.index(target.head), :, row] for row, target in enumerate(targets)]
    layer_logits = torch.stack(mine, dim=1)  # [L, B, Q]
    sets = {"": (layer_logits[-1], output.layer_boxes[-1])}
    for layer in range(len(layer_logits) - 1):
        sets[f"layer{layer}."] = (layer_logits[layer], output.layer_boxes[layer])
    sets["tokens."] = (output.token_logits, output.token_boxes)

    weights = loss_weights or SetWeights()
    terms: dict[str, Tensor] = {}
    total = output.boxes.new_zeros(())
    for prefix, (logits, boxes) in sets.items():
        found = _one_set_terms(logits, boxes, targets, match_weights or SetWeights())
        for name, value in found.items():
            terms[prefix + name] = value
            total = total + getattr(weights, name) * value
    return {**terms, "total": total}
