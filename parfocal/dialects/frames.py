"""Frames that numbers of several families live in, as maps from the pixels of a picture.

A family whose numbers are fractions of the picture itself uses `Warp.to_unit`, which also undoes a
squash to a square: fractions do not change under it.
"""

from __future__ import annotations

from parfocal.boxes import Frame, Warp


def padded_unit_square(image: Frame) -> Warp:
    """Image pixels -> fractions of the picture centred on a square.

    >>> padded_unit_square(Frame("image", 640, 480)).offset
    (0.0, 0.125)
    """
    padded = Warp.pad_to_square(image)
    return padded.then(Warp.to_unit(padded.target))
