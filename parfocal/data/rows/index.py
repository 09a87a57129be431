"""Where the rows of a file begin, in a little over four bytes a row; may be kept beside the file.

Shapes: N rows.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parfocal.data.outputs import atomic_file
from parfocal.data.rows.base import Stamp
from parfocal.errors import DataError

logger = logging.getLogger(__name__)

STEP = 256  # rows between two absolute offsets
VERSION = 1

Found = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Index:
    """Offsets of rows, as steps from one to the next.

    Attributes:
        steps: uint32[N], bytes from the start of a row to that of the next, or to the end.
        starts: int64[N / STEP], offset of every `STEP`-th row.
        lines: int64[N / STEP + 1], line from 1 of every `STEP`-th row, then the line after all.
        stamp: of the file.
    """

    steps: NDArray[np.uint32]
    starts: NDArray[np.int64]
    lines: NDArray[np.int64]
    stamp: Stamp

    def __len__(self) -> int:
        return len(self.steps)

    def span(self, index: int) -> tuple[int, int]:
        """(offset, size) of a row, in bytes, with whatever stands before the next one."""
        block = index // STEP
        before = self.steps[block * STEP : index].sum(dtype=np.int64)
        return int(self.starts[block] + before), int(self.steps[index])

    def line(self, index: int) -> int | None:
        """The line of a row from 1; None if lines that are no rows make it uncertain."""
        block = index // STEP
        rows = min(STEP, len(self) - block * STEP)
        if self.lines[block + 1] - self.lines[block] != rows:
            return None
        return int(self.lines[block]) + index - block * STEP


def make_index(path: Path, stamp: Stamp, found: Iterable[Found]) -> Index:
    """Pack what a pass over a file found.

    Args:
        path: the file.
        stamp: of it, before the pass.
        found: piece by piece, offset and line of the rows, int64 each; as if there were one more
            row where the file ends.

    Raises:
        DataError: if a row is too long or the file changed meanwhile.
    """
    steps: list[NDArray[np.uint32]] = []
    starts, lines = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    last, last_line, count = np.empty(0, np.int64), 0, 0
    for offsets, numbers in found:
        joined = np.concatenate((last, offsets))
        steps.append(_steps(path, joined))
        first = -count % STEP
        starts.append(offsets[first::STEP].copy())  # a view would keep all of it
        lines.append(numbers[first::STEP].copy())
        count += len(offsets)
        last = joined[-1:]
        last_line = int(numbers[-1]) if len(numbers) else last_line
    count -= 1  # the end of the file is no row
    blocks = -(-count // STEP)
    if Stamp.of(path) != stamp:
        raise DataError(f"{path} changed while it was read. Start again when it is complete.")
    return Index(
        np.concatenate(steps),
        np.concatenate(starts)[:blocks],
        np.append(np.concatenate(lines)[:blocks], last_line),
        stamp,
    )


def _steps(path: Path, offsets: NDArray[np.int64]) -> NDArray[np.uint32]:
    steps = np.diff(offsets)
    if len(steps) and steps.max() >= 2**32:
        raise DataError(f"{path} has a row of {steps.max()} bytes; it must be below 4 GiB.")
    return steps.astype(np.uint32)


def open_index(path: Path, kind: str, build: Callable[[Path], Index], cache: bool) -> Index:
    """Return the index of a file: the one kept beside it, if asked for and there, or a new one.

    Args:
        path: the file.
        kind: what is indexed; part of the name of the file beside it.
        build: makes a new one.
        cache: look for a kept one, and keep a new one.
    """
    index = cached_index(path, kind) if cache else None
    if index is None:
        index = build(path)
        if cache:
            save_index(path, kind, index)
    return index


def cached_index(path: Path, kind: str) -> Index | None:
    """Load the index that `save_index` left; None if there is none or the file has changed."""
    try:
        with _beside(path, kind).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            version, size, mtime_ns = (int(value) for value in arrays["stamp"])
            stamp = Stamp(size, mtime_ns)
            if version != VERSION or stamp != Stamp.of(path):
                return None
            return Index(arrays["steps"], arrays["starts"], arrays["lines"], stamp)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        logger.warning("%s is not a usable index (%s): it is made anew", _beside(path, kind), err)
        return None


def save_index(path: Path, kind: str, index: Index) -> None:
    """Keep an index beside its file, if the folder can be written."""
    stamp = np.array([VERSION, index.stamp.size, index.stamp.mtime_ns], np.int64)
    try:
        with atomic_file(_beside(path, kind)) as file:
            np.savez(file, steps=index.steps, starts=index.starts, lines=index.lines, stamp=stamp)
    except DataError as err:
        logger.warning("the index of %s is not kept: %s", path, err)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}.npz")
