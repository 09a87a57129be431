"""Boxes: rectangles that know which frame they were measured in.

Immutable and always stored as corners (xyxy) in the units of their frame, usually pixels. Other
layouts enter through named constructors (`from_xywh`, `from_unit`, ...) and leave through
properties; nothing is ever guessed from values.

Shapes: N boxes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parfocal.boxes.arrays import (
    FloatArray,
    check_bins,
    check_corners,
    first_few,
    joined,
    read_extents,
    read_finite,
    read_labels,
    read_scores,
    require_same_frame,
    row_numbers,
    sides_xyxy,
)
from parfocal.boxes.frame import Frame
from parfocal.errors import FrameError, ShapeError

Index: TypeAlias = int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]


class _Keep(enum.Enum):
    KEEP = "keep"


_KEEP: Final = _Keep.KEEP
_SLOTS: Final = ("_frame", "_labels", "_scores", "_xyxy")


class Boxes:
    """N axis-aligned boxes of one frame, optionally with a score and a label each.

    Boxes may reach outside their frame (see `clip`) and may have no area. Arrays are read-only; two
    Boxes are equal when frame, corners, scores and labels are.

    Args:
        xyxy: float[N, 4], (x1, y1, x2, y2) in the units of the frame, x1 <= x2 and y1 <= y2; [] for
            no boxes.
        frame: where the numbers were measured.
        scores: float[N], finite, or None.
        labels: one string a box, or None.

    Raises:
        FrameError: if the frame is missing, a coordinate is not finite, or corners are the wrong
            way round.
        ShapeError: if the rows, scores or labels do not fit together.

    >>> frame = Frame("image", 640, 427)
    >>> boxes = Boxes([[10, 20, 110, 70]], frame, scores=[0.9], labels=["car"])
    >>> boxes.xywh.tolist(), boxes.area.tolist()
    ([[10.0, 20.0, 100.0, 50.0]], [5000.0])
    >>> Boxes([[110, 20, 10, 70]], frame)
    Traceback (most recent call last):
    ...
    parfocal.errors.FrameError: box 0 of frame 'image' (640x427) is (110, 20, 10, 70), which has \
