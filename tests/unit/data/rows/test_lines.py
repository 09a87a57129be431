from __future__ import annotations

import json
import os
import pickle
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data.jsonl import read_lines
from parfocal.data.rows import LineRows, base, lines
from parfocal.data.rows.index import STEP
from parfocal.errors import DataError
from tests.unit.data.mixed import make_samples, write_rows

PIECES = st.lists(
    st.sampled_from([b"{}", b'{"a": 1}', b" {} ", b"", b" ", b"\t \r", b"x" * 9, b"\xc3\xb6"]),
    max_size=30,
)


@settings(max_examples=60)
@given(PIECES, st.booleans(), st.booleans(), st.integers(1, 40))
def test_rows_are_the_lines_that_are_not_blank(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], mark, end, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * mark + b"\n".join(pieces) + b"\n" * end)
    expected = [(f"{path}:{line}", content.rstrip(b"\n")) for line, content in read_lines(path)]
    before, lines.PIECE = lines.PIECE, size  # so small that lines are cut
    try:
        rows = LineRows(path)
    finally:
        lines.PIECE = before
    assert len(rows) == len(expected)
    for index in reversed(range(len(rows))):
        raw = rows.at(index)
        assert (raw.where, raw.content) == expected[index]


def test_blank_lines_far_into_a_file_do_not_shift_line_numbers(tmp_path: Path) -> None:
    path, count = tmp_path / "a.jsonl", 3 * STEP + 5
    blank = {STEP + 3, 2 * STEP - 1}
    path.write_text("".join(f"{i}\n" + "\n" * (i in blank) for i in range(count)))
    rows = LineRows(path)
    assert len(rows) == count
    for index in (0, STEP - 1, STEP, STEP + 3, STEP + 4, 2 * STEP, count - 1):
        line = index + 1 + sum(number < index for number in blank)
        assert (rows.at(index).where, rows.at(index).content) == (f"{path}:{line}", b"%d" % index)


def test_a_file_read_in_pieces_has_the_same_index(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{i}\n" for i in range(3 * STEP)))
    whole = LineRows(path)
    monkeypatch.setattr(lines, "PIECE", 333)
    pieces = LineRows(path)
    for index in range(3 * STEP):
        raw = pieces.at(index)
        assert (raw.content, raw) == (b"%d" % index, whole.at(index))


def test_samples_in_any_order(tmp_path: Path) -> None:
    samples = make_samples("a", 20)
    rows = LineRows(write_rows(tmp_path, "a", samples))
    for index in (7, 0, 19, 3):
        assert rows.sample(rows.at(index)) == samples[index]
    assert [rows.sample(raw) for raw in rows.forward(17)] == samples[17:]


def test_a_bad_row_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n\n{]\n\xff\n')
    rows = LineRows(path)
    for index, message in enumerate((":1: id", ":3: not JSON", ":4: not UTF-8")):
        with pytest.raises(DataError, match=f"a.jsonl{message}"):
            rows.sample(rows.at(index))


def test_the_index_is_kept_beside_the_file_and_used(tmp_path: Path, monkeypatch) -> None:
    samples = make_samples("a", 5)
    path = write_rows(tmp_path, "a", samples)
    assert len(LineRows(path)) == 5
    assert list(tmp_path.iterdir()) == [path], "nothing is written unasked"
    LineRows(path, cache=True)
    kept = tmp_path / ".a.jsonl.lines.npz"
    assert kept.exists()
    with monkeypatch.context() as patch:
        patch.setattr(lines, "index_lines", None)
        rows = LineRows(path, cache=True)
        assert [rows.sample(rows.at(index)) for index in range(5)] == samples
    write_rows(tmp_path, "a", samples[:3])
    assert len(LineRows(path, cache=True)) == 3, "the file has changed"
    kept.write_bytes(b"PK\x03\x04 cut off")
    assert len(LineRows(path, cache=True)) == 3, "a broken index is made anew"


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog, monkeypatch) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 2))

    def refuse(*words: object) -> None:
        raise DataError("read-only")

    monkeypatch.setattr("parfocal.data.rows.index.atomic_file", refuse)
    assert len(LineRows(path, cache=True)) == 2
    assert "is not kept: read-only" in caplog.text


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 5))
    rows = LineRows(path)
    rows.at(0)
    again = pickle.loads(pickle.dumps(rows))
    write_rows(tmp_path, "a", make_samples("b", 6))
    with pytest.raises(DataError, match="has changed since"):
        again.at(0)
    with pytest.raises(DataError, match=r"no.jsonl cannot be read"):
        LineRows(tmp_path / "no.jsonl")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_its_own_place_in_the_file(tmp_path: Path) -> None:
    samples = make_samples("a", 50)
    rows = LineRows(write_rows(tmp_path, "a", samples))
    rows.at(3)
    first = rows._window._file
    child = os.fork()
    if child == 0:
        good = rows.at(4).content != b"" and rows._window._file is not first
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rows._window._file is first
    assert rows.sample(rows.at(5)) == samples[5]


def test_scan_parses_only_what_is_likely(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 4))
    with path.open("ab") as file:
        file.write(b'{"n": 2]\n[2]\n')
    rows = LineRows(path)
    found = list(rows.scan(lambda text: b'"n": 2' in text or text == b"[2]\n"))
    assert [(one.number, one.where, one.row["id"]) for one in found] == [(2, f"{path}:3", "a2")]
    assert found[0].read() == make_samples("a", 4)[2]
    assert json.loads(path.read_bytes().splitlines()[2]) == found[0].row


def test_more_files_than_may_be_open(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(base, "MOST_OPEN", 3)
    monkeypatch.setattr(base, "_OPEN", deque())
    rows = []
    for number in range(8):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(f"{number}\n")
        rows.append(LineRows(path))
    for _ in range(2):
        found = [int(each.at(0).content) for each in rows]
        assert found == list(range(8))
    assert [each._window._file is None for each in rows] == [True] * 5 + [False] * 3
    (tmp_path / "0.jsonl").unlink()
    with pytest.raises(DataError, match=r"0\.jsonl cannot be read"):
        rows[0].at(0)
