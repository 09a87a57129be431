"""What is written: files that appear whole or not at all, and folders of commands."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from parfocal.errors import ConfigError, DataError


def make_folder(path: Path, option: str = "--out") -> None:
    """Make the folder that an option names, with its parents.

    Raises:
        ConfigError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"the folder {str(path)!r} cannot be made: {err.strerror}. Give another {option}."
        ) from err


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