x2 < x1; boxes are (x1, y1, x2, y2). If the numbers are x, y, width, height use Boxes.from_xywh; \
if they are centre x, centre y, width, height use Boxes.from_cxcywh.
    """

    __slots__ = _SLOTS

    _xyxy: FloatArray
    _frame: Frame
    _scores: FloatArray | None
    _labels: tuple[str, ...] | None

    def __init__(
        self,
        xyxy: ArrayLike,
        frame: Frame,
        scores: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        array = read_finite(xyxy, frame)
        check_corners(array, frame)
        num_boxes = len(array)
        _fill(self, array, frame, read_scores(scores, num_boxes), read_labels(labels, num_boxes))

    @classmethod
    def from_xywh(
        cls,
        xywh: ArrayLike,
        frame: Frame,
        scores: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
    ) -> Boxes:
        """Boxes from float[N, 4] rows of (x1, y1, width, height), as COCO files have them.

        Raises:
            FrameError: if a width or height is negative or a number is not finite.

        >>> Boxes.from_xywh([[10, 20, 100, 50]], Frame("image", 640, 427)).to_json()
        [[10.0, 20.0, 110.0, 70.0]]
        """
        rows = read_extents(xywh, frame, "Boxes.from_xywh")
        return cls(np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:]]), frame, scores, labels)

    @classmethod
    def from_cxcywh(
        cls,
        cxcywh: ArrayLike,
        frame: Frame,
        scores: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
    ) -> Boxes:
        """Boxes from float[N, 4] rows of (centre x, centre y, width, height).

        Raises:
            FrameError: if a width or height is negative or a number is not finite.

        >>> Boxes.from_cxcywh([[60, 45, 100, 50]], Frame("image", 640, 427)).to_json()
        [[10.0, 20.0, 110.0, 70.0]]
        """
        rows = read_extents(cxcywh, frame, "Boxes.from_cxcywh")
        centre, half = rows[:, :2], rows[:, 2:] / 2
        return cls(np.hstack([centre - half, centre + half]), frame, scores, labels)

    @classmethod
    def from_unit(
        cls,
        xyxy_unit: ArrayLike,
        frame: Frame,
        scores: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
    ) -> Boxes:
        """Boxes from float[N, 4] corners given as fractions of the frame's sides.

        Fractions outside 0 to 1 are allowed and lie outside the frame.

        >>> Boxes.from_unit([[0.25, 0.5, 0.75, 1.0]], Frame("image", 640, 400)).to_json()
        [[160.0, 200.0, 480.0, 400.0]]
        """
        rows = read_finite(xyxy_unit, frame)
        return cls(rows * sides_xyxy(frame), frame, scores, labels)

    @classmethod
    def from_bins(
        cls,
        xyxy_bins: ArrayLike,
        frame: Frame,
        bins: int = 1000,
        scores: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
    ) -> Boxes:
        """Boxes from float[N, 4] corners counted in `bins` equal steps a side: value / bins * side.

        Args:
            xyxy_bins: corners, 0 to bins; values between whole bins are allowed.
            frame: the frame that the bins divide, and that the boxes will be in.
            bins: how many steps make a whole side; 1 or more.
            scores: as in the class.
            labels: as in the class.

        Raises:
            ConfigError: if bins is not a positive whole number.

        >>> Boxes.from_bins([[250, 500, 750, 1000]], Frame("image", 640, 400)).to_json()
        [[160.0, 200.0, 480.0, 400.0]]
        """
        check_bins(bins)
        rows = read_finite(xyxy_bins, frame)
        return cls(rows / bins * sides_xyxy(frame), frame, scores, labels)

    @classmethod
    def empty(cls, frame: Frame) -> Boxes:
        """No boxes, in a frame.

        >>> len(Boxes.empty(Frame("image", 640, 427)))
        0
        """
        return cls(np.zeros((0, 4)), frame)

    @classmethod
    def concat(cls, parts: Sequence[Boxes]) -> Boxes:
        """Join boxes of one frame, in order.

        Scores (and labels) are kept when every part that has boxes has them.

        Raises:
            FrameError: if parts is empty, or the frames differ.
            ShapeError: if some parts have scores or labels and others do not.

        >>> frame = Frame("image", 640, 427)
        >>> len(Boxes.concat([Boxes([[0, 0, 1, 1]], frame), Boxes([[2, 2, 3, 3]], frame)]))
        2
        """
        found = list(parts)
        if not found:
            raise FrameError(
                "Boxes.concat got an empty list, so there is no frame to put the result in. "
                "Use Boxes.empty(frame) for that case."
            )
        for part in found:
            require_boxes(part, "Boxes.concat")
            require_same_frame(found[0].frame, part.frame, "Boxes.concat")
        filled = [part for part in found if len(part)] or found[:1]
        scores = joined([part.scores for part in filled], "scores")
        labels = joined([part.labels for part in filled], "labels")
        return cls(
            np.concatenate([part.xyxy for part in filled]),
            found[0].frame,
            None if scores is None else np.concatenate(scores),
            None if labels is None else [label for part in labels for label in part],
        )

    @property
    def xyxy(self) -> FloatArray:
        """float64[N, 4] corners (x1, y1, x2, y2) in the units of the frame; read-only."""
        return self._xyxy

    @property
    def frame(self) -> Frame:
        """The frame that the coordinates belong to."""
        return self._frame

    @property
    def scores(self) -> FloatArray | None:
        """float64[N] read-only, or None."""
        return self._scores

    @property
    def labels(self) -> tuple[str, ...] | None:
        """One string a box, or None."""
        return self._labels

    @property
    def xywh(self) -> FloatArray:
        """float64[N, 4] rows of (x1, y1, width, height) in the units of the frame."""
        low, high = self._xyxy[:, :2], self._xyxy[:, 2:]
        return np.hstack([low, high - low])

    @property
    def cxcywh(self) -> FloatArray:
        """float64[N, 4] rows of (centre x, centre y, width, height) in the units of the frame."""
        low, high = self._xyxy[:, :2], self._xyxy[:, 2:]
        return np.hstack([(low + high) / 2, high - low])

    @property
    def unit(self) -> FloatArray:
        """float64[N, 4] corners as a fraction of the frame's sides: 0 to 1 inside it."""
        return self._xyxy / sides_xyxy(self._frame)

    @property
    def area(self) -> FloatArray:
        """float64[N] in square units of the frame."""
        sides = self._xyxy[:, 2:] - self._xyxy[:, :2]
        return sides[:, 0] * sides[:, 1]

    def clip(self) -> Boxes:
        """The same boxes cut at the edges of their frame; one outside keeps its row, without area.

        >>> Boxes([[-5, 10, 700, 20]], Frame("image", 640, 427)).clip().to_json()
        [[0.0, 10.0, 640.0, 20.0]]
        """
        return Boxes(
            np.clip(self._xyxy, 0.0, sides_xyxy(self._frame)),
            self._frame,
            self._scores,
            self._labels,
        )

    def replace(
        self,
        *,
        scores: ArrayLike | _Keep | None = _KEEP,
        labels: Sequence[str] | _Keep | None = _KEEP,
    ) -> Boxes:
        """The same boxes with other scores or labels; pass None to drop them, leave out what stays.

        Raises:
            ShapeError: if there is not one score or label a box.

        >>> Boxes([[0, 0, 9, 9]], Frame("image", 10, 10)).replace(scores=[0.5]).scores.tolist()
        [0.5]
        """
        return Boxes(
            self._xyxy,
            self._frame,
            self._scores if isinstance(scores, _Keep) else scores,
            self._labels if isinstance(labels, _Keep) else labels,
        )

    def to_json(self) -> list[list[float]]:
        """Corners as plain lists, in the units of the frame, for `Boxes(rows, frame)` to read."""
        rows: list[list[float]] = self._xyxy.tolist()
        return rows

    def __len__(self) -> int:
        return len(self._xyxy)

    def __iter__(self) -> Iterator[Boxes]:
        """One box at a time, each as Boxes of length 1."""
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: Index) -> Boxes:
        """Select rows; always gives Boxes, of length 1 for an int.

        Args:
            index: an int, a slice, an int array or list (may repeat and reorder), or a bool mask of
                length N.

        Raises:
            IndexError: if a row number is out of range.
            ShapeError: if the index is none of these, or a mask of another length.

        >>> boxes = Boxes([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], Frame("image", 9, 9))
        >>> boxes[boxes.area > 1].to_json()
        [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 3.0, 3.0]]
        """
        rows = row_numbers(index, len(self))
        labels = None if self._labels is None else tuple(self._labels[row] for row in rows)
        scores = None if self._scores is None else self._scores[rows]
        # Selection is a hot path of data pipelines, and these rows have been checked already.
        chosen = object.__new__(Boxes)
        _fill(chosen, self._xyxy[rows], self._frame, scores, labels)
        return chosen

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Boxes):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        scores = None if self._scores is None else self._scores.tobytes()
        return (self._frame, self._xyxy.tobytes(), scores, self._labels)

    def __repr__(self) -> str:
        """Frame and up to three rows.

        >>> Boxes([[0, 0, 1, 1]], Frame("image", 9, 9), labels=["dot"])
        Boxes(1 in frame 'image' (9x9): [[0.0, 0.0, 1.0, 1.0]], labels=['dot'])
        """
        parts = [first_few(self._xyxy)]
        if self._scores is not None:
            parts.append(f"scores={first_few(self._scores)}")
        if self._labels is not None:
            parts.append(f"labels={first_few(self._labels)}")
        return f"Boxes({len(self)} in frame {self._frame}: {', '.join(parts)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"Boxes do not change, so '{name}' cannot be set. Make new ones: "
            f"boxes.replace(scores=..., labels=...), "
            "boxes[rows], or Warp.apply(boxes)."
        )

    def __array__(self, dtype: object = None, copy: object = None) -> NDArray[Any]:
        """Refuse: a bare array would have lost its frame without anyone asking for it."""
        raise TypeError(
            "Boxes are not converted to an array silently, as the array would not know its frame. "
            "Use boxes.xyxy, boxes.xywh, boxes.cxcywh or boxes.unit."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy through the constructor, so that arrays stay read-only."""
        return (Boxes, (self._xyxy, self._frame, self._scores, self._labels))


def _fill(
    boxes: Boxes,
    xyxy: FloatArray,
    frame: Frame,
    scores: FloatArray | None,
    labels: tuple[str, ...] | None,
) -> None:
    for array in (xyxy, scores):
        if array is not None:
            array.setflags(write=False)
    for name, value in zip(_SLOTS, (frame, labels, scores, xyxy), strict=True):
        object.__setattr__(boxes, name, value)


def require_boxes(value: object, what: str) -> None:
    """Refuse anything that is not Boxes, saying how to make some."""
    if not isinstance(value, Boxes):
        raise ShapeError(
            f"{what} takes Boxes, got {type(value).__name__}. Give the numbers a frame first: "
            "Boxes(xyxy, frame)."
        )
