"""Pickles: plain values of any protocol are read, anything that could run code is refused."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from parfocal.data.readers.pickles import read_pickle
from parfocal.errors import DataError

PLAIN = [{"a": 1, "b": [2.5, None, True], "c": ("x", "caf\u00e9"), "d": 2**70, "e": {}}]


@pytest.fixture
def written(tmp_path):
    """Write bytes to a file and return its path."""

    def write(data: bytes) -> Path:
        (tmp_path / "refs(unc).p").write_bytes(data)
        return tmp_path / "refs(unc).p"

    return write


class _Call:
    """Pickled as a call: unpickling runs it."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol(written, protocol):
    assert read_pickle(written(pickle.dumps(PLAIN, protocol))) == PLAIN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_a_command_is_refused(written, tmp_path, protocol):
    marker = tmp_path / "it_ran"
    data = pickle.dumps([PLAIN[0], _Call(os.system, f"mkdir {marker}")], protocol)
    with pytest.raises(DataError, match=r"asks for \w+\.system.*fetch it"):
        read_pickle(written(data))
    assert not marker.exists()
    pickle.loads(data)  # the danger is real
    assert marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"(S'mkdir it_ran'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'mkdir it_ran'\no.",  # OBJ
        b"cos\nsystem\n(S'mkdir it_ran'\ntR.",  # GLOBAL, REDUCE
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0cmkdir it_ran\x85R.",  # STACK_GLOBAL
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x02ccopy_reg\n_reconstructor\n.",
        pickle.dumps(OrderedDict(a=1)),
        pickle.dumps({1, 2}, protocol=2),
        pickle.dumps(np.float64(1.5)),
        pickle.dumps(Path("a")),
    ],
)
def test_whatever_names_a_class_or_function_is_refused(written, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="asks for"):
        read_pickle(written(data))
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        b"\x80\x09.",
        pickle.dumps(PLAIN)[:-5],
        b"(lS'a'\na",
        b"S'os.system'\n(S'mkdir it_ran'\ntR.",  # calls a text
        b"Pmkdir\n.",  # persistent id
        b"\x82\x01.",  # extension registry
        b"}S'a'\nb.",  # state of a dict
        b"(l(lI1\ns.",
    ],
)
def test_damaged_files_are_named(written, data):
    with pytest.raises(DataError, match=r"refs\(unc\)\.p is not a pickle of plain values"):
        read_pickle(written(data))


def test_byte_strings_of_python_2_become_text(written):
    data = b"(lS'caf\\xc3\\xa9'\naS'caf\\xe9'\naS'\\xff\\xfe \\xe2\\x82\\xac'\naVni\\u00f1o\na."
    # UTF-8; Latin-1; both in one; a unicode string
    assert read_pickle(written(data)) == [
        "caf\u00e9",
        "caf\u00e9",
        "\u00ff\u00fe \u20ac",
        "ni\u00f1o",
    ]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        read_pickle(tmp_path / "none.p")
