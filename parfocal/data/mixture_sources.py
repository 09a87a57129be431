"""The sources of a mixture, opened: which rows are used, in which order, and one row at a time.

In memory are the numbers of the rows that `ratio` or the leak guard leave, four bytes each, and
nothing if they leave all; orders are computed place by place (`permute.py`).

Shapes: N places.
"""

from __future__ import annotations

import copy
import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfocal.data.mixture import Mixture, MixtureSource, exact
from parfocal.data.parquet import parquet_files
from parfocal.data.permute import Ints, Permutation, key_of
from parfocal.data.rows import (
    HubRows,
    Joined,
    LineRows,
    ParquetRows,
    Raw,
    Rows,
    TarRows,
    TarStream,
)
from parfocal.data.sample import Sample
from parfocal.data.schedule import CHUNK
from parfocal.errors import ConfigError, DataError


class OpenSource:
    """A source with its files open.

    Its rows are numbered by their place in the files. Those in use have a second number, from 0 to
    `len(source) - 1`, by which orders are made.

    Args:
        settings: the source.
        seed: of the mixture.
        shuffled: whether passes are shuffled; otherwise they are in the order of the files.
        cache: see `Mixture`.

    Raises:
        DataError: if a file cannot be read or there are no rows.
        ConfigError: if the settings do not fit the files.
    """

    def __init__(
        self, settings: MixtureSource, seed: int, shuffled: bool = True, cache: bool = False
    ) -> None:
        self.settings, self.name = settings, settings.name
        self.rows: Any = open_rows(settings, cache)  # Rows; IndexedRows unless streaming
        self.shuffled, self._seed = shuffled, seed
        self.num_rows = settings.rows or len(self.rows)
        if not self.num_rows:
            raise DataError(f"source {self.name!r}: {settings.path} holds no rows.")
        self._kept = draw_rows(self.num_rows, settings.ratio, key_of(seed, "ratio", self.name))
        self._digest: str | None = None
        self._block: tuple[int, dict[int, Raw]] = (-1, {})
        self._stream: Iterator[Raw] = iter(())
        self._position = 0

    def __len__(self) -> int:
        """Rows in use."""
        return self.num_rows if self._kept is None else len(self._kept)

    @property
    def remote(self) -> bool:
        """Whether looking through all rows would go over the network."""
        return isinstance(self.rows, HubRows) and self.rows.remote

    def exclude(self, rows: Ints) -> None:
        """Stop using some rows, by their numbers in the files."""
        gone = np.unique(rows[self.uses(rows)])
        if len(gone):
            kept = self._kept
            if kept is None:
                kept = np.arange(self.num_rows, dtype=_type(self.num_rows))
            self._kept = np.delete(kept, np.searchsorted(kept, gone))
            self._digest = None

    def uses(self, rows: Ints) -> NDArray[np.bool_]:
        """bool[N]: whether rows are in use, by their numbers in the files."""
        if self._kept is None:
            return np.asarray(rows < self.num_rows)
        if not len(self._kept):
            return np.zeros(len(rows), np.bool_)
        places = np.searchsorted(self._kept, rows)
        found: NDArray[np.bool_] = self._kept[np.minimum(places, len(self._kept) - 1)] == rows
        return found

    def span(self, epoch: int) -> tuple[int, int]:
        """(first, count) of the places that an epoch takes of an endless series of passes."""
        each = exact(self.settings.epochs) * len(self)
        first = int(epoch * each)
        return first, int((epoch + 1) * each) - first

    def order(self, places: Ints) -> Ints:
        """Which of the rows in use come at some places of the endless series of passes.

        Args:
            places: int[N], ascending.

        Returns:
            int64[N], each in 0..len(self) - 1.
        """
        size = len(self)
        passes, found = np.divmod(np.asarray(places, np.int64), max(size, 1))
        if not self.shuffled:
            return found
        block = self.settings.buffer if self.settings.streaming else size
        groups = passes * -(-size // max(block, 1)) + found // max(block, 1)
        bounds = np.flatnonzero(np.diff(groups, prepend=-1, append=-1))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            number, own = int(passes[start]), slice(start, end)
            first = int(found[start]) // block * block
            key = key_of(self._seed, "order", self.name, number, first)
            permutation = Permutation(min(block, size - first), key)
            found[own] = first + permutation(found[own] - first)
        return found

    def numbers(self, indices: Ints) -> Ints:
        """int64[N]: the numbers in the files of rows in use."""
        return indices if self._kept is None else self._kept[indices].astype(np.int64)

    def read(self, index: int) -> Sample:
        """One of the rows in use; the pictures of local files can be opened from anywhere.

        Raises:
            DataError: if it is no valid row, naming file and line.
        """
        raw = self._streamed(index) if self.settings.streaming else self.rows.at(self._row(index))
        return self.placed(self.rows.sample(raw), raw.where)

    def placed(self, sample: Sample, where: str) -> Sample:
        """The Sample with paths of pictures that can be opened from the working folder."""
        if not any(image.path for image in sample.images):
            return sample
        settings = self.settings
        if settings.images:
            folder = Path(settings.images)
        elif settings.kind == "hub":
            return sample
        else:
            folder = Path(where.rpartition(":")[0]).parent
        images = [
            replace(image, path=str(folder / image.path)) if image.path else image
            for image in sample.images
        ]
        # Only paths change, so the checks of a new Sample, a third of all reading, are left out.
        found = copy.copy(sample)
        object.__setattr__(found, "images", tuple(images))
        return found

    def fingerprint(self) -> dict[str, Any]:
        """What the order of the rows depends on, as plain JSON."""
        if self._digest is None:
            kept = b"" if self._kept is None else self._kept.astype("<i8").tobytes()
            self._digest = hashlib.blake2b(kept, digest_size=8).hexdigest()
        settings = self.settings
        return {
            "name": self.name,
            "rows": self.num_rows,
            "used": len(self),
            "used_rows": self._digest,
            "epochs": settings.epochs,
            "weight": settings.weight,
            "views": list(settings.views),
            "buffer": settings.buffer if settings.streaming else 0,
        }

    def _row(self, index: int) -> int:
        return index if self._kept is None else int(self._kept[index])

    def _streamed(self, index: int) -> Raw:
        """A row of the block that is in memory, which moves forward, or back to the start."""
        size = self.settings.buffer
        number = index // size
        if self._block[0] != number:
            indices = np.arange(number * size, min((number + 1) * size, len(self)))
            self._block = (number, self._next(self.numbers(indices).tolist()))
        return self._block[1][self._row(index)]

    def _next(self, wanted: Sequence[int]) -> dict[int, Raw]:
        """Rows by their numbers in the files, which ascend."""
        if self._position == 0 or wanted[0] < self._position:
            self._stream, self._position = self.rows.forward(wanted[0]), wanted[0]
        found = dict[int, Raw]()
        for number in wanted:
            while self._position <= number:
                raw = next(self._stream, None)
                if raw is None:
                    raise DataError(
                        f"source {self.name!r} ended after {self._position} rows, "
                        f"{self.num_rows} were announced. Say how many there are: rows = N."
                    )
                self._position += 1
            assert raw is not None
            found[number] = raw
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_block": (-1, {}), "_stream": iter(()), "_position": 0}


def open_sources(mixture: Mixture) -> tuple[OpenSource, ...]:
    """Open all sources of a mixture.

    Raises:
        DataError: if a file cannot be read or holds no rows.
        ConfigError: if the settings of a source do not fit its files.
    """
    shuffled = mixture.interleave != "sequential"
    return tuple(
        OpenSource(settings, mixture.seed, shuffled, mixture.cache) for settings in mixture.sources
    )


def draw_rows(count: int, ratio: float, key: int) -> NDArray[Any] | None:
    """Draw a subset without replacement.

    Returns:
        The rows in ascending order, int32 or int64; None for all of them.

    Source: Groma (arXiv:2404.13013), official groma/data: `ratio` of each dataset.
    Deviates: the official choice is not seeded; at least one row stays.
    """
    size = max(1, int(exact(ratio) * count))
    if size >= count:
        return None
    order = Permutation(count, key)
    rows = np.empty(size, _type(count))
    for first in range(0, size, CHUNK):
        last = min(first + CHUNK, size)
        rows[first:last] = order(np.arange(first, last))
    rows.sort()
    return rows


def _type(count: int) -> type[np.int32] | type[np.int64]:
    return np.int32 if count < 2**31 else np.int64


def open_rows(settings: MixtureSource, cache: bool = False) -> Rows:
    """Open the files of a source.

    Raises:
        DataError: if a file is not there or cannot be read.
        ConfigError: if the files can only be streamed, or an extra is not installed.
    """
    kind = settings.format
    if kind == "hub":
        return HubRows(
            settings.path,
            settings.files,
            settings.split,
            settings.revision or None,
            settings.rows or None,
        )
    files = source_files(settings)
    if kind == "jsonl":
        rows: Rows = Joined([LineRows(file, cache) for file in files])
    elif kind == "parquet":
        rows = Joined([ParquetRows(file) for file in files])
    elif settings.streaming:
        return TarStream(tuple(files), settings.rows or None)
    else:
        packed = [file for file in files if file.suffix != ".tar"]
        if packed:
            raise ConfigError(
                f"source {settings.name!r}: {packed[0]} is compressed, so its rows come in order "
                "only. Set streaming = true, or unpack it to .tar."
            )
        rows = Joined([TarRows(file, cache) for file in files])
    return rows


def source_files(settings: MixtureSource) -> list[Path]:
    """The files that a source reads; of a dataset of the hub those that it names.

    Raises:
        DataError: if there is none.
    """
    if settings.format == "hub":
        return [Path(name) for name in settings.files]
    path = Path(settings.path)
    if path.is_dir() and settings.format != "parquet":
        ending = "*.jsonl" if settings.format == "jsonl" else "*.tar"
        files = sorted(path.glob(ending))
    elif "*" in settings.path and not path.exists():
        files = [Path(name) for name in sorted(glob.glob(settings.path))]
    else:
        files = [path]
    if not files or not all(file.exists() for file in files):
        raise DataError(
            f"source {settings.name!r}: {settings.path} does not exist or matches no file. "
            "Relative paths start from the folder of a mixture file, or from --data in a recipe."
        )
    if settings.format == "parquet":
        return list(chain.from_iterable(map(parquet_files, files)))
    return files
