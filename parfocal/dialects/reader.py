"""Reader: from the numbers of one model output to boxes in image pixels, noting what is wrong.

All families share these rules. Corners are fractions of the frame of the numbers. A little beyond
it they are clipped, far beyond it they are garbage and the box is left out; swapped corners are put
right; what lies in padding alone is left out. Each of these is noted, and no box is made up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import Phrase

OVERSHOOT = 0.1  # values further outside 0..1 are not a slip of the model but garbage

NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_NUMBER = re.compile(NUMBER)
_COMMA = re.compile(r"\s*,\s*|\s+")


def read_numbers(text: str) -> list[float] | None:
    """Numbers with commas or blanks between them; None if anything else is there.

    >>> read_numbers(" 1,2.5  3 "), read_numbers("1,"), read_numbers("x1, y1")
    ([1.0, 2.5, 3.0], None, None)
    """
    parts = _COMMA.split(text.strip())
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    return [float(part) for part in parts]


class Reader:
    """Reads the numbers of one output.

    Args:
        image: the picture's frame.
        warp: image pixels -> the frame of the numbers.
        slack: half a step of the numbers, as a fraction: how far rounding may carry a thin box at
            the picture's edge into the padding.
        overshoot: how far outside 0..1 a number may be to be clipped rather than left out.
        problems: where to note; by default a fresh list.

    Attributes:
        count: a counter for families that number their boxes over a whole output.
    """

    def __init__(
        self,
        image: Frame,
        warp: Warp,
        slack: float = 0.0,
        overshoot: float = OVERSHOOT,
        problems: list[Problem] | None = None,
    ) -> None:
        self.image, self.warp, self.slack, self.overshoot = image, warp, slack, overshoot
        self.problems: list[Problem] = [] if problems is None else problems
        self.count = 0

    def note(self, kind: str, detail: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(kind, detail))

    def note_once(self, kind: str, detail: str) -> None:
        """Add a problem unless there is one of its kind."""
        if not any(problem.kind == kind for problem in self.problems):
            self.note(kind, detail)

    def box(self, fractions: Sequence[float], whole: str) -> Boxes | None:
        """One box, image pixels, from (x1, y1, x2, y2); None if nothing of it is left.

        Args:
            fractions: of the sides of the frame of the numbers.
            whole: the text that held them, for the problems.
        """
        unit = self._in_range(fractions, whole)
        if unit is None:
            return None
        low, high = np.minimum(unit[:2], unit[2:]), np.maximum(unit[:2], unit[2:])
        if np.any(unit[:2] > unit[2:]):
            self.note("inverted", f"{whole!r} has x2 < x1 or y2 < y1, they are swapped")
        boxes = self._to_image(low, high, whole)
        if boxes is not None and np.any(low == high):
            self.note("degenerate", f"{whole!r} has no area")
        return boxes

    def point(self, fractions: Sequence[float], whole: str) -> Boxes | None:
        """One point (x, y) as a box without extent; None if nothing of it is left."""
        unit = self._in_range(fractions, whole)
        return None if unit is None else self._to_image(unit, unit, whole)

    def phrase(self, text: str, found: Sequence[Boxes]) -> Phrase:
        """A phrase with its boxes, each once; a box said twice is noted."""
        once: dict[bytes, Boxes] = {}
        for boxes in found:
            if once.setdefault(boxes.xyxy.tobytes(), boxes) is not boxes:
                row = boxes.to_json()[0]
                self.note_once("repetition", f"{text!r} has the box {row} again, it is taken once")
        return Phrase(text, Boxes.concat(list(once.values())) if once else Boxes.empty(self.image))

    def _in_range(self, fractions: Sequence[float], whole: str) -> np.ndarray | None:
        unit = np.array(fractions, dtype=np.float64)
        if not np.all((unit >= -self.overshoot) & (unit <= 1 + self.overshoot)):
            self.note("out_of_range", f"{whole!r} is far outside the picture, it is left out")
            return None
        if np.any(unit < 0) or np.any(unit > 1):
            self.note("out_of_range", f"{whole!r} is outside the picture, it is clipped")
        return np.clip(unit, 0.0, 1.0)

    def _to_image(self, low: np.ndarray, high: np.ndarray, whole: str) -> Boxes | None:
        """Undo the padding and clip; `low` and `high` are float64[2] corners, fractions."""
        full = Boxes([[0.0, 0.0, self.image.width, self.image.height]], self.image)
        picture = self.warp.apply(full).unit[0]
        outside = np.any(high < picture[:2] - self.slack) or np.any(low > picture[2:] + self.slack)
        unit = np.concatenate([low, high])[None]
        boxes = self.warp.inverse().apply(Boxes.from_unit(unit, self.warp.target)).clip()
        if outside or (bool(np.all(low < high)) and boxes.area[0] == 0):
            self.note("in_padding", f"{whole!r} lies in the padding around the picture")
            return None
        return boxes
