"""Grounded captions: every phrase with a box is a claim that this thing is there.

A claim is right when its name equals the object's name (see `names`) and the boxes overlap with IoU
>= threshold. Claims and objects are matched one to one, by a largest possible matching, so that the
result does not depend on their order and a thing that is said twice is right once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parfocal.boxes import Boxes, iou
from parfocal.errors import ShapeError
from parfocal.eval.metrics.names import names_equal


@dataclass(frozen=True)
class CaptionCounts:
    """Counts of one or several captions; add them with ``+``.

    Attributes:
        matched: claims that are right, equal to objects that were found.
        claimed: phrases with a box, plus phrases that have none.
        true: objects in the picture.
    """

    matched: int = 0
    claimed: int = 0
    true: int = 0

    def __add__(self, other: CaptionCounts) -> CaptionCounts:
        """Counts of both."""
        return CaptionCounts(
            self.matched + other.matched, self.claimed + other.claimed, self.true + other.true
        )

    @property
    def precision(self) -> float:
        """Right claims over claims, 0 to 1; 0 when nothing was claimed."""
        return self.matched / self.claimed if self.claimed else 0.0

    @property
    def recall(self) -> float:
        """Found objects over objects, 0 to 1; 0 when there are none."""
        return self.matched / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0 to 1."""
        total = self.claimed + self.true
        return 2.0 * self.matched / total if total else 0.0


def match_caption(
    names: Sequence[str],
    boxes: Boxes,
    true_names: Sequence[str],
    true_boxes: Boxes,
    *,
    threshold: float = 0.5,
    boxless: int = 0,
) -> CaptionCounts:
    """Compare the claims of one caption with the objects of its picture.

    Args:
        names: the phrase of each claimed box; a phrase with two boxes appears twice.
        boxes: float64[len(names), 4] claimed boxes.
        true_names: the name of each object.
        true_boxes: float64[len(true_names), 4] boxes of the objects, in the same frame.
        threshold: a match has IoU >= threshold.
        boxless: number of phrases without any box; each is a claim that cannot be right.

    Returns:
        The counts.

    Raises:
        ShapeError: if names and boxes differ in number.
        FrameError: if the two sets of boxes are in different frames.

    Example:
        >>> from parfocal.boxes import Boxes, Frame
        >>> box = Boxes([[0, 0, 10, 10]], Frame("image", 100, 100))
        >>> match_caption(["a cat"], box, ["cat"], box)
        CaptionCounts(matched=1, claimed=1, true=1)
    """
    if len(names) != len(boxes) or len(true_names) != len(true_boxes):
        raise ShapeError(
            f"{len(names)} names for {len(boxes)} claimed boxes and {len(true_names)} names for "
            f"{len(true_boxes)} true boxes. Give one name per box."
        )
    allowed = np.zeros((len(names), len(true_names)), dtype=np.bool_)
    if allowed.size:
        same = [[names_equal(name, true) for true in true_names] for name in names]
        allowed = np.array(same, dtype=np.bool_) & (iou(boxes, true_boxes) >= threshold)
    edges = [np.flatnonzero(row).tolist() for row in allowed]
    return CaptionCounts(_largest_matching(edges), len(names) + boxless, len(true_names))


def _largest_matching(edges: Sequence[Sequence[int]]) -> int:
    """Size of a largest one-to-one matching, by Kuhn's algorithm.

    edges[i] lists what claim i may be matched with.
    """
    owner: dict[int, int] = {}

    def place(claim: int, seen: set[int]) -> bool:
        for candidate in edges[claim]:
            if candidate in seen:
                continue
            seen.add(candidate)
            if candidate not in owner or place(owner[candidate], seen):
                owner[candidate] = claim
                return True
        return False

    return sum(place(claim, set()) for claim in range(len(edges)))
