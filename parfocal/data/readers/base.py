"""What every reader is: a dataset in its own files, as a stream of Samples.

A reader is a dataclass: its fields are its options, and `parfocal data readers` lists them. It
streams: nothing is held but what a join needs (see `spill.py`). What cannot become a Sample is
counted by reason in `skipped`, never lost without a word.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from parfocal.boxes import Boxes
from parfocal.data.readers.pictures import Pictures, Placed
from parfocal.data.sample import JSON, ImageRef, Sample, Turn
from parfocal.dialects.grounded import UNPLACED
from parfocal.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

INEXHAUSTIVE = "not_exhaustive_categories"  # of `meta`
MIN_AREA = 1.0  # square pixels; what is smaller after clipping is nothing


@dataclass
class Reader(ABC):
    """A dataset in its own files; every iteration starts over.

    Args:
        sources: the dataset's files, as `files` lists them.
        images: folder of the pictures. With it, every picture's size is checked and rows without a
            picture are skipped; without it, the sizes that the dataset states are believed.
        split: what Samples say of their split.

    Attributes:
        skipped: how many rows of the last iteration were left out, by reason.
    """

    source: ClassVar[str]
    licence: ClassVar[str]
    files: ClassVar[tuple[str, ...]]

    sources: Sequence[str | Path]
    _: KW_ONLY
    images: str | Path | None = None
    split: str = ""
    skipped: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that the files are there, before hours go by."""
        if isinstance(self.sources, str | Path):
            raise ConfigError(f"sources is {str(self.sources)!r}, must be a list of files.")
        self.paths = [Path(source) for source in self.sources]
        if len(self.paths) != len(self.files):
            raise ConfigError(
                f"the reader {self.source!r} takes {len(self.files)} sources "
                f"({', '.join(self.files)}), {len(self.paths)} were given."
            )
        for path, wanted in zip(self.paths, self.files, strict=True):
            if not path.exists():
                raise DataError(f"{path} does not exist. Give {wanted}.")
        self.pictures = Pictures(self.images)

    def __iter__(self) -> Iterator[Sample]:
        """The Samples, in the order of the files."""
        self.skipped.clear()
        for sample in self.samples():
            if _is_unicode(sample):
                yield sample
            else:
                self.skip("words with half a character")
        for reason, count in sorted(self.skipped.items()):
            logger.info("%s: %d left out, %s", self.source, count, reason)

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """Yield Samples; call `skip` for what is left out."""

    def skip(self, reason: str, count: int = 1) -> None:
        """Count something that is left out.

        Args:
            reason: short, without names or numbers, so that equal reasons are counted together.
            count: how many at once; 0 counts nothing.
        """
        if count:
            self.skipped[reason] += count

    def sample(
        self,
        native: object,
        images: Sequence[ImageRef],
        *,
        turns: Sequence[Turn] = (),
        regions: Boxes = UNPLACED,
        meta: Mapping[str, JSON],
        split: str = "",
    ) -> Sample:
        """Build a Sample that says where it comes from.

        Args:
            native: what the dataset calls it, unique in its split.
            images: its pictures.
            turns: its conversation.
            regions: boxes of the first picture.
            meta: what else is known.
            split: of this row, where the dataset tells it; else the reader's.
        """
        name = ":".join(filter(None, (self.source, self.split, str(native))))
        split = split or self.split
        return Sample(
            name, tuple(images), tuple(turns), regions, self.source, split, self.licence, meta
        )

    def regions(
        self, rows_xyxy: Sequence[Sequence[float]], labels: Sequence[str], placed: Placed
    ) -> Boxes:
        """Boxes of the stored picture as regions of the upright one.

        They are clipped to the picture; those of which nothing is left are counted and dropped.

        Args:
            rows_xyxy: pixels of the picture as it is stored, half-open.
            labels: one a box.
            placed: the picture, from `self.pictures`.
        """
        return self.kept_regions(rows_xyxy, labels, placed)[0]

    def kept_regions(
        self, rows_xyxy: Sequence[Sequence[float]], labels: Sequence[str], placed: Placed
    ) -> tuple[Boxes, list[int]]:
        """`regions`, and the indices of the rows that were kept."""
        boxes, kept = self.upright(rows_xyxy, placed)
        return boxes.replace(labels=[labels[index] for index in kept]), kept

    def upright(
        self, rows_xyxy: Sequence[Sequence[float]], placed: Placed
    ) -> tuple[Boxes, list[int]]:
        """`upright_boxes`, counting what they leave out: the boxes of phrases."""
        boxes, kept = upright_boxes(rows_xyxy, placed)
        self.skip("boxes without area inside their picture", len(rows_xyxy) - len(kept))
        return boxes, kept


def _is_unicode(sample: Sample) -> bool:
    """False where a word holds half a pair of surrogates, as of an emoji that somebody cut in two.

    No file takes that, and no tokenizer.
    """
    words = [turn.text.plain for turn in sample.turns]
    try:
        json.dumps(
            [sample.id, words, sample.regions.labels, sample.meta], ensure_ascii=False
        ).encode()
    except UnicodeEncodeError:
        return False
    return True


def upright_boxes(rows_xyxy: Sequence[Sequence[float]], placed: Placed) -> tuple[Boxes, list[int]]:
    """Turn boxes of the stored picture upright and clip them.

    Args:
        rows_xyxy: pixels of the picture as it is stored, half-open.
        placed: the picture.

    Returns:
        The boxes of which at least `MIN_AREA` is left, and the indices of their rows. Rows that are
        no boxes at all (NaN, x2 < x1) are among those left out.
    """
    rows = np.asarray(rows_xyxy, dtype=np.float64).reshape(-1, 4)
    sound = np.isfinite(rows).all(axis=1)
    sound &= (rows[:, 2] >= rows[:, 0]) & (rows[:, 3] >= rows[:, 1])
    index = np.flatnonzero(sound)
    boxes = placed.upright.apply(Boxes(rows[index], placed.upright.source)).clip()
    large = boxes.area >= MIN_AREA
    return boxes[large], [int(kept) for kept in index[large]]


def without(labels: Sequence[str], kept: Sequence[int]) -> list[str]:
    """The labels of rows that were not kept, of `kept_regions`."""
    there = set(kept)
    return [label for index, label in enumerate(labels) if index not in there]


def inexhaustive(*labels: str) -> dict[str, JSON]:
    """Return what `meta` says of things that may be there without a box: their labels, once each.

    >>> inexhaustive("book", "person", "book"), inexhaustive()
    ({'not_exhaustive_categories': ['book', 'person']}, {})
    """
    return {INEXHAUSTIVE: list(dict.fromkeys(labels))} if labels else {}


def xywh_to_xyxy(row: Sequence[float]) -> list[float]:
    """[x, y, width, height] -> [x1, y1, x2, y2]."""
    x, y, width, height = (float(value) for value in row)
    return [x, y, x + width, y + height]
