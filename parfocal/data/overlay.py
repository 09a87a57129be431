"""What lies over a picture on a page: its boxes, and on each a tag with its number and its words.

A tag shows its words where they hide neither another tag nor a good part of any object; elsewhere
only its number, until it lights up; so do all where there are very many. Places are computed in CSS
pixels for the width at which the picture is shown at least, and written in percent, so that they
hold for every width above.

Shapes: N boxes, xyxy in pixels of the picture; corners and sizes of tags in CSS pixels.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

import numpy as np

from parfocal.boxes import Boxes
from parfocal.data.marks import Mark, score_text
from parfocal.data.paint import Floats, LabelSpan, place_labels, widen_labels

_TAG_HEIGHT, _TAG_MIN = 21.0, 22.0  # CSS pixels, with the line around it
_LETTER, _WIDE_LETTER, _PADDING = 6.9, 12.0, 12.0  # CSS pixels, of bold letters of 11.5
_MAX_TAG = 230.0  # CSS pixels; longer words are cut, the title has all of them
_CROWD = 150  # boxes; of more, every tag has its number alone, at the corner of its box
_NEAR = 0.5  # CSS pixels within which a tag sits on the edge of its box

Drawn = Sequence[tuple[Mark, Boxes]]  # one box each


def overlay(drawn: Drawn, size_wh: tuple[int, int], shown_wh: tuple[float, float]) -> str:
    """Boxes, large ones first so that small ones stay in reach, then their tags.

    Args:
        drawn: marks with a box each.
        size_wh: of the picture, pixels.
        shown_wh: the least that it is shown at, CSS pixels.
    """
    if not drawn:
        return ""
    xyxy = np.concatenate([box.xyxy for _, box in drawn])
    html = []
    for row in np.argsort(-np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1), kind="stable"):
        mark, box = drawn[row]
        kind = " pf-region" if mark.key.startswith("r") else ""
        said = _told(mark, box)
        html.append(
            f'<div class="pf-box pf-key {mark.key}{kind}" data-key="{mark.key}" tabindex="-1" '
            f'role="button" aria-pressed="false" aria-label="{said}" title="{said}" '
            f'style="{place(xyxy[row], size_wh)};{mark.style}"></div>'
        )
    scaled = xyxy * (shown_wh[0] / size_wh[0])
    slim = np.asarray([[_width(mark.number, _PADDING), _TAG_HEIGHT] for mark, _ in drawn])
    slim[:, 0] = np.maximum(slim[:, 0], _TAG_MIN)
    wanted = [_words_width(*pair) for pair in drawn]
    if len(drawn) <= _CROWD:
        corners = place_labels(slim, scaled, shown_wh)
    else:  # no place is free, and looking for one takes the square of their number
        corners, wanted = np.clip(scaled[:, :2], 0, shown_wh - slim), [0.0] * len(drawn)
    spans = widen_labels(corners, slim, wanted, scaled, shown_wh)
    for pair, span, box in zip(drawn, spans, scaled, strict=True):
        if span is not None:
            html.append(_tag(*pair, span, box, shown_wh))
    return "".join(html)


def place(xyxy: Floats, size_wh: tuple[int, int]) -> str:
    """CSS place of a box cut at the edges of its picture."""
    x1, y1, x2, y2 = np.clip(xyxy / np.asarray([*size_wh, *size_wh]), 0, 1) * 100
    return f"left:{x1:.3f}%;top:{y1:.3f}%;width:{x2 - x1:.3f}%;height:{y2 - y1:.3f}%"


def _told(mark: Mark, box: Boxes) -> str:
    """The words of a box with its score and pixels, escaped."""
    where = ", ".join(f"{value:.0f}" for value in box.xyxy[0])
    return escape(f"{mark.said}{score_text(box)}, pixels {where}")


def _words_width(mark: Mark, box: Boxes) -> float:
    """CSS pixels that number and words of a tag want; 0 for a tag that has no words of its own."""
    if not mark.named:
        return 0.0
    score = "" if box.scores is None else " 0.00"
    return min(_width(f"{mark.number} {mark.words}{score}", _PADDING + 4), _MAX_TAG)


def _width(text: str, padding: float) -> float:
    """About how wide a text is on a tag: rather too much than too little."""
    letters = (letter for letter in text if not unicodedata.combining(letter))
    wide = (unicodedata.east_asian_width(letter) in "WF" for letter in letters)
    return padding + sum(_WIDE_LETTER if is_wide else _LETTER for is_wide in wide)


def _tag(
    mark: Mark, box: Boxes, span: LabelSpan, box_xyxy: Floats, shown_wh: tuple[float, float]
) -> str:
    """The number on a box, with its words at once or while lit, growing to where there is room."""
    left, right, top, wide, leftward = span
    edge, at = ("right", shown_wh[0] - right) if leftward else ("left", left)
    room = shown_wh[0] - at  # while lit
    from_below = abs(top + _TAG_HEIGHT - box_xyxy[1]) < _NEAR
    side, down = ("bottom", shown_wh[1] - box_xyxy[1]) if from_below else ("top", top)
    width = f"--m:{_percent(right - left, shown_wh[0])};" if wide else ""
    score = "" if box.scores is None else f"<small>{box.scores[0]:.2f}</small>"
    return (
        f'<div class="pf-tag pf-key {mark.key}{" pf-wide" * wide}" data-key="{mark.key}" '
        f'aria-hidden="true" title="{_told(mark, box)}" style="{edge}:{_percent(at, shown_wh[0])};'
        f"{side}:{_percent(down, shown_wh[1])};{width}--r:{_percent(room, shown_wh[0])};"
        f'{mark.style}">{mark.number}<span dir="auto">{escape(mark.words)}</span>{score}</div>'
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3f}%"
