"""Rows with known ids, and files of every kind that hold them, for tests of mixtures."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data import ImageRef, Sample, Turn, write_jsonl
from parfocal.data.parquet import write_parquet, write_parquet_shards
from parfocal.dialects import GroundedText, Phrase

Colour = tuple[int, int, int]


def make_sample(name: str, number: int = 0, **meta: Any) -> Sample:
    """A sample about one picture of 8 x 6 pixels."""
    image = ImageRef(f"{name}.png", 8, 6)
    dog = Phrase("the d\u00f6g", Boxes([[1, 2, 1 / 3 + number % 5 + 1, 5]], image.frame()))
    turns = (Turn("user", GroundedText.of("Where?")), Turn("assistant", GroundedText.of(dog)))
    return Sample(name, (image,), turns, meta={"n": number, **meta})


def make_samples(prefix: str, count: int) -> list[Sample]:
    return [make_sample(f"{prefix}{number}", number) for number in range(count)]


def flat(lists: Iterable[Sequence[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def picture_bytes(colour: Colour, size_wh: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size_wh, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, rows: Iterable[Mapping[str, bytes]], mode: str = "w") -> Path:
    """A tar file with the members of each row together."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for members in rows:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def tar_row(sample: Sample, colour: Colour | None = None) -> dict[str, bytes]:
    """The members of one row: the picture first, as some writers have it."""
    number = sample.meta["n"]
    shade = colour or (int(number) % 256, 7, 9)
    return {
        f"set/{sample.id}.png": picture_bytes(shade),
        f"set/{sample.id}.json": json.dumps(sample.to_json()).encode(),
    }


def write_rows(folder: Path, name: str, samples: Sequence[Sample], form: str = "jsonl") -> Path:
    """Write samples in a format; returns what to open."""
    path = folder / (name if form == "shards" else f"{name}.{form}")
    if form == "jsonl":
        write_jsonl(samples, path)
    elif form == "parquet":
        write_parquet(samples, path)
    elif form == "shards":
        write_parquet_shards(samples, path, rows_per_shard=3)
    else:
        write_tar(path, map(tar_row, samples), "w:gz" if form == "tar.gz" else "w")
    return path
