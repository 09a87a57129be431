"""From boxes of a picture to the boxes that MG-LLaVA's region encoder reads.

The picture is padded to a square (or not), scaled until its short side has the tower's resolution,
and cropped at the centre; boxes follow, rounded to whole pixels.

Shapes: N boxes of one picture.
"""

from __future__ import annotations

import numpy as np

from parfocal.boxes import Boxes, Frame, Warp


def fit_boxes(boxes: Boxes, side: int = 768, pad: bool = True) -> Boxes:
    """Boxes of a picture as boxes of the square that the high-resolution tower sees.

    Args:
        boxes: of the whole picture, pixels; those outside it count as well.
        side: of the square in pixels.
        pad: the picture was centred on a square first, and nothing is cropped.

    Returns:
        Boxes of a frame "high_resolution", whole pixels, in the order given; those that lie
        entirely outside are dropped, one that touches the edge stays, without area.

    Source: official mg_llava/dataset/mg_llava_dataset.py (float32, half to even).
    Deviates: where nothing is left the official code makes up a box [0, 0, 0, 0]; here the result
        is empty, and the model decides what it reads then.

    >>> picture = Frame("image", 640, 480)
    >>> fit_boxes(Boxes([[0, 0, 640, 480]], picture)).to_json()
    [[0.0, 96.0, 768.0, 672.0]]
    """
    padded = Warp.pad_to_square(boxes.frame) if pad else Warp.identity(boxes.frame)
    frame = padded.target
    scale = side / min(frame.width, frame.height)
    rows = np.round(padded.apply(boxes).xyxy.astype(np.float32) * np.float32(scale))
    spare = [(int(length * scale) - side) // 2 for length in (frame.width, frame.height)]
    rows = rows.astype(np.float64) - [*spare, *spare]
    inside = np.all((rows[:, 2:] >= 0) & (rows[:, :2] <= side), axis=1)
    low, high = np.maximum(rows[:, :2], 0), np.minimum(rows[:, 2:], side)
    return Boxes(
        np.hstack([low, high])[inside],
        Frame("high_resolution", side, side),
        None if boxes.scores is None else boxes.scores[inside],
        None if boxes.labels is None else [boxes.labels[i] for i in np.flatnonzero(inside)],
    )
