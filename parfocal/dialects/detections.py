"""Detections as grounded text: what a detector's boxes say, once they are pixels of the picture.

A detector has no text form, so that there is no dialect for it; this is how its labelled boxes
become the text of an answer. The best place of each label comes first, "nothing found" is said.
"""

from __future__ import annotations

from parfocal.boxes import Boxes
from parfocal.dialects.base import Parsed, Problem
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, Span, Text
from parfocal.dialects.listing import SEPARATOR


def read_detections(boxes: Boxes) -> Parsed:
    """A phrase a label, in the order in which labels first appear.

    Args:
        boxes: image pixels, with labels; scores are kept. A box labelled "" is kept and is a
            problem: Grounding DINO gives such labels where no token passes its threshold.

    >>> from parfocal.boxes import Frame
    >>> frame = Frame("image", 64, 48)
    >>> rows = [[0, 0, 9, 9], [5, 5, 20, 20], [9, 9, 30, 30]]
    >>> read_detections(Boxes(rows, frame, labels=["cat", "dog", "cat"])).text.plain
    'cat, dog'
    """
    labels = boxes.labels or ("",) * len(boxes)
    bare = boxes.replace(labels=None)
    spans: list[Span] = []
    for label in dict.fromkeys(labels):
        rows = [row for row, other in enumerate(labels) if other == label]
        spans.extend([Text(SEPARATOR if spans else ""), Phrase(label, bare[rows])])
    problems = tuple(
        Problem("empty_label", f"the box {row} has no label")
        for row, label in zip(boxes.to_json(), labels, strict=True)
        if not label
    )
    return Parsed(GroundedText(tuple(spans) or (Nothing(),)), problems)
