"""How pictures enter the towers, and how frames of a video do, which is another way.

Shapes: S input side of a tower, H rows and W columns of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.errors import ImageError
from parfocal.images import DEFAULT_LIMITS, image_frame
from parfocal.models.config_vision import TowerConfig, VisionConfig


def prepare_picture(image: Image.Image, vision: VisionConfig) -> tuple[list[Tensor], Warp]:
    """Turn a decoded picture into one float[3, S, S] a tower, and the Warp to the unit square.

    `pad` centres the picture on a square of the tower's mean colour before it is resized (bicubic,
    antialiased). A tower with `input_from` gets the other one's input, shrunk.

    Raises:
        ImageError: if it is so long that the square would be larger than a picture may be, twice.
    """
    tensors = []
    for tower in vision.towers:
        canvas = image
        if vision.resize == "pad" and image.width != image.height:
            canvas = _pad_square(image, tower.image_mean, vision.pad_rounding)
        side = tower.image_size
        if canvas.size != (side, side):
            canvas = canvas.resize((side, side), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.asarray(canvas, np.float32) / 255.0).permute(2, 0, 1)
        mean, std = (
            torch.tensor(value)[:, None, None] for value in (tower.image_mean, tower.image_std)
        )
        tensors.append((values - mean) / std)
    for index, tower in enumerate(vision.towers):
        if tower.input_from is not None:
            source, side = tensors[tower.input_from][None], tower.image_size
            tensors[index] = interpolate(source, (side, side), mode="bilinear")[0]
    return tensors, picture_warp(image_frame(image), vision)


def picture_warp(frame: Frame, vision: VisionConfig) -> Warp:
    """Return the Warp from a picture's pixels to the unit square of the model's input."""
    pads = vision.resize == "pad"
    warp = Warp.pad_to_square(frame) if pads else Warp.identity(frame)
    return warp.then(Warp.to_unit(warp.target))


def prepare_frame(image: Image.Image, vision: VisionConfig) -> tuple[list[Tensor], Warp]:
    """Turn a frame into one float[3, S, S] a tower, and the Warp to the unit square.

    The frame is normalised first, then scaled until its short side is S (bilinear, not antialiased)
    and cropped at the centre, for each tower from its own pixels. With `video: pad` it is centred
    on a square of the mean colour before, so that nothing is cropped.

    Args:
        image: from `load_video` or `load_image`.
        vision: its `video` is not `none`.

    Raises:
        ImageError: if it is so long that it would become larger on the way than a picture may be,
            twice.

    Source: official mg_llava/dataset (video).
    Deviates: no.
    """
    values = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1) / 255
    tensors = [_enter(values, tower, vision.video == "pad") for tower in vision.towers]
    return tensors, frame_warp(image_frame(image), vision)


def frame_warp(frame: Frame, vision: VisionConfig) -> Warp:
    """Return the Warp from a frame's pixels to the unit square of the level tower's input.

    Source: official mg_llava/dataset (video): the scale is the short side's for both axes, and the
        crop starts at a whole pixel, rounded down.
    Deviates: boxes are rounded after the crop, not before, which can differ by a pixel where a
        coordinate lies halfway between two.
    """
    padded = Warp.pad_to_square(frame) if vision.video == "pad" else Warp.identity(frame)
    source, side = padded.target, vision.level_tower.image_size
    scale = side / min(source.width, source.height)
    spare = [(int(length * scale) - side) // 2 for length in (source.width, source.height)]
    target = Frame("frame", side, side)
    crop = Warp(source, target, (scale, scale), (-float(spare[0]), -float(spare[1])))
    return padded.then(crop).then(Warp.to_unit(target))


def seen_boxes(boxes: Boxes, warp: Warp) -> Boxes:
    """Return the boxes of which the model's input shows anything, in the order given.

    Args:
        boxes: pixels of the picture; they may reach outside it.
        warp: of the picture or frame, to the unit square.

    Source: official mg_llava/dataset: one that only touches the edge stays.
    Deviates: no.
    """
    unit = warp.apply(boxes).xyxy
    return boxes[np.all((unit[:, 2:] >= 0) & (unit[:, :2] <= 1), axis=1)]


def _pad_square(image: Image.Image, mean: Sequence[float], rounding: str) -> Image.Image:
    """Centre the picture on a square of the mean colour, at the offsets of `Warp.pad_to_square`."""
    side, whole = max(image.size), round if rounding == "nearest" else int
    _check_room(image.size, (side, side))
    canvas = Image.new("RGB", (side, side), tuple(whole(255 * value) for value in mean))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def _check_room(given: Sequence[int], needed: Sequence[int]) -> None:
    """Refuse a long picture that needs far more room on its way to the model than as it is."""
    most = 2 * DEFAULT_LIMITS.max_pixels
    if needed[0] * needed[1] > most:
        raise ImageError(
            f"the picture is {given[0]}x{given[1]}, so long that this model would need "
            f"{needed[0] * needed[1]} pixels to read it; at most {most} are made. Crop it, or "
            "scale it down."
        )


def _enter(values: Tensor, tower: TowerConfig, padded: bool) -> Tensor:
    """Normalise float[3, H, W] from 0 to 1, scale and crop it to float[3, S, S]."""
    mean, std = (
        torch.tensor(value)[:, None, None] for value in (tower.image_mean, tower.image_std)
    )
    values = (values - mean) / std
    height, width = values.shape[1:]
    given = (width, height)
    if padded:
        most = max(height, width)
        _check_room(given, (most, most))
        left, top = (most - width) // 2, (most - height) // 2
        values = pad(values, (left, most - width - left, top, most - height - top))
        height = width = most
    side, short = tower.image_size, min(height, width)
    size = (int(height / short * side), int(width / short * side))
    _check_room(given, size)
    values = interpolate(values[None], size, mode="bilinear", align_corners=False)[0]
    top, left = (round((length - side) / 2) for length in size)
    return values[:, top : top + side, left : left + side]
