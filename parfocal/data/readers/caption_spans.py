"""Captions whose phrases are named by character offsets: each phrase with its boxes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from parfocal.data.readers.base import Reader
from parfocal.data.readers.pictures import Placed
from parfocal.dialects.grounded import GroundedText, Phrase, Span, Text

Offsets = tuple[int, int]


class SpanBox(NamedTuple):
    """A box of the phrase caption[start:end].

    Attributes:
        start: offset of its first character.
        end: offset behind its last.
        xyxy: the box, pixels of the picture as it is stored.
        score: confidence, if there is one.
    """

    start: int
    end: int
    xyxy: list[float]
    score: float | None = None


def ground_caption(
    reader: Reader, caption: str, rows: Iterable[SpanBox], placed: Placed
) -> GroundedText:
    """Turn a caption and the boxes of its phrases into GroundedText.

    Boxes with equal offsets belong to one phrase and keep their order. A phrase that has no box
    inside its picture stays plain text. Of phrases that overlap the longest is kept, of equally
    long ones the first; the reader counts the others.

    Args:
        reader: counts what is left out.
        caption: the whole of it.
        rows: in the order of the dataset.
        placed: the picture.
    """
    offsets, used = list[Offsets](), list[SpanBox]()
    for row in rows:
        words = caption[row.start : row.end] if 0 <= row.start < row.end <= len(caption) else ""
        if not words.strip():
            reader.skip("boxes of phrases outside their caption")
            continue
        start = row.start + len(words) - len(words.lstrip())
        offsets.append((start, start + len(words.strip())))
        used.append(row)
    boxes, inside = reader.upright([row.xyxy for row in used], placed)
    boxed: dict[Offsets, list[int]] = {}
    for number, index in enumerate(inside):
        boxed.setdefault(offsets[index], []).append(number)
    scores = [used[index].score for index in inside]
    kept = _longest(boxed)
    reader.skip("phrases that overlap a longer one", len(boxed) - len(kept))
    spans: list[Span] = []
    position = 0
    for start, end in kept:
        numbers = boxed[start, end]
        found = boxes[numbers].replace(scores=_complete([scores[number] for number in numbers]))
        spans += [Text(caption[position:start]), Phrase(caption[start:end], found)]
        position = end
    return GroundedText((*spans, Text(caption[position:])))


def _complete(scores: list[float | None]) -> list[float] | None:
    known = [score for score in scores if score is not None]
    return known if len(known) == len(scores) else None


def _longest(spans: Iterable[Offsets]) -> list[Offsets]:
    """Spans that do not overlap, longest first to be taken, in reading order."""
    kept: list[Offsets] = []
    for start, end in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if all(end <= other_start or other_end <= start for other_start, other_end in kept):
            kept.append((start, end))
    return sorted(kept)
