"""Samples as JSON Lines: one object a line, UTF-8, read and written as a stream.

A file is written beside its final name and renamed when complete and on disk, so that nobody ever
reads half a file.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

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


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to; on disk it becomes `path` if the block ends well and vanishes if not.

    Raises:
        DataError: if the folder does not exist or cannot be written.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        _sync_folder(target.parent)
    except OSError as err:
        raise DataError(
            f"{target} cannot be written: {_why(err, target, part)}. "
            "Give a file in a folder that exists and is writable."
        ) from err
    finally:
        part.unlink(missing_ok=True)


def _why(err: OSError, target: Path, part: Path) -> str:
    """What a person can mend, without the name that the file has while it is written."""
    if target.is_dir():
        return "it is a folder"
    if not target.parent.is_dir():
        return f"the folder {target.parent} does not exist"
    other = err.filename is not None and Path(err.filename) not in (target, part)
    return str(err) if other or err.strerror is None else err.strerror


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where folders can be opened for that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
