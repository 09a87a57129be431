"""Rows grouped by a key, on disk: joins of files too large for memory."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

BATCH = 10_000


class Spill:
    """A table of rows in a temporary file that is gone when the block ends.

    Example:
        >>> with Spill() as table:
        ...     table.add([(7, {"n": 1}), (8, {"n": 2}), (7, {"n": 3})])
        ...     table.of(7)
        [{'n': 1}, {'n': 3}]
    """

    def __enter__(self) -> Spill:
        self._folder = tempfile.TemporaryDirectory(prefix="parfocal-")
        self._rows = sqlite3.connect(Path(self._folder.name) / "rows.sqlite")
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute("PRAGMA synchronous = OFF")
        self._rows.execute("CREATE TABLE rows (key, value TEXT)")
        self._indexed = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._rows.close()
        self._folder.cleanup()

    def add(self, rows: Iterable[tuple[int | str, Any]]) -> None:
        """Append (key, JSON value) pairs; a batch of them is in memory at a time."""
        encoded = ((key, json.dumps(value, separators=(",", ":"))) for key, value in rows)
        while batch := list(islice(encoded, BATCH)):
            self._rows.executemany("INSERT INTO rows VALUES (?, ?)", batch)
        self._rows.commit()

    def of(self, key: int | str) -> list[Any]:
        """Return the values of a key, in the order they came."""
        if not self._indexed:
            self._rows.execute("CREATE INDEX by_key ON rows (key)")
            self._indexed = True
        found = self._rows.execute("SELECT value FROM rows WHERE key = ? ORDER BY rowid", (key,))
        return [json.loads(value) for (value,) in found]

    def keys(self) -> Iterator[int | str]:
        """Yield every key once, in the order of its first row."""
        query = "SELECT key FROM rows GROUP BY key ORDER BY MIN(rowid)"
        for (key,) in self._rows.execute(query):
            yield key
