"""GRIT, the set of Kosmos-2: web captions whose phrases were tied to boxes by a detector.

A row lists `[start, end, x1, y1, x2, y2, score]`, all floats: character offsets into the caption
and fractions of the picture's sides. A phrase with several boxes is several rows with equal
offsets. The pictures are fetched by url and may have been scaled since, so fractions are of the
size they have now.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from parfocal.boxes import Frame
from parfocal.data.readers.base import Reader
from parfocal.data.readers.caption_spans import SpanBox, ground_caption
from parfocal.data.readers.stream import parquet_rows
from parfocal.data.sample import Sample, Turn
from parfocal.errors import ConfigError, DataError

PHRASES = ("ref_exps", "noun_chunks")


@dataclass
class GritReader(Reader):
    """A Sample a row: the caption as one assistant turn, its phrases with boxes and scores.

    Args:
        phrases: "ref_exps", noun phrases with what describes them ("a dog in a field"), or
            "noun_chunks", noun phrases alone.
    """

    source: ClassVar[str] = "grit"
    licence: ClassVar[str] = "MS-PL (annotations); pictures belong to the sites they are from"
    files: ClassVar[tuple[str, ...]] = (
        "coyo_*_snappy.parquet or what img2dataset made of it, or a folder of them",
    )

    phrases: str = "ref_exps"

    def __post_init__(self) -> None:
        """Check the options and find the shards."""
        super().__post_init__()
        if self.phrases not in PHRASES:
            raise ConfigError(f"phrases is {self.phrases!r}, must be {' or '.join(PHRASES)}.")
        root = self.paths[0]
        self.shards = sorted(root.glob("*.parquet"), key=_by_number) if root.is_dir() else [root]
        if not self.shards:
            raise DataError(f"{root} holds no *.parquet. Give the folder of the shards.")

    def samples(self) -> Iterator[Sample]:
        """Yield rows in the order of the shards, by number."""
        columns = ("key", "id", "url", "caption", "width", "height", self.phrases)
        for shard in self.shards:
            for index, row in enumerate(parquet_rows(shard, columns), start=1):
                sample = self._sample(row, shard.stem, f"{shard}:{index}")
                if isinstance(sample, str):
                    self.skip(sample)
                else:
                    yield sample

    def _sample(self, row: dict[str, Any], shard: str, where: str) -> Sample | str:
        if row["id"] is None:
            raise DataError(f"{where}: the row has no `id`. Is it a shard of GRIT?")
        caption, width, height = row["caption"] or "", row["width"] or 0, row["height"] or 0
        if not caption.strip():
            return "rows without a caption"
        if width < 1 or height < 1:
            return "rows without a size"
        stated = None if self.images is not None else (width, height)
        placed = self.pictures.place(grit_names(shard, str(row["key"]), row["id"]), stated)
        if isinstance(placed, str):
            return placed
        stored = placed.upright.source
        if not _same_shape((width, height), stored):
            return "pictures of another shape than the dataset states"
        boxes = read_span_boxes(row[self.phrases] or [], stored, where)
        return self.sample(
            row["id"],
            (placed.ref,),
            turns=(Turn("assistant", ground_caption(self, caption, boxes, placed)),),
            meta={"image_key": f"coyo:{row['id']}", "url": row["url"]},
        )


def read_span_boxes(rows: Sequence[Any], stored: Frame, where: str) -> Iterator[SpanBox]:
    """Yield the boxes of `[start, end, x1, y1, x2, y2, score]`, in pixels.

    Args:
        rows: offsets are whole numbers, also as floats; the score may be left out.
        stored: the picture as it is stored.
        where: file and row, for errors.

    Raises:
        DataError: if a row has another form.
    """
    for row in rows:
        numbers = _numbers(row)
        if len(numbers) not in (6, 7) or not all(value.is_integer() for value in numbers[:2]):
            raise DataError(
                f"{where}: a phrase is {row!r:.80}, must be start and end as whole numbers, "
                "x1, y1, x2, y2 and a score."
            )
        x1, y1, x2, y2 = numbers[2:6]
        xyxy = [x1 * stored.width, y1 * stored.height, x2 * stored.width, y2 * stored.height]
        score = numbers[6] if len(numbers) == 7 and math.isfinite(numbers[6]) else None
        yield SpanBox(int(numbers[0]), int(numbers[1]), xyxy, score)


def _numbers(row: Any) -> list[float]:
    """The numbers of a list, or none if it is something else."""
    sound = isinstance(row, list) and all(isinstance(value, int | float) for value in row)
    return [float(value) for value in row] if sound else []


def grit_names(shard: str, key: str, number: int) -> list[str]:
    """Return the paths under which a picture may be stored.

    The key of a published row is a file name in another download, so only the id counts. Parquet
    files that img2dataset wrote beside its pictures (`00037.parquet`) have their own keys.

    Args:
        shard: name of the Parquet file, without suffix.
        key: column of the row.
        number: id of the row, unique in the set.
    """
    names = [f"{number}.jpg", f"{shard}/{number}.jpg"]
    if shard.isdecimal() and key.startswith(shard):
        names = [f"{shard}/{key}.jpg", f"{key}.jpg", *names]
    return names


def _same_shape(size_wh: tuple[int, int], stored: Frame) -> bool:
    """True if fractions carry over: one is the other scaled, give or take a pixel."""
    width, height = size_wh
    return abs(stored.width * height - stored.height * width) <= max(width, height)


def _by_number(path: Path) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", path.name)], path.name
