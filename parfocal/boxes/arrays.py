"""Turning what callers hand over into checked arrays, with messages that name the row.

Shapes: N boxes. Only `parfocal.boxes` uses this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parfocal.boxes.frame import MAX_COORDINATE, Frame, format_number
from parfocal.errors import ConfigError, FrameError, ShapeError

FloatArray = NDArray[np.float64]
T = TypeVar("T")


def read_numbers(values: ArrayLike, what: str) -> FloatArray:
    """Copy values into a float64 array, refusing everything that is not plain numbers.

    Args:
        values: nested lists, or anything numpy can read.
        what: how to call the values in the message.

    Raises:
        ShapeError: if rows differ in length or entries are not real numbers.
    """
    try:
        raw = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as err:
        raise ShapeError(
            f"{what} cannot be read as an array of numbers: {err}. Pass a list of rows or a numpy "
            f"array; "
            "for a torch tensor pass tensor.detach().float().cpu().numpy()."
        ) from err
    if raw.dtype.kind not in "iuf":
        raise ShapeError(
            f"{what} must be real numbers, got an array of {raw.dtype} with shape {raw.shape}. "
            "Convert text and other objects to float first."
        )
    # Adding zero turns -0.0 into 0.0, so that equal boxes also have equal bytes and equal hashes.
    return np.array(raw, dtype=np.float64) + 0.0


def read_rows(values: ArrayLike, what: str) -> FloatArray:
    """Read float[N, 4]; an empty list gives float64[0, 4].

    Raises:
        ShapeError: if the values are not rows of four numbers.
    """
    array = read_numbers([] if values is None else values, what)
    if array.shape == (0,):
        return array.reshape(0, 4)
    if array.shape == (4,):
        raise ShapeError(
            f"{what} must have shape (N, 4), got one flat row of 4 numbers. Wrap it in a list: "
            f"[[{_show(array)}]]."
        )
    if array.ndim != 2 or array.shape[1] != 4:
        raise ShapeError(
            f"{what} must have shape (N, 4), one row a box, got {array.shape}. "
            "For no boxes use Boxes.empty(frame)."
        )
    return array


def check_finite(array: FloatArray, frame: Frame) -> None:
    """Refuse NaN, infinities and absurdly large coordinates.

    Raises:
        FrameError: naming the first such row.
    """
    with np.errstate(invalid="ignore"):
        bad = ~np.all(np.abs(array) <= MAX_COORDINATE, axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise FrameError(
            f"box {row} of frame {frame} is ({_show(array[row])}){_others(bad)}: coordinates must "
            f"be finite numbers. "
            "Drop such rows, or find out where they come from, before making Boxes."
        )


def check_corners(xyxy: FloatArray, frame: Frame) -> None:
    """Refuse rows whose second corner lies left of or above the first; no extent is fine.

    Raises:
        FrameError: naming the first such row.
    """
    bad = np.any((xyxy[:, 2:] < xyxy[:, :2]), axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        side = "x2 < x1" if xyxy[row, 2] < xyxy[row, 0] else "y2 < y1"
        raise FrameError(
            f"box {row} of frame {frame} is ({_show(xyxy[row])}){_others(bad)}, which has {side}; "
            f"boxes are "
            "(x1, y1, x2, y2). If the numbers are x, y, width, height use Boxes.from_xywh; if "
            "they are centre "
            "x, centre y, width, height use Boxes.from_cxcywh."
        )


def check_extents(rows: FloatArray, frame: Frame, constructor: str) -> None:
    """Refuse a negative width or height in rows whose last two columns are an extent.

    Raises:
        FrameError: naming the first such row.
    """
    bad = np.any((rows[:, 2:] < 0), axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise FrameError(
            f"row {row} given to {constructor} for frame {frame} is "
            f"({_show(rows[row])}){_others(bad)}, which has a "
            "negative width or height. Extents must be 0 or more; for corners use Boxes(xyxy, "
            "frame)."
        )


def read_scores(scores: ArrayLike | None, num_boxes: int) -> FloatArray | None:
    """Read float64[N] finite scores, or None.

    Raises:
        ShapeError: if there is not one finite number a box.
    """
    if scores is None:
        return None
    array = read_numbers(scores, "scores")
    if array.shape != (num_boxes,):
        raise ShapeError(
            f"scores must have shape ({num_boxes},), one number a box, got {array.shape}."
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ShapeError(
            f"score {row} is {array[row]}; scores must be finite numbers. Drop the box or give it "
            f"a score."
        )
    return array


def read_labels(labels: Sequence[str] | None, num_boxes: int) -> tuple[str, ...] | None:
    """Read one string a box, or None.

    Raises:
        ShapeError: if there is not one string a box.
    """
    if labels is None:
        return None
    if isinstance(labels, str):
        raise ShapeError(
            f"labels must be a list with one string a box, got the single string {labels!r}. "
            f"Write labels=[{labels!r}]."
        )
    found = tuple(labels)
    if len(found) != num_boxes:
        raise ShapeError(
            f"labels must have one string a box: {num_boxes} boxes but {len(found)} labels."
        )
    for row, label in enumerate(found):
        if not isinstance(label, str):
            raise ShapeError(
                f"label {row} is {label!r} ({type(label).__name__}); labels must be strings. "
                "Look class ids up in their list of names first."
            )
    return tuple(str(label) for label in found)


def joined(values: list[T | None], what: str) -> list[T] | None:
    """All values, or None when there is none at all.

    Raises:
        ShapeError: if only some are there.
    """
    present = [value for value in values if value is not None]
    if not present:
        return None
    if len(present) < len(values):
        raise ShapeError(
            f"Boxes.concat got parts with {what} and parts without; dropping or inventing {what} "
            f"would be silent. "
            f"Call part.replace({what}=...) or part.replace({what}=None) so that the parts agree."
        )
    return present


def row_numbers(index: object, num_boxes: int) -> NDArray[np.int64]:
    """int64[K] row numbers that an int, slice, int list or array, or bool mask selects.

    Raises:
        IndexError: if a row number is out of range.
        ShapeError: if the index is none of these, or a mask of another length.
    """
    every = np.arange(num_boxes, dtype=np.int64)
    if isinstance(index, slice):
        return every[index]
    rows = np.asarray(index) if isinstance(index, (int, np.integer, list, np.ndarray)) else None
    if isinstance(index, list) and not index:
        return every[:0]
    if rows is None or isinstance(index, bool) or rows.ndim > 1 or rows.dtype.kind not in "iub":
        raise ShapeError(
            f"boxes cannot be indexed by {index!r}. Use an int, a slice, a list or array of ints, "
            f"or a bool mask; "
            "for single coordinates index boxes.xyxy."
        )
    if rows.dtype.kind == "b" and rows.shape != (num_boxes,):
        raise ShapeError(
            f"a bool mask needs one entry a box: {num_boxes} boxes, mask of shape {rows.shape}."
        )
    try:
        return np.atleast_1d(every[rows])
    except IndexError as err:
        raise IndexError(f"row {index!r} is out of range for {num_boxes} boxes.") from err


def require_frame(frame: object) -> None:
    """Refuse anything that is not a Frame where boxes need one.

    Raises:
        FrameError: saying what was given.
    """
    if not isinstance(frame, Frame):
        given = "None" if frame is None else f"{type(frame).__name__} instead of a Frame"
        raise FrameError(
            f"boxes need the frame they were measured in, got {given}. "
            "Write Boxes(xyxy, Frame('image', width, height))."
        )


def check_bins(bins: object) -> None:
    """Refuse a number of bins that cannot divide a side.

    Raises:
        ConfigError: if bins is not a positive whole number.
    """
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ConfigError(
            f"bins is {bins!r}; it must be a whole number of 1 or more, as in "
            "Boxes.from_bins(rows, frame, bins=1000)."
        )


def require_same_frame(first: Frame, second: Frame, what: str) -> None:
    """Refuse to bring boxes of two frames together.

    Raises:
        FrameError: naming both frames.
    """
    if first != second:
        raise FrameError(
            f"{what} got boxes of frame {first} and boxes of frame {second}; they must share one "
            "frame. Bring one side over with Warp.apply first."
        )


def read_finite(values: ArrayLike, frame: Frame) -> FloatArray:
    """Read float[N, 4] rows of finite numbers."""
    require_frame(frame)
    rows = read_rows(values, "boxes")
    check_finite(rows, frame)
    return rows


def read_extents(values: ArrayLike, frame: Frame, constructor: str) -> FloatArray:
    """Read float[N, 4] rows whose last two columns are a width and a height."""
    rows = read_finite(values, frame)
    check_extents(rows, frame, constructor)
    return rows


def sides_xyxy(frame: Frame) -> FloatArray:
    """float64[4]: width, height, width, height; what corners are divided by to become fractions."""
    return np.array([frame.width, frame.height, frame.width, frame.height])


def first_few(values: FloatArray | tuple[str, ...]) -> str:
    """Write up to three entries for a repr, numbers rounded to three digits."""
    shown = values[:3] if isinstance(values, tuple) else values[:3].round(3).tolist()
    text = str(list(shown))
    return text if len(values) <= 3 else f"{text[:-1]}, ...]"


def _show(row: FloatArray) -> str:
    return ", ".join(format_number(float(v)) for v in row)


def _others(bad: NDArray[np.bool_]) -> str:
    more = int(bad.sum()) - 1
    return f" (and {more} more like it)" if more else ""
