"""What a kind of file offers: its rows one after the other, and often any row by its number."""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from parfocal.data.sample import Sample
from parfocal.errors import DataError

JsonRow = Mapping[str, Any]
Likely = Callable[[bytes], bool]  # whether the JSON text of a row, or of its meta, is worth parsing


@dataclass(frozen=True)
class Raw:
    """A row as its file holds it, not yet checked.

    Attributes:
        where: "file:line", or the name of the row in its file.
        content: whatever `Rows.sample` of the same kind reads.
    """

    where: str
    content: Any


@dataclass(frozen=True)
class Scanned:
    """A row that a look through a file picked out.

    Attributes:
        number: of the row.
        where: "file:line".
        row: at least its `meta` and `images`, not checked.
        read: makes the whole row a Sample; DataError if it is none.
    """

    number: int
    where: str
    row: JsonRow
    read: Callable[[], Sample]


class Rows(Protocol):
    """Rows in the order of their file, which are read when they are asked for.

    Objects can be sent to other processes, which open the files anew.
    """

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def forward(self, start: int = 0) -> Iterator[Raw]:
        """Rows from number `start` on, in order."""
        ...

    def sample(self, raw: Raw) -> Sample:
        """Check a row and make it a Sample; DataError names the row."""
        ...

    def scan(self, likely: Likely) -> Iterator[Scanned]:
        """Rows that `likely` picks by their JSON text, or by that of their meta.

        What cannot be read is passed over: it is an error when its turn comes.
        """
        ...


class IndexedRows(Rows, Protocol):
    """Rows in any order."""

    def at(self, index: int) -> Raw:
        """Row `index`."""
        ...


class Joined:
    """Several files of one kind, one after the other.

    Args:
        parts: the files, at least one.
    """

    def __init__(self, parts: Sequence[IndexedRows]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def _find(self, index: int) -> tuple[int, int]:
        """(which part, which row of it); past the end: (number of parts, 0)."""
        part = bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)

    def at(self, index: int) -> Raw:
        """Row `index`."""
        part, row = self._find(index)
        return self.parts[part].at(row)

    def forward(self, start: int = 0) -> Iterator[Raw]:
        """Rows from number `start` on."""
        first, row = self._find(start)
        for part in self.parts[first:]:
            yield from part.forward(row)
            row = 0

    def sample(self, raw: Raw) -> Sample:
        """Check a row and make it a Sample."""
        return self.parts[0].sample(raw)

    def scan(self, likely: Likely) -> Iterator[Scanned]:
        """Rows that `likely` picks."""
        before = 0
        for part in self.parts:
            for found in part.scan(likely):
                yield replace(found, number=before + found.number)
            before += len(part)


@dataclass(frozen=True)
class Stamp:
    """By which a file is known not to have changed.

    Attributes:
        size: bytes.
        mtime_ns: when it was last written, nanoseconds.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The present one; DataError if the file is not there."""
        try:
            found = path.stat()
        except OSError as err:
            raise DataError(f"{path} cannot be read: {err.strerror}.") from err
        return cls(found.st_size, found.st_mtime_ns)


MOST_OPEN = 64  # files that the windows of a process hold open together


class Window:
    """Reads pieces of a file by offset; every process opens the file for itself.

    A file that two processes share has one position for both, and each would read what the other
    looked for. That happens when a process forks. Of many windows only the last that were opened
    stay open: a dataset may have more shards than a process may open files.

    Args:
        path: the file.
        stamp: as it was when its offsets were found.
    """

    def __init__(self, path: Path, stamp: Stamp) -> None:
        self.path, self.stamp = path, stamp
        self._file: BinaryIO | None = None
        self._process = 0

    def read(self, offset: int, size: int) -> bytes:
        """Bytes offset..offset+size-1; DataError if the file has changed."""
        if self._file is None or self._process != os.getpid():
            if Stamp.of(self.path) != self.stamp:
                raise DataError(f"{self.path} has changed since it was opened. Start again.")
            self.close()
            try:
                self._file, self._process = self.path.open("rb"), os.getpid()
            except OSError as err:
                raise DataError(f"{self.path} cannot be read: {err.strerror}.") from err
            self._make_room()
        self._file.seek(offset)
        return self._file.read(size)

    def _make_room(self) -> None:
        _OPEN.append(weakref.ref(self))
        while len(_OPEN) > MOST_OPEN:
            oldest = _OPEN.popleft()()
            if oldest is not None and oldest is not self:
                oldest.close()

    def close(self) -> None:
        """Close the file; the next `read` opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        self.close()


_OPEN: deque[weakref.ref[Window]] = deque()  # in the order in which they were opened
