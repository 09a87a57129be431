"""Rows of large JSON and Parquet files, one at a time, whatever their size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from parfocal.data.jsonl import describe_line_error, parse_line, read_lines
from parfocal.data.parquet import BATCH_ROWS, import_pyarrow
from parfocal.errors import ConfigError, DataError


def json_items(path: Path, prefix: str = "") -> Iterator[Any]:
    """Yield the items of one array of a JSON file without reading the rest into memory.

    Args:
        path: the file.
        prefix: names of the objects around the array, joined by dots: "annotations"; "" for a file
            that is an array.

    Raises:
        DataError: if the file is not JSON; what came before the fault has been yielded.
        ConfigError: if ijson is not installed.
    """
    ijson = _import_ijson()
    where = f"{prefix}.item" if prefix else "item"
    with _opened(path) as file:
        try:
            yield from ijson.items(file, where, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as err:
            raise _no_json(path, err) from err


def json_pairs(path: Path, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield key and value of one object of a JSON file; see `json_items`."""
    ijson = _import_ijson()
    with _opened(path) as file:
        try:
            yield from ijson.kvitems(file, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as err:
            raise _no_json(path, err) from err


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line number, from 1, and value of every line of a JSON Lines file."""
    for number, line in read_lines(path):
        try:
            yield number, parse_line(line)
        except ValueError as err:
            raise DataError(f"{path}:{number}: {describe_line_error(err)[1]}") from err


def json_value(path: Path) -> Any:
    """Read a small JSON file whole."""
    with _opened(path) as file:
        try:
            return json.load(file)
        except ValueError as err:
            raise _no_json(path, err) from err


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, the named columns only.

    Raises:
        DataError: if it is no Parquet file or lacks a column.
        ConfigError: if pyarrow is not installed.
    """
    arrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            missing = [name for name in columns if name not in there]
            if missing:
                raise DataError(
                    f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(there)}. "
                    "Is it a file of another dataset?"
                )
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                yield from batch.to_pylist()
    except (OSError, arrow.ArrowException) as err:
        raise DataError(f"{path} is not a readable Parquet file: {err}. Fetch it again.") from err


def require(row: Any, where: str, **fields: type) -> list[Any]:
    """Return the named fields of a JSON object.

    Args:
        row: the object.
        where: file and row, for the error.
        fields: the type of each.

    Raises:
        DataError: if it is no object, or a field is missing or of another type.

    Example:
        >>> require({"id": 3, "caption": "a dog"}, "a.json: row 0", caption=str)
        ['a dog']
    """
    if not isinstance(row, dict):
        raise DataError(f"{where} is {row!r:.60}, must be an object with {', '.join(fields)}.")
    for name, kind in fields.items():
        if name not in row:
            there = ", ".join(row) or "nothing"
            raise DataError(f"{where} lacks {name}; it has {there}. Is it a file of another kind?")
        if not isinstance(row[name], kind):
            raise DataError(f"{where}: {name} is {row[name]!r:.60}, must be {kind.__name__}.")
    return [row[name] for name in fields]


def _no_json(path: Path, err: Exception) -> DataError:
    """The first line of what ijson says; the others show what may be no text at all."""
    said = err.args[0] if err.args and isinstance(err.args[0], bytes) else str(err).encode()
    text = said.decode(errors="replace")
    reason = next(iter(text.splitlines()), "it is empty").rstrip(". ")
    return DataError(f"{path} is not JSON: {reason}. Is it the right file, and is it complete?")


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as err:
        raise DataError(
            f"{path} cannot be opened: {err.strerror}. `parfocal data readers` says which files "
            "each reader wants."
        ) from err


def _import_ijson() -> Any:
    try:
        import ijson
    except ImportError as err:
        raise ConfigError(
            "reading datasets needs ijson. Install it with `pip install 'parfocal[data]'`."
        ) from err
    return ijson
