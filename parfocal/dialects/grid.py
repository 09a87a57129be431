"""Grid: how a family counts along one side of a picture.

A position on a side is a fraction, 0 to 1. A family multiplies it by a unit (1, 100, 999, 1000, the
pixels of the resized picture), rounds or cuts, and writes the number its own way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# A fraction comes from a pixel by rounded steps: 214 of 428 may lie a hair below a half, and a
# number that is a whole one but for that must not be cut to the one before.
SLACK = 1e-9


@dataclass(frozen=True)
class Grid:
    """Numbers along a side.

    Attributes:
        unit: the number that stands for the whole side.
        decimals: how many are written.
        top: the largest number that is written; None for `unit`.
        cut: drop what is behind the last written digit instead of rounding it.
        shift: added to a number before it is read as a fraction; 0.5 is the middle of a bin.
        width: whole numbers are padded with zeros to this many digits.
        least: of the decimals, zeros at the end are left out down to this many; None keeps them.

    >>> Grid(1000).write(0.45678), Grid(1, decimals=2).write(0.5), Grid(1000, width=3).write(0.05)
    ('457', '0.50', '050')
    >>> Grid(1000, top=999, cut=True, shift=0.5).read(999)
    0.9995
    """

    unit: float
    decimals: int = 0
    top: float | None = None
    cut: bool = False
    shift: float = 0.0
    width: int = 0
    least: int | None = None

    @property
    def step(self) -> float:
        """The distance between neighbouring numbers, as a fraction of the side."""
        return 10.0**-self.decimals / self.unit

    @property
    def error(self) -> float:
        """The most that `read(write(f))` differs from f in 0 to 1, as a fraction of the side."""
        inner = max(self.shift, 1 - self.shift) if self.cut else 0.5
        top = self.unit if self.top is None else self.top
        return max(inner * self.step, 1 - (top + self.shift) / self.unit)

    def write(self, fraction: float) -> str:
        """The number for a position, as the family writes it."""
        top = self.unit if self.top is None else self.top
        number = min(max(fraction * self.unit, 0.0), top)
        if self.decimals:
            head, _, tail = f"{number:.{self.decimals}f}".partition(".")
            if self.least is not None:
                tail = tail[: self.least] + tail[self.least :].rstrip("0")
            return f"{head}.{tail}" if tail else head
        whole = math.floor(number + SLACK) if self.cut else round(number)
        return f"{whole:0{self.width}d}"

    def read(self, number: float) -> float:
        """The position that a number stands for; outside 0 to 1 if the number is out of range."""
        return (number + self.shift) / self.unit

    def is_fraction(self, number: float) -> bool:
        """True if a number can only be a fraction of the side, which this grid never writes."""
        return self.unit > 1 and not self.decimals and 0 < number < 1

    def is_complete(self, text: str) -> bool:
        """True if a number at the end of a cut-off output cannot have lost digits."""
        if self.decimals:
            return len(text.partition(".")[2]) >= self.decimals
        return 0 < self.width <= len(text)
