"""Compose a seeded scene (which objects, where, how large, how turned, how lit), then paint it.

A scene is a pure function of `(split, index)`: the two numbers seed one generator, and the split
also picks the range of background seeds. No scene of one split can therefore share its layout or
its background with another split.

Units: pixels of the finished picture. Boxes are the tight bounds of the visible pixels, xyxy,
half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from parfocal.data.scenes.backgrounds import Pixels, make_background
from parfocal.data.scenes.catalogue import FAMILIES
from parfocal.data.scenes.sprites import SpriteBank

SPLITS = {"train": 1, "heldout": 2, "validation": 3}
BACKGROUNDS_PER_SPLIT = {"train": 400, "heldout": 300, "validation": 100}
BACKGROUND_SIDE = 320
ASPECTS = (1.0, 1.0, 1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)

_Box = tuple[int, int, int, int]  # xyxy, pixels of the picture or patch it is of, half-open


@dataclass(frozen=True)
class SceneStyle:
    """What scenes look like; lengths are fractions of the longer picture side.

    Attributes:
        side: longer side of the picture in pixels.
        num_objects: fewest and most objects placed.
        length: shortest and longest object (its longer side), drawn log-uniformly.
        overlap: most of the smaller box that another box may cover.
        visible: fraction of an object's own pixels that must stay visible.
        twins: probability that a scene repeats one or two kinds on purpose; the colours of one
            noun, which some scenes get, can repeat one more.
    """

    side: int = 192
    num_objects: tuple[int, int] = (2, 10)
    length: tuple[float, float] = (0.15, 0.45)
    overlap: float = 0.22
    visible: float = 0.4
    twins: float = 0.65


@dataclass(frozen=True)
class Placed:
    """One object of a scene.

    Attributes:
        kind: index in the bank.
        xyxy: bounds of its visible pixels, in pixels of the picture, half-open.
        visible: visible fraction of its own pixels, 0 to 1.
    """

    kind: int
    xyxy: tuple[float, float, float, float]
    visible: float


@dataclass(frozen=True)
class Scene:
    """A painted scene.

    Attributes:
        split: a key of `SPLITS`.
        index: number of the scene within its split.
        pixels: uint8[H, W, 3].
        objects: in painting order, back to front.
        hidden: kinds that are painted but too hidden to be annotated; nothing is asked about them.
    """

    split: str
    index: int
    pixels: Pixels
    objects: tuple[Placed, ...]
    hidden: tuple[int, ...]


def make_scene(bank: SpriteBank, split: str, index: int, style: SceneStyle) -> Scene:
    """Compose and paint scene `index` of `split`. The same arguments always give the same pixels.

    Args:
        bank: the sprites.
        split: a key of `SPLITS`.
        index: any non-negative integer.
        style: the look; it takes part in the layout, so a scene is a function of it as well.
    """
    rng = np.random.default_rng((SPLITS[split], index))
    width, height = _canvas_size(rng, style.side)
    canvas = _background(split, rng, width, height)
    owner = np.full((height, width), -1, np.int16)
    painted: list[tuple[int, int]] = []  # kind, own pixels
    taken: list[_Box] = []
    for kind in _choose_kinds(rng, bank, style):
        patch = _transformed_sprite(bank, kind, rng, style)
        box = _find_place(rng, patch.shape[:2], (height, width), taken, style.overlap)
        if box is None:
            continue
        own = _paint(canvas, owner, patch, box, len(painted), rng)
        painted.append((kind, own))
        taken.append(box)
    objects, hidden = _visible_objects(owner, painted, style.visible)
    return Scene(split, index, canvas, objects, hidden)


def _canvas_size(rng: np.random.Generator, side: int) -> tuple[int, int]:
    aspect = float(rng.choice(ASPECTS))
    return (side, round(side / aspect)) if aspect >= 1 else (round(side * aspect), side)


@lru_cache(maxsize=1024)
def _stored_background(split: str, number: int) -> Pixels:
    return make_background((SPLITS[split], 7_000_000 + number), BACKGROUND_SIDE)


def _background(split: str, rng: np.random.Generator, width: int, height: int) -> Pixels:
    stored = _stored_background(split, int(rng.integers(BACKGROUNDS_PER_SPLIT[split])))
    crop = int(rng.integers(BACKGROUND_SIDE // 2, BACKGROUND_SIDE + 1))
    left, top = (int(rng.integers(BACKGROUND_SIDE - crop + 1)) for _ in range(2))
    window = Image.fromarray(stored[top : top + crop, left : left + crop])
    pixels = np.asarray(window.resize((width, height), Image.Resampling.BILINEAR))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.array(pixels, order="C")


def _choose_kinds(rng: np.random.Generator, bank: SpriteBank, style: SceneStyle) -> list[int]:
    """Draw the kinds of a scene in painting order: some repeated, some the colours of one noun."""
    count = int(rng.integers(style.num_objects[0], style.num_objects[1] + 1))
    chosen = [int(kind) for kind in rng.choice(len(bank.kinds), size=count, replace=False)]
    if rng.random() < 0.15:
        relatives = _relatives(rng, bank)[: min(count, 2)]  # fewer where the bank lacks some
        chosen[: len(relatives)] = relatives
    if rng.random() < style.twins and count > 2:
        for _ in range(int(rng.integers(1, 3))):
            copies = int(rng.choice([2, 3, 4], p=[0.55, 0.3, 0.15]))
            where = rng.choice(count, size=min(copies, count), replace=False)
            for position in where[1:]:
                chosen[int(position)] = chosen[int(where[0])]
    return [chosen[int(position)] for position in rng.permutation(count)]


def _relatives(rng: np.random.Generator, bank: SpriteBank) -> list[int]:
    position = {kind.name: index for index, kind in enumerate(bank.kinds)}
    families = sorted(FAMILIES)
    members = [
        position[name]
        for name in FAMILIES[families[int(rng.integers(len(families)))]]
        if name in position
    ]
    return [members[int(index)] for index in rng.permutation(len(members))]


def _transformed_sprite(
    bank: SpriteBank, kind: int, rng: np.random.Generator, style: SceneStyle
) -> NDArray[np.uint8]:
    """Scale, turn, perhaps mirror one sprite.

    Returns:
        uint8[h, w, 4], colours premultiplied by alpha, cut to its outline (alpha above 8).
    """
    low, high = style.length
    length = style.side * low * (high / low) ** float(rng.random())
    angle = rng.uniform(-1.2, 1.2) if rng.random() < 0.2 else float(rng.normal(0, 0.25))
    sprite = bank.sprite(kind, length)
    scale = max(sprite.size) / length  # source pixels per target pixel
    cosine, sine = np.cos(angle), np.sin(angle)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    width, height = sprite.width / scale, sprite.height / scale
    out_w = int(np.ceil(abs(width * cosine) + abs(height * sine))) + 2
    out_h = int(np.ceil(abs(width * sine) + abs(height * cosine))) + 2
    a, b = mirror * cosine * scale, mirror * sine * scale
    d, e = -sine * scale, cosine * scale
    shift_x = sprite.width / 2 - a * out_w / 2 - b * out_h / 2
    shift_y = sprite.height / 2 - d * out_w / 2 - e * out_h / 2
    affine = (a, b, shift_x, d, e, shift_y)  # target pixel -> source pixel
    turned = sprite.transform(
        (out_w, out_h), Image.Transform.AFFINE, affine, resample=Image.Resampling.BILINEAR
    )
    patch = np.asarray(turned)
    left, top, right, bottom = _bounds(patch[..., 3] > 8) or (0, 0, out_w, out_h)
    return patch[top:bottom, left:right]


def _bounds(mask: NDArray[np.bool_]) -> _Box | None:
    """Return the tight box around what is true in bool[H, W], None where nothing is."""
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _find_place(
    rng: np.random.Generator,
    size: tuple[int, int],
    canvas: tuple[int, int],
    taken: list[_Box],
    limit: float,
) -> _Box | None:
    """Draw a place whose box overlaps no earlier one too much; None after 30 tries.

    Args:
        rng: decides the place.
        size: height and width of the new box, pixels.
        canvas: height and width of the picture, pixels.
        taken: each earlier box.
        limit: shared area allowed, as a fraction of the smaller of two boxes.
    """
    height, width = size
    if height > canvas[0] or width > canvas[1]:
        return None
    for _ in range(30):
        left = int(rng.integers(canvas[1] - width + 1))
        top = int(rng.integers(canvas[0] - height + 1))
        box = (left, top, left + width, top + height)
        if all(_shared(box, other) <= limit * min(_area(box), _area(other)) for other in taken):
            return box
    return None


def _area(box: _Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared(one: _Box, other: _Box) -> int:
    """Return the area that two boxes share, pixels."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def _paint(
    canvas: Pixels,
    owner: NDArray[np.int16],
    patch: NDArray[np.uint8],
    box: _Box,
    number: int,
    rng: np.random.Generator,
) -> int:
    """Blend a patch into the canvas under its own light; returns how many of its pixels are opaque.

    Args:
        canvas: uint8[H, W, 3], changed in place.
        owner: int16[H, W], number of the object seen at each pixel, changed in place.
        patch: uint8[h, w, 4], colours premultiplied by alpha.
        box: where it goes.
        number: the object's number.
        rng: decides its light.
    """
    left, top, right, bottom = box
    window = np.s_[top:bottom, left:right]
    rgba = patch.astype(np.float32)
    alpha = rgba[..., 3:] / 255.0
    light = np.float32(rng.uniform(0.7, 1.2)) * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    colour = np.minimum(rgba[..., :3] * light, 255.0 * alpha)
    canvas[window] = (canvas[window] * (1 - alpha) + colour + 0.5).astype(np.uint8)
    opaque = alpha[..., 0] > 0.5
    owner[window][opaque] = number
    return int(opaque.sum())


def _visible_objects(
    owner: NDArray[np.int16], painted: list[tuple[int, int]], least: float
) -> tuple[tuple[Placed, ...], tuple[int, ...]]:
    """Measure each object's visible box; returns the annotated objects and the hidden kinds.

    Args:
        owner: int16[H, W], number of the object seen at each pixel, -1 for the background.
        painted: kind and number of own pixels of each object, by number.
        least: visible fraction below which an object counts as hidden.
    """
    objects, hidden = [], []
    for number, (kind, own) in enumerate(painted):
        seen = owner == number
        bounds, count = _bounds(seen), int(np.count_nonzero(seen))
        if bounds is None or count < least * own:
            hidden.append(kind)
            continue
        left, top, right, bottom = map(float, bounds)
        objects.append(Placed(kind, (left, top, right, bottom), count / own))
    return tuple(objects), tuple(hidden)
