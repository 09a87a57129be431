"""Rows of Parquet files, any of them by its number.

A row group is read whole; the last ones stay in memory, so that nearby rows come quickly. Files
that `write_parquet` made have groups of a thousand rows. In a file of another make with huge
groups, reading in order (`streaming = true`) costs less.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from parfocal.data.parquet import BATCH_ROWS, import_pyarrow, row_of_columns
from parfocal.data.rows.base import Likely, Raw, Scanned, Stamp
from parfocal.data.sample import Sample
from parfocal.errors import DataError

KEPT_BYTES = 1 << 26  # of row groups in memory, of all files that a process reads
_KEPT: OrderedDict[tuple[Path, Stamp, int], Any] = OrderedDict()  # the last ones read, at the end


class ParquetRows:
    """The rows of a Parquet file.

    Args:
        path: a file with the columns of `parfocal.data.parquet`.

    Raises:
        DataError: if it cannot be read.
        ConfigError: if pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._stamp = path, Stamp.of(path)
        self._metadata: Any = None  # read once: that of a file of many groups is large
        with self._open() as file:
            self._metadata = file.metadata
        groups = range(self._metadata.num_row_groups)
        sizes = [self._metadata.row_group(group).num_rows for group in groups]
        self._ends = list(accumulate(sizes))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def at(self, index: int) -> Raw:
        """Row `index`."""
        group = bisect_right(self._ends, index)
        first = self._ends[group - 1] if group else 0
        (columns,) = self._group(group).slice(index - first, 1).to_pylist()
        return Raw(f"{self.path}:{index + 1}", columns)

    def forward(self, start: int = 0) -> Iterator[Raw]:
        """Rows from number `start` on."""
        first = bisect_right(self._ends, start)
        index = self._ends[first - 1] if first else 0
        for columns in self._columns(range(first, len(self._ends))):
            index += 1
            if index > start:
                yield Raw(f"{self.path}:{index}", columns)

    def sample(self, raw: Raw) -> Sample:
        """Check a row and make it a Sample."""
        return Sample.from_json(row_of_columns(raw.content), raw.where)

    def scan(self, likely: Likely) -> Iterator[Scanned]:
        """Rows whose column `meta` is picked by `likely`."""
        wanted = range(len(self._ends))
        for index, columns in enumerate(self._columns(wanted, ["images", "meta"])):
            text = columns.get("meta") or "{}"
            if isinstance(text, str) and likely(text.encode(errors="replace")):
                row = row_of_columns(columns)
                if isinstance(row["meta"], dict):
                    where = f"{self.path}:{index + 1}"
                    yield Scanned(index, where, row, partial(self._read, index))

    def _read(self, index: int) -> Sample:
        return self.sample(self.at(index))

    def _columns(self, groups: range, names: list[str] | None = None) -> Iterator[dict[str, Any]]:
        if not len(groups):
            return
        with self._open() as file:
            for batch in file.iter_batches(
                BATCH_ROWS, row_groups=list(groups), columns=names, use_threads=False
            ):
                yield from batch.to_pylist()

    def _group(self, group: int) -> Any:
        key = (self.path, self._stamp, group)
        if key in _KEPT:
            _KEPT.move_to_end(key)
            return _KEPT[key]
        with self._open() as file:
            table = file.read_row_group(group, use_threads=False)
        _KEPT[key] = table
        while len(_KEPT) > 1 and sum(kept.nbytes for kept in _KEPT.values()) > KEPT_BYTES:
            _KEPT.popitem(last=False)
        return table

    @contextmanager
    def _open(self) -> Iterator[Any]:
        arrow, parquet = import_pyarrow()
        if Stamp.of(self.path) != self._stamp:
            raise DataError(f"{self.path} has changed since it was opened. Start again.")
        try:
            with parquet.ParquetFile(self.path, metadata=self._metadata) as file:
                yield file
        except (OSError, arrow.ArrowException) as err:
            raise DataError(f"{self.path} is not a readable Parquet file: {err}") from err
