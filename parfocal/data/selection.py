"""Which of a detector's boxes a model gets to see: suppression per label, then a limit.

Shapes: N boxes in, fewer out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from parfocal.boxes import Boxes, nms
from parfocal.errors import ConfigError, ShapeError

# Of the suppression with which the released models were trained.
# Source: official mg_llava/dataset/mg_llava_dataset.py.
MG_LLAVA_IOU: Final = 0.2

MG_LLAVA_SLOTS: Final = 100
"""Boxes that a picture may have in MG-LLaVA's presets. Source: MG-LLaVA, section 3.2."""


@dataclass(frozen=True)
class BoxLimits:
    """How many boxes a picture may keep.

    Attributes:
        total: nothing is cut while there are at most this many; None = never cut.
        per_label: what each label keeps once there are more, in mode `per_label`. Many labels can
            so leave more than `total`.
        mode: `per_label`, or `per_image`: the best `total`, whatever their labels.
        crowded_per_label: what each label keeps, however few boxes there are, when the text leaves
            no room (mode `per_label`).
        crowded_total: what the picture keeps then in mode `per_image`.
        most: what a picture keeps of all that, the best, such as a model has region slots; None =
            no such cut.

    Raises:
        ConfigError: if a number is below 1.

    Source: MG-LLaVA, official mg_llava/dataset/mg_llava_dataset.py.
    Deviates: the official code derives `per_label` from `total` and crashes for one value of it;
        see `official_limits`. It knows no `most`.
    """

    total: int | None = 100
    per_label: int = 20
    mode: Literal["per_label", "per_image"] = "per_label"
    crowded_per_label: int = 1
    crowded_total: int = 20
    most: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers and the mode."""
        if self.mode not in ("per_label", "per_image"):
            raise ConfigError(f"mode is {self.mode!r}; choose 'per_label' or 'per_image'.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{field.name} is {value}; it must be 1 or more.")


def official_limits(limit_num: int | None) -> BoxLimits:
    """MG-LLaVA's limits for the one number in its official configs.

    Raises:
        ConfigError: for 50, where the official code has no answer (UnboundLocalError).

    >>> official_limits(100).per_label, official_limits(20).per_label, official_limits(None).total
    (20, 5, None)
    """
    if limit_num == 50:
        raise ConfigError(
            "limit_num is 50, for which the official code crashes. Choose another number, or say "
            "what you mean: BoxLimits(total=50, per_label=...)."
        )
    return BoxLimits(total=limit_num, per_label=20 if limit_num is None or limit_num > 50 else 5)


def suppress(boxes: Boxes, iou_threshold: float) -> Boxes:
    """Non-maximum suppression within each label; boxes of different labels never meet.

    Args:
        boxes: with scores and labels.
        iou_threshold: a box goes when its IoU with a better one of its label is strictly above.

    Returns:
        What is left, best score first over all labels; equal scores stay in the order given.

    Raises:
        ShapeError: if there are boxes without scores or labels.

    >>> from parfocal.boxes import Frame
    >>> rows = [[0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 4]]
    >>> found = Boxes(rows, Frame("image", 9, 9), scores=[0.5, 0.9, 0.7], labels=["a", "a", "b"])
    >>> suppress(found, 0.5).labels
    ('a', 'b')
    """
    if not len(boxes):
        return boxes
    scores, labels = _required(boxes)
    kept = [rows[nms(boxes[rows], iou_threshold)] for rows in _rows_by_label(labels).values()]
    rows = np.sort(np.concatenate(kept))
    return boxes[rows[np.argsort(-scores[rows], kind="stable")]]


def limit(boxes: Boxes, limits: BoxLimits, crowded: bool = False) -> Boxes:
    """Cut down to what a picture may keep.

    Args:
        boxes: with labels, best score first (see `suppress`).
        limits: how many.
        crowded: the text leaves no room.

    Returns:
        In mode `per_label`, where that cut anything: grouped by label, in the order in which labels
        first appear, each group best first. Else in the order given.

    Raises:
        ShapeError: if there are boxes without scores or labels.
    """
    if not len(boxes):
        return boxes
    kept = _within(boxes, limits, crowded)
    if limits.most is None or len(kept) <= limits.most:
        return kept
    scores, _ = _required(kept)
    return kept[np.sort(np.argsort(-scores, kind="stable")[: limits.most])]


def _within(boxes: Boxes, limits: BoxLimits, crowded: bool) -> Boxes:
    """Cut down to the limits of the mode."""
    if limits.total is None:
        return boxes
    _, labels = _required(boxes)
    if limits.mode == "per_image":
        return boxes[: limits.crowded_total if crowded else limits.total]
    if not crowded and len(boxes) <= limits.total:
        return boxes
    count = limits.crowded_per_label if crowded else limits.per_label
    rows = [group[:count] for group in _rows_by_label(labels).values()]
    return boxes[np.concatenate(rows)]


def _required(boxes: Boxes) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    if boxes.scores is None or boxes.labels is None:
        missing = "scores" if boxes.scores is None else "labels"
        raise ShapeError(
            f"choosing among boxes needs scores and labels, and these have no {missing}. Add them "
            f"with boxes.replace({missing}=...)."
        )
    return boxes.scores, boxes.labels


def _rows_by_label(labels: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Row numbers of each label, labels in the order in which they first appear."""
    groups: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return {label: np.array(rows, dtype=np.int64) for label, rows in groups.items()}
