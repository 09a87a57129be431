"""Pictures of bright rectangles whose boxes are known: in memory, and as a file of Samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data import ImageRef, Sample, write_jsonl

GROUND, PAINT = (20, 30, 40), (250, 220, 60)


def drawn_sample(index: int, size_wh: tuple[int, int] = (96, 72), source: str = "drawn") -> Sample:
    """One to three rectangles of 14 to 33 pixels a side, each a region."""
    generator = np.random.default_rng(index)
    picture = Image.new("RGB", size_wh, GROUND)
    rows = []
    for _ in range(int(generator.integers(1, 4))):
        sides = generator.integers(14, 34, 2)
        start = generator.integers(0, np.array(size_wh) - sides, endpoint=True)
        rows.append([*start.tolist(), *(start + sides).tolist()])
        picture.paste(PAINT, tuple(rows[-1]))
    ref = ImageRef(None, *size_wh, pixels=picture)
    return Sample(f"{source}:{index}", (ref,), (), Boxes(rows, ref.frame()), source)


def write_drawn(folder: Path, count: int) -> str:
    """Write pictures and a JSON Lines file into a folder; returns the name of the file."""
    samples = [drawn_sample(index) for index in range(count)]
    stored = []
    for index, sample in enumerate(samples):
        (image,) = sample.images
        sample.open_image().save(folder / f"{index}.png")
        stored.append(replace(sample, images=(ImageRef(f"{index}.png", *image.pixels.size),)))
    write_jsonl(stored, folder / "drawn.jsonl")
    return "drawn.jsonl"
