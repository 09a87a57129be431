"""What a batch of questions looks at: pictures and videos, opened and encoded once each.

Shapes: B rows, P pictures and frames, R region slots.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor

from parfocal.boxes import Boxes, Warp
from parfocal.errors import DataError
from parfocal.images import load_image
from parfocal.models.frames import seen_boxes
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.outputs import ImageFeatures
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.proposer import Regions
from parfocal.predict.asking import read_boxes
from parfocal.predict.protocol import BoxesLike, Picture, Visual
from parfocal.video import is_video, load_video


@dataclass
class Scene:
    """Pictures and videos of a batch, and which of them each row is about.

    Attributes:
        images: the different pictures, and the frames of the different videos.
        warps: from the pixels of each to the unit square of the model's input.
        rows: of each row, the indices of its picture, or of its video's frames.
        videos: of each row, True for a video, even of one frame.
        features: of `images`.
        seconds: spent on preparing and encoding them.
    """

    images: list[PIL.Image.Image]
    warps: list[Warp]
    rows: list[tuple[int, ...]]
    videos: list[bool]
    features: ImageFeatures = field(repr=False)
    seconds: float

    def warp(self, row: int) -> Warp:
        """Return the Warp of a row's picture or first frame."""
        return self.warps[self.rows[row][0]]

    def image(self, row: int) -> PIL.Image.Image:
        """Return a row's picture or first frame."""
        return self.images[self.rows[row][0]]

    @property
    def counts(self) -> list[int]:
        """Number of pictures of each row."""
        return [len(row) for row in self.rows]

    @property
    def order(self) -> list[int]:
        """Index of every picture of every row, int[P], row after row."""
        return [index for row in self.rows for index in row]

    def read(self, row: int, boxes: BoxesLike | Sequence[BoxesLike]) -> tuple[Boxes, ...]:
        """Return the user's boxes of each picture of a row.

        Args:
            row: which.
            boxes: of its picture; of a video one entry a frame. None: none at all.

        Raises:
            DataError: if there is not one entry a frame.
            FrameError: if a box is not inside its picture.
        """
        images = [self.images[index] for index in self.rows[row]]
        if not self.videos[row]:
            return (read_boxes(images[0], boxes),)
        given = [None] * len(images) if boxes is None else list(boxes)
        if isinstance(boxes, Boxes) or len(given) != len(images):
            raise DataError(
                f"a video of {len(images)} frames got boxes of {len(given)}; give one list of "
                "boxes a frame, [] or None where there is none."
            )
        return tuple(read_boxes(image, own) for image, own in zip(images, given, strict=True))

    def shown(self, boxes: Sequence[Boxes], row: int) -> tuple[Boxes, ...]:
        """Return the boxes of each picture of a row of which the model's input shows anything."""
        warps = [self.warps[index] for index in self.rows[row]]
        return tuple(seen_boxes(own, warp) for own, warp in zip(boxes, warps, strict=True))

    def region_boxes(self, regions: Regions, row: int, scores: Tensor | None = None) -> Boxes:
        """Return the live slots of a row in pixels of its picture, clipped to it.

        Args:
            regions: of each row.
            row: which.
            scores: float[B, R], instead of those of `regions`.
        """
        live, warp = regions.mask[row], self.warp(row)
        values = (regions.scores if scores is None else scores)[row][live].float().cpu().numpy()
        centred = regions.boxes[row][live].double().cpu().numpy()
        boxes = Boxes.from_cxcywh(centred, warp.target, scores=values)
        return warp.inverse().apply(boxes).clip()


def see(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    images: list[Visual],
) -> Scene:
    """Load and encode pictures and videos; one that is given several times (the same object) once.

    Raises:
        DataError: if a video has no frames.
        ImageError: if something cannot be decoded.
    """
    opened: dict[int, tuple[int, ...]] = {}  # identity -> places of its pictures
    pictures, frames, videos = [], [], []
    for source in images:
        videos.append(is_visual_video(source))
        if id(source) in opened:
            continue
        shown = open_visual(source)
        opened[id(source)] = tuple(range(len(pictures), len(pictures) + len(shown)))
        pictures += shown
        frames += [videos[-1]] * len(shown)
    started = time.perf_counter()
    towers, warps = processor.pixel_values(pictures, frames)
    with torch.inference_mode():
        features = model.encode([cast(tower, model) for tower in towers])
    rows = [opened[id(source)] for source in images]
    seconds = time.perf_counter() - started
    return Scene(pictures, warps, rows, videos, features, seconds)


def cast(value: Tensor, model: ParfocalForConditionalGeneration) -> Tensor:
    """Return a tensor where the model is, in numbers of its type."""
    return value.to(model.device, model.dtype)


def is_visual_video(source: Visual) -> bool:
    """Return True for a video file and for a sequence of frames."""
    return isinstance(source, (list, tuple)) or is_video(source)


def open_visual(source: Visual) -> list[PIL.Image.Image]:
    """Decode a picture (a list of one) or the frames of a video.

    Raises:
        DataError: if there are no frames.
        ImageError: if something cannot be decoded.
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise DataError("the list of frames is empty; give one picture a frame.")
        return [load_image(frame) for frame in source]
    if isinstance(source, (str, Path, bytes)) and is_video(source):
        return load_video(source)
    picture: Picture = source  # type: ignore[assignment]  # no sequence any more
    return [load_image(picture)]
