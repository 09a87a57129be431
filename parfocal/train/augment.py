"""Groma's augmentation of detection pictures: random size, crop and flip, of pixels and boxes.

Every step is a `Warp` for the boxes and the operation on pixels that it stands for. Both are made
of the same numbers, so that boxes cannot disagree with what the picture shows.

Shapes: N boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from parfocal.boxes import Boxes, Warp
from parfocal.errors import ConfigError
from parfocal.images import image_frame
from parfocal.train.recipe import Augment

Seen = tuple[Image.Image, Boxes]


@dataclass(frozen=True)
class DetectionAugment:
    """How pictures are changed before they become the model's input, and which boxes are learned.

    Attributes:
        short_sides: a picture is resized until its short side is one of these, in pixels.
        long_side: unless its long side, in pixels, would be above this, which then decides.
        crop_sides: width and height of a crop are drawn from this to that many pixels, each on its
            own; a side of the picture that is shorter than either stands in for it.
        crop_tries: crops that are drawn until one holds a box; after them there is none.
        flip_share: of the pictures that are mirrored left to right.
        min_side: width and height of a box that is learned are above it, pixels of the input.
        sa1b_areas: of a box of SA-1B, the area is between these instead, square pixels of the
            input.

    Source: Groma (arXiv:2404.13013), section 3.3; official groma/data/datasets/det_data.py.
    Deviates: where a crop holds no box, or none that is learned, the official code takes another
        picture at random. Here another crop is drawn until one holds a box, or none is made, and a
        picture whose boxes are all too small is learned from as one without. Pixels are antialiased
        where pictures shrink.
    """

    short_sides: tuple[int, ...] = (400, 500, 600)
    long_side: int = 4200
    crop_sides: tuple[int, int] = (448, 896)
    crop_tries: int = 10
    flip_share: float = 0.5
    min_side: float = 2.0
    sa1b_areas: tuple[float, float] = (14.0**2, 400.0**2)

    def __post_init__(self) -> None:
        """Check what sides are drawn from."""
        low, high = self.crop_sides
        if min((*self.short_sides, self.long_side, low), default=0) < 1 or not self.short_sides:
            raise ConfigError(
                f"short_sides {self.short_sides}, long_side {self.long_side} and crop_sides "
                f"{self.crop_sides} must be 1 pixel or more, and there must be a short side."
            )
        if high < low:
            raise ConfigError(f"crop_sides is {self.crop_sides}; give the smaller one first.")


AUGMENTS: dict[Augment, DetectionAugment | None] = {
    "none": None,
    "groma_detection": DetectionAugment(),
}


def augment(
    image: Image.Image,
    boxes: Boxes,
    generator: np.random.Generator,
    settings: DetectionAugment,
) -> Seen:
    """Resize, crop and flip a picture with its boxes.

    Args:
        image: is not changed.
        boxes: of the picture, in its pixels.
        generator: decides everything that is drawn.
        settings: what from.

    Returns:
        A picture, and the boxes that have an area in it, cut at its edges, in its pixels; scores,
        labels and order stay.

    Raises:
        FrameError: if the boxes are not in the frame of the picture.
    """
    image, boxes = _resized(image, boxes, generator, settings)
    image, boxes = _cropped(image, boxes, generator, settings)
    if generator.random() < settings.flip_share:
        boxes = Warp.flip(image_frame(image), name="image").apply(boxes)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, boxes


def visible(boxes: Boxes) -> Boxes:
    """Cut boxes at the edges of their frame, and leave out those without an area there."""
    inside = boxes.clip()
    return inside[inside.area > 0]


def learnable(boxes: Boxes, settings: DetectionAugment, sa1b: bool) -> NDArray[np.bool_]:
    """Return which boxes are learned from, bool[N].

    Args:
        boxes: in pixels of the model's input.
        settings: the limits.
        sa1b: whether they are of SA-1B, whose masks are of parts and of backgrounds as well.
    """
    if sa1b:
        low, high = settings.sa1b_areas
        return (boxes.area > low) & (boxes.area < high)
    sides, least = boxes.xywh[:, 2:], settings.min_side
    return (sides[:, 0] > least) & (sides[:, 1] > least)


def _resized(
    image: Image.Image, boxes: Boxes, generator: np.random.Generator, settings: DetectionAugment
) -> Seen:
    """Bring the short side to one that is drawn, and keep the ratio to whole pixels."""
    short = settings.short_sides[int(generator.integers(len(settings.short_sides)))]
    factor = min(short / min(image.size), settings.long_side / max(image.size))
    width, height = (max(1, int(side * factor + 0.5)) for side in image.size)
    moved = Warp.resize(image_frame(image), width, height, "image").apply(boxes)
    return image.resize((width, height), Image.Resampling.BILINEAR), visible(moved)


def _cropped(
    image: Image.Image, boxes: Boxes, generator: np.random.Generator, settings: DetectionAugment
) -> Seen:
    """Cut out a window that holds a part of a box."""
    for _ in range(settings.crop_tries):
        window = _window(image.size, generator, settings)
        left = visible(Warp.crop(image_frame(image), window, "image").apply(boxes))
        if len(left):
            return image.crop(window), left
    return image, boxes


def _window(
    size_wh: tuple[int, int], generator: np.random.Generator, settings: DetectionAugment
) -> tuple[int, int, int, int]:
    """Draw a window x1, y1, x2, y2 of a picture, whole pixels."""
    low, high = settings.crop_sides
    starts, ends = [], []
    for side in size_wh:
        length = int(generator.integers(min(side, low), min(side, high), endpoint=True))
        starts.append(int(generator.integers(side - length, endpoint=True)))
        ends.append(starts[-1] + length)
    return starts[0], starts[1], ends[0], ends[1]
