"""Proposal recall: how many objects a suggested box covers, and at what price in boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parfocal.boxes import Boxes, iou
from parfocal.errors import ShapeError


def covered(proposals: Boxes, objects: Boxes, threshold: float = 0.5) -> NDArray[np.bool_]:
    """Which objects of one picture have a proposal with IoU >= threshold.

    A proposal may cover several objects; nothing is matched one to one.

    Args:
        proposals: the suggested boxes, in any order.
        objects: N true boxes in the same frame.
        threshold: of the overlap.

    Returns:
        bool[N].

    Raises:
        FrameError: if the two are in different frames.

    Example:
        >>> from parfocal.boxes import Boxes, Frame
        >>> frame = Frame("image", 100, 100)
        >>> objects = Boxes([[0, 0, 10, 10], [50, 50, 60, 60]], frame)
        >>> covered(Boxes([[0, 0, 10, 9]], frame), objects).tolist()
        [True, False]
    """
    if len(proposals) == 0 or len(objects) == 0:
        return np.zeros(len(objects), dtype=np.bool_)
    best: NDArray[np.float64] = iou(objects, proposals).max(axis=1)
    return best >= threshold


def proposal_recall(
    proposals: Sequence[Boxes], objects: Sequence[Boxes], threshold: float = 0.5
) -> float:
    """Share of all objects that are covered, over several pictures.

    Args:
        proposals: one Boxes a picture.
        objects: one Boxes a picture.
        threshold: of the overlap.

    Returns:
        0 to 1; nan if there is no object at all.

    Raises:
        ShapeError: if the numbers of pictures differ.
    """
    if len(proposals) != len(objects):
        raise ShapeError(
            f"proposals of {len(proposals)} pictures cannot be compared with objects of "
            f"{len(objects)} pictures."
        )
    pairs = zip(proposals, objects, strict=True)
    flags = [flag for found, true in pairs for flag in covered(found, true, threshold)]
    return float(np.mean(flags)) if flags else float("nan")


def proposals_per_image(proposals: Sequence[Boxes]) -> float:
    """Mean number of suggested boxes a picture; nan for no pictures."""
    return float(np.mean([len(found) for found in proposals])) if proposals else float("nan")
