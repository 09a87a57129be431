"""Warp: the map between frames that every resize, pad, crop, flip and quarter turn is.

All of them keep boxes axis-aligned, so a scale, an offset and an optional swap of the axes say
everything. Warps chain with `then` and undo with `inverse`: a pipeline keeps the chain of what it
did to the picture and gives the inverse of it to the boxes that come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from parfocal.boxes.arrays import read_numbers
from parfocal.boxes.boxes import Boxes, require_boxes
from parfocal.boxes.frame import Frame, format_number
from parfocal.errors import ConfigError, FrameError, ShapeError

Pair = tuple[float, float]


@dataclass(frozen=True)
class Warp:
    """An axis-aligned affine map between two frames.

    A point p of the source lands at `scale * q + offset` of the target, where q is p, or p with x
    and y swapped when transpose is set (the swap comes first). The sides of a frame do not clip
    anything.

    Args:
        source: the frame that boxes must be in.
        target: the frame that boxes come out in.
        scale: factors for target x and y; finite, not zero, negative for a flip.
        offset: added to target x and y, in the units of the target.
        transpose: whether x and y are swapped before scaling.

    Raises:
        FrameError: if an end is not a Frame, or a number is not finite, or a scale is zero.

    >>> image = Frame("image", 640, 427)
    >>> to_model = Warp.pad_to_square(image).then(Warp.resize(Frame("padded", 640, 640), 448, 448))
    >>> seen = to_model.apply(Boxes([[64, 0, 128, 64]], image))
    >>> seen.frame.name, [round(v, 1) for v in seen.to_json()[0]]
    ('resized', [44.8, 74.2, 89.6, 119.0])
    >>> [round(v) for v in to_model.inverse().apply(seen).to_json()[0]]
    [64, 0, 128, 64]
    """

    source: Frame
    target: Frame
    scale: Pair
    offset: Pair
    transpose: bool = False

    def __post_init__(self) -> None:
        """Check the ends and the numbers, and store plain floats."""
        for end in ("source", "target"):
            _require_frame(getattr(self, end), f"the {end} of a Warp")
        object.__setattr__(self, "scale", _pair(self.scale, "scale"))
        object.__setattr__(self, "offset", _pair(self.offset, "offset"))
        object.__setattr__(self, "transpose", bool(self.transpose))
        if 0.0 in self.scale:
            raise FrameError(
                f"a Warp from frame {self.source} to frame {self.target} has scale {self.scale}; "
                f"a scale of zero "
                "cannot be undone. Use a frame with positive sides."
            )

    def apply(self, boxes: Boxes) -> Boxes:
        """Move boxes into the target frame; scores, labels and order stay as they are.

        Raises:
            FrameError: if the boxes are not in the source frame.

        >>> image = Frame("image", 100, 50)
        >>> Warp.flip(image).apply(Boxes([[0, 0, 10, 10]], image)).to_json()
        [[90.0, 0.0, 100.0, 10.0]]
        """
        require_boxes(boxes, "Warp.apply")
        if boxes.frame != self.source:
            raise FrameError(
                f"boxes are in frame {boxes.frame}, this Warp starts from frame {self.source}. "
                f"{self._hint(boxes.frame)}"
            )
        corners = boxes.xyxy.reshape(-1, 2, 2)  # [N, corner, xy]
        if self.transpose:
            corners = corners[:, :, ::-1]
        moved = corners * np.array(self.scale) + np.array(self.offset)
        ordered = np.hstack([moved.min(axis=1), moved.max(axis=1)])
        return Boxes(ordered, self.target, boxes.scores, boxes.labels)

    def then(self, other: Warp) -> Warp:
        """This Warp followed by another, as one Warp.

        Raises:
            FrameError: if the other does not start from the frame where this one ends.

        >>> image = Frame("image", 100, 50)
        >>> Warp.resize(image, 50, 25).then(Warp.to_unit(Frame("resized", 50, 25))).scale
        (0.01, 0.02)
        """
        if not isinstance(other, Warp):
            raise ShapeError(f"Warp.then takes another Warp, got {type(other).__name__}.")
        if self.target != other.source:
            raise FrameError(
                f"the first Warp ends in frame {self.target}, the second starts from frame "
                f"{other.source}. "
                "Build the second one from the target of the first: Warp.resize(first.target, ...)."
            )
        first_scale = _swapped(self.scale, other.transpose)
        first_offset = _swapped(self.offset, other.transpose)
        return Warp(
            self.source,
            other.target,
            (other.scale[0] * first_scale[0], other.scale[1] * first_scale[1]),
            (
                other.scale[0] * first_offset[0] + other.offset[0],
                other.scale[1] * first_offset[1] + other.offset[1],
            ),
            self.transpose != other.transpose,
        )

    def inverse(self) -> Warp:
        """The Warp back, from target to source.

        >>> image = Frame("image", 100, 50)
        >>> Warp.pad(image, 0, 25, 0, 25).inverse().offset
        (0.0, -25.0)
        """
        scale = (1 / self.scale[0], 1 / self.scale[1])
        offset = (-self.offset[0] / self.scale[0], -self.offset[1] / self.scale[1])
        return Warp(
            self.target,
            self.source,
            _swapped(scale, self.transpose),
            _swapped(offset, self.transpose),
            self.transpose,
        )

    # Constructors, one for each thing that is done to pictures.

    @classmethod
    def identity(cls, frame: Frame) -> Warp:
        """The Warp that changes nothing.

        >>> Warp.identity(Frame("image", 100, 50)).scale
        (1.0, 1.0)
        """
        return cls(frame, frame, (1.0, 1.0), (0.0, 0.0))

    @classmethod
    def resize(cls, source: Frame, width: float, height: float, name: str = "resized") -> Warp:
        """Stretch the frame to width x height pixels.

        >>> Warp.resize(Frame("image", 640, 480), 320, 120).scale
        (0.5, 0.25)
        """
        _require_frame(source, "the source of Warp.resize")
        target = Frame(name, width, height)
        scale = (target.width / source.width, target.height / source.height)
        return cls(source, target, scale, (0.0, 0.0))

    @classmethod
    def pad(
        cls,
        source: Frame,
        left: float,
        top: float,
        right: float,
        bottom: float,
        name: str = "padded",
    ) -> Warp:
        """Add margins, in pixels of the source; none may be negative.

        Raises:
            FrameError: if a margin is negative or not finite.

        >>> Warp.pad(Frame("image", 640, 480), 0, 80, 0, 80).target
        Frame(name='padded', width=640.0, height=640.0)
        """
        _require_frame(source, "the source of Warp.pad")
        margins = _finite((left, top, right, bottom), "the margins of Warp.pad")
        if min(margins) < 0:
            shown = ", ".join(format_number(v) for v in margins)
            raise FrameError(
                f"Warp.pad got the margins (left, top, right, bottom) = ({shown}); they must be 0 "
                f"or more. "
                "To cut something away use Warp.crop."
            )
        target = Frame(
            name, source.width + margins[0] + margins[2], source.height + margins[1] + margins[3]
        )
        return cls(source, target, (1.0, 1.0), (margins[0], margins[1]))

    @classmethod
    def pad_to_square(cls, source: Frame, centre: bool = True, name: str = "padded") -> Warp:
        """Pad the short side until the frame is square.

        Args:
            source: the frame to pad.
            centre: put the picture in the middle, at whole-pixel offsets ((S - w) // 2, (S - h) //
                2), so that an odd pixel goes to the right or bottom; otherwise keep it in the top
                left corner.
            name: of the target frame.

        >>> Warp.pad_to_square(Frame("image", 640, 427)).offset
        (0.0, 106.0)
        """
        _require_frame(source, "the source of Warp.pad_to_square")
        side = max(source.width, source.height)
        spare = (side - source.width, side - source.height)
        offset = (spare[0] // 2, spare[1] // 2) if centre else (0.0, 0.0)
        return cls(source, Frame(name, side, side), (1.0, 1.0), offset)

    @classmethod
    def crop(cls, source: Frame, xyxy: ArrayLike, name: str = "crop") -> Warp:
        """Cut out a rectangle, whose top left becomes (0, 0).

        Args:
            source: the frame to cut from.
            xyxy: four numbers (x1, y1, x2, y2) in the units of the source, with x1 < x2 and y1 <
                y2; the rectangle may reach outside the source, as `PIL.Image.crop` allows.
            name: of the target frame.

        Raises:
            FrameError: if the rectangle has no area or is not finite.
            ShapeError: if it is not four numbers.

        >>> Warp.crop(Frame("image", 640, 480), (100, 50, 300, 150)).target
        Frame(name='crop', width=200.0, height=100.0)
        """
        _require_frame(source, "the source of Warp.crop")
        if isinstance(xyxy, Boxes):
            raise ShapeError(
                "Warp.crop takes four numbers, got Boxes. Pass one row of them: boxes.xyxy[0]."
            )
        array = read_numbers(xyxy, "the rectangle of Warp.crop")
        if array.shape != (4,):
            raise ShapeError(
                f"the rectangle of Warp.crop must be four numbers (x1, y1, x2, y2), got shape "
                f"{array.shape}."
            )
        x1, y1, x2, y2 = _finite(tuple(array.tolist()), "the rectangle of Warp.crop")
        if x2 <= x1 or y2 <= y1:
            shown = ", ".join(format_number(v) for v in (x1, y1, x2, y2))
            raise FrameError(
                f"the rectangle of Warp.crop is (x1, y1, x2, y2) = ({shown}) in frame {source}, "
                f"which has no area. "
                "It needs x1 < x2 and y1 < y2; if the numbers are x, y, width, height add x and y "
                "to the last two."
            )
        return cls(source, Frame(name, x2 - x1, y2 - y1), (1.0, 1.0), (-x1, -y1))

    @classmethod
    def flip(
        cls,
        source: Frame,
        horizontal: bool = True,
        vertical: bool = False,
        name: str = "flipped",
    ) -> Warp:
        """Mirror left-right (horizontal), top-bottom (vertical), or both (a half turn).

        >>> Warp.flip(Frame("image", 640, 480)).offset
        (640.0, 0.0)
        """
        _require_frame(source, "the source of Warp.flip")
        return cls(
            source,
            Frame(name, source.width, source.height),
            (-1.0 if horizontal else 1.0, -1.0 if vertical else 1.0),
            (source.width if horizontal else 0.0, source.height if vertical else 0.0),
        )

    @classmethod
    def exif(cls, source: Frame, orientation: int, name: str = "image") -> Warp:
        """From pixels as a camera stored them to the upright picture that `load_image` gives.

        Args:
            source: the stored picture; give it a name of its own, such as "stored".
            orientation: the EXIF Orientation tag, 1 to 8; 5 to 8 swap width and height.
            name: of the upright frame.

        Raises:
            ConfigError: if the orientation is not 1 to 8.

        >>> turn = Warp.exif(Frame("stored", 640, 480), 6)
        >>> turn.target, turn.apply(Boxes([[0, 0, 10, 20]], turn.source)).to_json()
        (Frame(name='image', width=480.0, height=640.0), [[460.0, 0.0, 480.0, 10.0]])
        """
        _require_frame(source, "the source of Warp.exif")
        if isinstance(orientation, bool) or orientation not in _EXIF:
            raise ConfigError(
                f"EXIF orientation is {orientation!r}; it must be 1 to 8. For a picture without "
                f"the tag use 1."
            )
        transpose, flip_x, flip_y = _EXIF[orientation]
        width, height = _swapped((source.width, source.height), transpose)
        return cls(
            source,
            Frame(name, width, height),
            (-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0),
            (width if flip_x else 0.0, height if flip_y else 0.0),
            transpose,
        )

    @classmethod
    def to_unit(cls, source: Frame, name: str = "unit") -> Warp:
        """Scale the frame to 1 x 1, so that coordinates become fractions of its sides.

        >>> Warp.to_unit(Frame("image", 640, 400)).target
        Frame(name='unit', width=1.0, height=1.0)
        """
        return cls.resize(source, 1.0, 1.0, name)

    def _hint(self, given: Frame) -> str:
        if given == self.target:
            return "They are already where it ends: to go back apply warp.inverse()."
        if given.name == self.source.name:
            return "The sizes disagree: build the Warp from the frame of these very boxes."
        return "Bring the boxes there with another Warp first, or build them in that frame."


# What each Orientation needs to stand upright: swap the axes, then mirror x, then mirror y.
_EXIF = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def _require_frame(frame: object, what: str) -> None:
    if not isinstance(frame, Frame):
        raise FrameError(
            f"{what} must be a Frame, got {type(frame).__name__}. Write Frame('image', width, "
            f"height), "
            "or take boxes.frame."
        )


def _swapped(pair: Pair, swap: bool) -> Pair:
    return (pair[1], pair[0]) if swap else pair


def _finite(values: tuple[float, ...], what: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) + 0.0 for value in values)  # + 0.0 turns -0.0 into 0.0
    except (TypeError, ValueError) as err:
        raise FrameError(f"{what} must be numbers, got {values!r}.") from err
    if not all(math.isfinite(number) for number in numbers):
        raise FrameError(f"{what} must be finite numbers, got {values!r}.")
    return numbers


def _pair(values: object, what: str) -> Pair:
    if not isinstance(values, (tuple, list, np.ndarray)) or len(values) != 2:
        raise FrameError(
            f"the {what} of a Warp must be two numbers (for x, for y), got {values!r}."
        )
    x, y = _finite(tuple(values), f"the {what} of a Warp")
    return x, y
