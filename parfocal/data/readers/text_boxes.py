"""Boxes that a dataset writes into its words, `[0.25, 0.4, 0.75, 0.8]`, as Phrases in pixels.

LLaVA's mix665k holds RefCOCO and Visual Genome as text. Its numbers are said to be fractions of the
picture padded to a square, which some have doubted, so the data are asked: in a picture that is
wider than high, no box of the padded square reaches into the padding. `FrameTest` counts those that
do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parfocal.boxes import Boxes, Warp
from parfocal.data.readers.base import MIN_AREA
from parfocal.data.readers.pictures import Placed
from parfocal.dialects import GroundedText, Phrase, View, get_dialect
from parfocal.dialects.frames import padded_unit_square

BoxFrame = Literal["padded", "image", "text"]

SLACK = 0.005  # half a step of the two decimals that are written
MIN_PADDING = 0.02  # of the square; a picture with less says nothing about the frame
OUTSIDE_AT_MOST = 0.01  # of the boxes, where they are in the padded square
ENOUGH = 100  # boxes for a verdict
_FAR = 0.1  # four numbers further outside 0 to 1 than this are no box

_NUMBER = r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")
_HARMLESS = {"format_drift", "wrong_arity", "repetition", "out_of_range"}  # checked here, or kept

MISFIT = "questions whose boxes do not fit the stated frame"
FLAT = "questions whose boxes have no area"


@dataclass
class FrameTest:
    """Whether numbers are fractions of the padded square, told by the boxes of oblong pictures.

    Attributes:
        tested: how many boxes were looked at.
        outside: how many of them reach into the padding.

    >>> FrameTest(200, 1).padded, FrameTest(200, 30).padded, FrameTest(5, 0).padded
    (True, False, None)
    """

    tested: int = 0
    outside: int = 0

    @property
    def padded(self) -> bool | None:
        """True if they are; None while too few boxes were looked at."""
        if self.tested < ENOUGH:
            return None
        return self.outside <= OUTSIDE_AT_MOST * self.tested

    def count(self, rows: NDArray[np.float64], placed: Placed) -> None:
        """Look at boxes float[N, 4], as they are written, of one picture."""
        frame = placed.upright.source
        padding = 1 - min(frame.width, frame.height) / max(frame.width, frame.height)
        if padding >= MIN_PADDING:
            self.tested += len(rows)
            self.outside += int(np.sum(~_inside(rows, padded_unit_square(frame))))


class TextBoxes:
    """Reads the words of a dataset that writes its boxes among them.

    Args:
        frame: what the numbers are fractions of: the picture `padded` to a square, the `image`
            itself, or nothing: `text` leaves the words as they are.

    Attributes:
        test: what the boxes read so far say about the frame.
    """

    def __init__(self, frame: BoxFrame) -> None:
        self.frame = frame
        self.test = FrameTest()
        self._dialect = get_dialect("coordinates")

    def read(self, words: str, placed: Placed) -> GroundedText | str:
        """Read words about one picture.

        Args:
            words: of one turn.
            placed: the picture.

        Returns:
            The words with their boxes in pixels of the upright picture, or a reason why there are
            none that can be trusted: `MISFIT` or `FLAT`.
        """
        rows = _written(words) if self.frame != "text" else np.zeros((0, 4))
        if not len(rows):
            return GroundedText.of(words)
        self.test.count(rows, placed)
        stored = placed.upright.source
        warp = padded_unit_square(stored) if self.frame == "padded" else Warp.to_unit(stored)
        if not np.all(_inside(rows, warp)) or np.any(rows[:, 2:] < rows[:, :2]):
            return MISFIT
        parsed = self._dialect.parse(words, View(stored, warp))
        if any(problem.kind not in _HARMLESS for problem in parsed.problems):
            return FLAT  # what is wrong with a box that fits is that nothing is left of it
        spans = [
            Phrase(span.text, placed.upright.apply(span.boxes).clip())
            if isinstance(span, Phrase) and len(span.boxes)
            else span
            for span in parsed.text.spans
        ]
        text = GroundedText(tuple(spans))
        large = all(np.all(phrase.boxes.area >= MIN_AREA) for phrase in text.phrases)
        return text if large else FLAT


def _written(words: str) -> NDArray[np.float64]:
    """float[N, 4] boxes among words; none if any four numbers in brackets are something else."""
    rows = np.array([list(map(float, box)) for box in _BOX.findall(words)]).reshape(-1, 4)
    return rows if np.all((rows >= -_FAR) & (rows <= 1 + _FAR)) else rows[:0]


def _inside(rows: NDArray[np.float64], warp: Warp) -> NDArray[np.bool_]:
    """Which boxes float[N, 4], fractions of the Warp's target, lie in the picture: bool[N]."""
    frame = warp.source
    picture = warp.apply(Boxes([[0, 0, frame.width, frame.height]], frame)).unit[0]
    slack = SLACK + 1e-9
    low, high = np.tile(picture[:2], 2) - slack, np.tile(picture[2:], 2) + slack
    inside: NDArray[np.bool_] = np.all((rows >= low) & (rows <= high), axis=1)
    return inside
