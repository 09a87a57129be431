"""Rows of JSON Lines files, any of them by its number."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from parfocal.data.jsonl import describe_line_error, parse_line, read_lines
from parfocal.data.rows.base import JsonRow, Likely, Raw, Scanned, Stamp, Window
from parfocal.data.rows.index import STEP, Found, Index, make_index, open_index
from parfocal.data.sample import Sample
from parfocal.errors import DataError

PIECE = 1 << 23  # bytes searched for line ends at a time
MARK = b"\xef\xbb\xbf"  # a byte order mark is no part of the first line
_BLANKS = np.frombuffer(b" \t\n\r\x0b\x0c", np.uint8)


class LineRows:
    """The lines of a file that are not blank.

    Args:
        path: a JSON Lines file.
        cache: keep the index beside the file, for the next time.

    Raises:
        DataError: if it cannot be read.
    """

    def __init__(self, path: Path, cache: bool = False) -> None:
        self.path = path
        self._index = open_index(path, "lines", index_lines, cache)
        self._window = Window(path, self._index.stamp)

    def __len__(self) -> int:
        return len(self._index)

    def at(self, index: int) -> Raw:
        """Line of row `index`."""
        content = self._window.read(*self._index.span(index))
        return Raw(f"{self.path}:{self._line(index)}", content.partition(b"\n")[0])

    def forward(self, start: int = 0) -> Iterator[Raw]:
        """Lines from row `start` on."""
        for index, (number, content) in enumerate(read_lines(self.path)):
            if index >= start:
                yield Raw(f"{self.path}:{number}", content)

    def sample(self, raw: Raw) -> Sample:
        """Parse a line."""
        try:
            row = parse_line(raw.content)
        except ValueError as err:
            raise DataError(f"{raw.where}: {describe_line_error(err)[1]}") from err
        return Sample.from_json(row, raw.where)

    def scan(self, likely: Likely) -> Iterator[Scanned]:
        """Lines that `likely` picks, parsed."""
        for index, raw in enumerate(self.forward()):
            if likely(raw.content):
                row = object_or_none(raw.content)
                if row is not None:
                    yield Scanned(index, raw.where, row, partial(self.sample, raw))

    def _line(self, index: int) -> int:
        line = self._index.line(index)
        if line is None:  # blank lines near it: count
            first = index // STEP * STEP
            start = self._index.span(first)[0]
            between = self._window.read(start, self._index.span(index)[0] - start)
            line = int(self._index.lines[first // STEP]) + between.count(b"\n")
        return line


def object_or_none(text: bytes) -> JsonRow | None:
    """A JSON object, or None for anything else."""
    try:
        row = parse_line(text)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def index_lines(path: Path) -> Index:
    """Find the lines of a file that are not blank.

    Raises:
        DataError: if it cannot be read.
    """
    stamp = Stamp.of(path)
    try:
        with path.open("rb") as file, path.open("rb") as second:
            return make_index(path, stamp, _Search(file, second).pieces(stamp.size))
    except OSError as err:
        raise DataError(f"{path} cannot be opened: {err.strerror}.") from err


class _Search:
    """One pass over a file."""

    def __init__(self, file: BinaryIO, second: BinaryIO) -> None:
        self.file, self.second = file, second

    def pieces(self, size: int) -> Iterator[Found]:
        """Offset and line of the rows that begin in each piece, then of the end of the file."""
        line = 1
        base = len(MARK) if self.file.read(len(MARK)) == MARK else 0
        self.file.seek(base)
        first = True  # whether a line begins with this piece
        while piece := self.file.read(PIECE):
            values = np.frombuffer(piece, np.uint8)
            ends = np.flatnonzero(values == 10)
            begins = np.concatenate((np.zeros(int(first), np.int64), ends + 1))
            first = bool(len(ends)) and int(ends[-1]) == len(piece) - 1
            begins = begins[: len(begins) - int(first)]
            lines = line + np.arange(len(begins))
            line += len(begins)
            kept = self._rows(values, begins, base)
            yield begins[kept] + base, lines[kept]
            base += len(piece)
        yield np.array([size]), np.array([line])

    def _rows(
        self, values: NDArray[np.uint8], begins: NDArray[np.int64], base: int
    ) -> NDArray[np.bool_]:
        """Which lines are not blank: only those that begin with a blank are looked at."""
        kept = np.ones(len(begins), np.bool_)
        for at in np.flatnonzero(np.isin(values[begins], _BLANKS)):
            self.second.seek(base + int(begins[at]))
            kept[at] = bool(self.second.readline().strip())
        return kept
