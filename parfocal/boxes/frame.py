"""Frame: the named pixel rectangle that a box belongs to.

A coordinate means nothing without the picture it was measured in. Every `Boxes` and both ends of
every `Warp` name theirs, so that mixing them up is an error and not a wrong answer.

Convention of the whole package: x grows to the right, y grows downward, and coordinates are
continuous. (0, 0) is the top left corner of the top left pixel and (width, height) the bottom right
corner of the last, so a box that covers one pixel is one unit wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from parfocal.errors import FrameError

# Beyond this an area could overflow float64. No picture comes near.
MAX_COORDINATE = 1e100


def format_number(value: float) -> str:
    """Write a number the way messages show it: no trailing zeros, at most six digits."""
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.15g}"


@dataclass(frozen=True)
class Frame:
    """A named rectangle in which box coordinates live.

    Two frames are the same frame when name, width and height agree. Use the name for the stage
    ("image", "padded", "unit"), not for the file.

    Args:
        name: what to call this frame in messages; not empty.
        width: extent in x, in the frame's own units (pixels, or 1.0 for a unit frame); positive and
            finite.
        height: extent in y, likewise.

    Raises:
        FrameError: if the name is empty or a side is not a positive finite number.

    >>> Frame("image", 640, 427)
    Frame(name='image', width=640.0, height=427.0)
    >>> print(Frame("image", 640, 427))
    'image' (640x427)
    """

    name: str
    width: float
    height: float

    def __post_init__(self) -> None:
        """Check the name and the sides, and store the sides as floats."""
        if not isinstance(self.name, str) or not self.name:
            raise FrameError(
                f"a frame needs a name such as 'image', got {self.name!r}. "
                "Write Frame('image', width, height)."
            )
        for side in ("width", "height"):
            object.__setattr__(self, side, _checked_side(self.name, side, getattr(self, side)))

    def __str__(self) -> str:
        """Name and size, as error messages show a frame."""
        return f"'{self.name}' ({format_number(self.width)}x{format_number(self.height)})"


def _checked_side(name: str, side: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as err:
        raise FrameError(
            f"the {side} of frame '{name}' is {value!r}, which is not a number. "
            "Pass the sides of the picture, as in Frame('image', *image.size)."
        ) from err
    if isinstance(value, (bool, str, bytes)) or not 0 < number <= MAX_COORDINATE:
        detail = "is not finite" if not math.isfinite(number) else "is not a positive number"
        raise FrameError(
            f"the {side} of frame '{name}' is {value!r}, which {detail}. "
            "Pass the sides of the picture, as in Frame('image', *image.size)."
        )
    return number
