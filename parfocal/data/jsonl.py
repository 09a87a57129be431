"""Samples as JSON Lines: one object a line, UTF-8, read and written as a stream.

A file appears under its name when it is complete, so that nobody ever reads half of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from parfocal.data.outputs import atomic_file
from parfocal.data.sample import Sample
from parfocal.errors import DataError


def read_jsonl(path: str | Path) -> Iterator[Sample]:
    """Samples of a file, one at a time; blank lines are skipped.

    Raises:
        DataError: at the first bad row, naming file and line; `check_file` lists them all.
    """
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        try:
            row = parse_line(line)
        except ValueError as err:
            raise DataError(
                f"{where}: {describe_line_error(err)[1]}. `parfocal data check FILE` lists every "
                "problem."
            ) from err
        yield Sample.from_json(row, where)


def write_jsonl(samples: Iterable[Sample], path: str | Path) -> int:
    """Write samples as they come, all or nothing.

    Returns:
        How many were written.

    Raises:
        DataError: if a sample cannot be written or the folder does not exist; an old file then
            stays as it was.
    """
    count = 0
    with atomic_file(path) as file:
        for sample in samples:
            file.write(render_line(sample))
            count += 1
    return count


def render_line(sample: Sample) -> bytes:
    """One line of a file, with its line end.

    Raises:
        DataError: if the sample holds what JSON cannot.
    """
    try:
        text = json.dumps(sample.to_json(), ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError) as err:
        if isinstance(err, DataError):
            raise
        raise DataError(
            f"sample {sample.id!r} cannot be written as JSON: {err}. `meta` takes None, bool, "
            "finite numbers, text, lists and dicts with text keys."
        ) from err


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of every line that is not blank; a byte order mark is dropped.

    Raises:
        DataError: if the file cannot be opened.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed by the with below)
    except OSError as err:
        raise DataError(
            f"{path} cannot be opened: {err.strerror}. Give a JSON Lines file."
        ) from err
    with file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content.strip():
                yield number, content


def parse_line(line: bytes) -> Any:
    """The JSON value of one line; strict: UTF-8, no NaN or Infinity, no key twice.

    Raises:
        ValueError: (UnicodeDecodeError, JSONDecodeError) if it is not; see `describe_line_error`.
    """
    try:
        return json.loads(
            line.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
        )
    except RecursionError as err:
        raise ValueError("nested too deeply") from err


def describe_line_error(err: ValueError) -> tuple[str, str]:
    """(kind, detail) of what `parse_line` raised."""
    if isinstance(err, UnicodeDecodeError):
        return "bad_utf8", f"not UTF-8 at byte {err.start}: save the file as UTF-8"
    if isinstance(err, json.JSONDecodeError):  # its own text counts lines within the line
        column = 1 + min(err.pos, len(err.doc.rstrip()))
        return "bad_json", f"not JSON: {err.msg} at column {column}"
    return "bad_json", f"not JSON: {err}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return row
