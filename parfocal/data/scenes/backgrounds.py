"""Procedural backgrounds of seeded scenes: gradients, blobs, layered noise, stripes and checks.

A background is made from its own seed alone, so two splits that use different seeds share none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # [H, W, 3]
Plane = NDArray[np.float64]  # [H, W], [H, W, 3] or [3], levels 0 to 255 or blends 0 to 1


def make_background(seed: tuple[int, ...], side: int) -> Pixels:
    """Return uint8[side, side, 3], one of five families, decided by `seed` alone."""
    rng = np.random.default_rng(seed)
    family = rng.choice(
        ["gradient", "blobs", "noise", "stripes", "checks"], p=[0.25, 0.2, 0.3, 0.13, 0.12]
    )
    draw = {
        "gradient": _gradient,
        "blobs": _blobs,
        "noise": _noise,
        "stripes": _stripes,
        "checks": _checks,
    }
    canvas = draw[str(family)](rng, side)
    canvas += rng.normal(0.0, rng.uniform(0.0, 5.0), canvas.shape)  # sensor grain
    pixels: Pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    return pixels


def _colour(rng: np.random.Generator) -> Plane:
    grey, spread = rng.uniform(40, 235), rng.uniform(0, 70)
    colour: Plane = np.clip(grey + rng.uniform(-spread, spread, 3), 0, 255)
    return colour


def _ramp(rng: np.random.Generator, side: int) -> Plane:
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, side)
    plane = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    ramp: Plane = (plane - plane.min()) / (plane.max() - plane.min())
    return ramp


def _gradient(rng: np.random.Generator, side: int) -> Plane:
    blend = _ramp(rng, side)[..., None] ** rng.uniform(0.5, 2.0)
    return _colour(rng) * (1 - blend) + _colour(rng) * blend


def _blobs(rng: np.random.Generator, side: int) -> Plane:
    canvas = _gradient(rng, side)
    rows, columns = np.mgrid[0:side, 0:side] / side
    for _ in range(int(rng.integers(3, 9))):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.08, 0.35)
        distance = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2
        weight = (np.exp(-distance / (2 * radius**2)) * rng.uniform(0.3, 0.9))[..., None]
        canvas = canvas * (1 - weight) + _colour(rng) * weight
    return canvas


def _noise(rng: np.random.Generator, side: int) -> Plane:
    field = np.zeros((side, side))
    coarsest = int(rng.integers(2, 7))
    for octave in range(4):
        cells = coarsest * 2**octave
        layer = Image.fromarray(rng.uniform(0, 255, (cells, cells)).astype(np.uint8), "L")
        smooth = layer.resize((side, side), Image.Resampling.BICUBIC)
        field += np.asarray(smooth, np.float64) * 0.5**octave
    blend: Plane = ((field - field.min()) / (np.ptp(field) + 1e-9))[..., None]
    return _colour(rng) * (1 - blend) + _colour(rng) * blend


def _stripes(rng: np.random.Generator, side: int) -> Plane:
    wave = np.sin(_ramp(rng, side) * rng.uniform(4, 20) * 2 * np.pi)
    blend = (1 / (1 + np.exp(-wave * rng.uniform(1, 10))))[..., None]
    first = _colour(rng)
    second = np.clip(first + rng.uniform(-60, 60, 3), 0, 255)
    pattern: Plane = first * (1 - blend) + second * blend
    return pattern


def _checks(rng: np.random.Generator, side: int) -> Plane:
    cell = int(rng.integers(side // 16, side // 4))
    rows, columns = np.mgrid[0:side, 0:side] // cell
    blend = ((rows + columns) % 2)[..., None].astype(np.float64)
    first = _colour(rng)
    second = np.clip(first + rng.uniform(-50, 50, 3), 0, 255)
    pattern: Plane = first * (1 - blend) + second * blend
    return pattern
