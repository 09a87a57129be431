"""Rows of large JSON files, one at a time, whatever their size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parfocal.data.jsonl import describe_line_error, parse_line, read_lines
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
            raise DataError(f"{path} is not JSON: {err}. Fetch the file again.") from err


def json_pairs(path: Path, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield key and value of one object of a JSON file; see `json_items`."""
    ijson = _import_ijson()
    with _opened(path) as file:
        try:
            yield from ijson.kvitems(file, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as err:
            raise DataError(f"{path} is not JSON: {err}. Fetch the file again.") from err


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
            raise DataError(f"{path} is not JSON: {err}. Fetch the file again.") from err


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as err:
        raise DataError(f"{path} cannot be opened: {err.strerror}.") from err


def _import_ijson() -> Any:
    try:
        import ijson
    except ImportError as err:
        raise ConfigError(
            "reading datasets needs ijson. Install it with `pip install 'parfocal[data]'`."
        ) from err
    return ijson
