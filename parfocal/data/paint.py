"""Painting on pixels: anti-aliased rounded rectangles, and places for labels.

Edges are anti-aliased by their exact distance to a rounded rectangle, so that a pixel away from an
edge keeps its value, on every machine and with every version of Pillow.

Shapes: N boxes or labels; pixels are uint8[H, W, 3]; boxes are xyxy in pixels, (0, 0) being the top
left corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
HIDDEN = 0.25  # share of an object that a label may cover without looking for another place
LEAST_GAIN = 40.0  # pixels that a label is widened by, unless it wants less


class LabelSpan(NamedTuple):
    """Where a label lies.

    Attributes:
        left: pixels.
        right: pixels.
        top: pixels.
        wide: whether it is wider than it was placed.
        leftward: whether it grows to the left.
    """

    left: float
    right: float
    top: float
    wide: bool
    leftward: bool


def stroke(
    pixels: Pixels, box: Floats, radius: float, width: float, colour: str, alpha: float = 1.0
) -> None:
    """Blend a rounded outline `width` pixels wide into `pixels`, touching nothing else."""
    margin = width / 2 + 1
    for rows, columns in _ring(box, margin, radius + margin, pixels.shape):
        away = np.abs(_distance(box, radius, rows, columns))
        _blend(pixels, rows, columns, alpha * np.clip(width / 2 + 0.5 - away, 0, 1), colour)


def fill(pixels: Pixels, box: Floats, radius: float, colour: str, alpha: float = 1.0) -> None:
    """Blend a filled rounded rectangle into `pixels`."""
    for rows, columns in _ring(box, 1.0, float(np.max(box[2:] - box[:2])) + 1, pixels.shape):
        inside = np.clip(0.5 - _distance(box, radius, rows, columns), 0, 1)
        _blend(pixels, rows, columns, alpha * inside, colour)


def _ring(
    box: Floats, outer: float, inner: float, shape: tuple[int, ...]
) -> Iterator[tuple[range, range]]:
    """Pixel rows and columns of up to four bands that cover a ring along the border of `box`."""
    height, width = shape[:2]
    left, right = _inside(box[0] - outer, width), _inside(box[2] + outer + 1, width)
    top, bottom = _inside(box[1] - outer, height), _inside(box[3] + outer + 1, height)
    x1, x2 = _inside(box[0] + inner + 1, width), _inside(box[2] - inner, width)
    y1, y2 = _inside(box[1] + inner + 1, height), _inside(box[3] - inner, height)
    if x1 >= x2 or y1 >= y2:
        yield range(top, bottom), range(left, right)
        return
    yield range(top, y1), range(left, right)
    yield range(y2, bottom), range(left, right)
    yield range(y1, y2), range(left, x1)
    yield range(y1, y2), range(x2, right)


def _inside(value: float, side: int) -> int:
    return min(max(int(np.floor(value)), 0), side)


def _distance(box: Floats, radius: float, rows: range, columns: range) -> Floats:
    """float[h, w]: distance in pixels from pixel centres to the rounded border; negative inside."""
    half = (box[2:] - box[:2]) / 2
    radius = min(radius, float(half.min()))
    centre = box[:2] + half
    dx = np.abs(np.asarray(columns) + 0.5 - centre[0])[None] - (half[0] - radius)
    dy = np.abs(np.asarray(rows) + 0.5 - centre[1])[:, None] - (half[1] - radius)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0) - radius)


def _blend(pixels: Pixels, rows: range, columns: range, alpha: Floats, colour: str) -> None:
    if not len(rows) or not len(columns):
        return
    window = pixels[rows.start : rows.stop, columns.start : columns.stop]
    mixed = window + (np.asarray(rgb(colour)) - window) * alpha[..., None]
    window[...] = np.rint(mixed).astype(np.uint8)


def place_labels(sizes_wh: Floats, boxes_xyxy: Floats, canvas_wh: tuple[float, float]) -> Floats:
    """Find places for labels near their boxes, inside the canvas and clear of each other.

    Labels overlap only where the canvas has no room left.

    Args:
        sizes_wh: float[N, 2], pixels; 0 for a box that has no label. Small boxes choose first.
        boxes_xyxy: float[N, 4], pixels.
        canvas_wh: width and height of the picture, pixels.

    Returns:
        float[N, 2], top left corners; NaN where there is no label or the canvas cannot hold it.
    """
    placed = np.zeros((0, 4))
    corners = np.full((len(sizes_wh), 2), np.nan)
    areas = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    for row in np.argsort(areas, kind="stable"):
        room = np.asarray(canvas_wh) - sizes_wh[row]
        if (room < 0).any() or not sizes_wh[row].all():
            continue
        around = np.clip(_candidates(boxes_xyxy[row], sizes_wh[row]), 0, room)
        shares = _shares(around, sizes_wh[row], boxes_xyxy)
        shares[:, row] = np.maximum(shares[:, row] - HIDDEN, 0)  # on its own box it may lie
        hidden = 2 * shares.sum(axis=1) + 0.05 * np.arange(len(around))
        crowded = _overlap(around, sizes_wh[row], placed).sum(axis=1)
        best, where = int(np.argmin(hidden + 100 * crowded)), around
        if crowded[best] > 0:
            where, best = _free_place(around[best], sizes_wh[row], room, placed)
        corners[row] = where[best]
        box = np.concatenate([where[best], where[best] + sizes_wh[row]])
        placed = np.concatenate([placed, box[None]])
    return corners


def widen_labels(
    corners: Floats,
    sizes_wh: Floats,
    wanted: Sequence[float],
    boxes_xyxy: Floats,
    canvas_wh: tuple[float, float],
) -> list[LabelSpan | None]:
    """Widen labels where this hides no other label and no good part of any object.

    Args:
        corners: float[N, 2], from `place_labels`.
        sizes_wh: float[N, 2], as they were placed.
        wanted: N widths; a label gets as much of its own as there is room for, or nothing.
        boxes_xyxy: float[N, 4], pixels. Small boxes choose first.
        canvas_wh: width and height of the picture, pixels.

    Returns:
        N places, None where there was no place for the label.
    """
    found = [
        None
        if np.isnan(left)
        else LabelSpan(left, left + size[0], top, False, left > canvas_wh[0] / 2)
        for (left, top), size in zip(corners, sizes_wh, strict=True)
    ]
    areas = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    for row in np.argsort(areas, kind="stable").tolist():
        span, height = found[row], float(sizes_wh[row, 1])
        if span is None or wanted[row] <= span.right - span.left:
            continue
        others = [
            (other.left, other.top, other.right, other.top + size)
            for k, (other, size) in enumerate(zip(found, sizes_wh[:, 1].tolist(), strict=True))
            if other is not None and k != row
        ]
        taken = np.asarray(others, dtype=np.float64).reshape(-1, 4)
        for wider in _wider(span, wanted[row], canvas_wh[0]):
            size_wh = np.asarray([wider.right - wider.left, height])
            corner = np.asarray([[wider.left, wider.top]])
            crowded = _overlap(corner, size_wh, taken).any()
            if not crowded and (_shares(corner, size_wh, boxes_xyxy) <= HIDDEN).all():
                found[row] = wider
                break
    return found


def _wider(span: LabelSpan, wanted: float, canvas_width: float) -> Iterator[LabelSpan]:
    """Wider places for a label: to the right, off the right edge, to the left, then less of all."""
    least = min(wanted, span.right - span.left + LEAST_GAIN)
    for width in dict.fromkeys(np.linspace(wanted, least, 6).tolist()):
        starts = (span.left, canvas_width - width, span.right - width)
        for start, leftward in zip(starts, (False, True, True), strict=True):
            covers = start <= span.left and start + width >= span.right
            if covers and start >= 0 and start + width <= canvas_width:
                yield LabelSpan(start, start + width, span.top, True, leftward)


def _candidates(box: Floats, size_wh: Floats) -> Floats:
    """float[K, 2]: corners of places around the box, best first."""
    (x1, y1, x2, y2), (w, h) = box, size_wh
    places = [
        (x1, y1 - h),
        (x1, y1),
        (x1, y2),
        (x2 - w, y1 - h),
        (x2 - w, y2),
        (x2 - w, y1),
        (x1, y2 - h),
        (x2 - w, y2 - h),
        (x2, y1),
        (x1 - w, y1),
        ((x1 + x2 - w) / 2, y1 - h),
        ((x1 + x2 - w) / 2, y2),
    ]
    return np.asarray(places, dtype=np.float64)


def _free_place(
    wanted: Floats, size_wh: Floats, room: Floats, placed: Floats
) -> tuple[Floats, int]:
    """A grid over the canvas, and its nearest free place; the least crowded if none is free."""
    xs = np.linspace(0, room[0], int(room[0] // max(size_wh[0] / 2, 1)) + 2)
    ys = np.linspace(0, room[1], int(room[1] // max(size_wh[1] / 2, 1)) + 2)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    grid = np.concatenate([wanted[None], grid])
    far = np.hypot(*(grid - wanted).T) / size_wh[1]
    return grid, int(np.argmin(far + 1e4 * _overlap(grid, size_wh, placed).sum(axis=1)))


def _overlap(corners: Floats, size_wh: Floats, boxes: Floats) -> Floats:
    """float[K, M]: the share of a label at each corner that each box covers."""
    low = np.maximum(corners[:, None], boxes[None, :, :2])
    high = np.minimum(corners[:, None] + size_wh, boxes[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2) / size_wh.prod())


def _shares(corners: Floats, size_wh: Floats, boxes: Floats) -> Floats:
    """float[K, M]: the share of each box that a label at each corner hides, at most 1."""
    areas = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1.0)
    hidden: Floats = _overlap(corners, size_wh, boxes) * size_wh.prod() / areas
    return np.minimum(hidden, 1.0)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of "#RRGGBB"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
