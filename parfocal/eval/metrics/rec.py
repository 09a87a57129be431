"""Referring expression comprehension: does the box that was named lie on the object that was meant?

Convention: an answer is judged by its *first* box, and a hit needs IoU >= threshold (COCO's "at
    least", where some
RefCOCO scripts use "more than"; the two differ only on exact ties). No box is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parfocal.boxes import Boxes, iou
from parfocal.errors import ShapeError


def first_box_ious(answers: Sequence[Boxes], targets: Sequence[Boxes]) -> NDArray[np.float64]:
    """IoU of the first box of each answer with its target.

    Args:
        answers: N answers, each with any number of boxes, in the frame of its target.
        targets: N targets of exactly one box each.

    Returns:
        float64[N], 0 to 1; 0 for an answer without boxes.

    Raises:
        ShapeError: if the lengths differ or a target is not one box.
        FrameError: if an answer and its target are in different frames.
    """
    if len(answers) != len(targets):
        raise ShapeError(
            f"there are {len(answers)} answers for {len(targets)} targets. Give one answer per "
            "target, "
            "with an empty Boxes where nothing was found."
        )
    overlaps = np.zeros(len(targets), dtype=np.float64)
    for row, (answer, target) in enumerate(zip(answers, targets, strict=True)):
        if len(target) != 1:
            raise ShapeError(
                f"target {row} has {len(target)} boxes; an expression has exactly one."
            )
        if len(answer) > 0:
            overlaps[row] = iou(answer[0], target)[0, 0]
    return overlaps


def rec_hits(
    answers: Sequence[Boxes], targets: Sequence[Boxes], threshold: float = 0.5
) -> NDArray[np.bool_]:
    """Which answers point at their target.

    Args:
        answers: N answers; the first box of each counts.
        targets: N targets of one box each.
        threshold: a hit has IoU >= threshold.

    Returns:
        bool[N].

    Raises:
        ShapeError: as `first_box_ious`.

    Example:
        >>> from parfocal.boxes import Boxes, Frame
        >>> frame = Frame("image", 100, 100)
        >>> target = Boxes([[0, 0, 10, 10]], frame)
        >>> rec_hits([Boxes([[0, 0, 10, 5]], frame), Boxes.empty(frame)], [target, target]).tolist()
        [True, False]
    """
    return first_box_ious(answers, targets) >= threshold
