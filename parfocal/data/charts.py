"""One picture of what `DataStats` counted: six small charts on a sheet, drawn with Pillow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw

from parfocal.data.drawing import INK, MUTED, PALETTE, PAPER, font_of, shorten
from parfocal.data.stats import DataStats, Histogram

Box: TypeAlias = tuple[float, float, float, float]  # x1, y1, x2, y2, pixels of the sheet

_CELL_W, _CELL_H, _GAP, _HEAD = 560, 320, 56, 110
_RULE = "#D5D9E0"
_ROWS = 10  # bars of a list


def draw_stats(stats: DataStats, title: str) -> Image.Image:
    """Draw box sizes, shapes, boxes a row, words a turn and the most frequent labels and words.

    Args:
        stats: of a file.
        title: of the sheet.

    Returns:
        An RGB picture, 1904 x 918 pixels.
    """
    width, height = 3 * _CELL_W + 4 * _GAP, 2 * _CELL_H + 3 * _GAP + _HEAD
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, 36), shorten(title, font_of(34), width - 2 * _GAP), INK, font_of(34))
    pen.text((_GAP, 84), _summary(stats), MUTED, font_of(20))
    _histogram(pen, _cell(0), "side of a box / side of its picture", stats.box_side, "{:.0%}")
    _histogram(pen, _cell(1), "width / height of a box", stats.box_aspect, "{:.2g}")
    _histogram(pen, _cell(2), "boxes a row", stats.boxes_per_row, "{:.0f}")
    _histogram(pen, _cell(3), "words a turn", stats.words_per_turn, "{:.0f}")
    _bars(pen, _cell(4), "labels and phrases", stats.labels)
    _bars(pen, _cell(5), "words", stats.words)
    return sheet


def _summary(stats: DataStats) -> str:
    sizes = ", ".join(f"{stats.sizes[name]:,} {name}" for name in ("small", "medium", "large"))
    totals = ", ".join(
        f"{stats.totals[name]:,} {name}" for name in ("pictures", "turns", "phrases")
    )
    return f"{stats.rows:,} rows, {totals}, {stats.totals['boxes']:,} boxes ({sizes})"


def _cell(index: int) -> Box:
    down, across = divmod(index, 3)
    left, top = _GAP + across * (_CELL_W + _GAP), _HEAD + _GAP + down * (_CELL_H + _GAP)
    return left, top, left + _CELL_W, top + _CELL_H


def _head(pen: ImageDraw.ImageDraw, box: Box, name: str, note: str) -> None:
    left, top, right, _ = box
    pen.text((left, top), name, INK, font_of(22))
    pen.text((right, top + 4), note, MUTED, font_of(18), anchor="ra")


def _histogram(
    pen: ImageDraw.ImageDraw, box: Box, name: str, histogram: Histogram, label: str
) -> None:
    mean = histogram.mean
    _head(pen, box, name, "none" if mean is None else f"mean {mean:.3g} of {histogram.n:,}")
    left, top, right, bottom = box
    top, bottom = top + 44, bottom - 34
    tallest = max(1, int(histogram.counts.max()))
    step = (right - left) / len(histogram.counts)
    for index, count in enumerate(histogram.counts):
        height = (bottom - top) * float(count) / tallest
        if count:
            x = left + index * step
            pen.rectangle(
                (x + 1, min(bottom - height, bottom - 2), x + step - 1, bottom), PALETTE[0]
            )
    pen.line((left, bottom, right, bottom), _RULE, 2)
    whole = label == "{:.0f}"  # bins of whole numbers lie around them
    last = len(histogram.counts) - (1 if whole else 0)
    for place in sorted({0, last // 4, last // 2, 3 * last // 4, last}):
        value = histogram.edges[place] + (0.5 if whole else 0)
        x = left + (place + (0.5 if whole else 0)) * step
        more = "+" if whole and place == last else ""
        pen.text((x, bottom + 8), label.format(value) + more, MUTED, font_of(18), anchor="ma")


def _bars(pen: ImageDraw.ImageDraw, box: Box, name: str, counter: Counter[str]) -> None:
    rows: Sequence[tuple[str, int]] = counter.most_common(_ROWS)
    _head(pen, box, name, f"{len(counter):,} different" if counter else "none")
    left, top, right, bottom = box
    top, step = top + 44, (bottom - top - 44) / _ROWS
    words_to, numbers_from = left + 210, right - 70
    for index, (word, count) in enumerate(rows):
        y = top + index * step
        pen.text((words_to - 12, y + 2), shorten(word, font_of(18), 195), INK, font_of(18), "ra")
        length = (numbers_from - words_to) * count / rows[0][1]
        pen.rectangle((words_to, y + 3, words_to + max(2, length), y + step - 5), PALETTE[2])
        pen.text((right, y + 2), f"{count:,}", MUTED, font_of(18), anchor="ra")
