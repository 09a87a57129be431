"""Fields of a dataset's rows: there and of the right kind, or an error that names file and row."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from parfocal.errors import DataError


def need(where: str | Path, row: Any, *names: str) -> Any:
    """Return a field of a row.

    Args:
        where: the file, and the line if it has any, for the error.
        row: what should be an object.
        names: how the field is spelled; the first that the row has is taken.

    Raises:
        DataError: if the row is no object or has none of them.
    """
    if isinstance(row, dict):
        for name in names:
            if name in row:
                return row[name]
    spelled = " or ".join(f"`{name}`" for name in names)
    raise DataError(
        f"{where}: {reprlib.repr(row)} has no {spelled}. Is it the file that the reader asks for?"
    )


def need_int(where: str | Path, row: Any, *names: str) -> int:
    """Like `need`, for a whole number."""
    value = need(where, row, *names)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_kind(where, names, value, "a whole number")
    return value


def need_number(where: str | Path, row: Any, *names: str) -> float:
    """Like `need`, for a number."""
    value = need(where, row, *names)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_kind(where, names, value, "a number")
    return float(value)


def need_text(where: str | Path, row: Any, *names: str) -> str:
    """Like `need`, for text."""
    value = need(where, row, *names)
    if not isinstance(value, str):
        raise _wrong_kind(where, names, value, "text")
    return value


def need_rows(where: str | Path, row: Any, *names: str) -> list[Any]:
    """Like `need`, for a list."""
    value = need(where, row, *names)
    if not isinstance(value, list):
        raise _wrong_kind(where, names, value, "a list")
    return value


def need_box(where: str | Path, row: Any, name: str) -> list[float]:
    """Like `need`, for four numbers."""
    value = need(where, row, name)
    numbers = isinstance(value, list | tuple) and all(
        isinstance(entry, int | float) and not isinstance(entry, bool) for entry in value
    )
    if not numbers or len(value) != 4:
        raise _wrong_kind(where, (name,), value, "four numbers")
    return [float(entry) for entry in value]


def _wrong_kind(where: str | Path, names: tuple[str, ...], value: object, wanted: str) -> DataError:
    return DataError(
        f"{where}: `{'`/`'.join(names)}` is {reprlib.repr(value)}, must be {wanted}. "
        "Fetch the file again."
    )
