"""Overlap, suppression and area of boxes.

Areas are plain (x2 - x1) * (y2 - y1): no pixel is added. A box without area overlaps nothing, not
even itself.

Shapes: N and M boxes, K kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parfocal.boxes.arrays import FloatArray, read_scores, require_same_frame
from parfocal.boxes.boxes import Boxes, require_boxes
from parfocal.errors import ConfigError, ShapeError


def area(boxes: Boxes) -> FloatArray:
    """float64[N] areas in square units of the frame.

    >>> from parfocal.boxes import Frame
    >>> area(Boxes([[0, 0, 4, 5]], Frame("image", 10, 10))).tolist()
    [20.0]
    """
    require_boxes(boxes, "area")
    return boxes.area


def iou(a: Boxes, b: Boxes) -> FloatArray:
    """Intersection over union of every pair.

    Args:
        a: N boxes.
        b: M boxes of the same frame.

    Returns:
        float64[N, M], 0 to 1; 0 where neither box has area.

    Raises:
        FrameError: if the frames differ.

    >>> from parfocal.boxes import Frame
    >>> frame = Frame("image", 10, 10)
    >>> iou(Boxes([[0, 0, 4, 4]], frame), Boxes([[0, 0, 4, 2], [5, 5, 6, 6]], frame)).tolist()
    [[0.5, 0.0]]
    """
    _require_comparable(a, b, "iou")
    overlap, _ = _iou_and_union(a.xyxy, b.xyxy)
    return overlap


def giou(a: Boxes, b: Boxes) -> FloatArray:
    """Generalised IoU of every pair: IoU minus the empty share of the enclosing box.

    Args:
        a: N boxes.
        b: M boxes of the same frame.

    Returns:
        float64[N, M], -1 to 1; 0 where the enclosing box has no area.

    Raises:
        FrameError: if the frames differ.

    Source: Rezatofighi et al. (arXiv:1902.09630), algorithm 1.
    Deviates: no; pairs without any area, which the paper leaves undefined, give 0.

    >>> from parfocal.boxes import Frame
    >>> frame = Frame("image", 10, 10)
    >>> giou(Boxes([[0, 0, 1, 1]], frame), Boxes([[3, 0, 4, 1]], frame)).tolist()
    [[-0.5]]
    """
    _require_comparable(a, b, "giou")
    overlap, union = _iou_and_union(a.xyxy, b.xyxy)
    low = np.minimum(a.xyxy[:, None, :2], b.xyxy[None, :, :2])
    high = np.maximum(a.xyxy[:, None, 2:], b.xyxy[None, :, 2:])
    hull: FloatArray = (high - low).prod(axis=2)  # [N, M]
    waste = np.maximum(hull - union, 0.0)
    empty_share = np.divide(waste, hull, out=np.zeros_like(hull), where=hull > 0)
    return overlap - empty_share


def nms(boxes: Boxes, iou_threshold: float, scores: ArrayLike | None = None) -> NDArray[np.int64]:
    """Greedy non-maximum suppression over all boxes, whatever their labels.

    A box goes when its IoU with a kept box of higher score is strictly above the threshold.

    Args:
        boxes: N boxes.
        iou_threshold: 0 to 1; 1 keeps everything.
        scores: float[N]; by default the boxes' own.

    Returns:
        int64[K] row numbers of the kept boxes, best score first; equal scores stay in the order
        given.

    Raises:
        ConfigError: if the threshold is not within 0 to 1.
        ShapeError: if there are no scores, or not one a box.

    >>> from parfocal.boxes import Frame
    >>> frame = Frame("image", 10, 10)
    >>> rows = [[0, 0, 4, 4], [0, 0, 4, 3], [6, 6, 9, 9]]
    >>> boxes = Boxes(rows, frame, scores=[0.5, 0.9, 0.7])
    >>> nms(boxes, 0.5).tolist()
    [1, 2]
    """
    require_boxes(boxes, "nms")
    if isinstance(iou_threshold, (str, bytes)) or not 0 <= iou_threshold <= 1:
        raise ConfigError(f"iou_threshold is {iou_threshold!r}; it must be a number from 0 to 1.")
    ranking = boxes.scores if scores is None else read_scores(scores, len(boxes))
    if ranking is None:
        if len(boxes):
            raise ShapeError(
                "nms needs a score a box to know which of two to keep, and these boxes have none. "
                "Pass scores=..., or make boxes.replace(scores=...)."
            )
        ranking = np.zeros(0)
    waiting = np.argsort(-ranking, kind="stable").astype(np.int64)
    kept: list[int] = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        best_xyxy = boxes.xyxy[best : best + 1]
        overlap = _iou_and_union(best_xyxy, boxes.xyxy[waiting])[0][0]
        waiting = waiting[overlap <= iou_threshold]
    return np.array(kept, dtype=np.int64)


def _require_comparable(a: Boxes, b: Boxes, what: str) -> None:
    require_boxes(a, what)
    require_boxes(b, what)
    require_same_frame(a.frame, b.frame, what)


def _iou_and_union(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0.0).prod(axis=2)  # [N, M]
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None]
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=1)[None, :]
    # In this order the union is never below shared after rounding, which keeps the ratio within 1,
    # and it does not depend on which box comes first.
    union = np.maximum(area_a, area_b) + (np.minimum(area_a, area_b) - shared)
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0), union
