"""Pickles of plain values, read without ever running what a pickle may ask for.

Unpickling calls any function that the file names. Datasets need none: a file that names one, or a
class, is refused before it is looked up.
"""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any, NoReturn

from parfocal.errors import DataError

_FALLBACK = "parfocal.latin1"


def read_pickle(path: Path) -> Any:
    """Read a pickle of lists, dicts, tuples, text, numbers and None, of any protocol.

    Byte strings of Python 2 become text: UTF-8, and Latin-1 for what is not UTF-8.

    Raises:
        DataError: if the file is no pickle, is damaged, or asks for a function or class.
    """
    codecs.register_error(_FALLBACK, _latin1)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(path, file).load()
    except DataError:
        raise
    except OSError as err:
        raise DataError(f"{path} cannot be opened: {err.strerror}.") from err
    except Exception as err:  # opcodes of a broken file raise whatever they lead to
        raise DataError(
            f"{path} is not a pickle of plain values: {type(err).__name__}: {err}. "
            "Fetch the file again."
        ) from err


class _PlainUnpickler(pickle.Unpickler):
    """Admits builtin values only, all of which have opcodes of their own."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file, encoding="utf-8", errors=_FALLBACK)
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse: nothing is imported."""
        raise DataError(
            f"{self._path} asks for {module}.{name}; loading that could run code, so the file is "
            "refused. The dataset's own file holds lists, dicts, text and numbers only: fetch it "
            "from the dataset's site."
        )


def _latin1(err: UnicodeError) -> tuple[str, int]:
    """Decode the bytes that are not UTF-8 as Latin-1 and go on behind them."""
    if not isinstance(err, UnicodeDecodeError):
        raise err
    return err.object[err.start : err.end].decode("latin-1"), err.end
