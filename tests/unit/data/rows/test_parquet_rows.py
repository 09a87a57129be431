from __future__ import annotations

import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest

from parfocal.data import parquet
from parfocal.data.rows import Joined, LineRows, ParquetRows
from parfocal.data.rows import parquet as module
from parfocal.errors import DataError
from tests.unit.data.mixed import make_samples, write_rows

arrow = pytest.importorskip("pyarrow")


@pytest.fixture
def grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten rows in groups of three."""
    monkeypatch.setattr(parquet, "BATCH_ROWS", 3)
    return write_rows(tmp_path, "a", make_samples("a", 10), "parquet")


def test_rows_in_any_order(grouped: Path) -> None:
    samples, rows = make_samples("a", 10), ParquetRows(grouped)
    assert len(rows) == 10
    for index in (9, 0, 2, 3, 8):
        raw = rows.at(index)
        assert raw.where == f"{grouped}:{index + 1}"
        assert rows.sample(raw) == samples[index]
    for start in (0, 3, 5, 9, 10):
        assert [rows.sample(raw) for raw in rows.forward(start)] == samples[start:]


def test_few_row_groups_stay_in_memory(grouped: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_KEPT", OrderedDict())

    def kept() -> list[tuple[str, int]]:
        return [(path.name, group) for path, _, group in module._KEPT]

    rows, name = ParquetRows(grouped), grouped.name
    for index in range(10):
        rows.at(index)
    assert kept() == [(name, 0), (name, 1), (name, 2), (name, 3)]
    monkeypatch.setattr(module, "KEPT_BYTES", 1)
    rows.at(0)
    assert kept()[-1] == (name, 0), "what is there is only moved"
    assert pickle.loads(pickle.dumps(rows)).at(0).content == rows.at(0).content
    other = ParquetRows(shutil.copy(grouped, grouped.with_name("other.parquet")))
    for index in (0, 5, 9):
        other.at(index)
    assert kept() == [("other.parquet", 3)], "all files together"


def test_scan_reads_meta_and_images(grouped: Path) -> None:
    found = list(ParquetRows(grouped).scan(lambda text: b'"n": 4' in text))
    assert [(one.number, one.where) for one in found] == [(4, f"{grouped}:5")]
    assert found[0].row == {
        "images": [{"path": "a4.png", "width": 8, "height": 6}],
        "meta": {"n": 4},
    }
    assert found[0].read() == make_samples("a", 10)[4]


def test_foreign_columns_are_an_error_when_they_are_read(tmp_path: Path) -> None:

    table = arrow.Table.from_pylist([{"id": "1", "caption": "x", "meta": "{"}] * 2)
    arrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = ParquetRows(tmp_path / "a.parquet")
    assert list(rows.scan(lambda text: True)) == []
    with pytest.raises(DataError, match=r"a.parquet:2: unknown field .caption."):
        rows.sample(rows.at(1))


def test_broken_and_changed_files_are_named(tmp_path: Path, grouped: Path) -> None:
    rows = ParquetRows(grouped)
    data = grouped.read_bytes()
    grouped.write_bytes(data + b"x")
    with pytest.raises(DataError, match="has changed since"):
        rows.at(0)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        ParquetRows(grouped)
    with pytest.raises(DataError, match="cannot be read"):
        ParquetRows(tmp_path / "no.parquet")


def test_files_are_joined_in_order(tmp_path: Path) -> None:
    parts = [LineRows(write_rows(tmp_path, name, make_samples(name, size)))
             for name, size in (("a", 3), ("b", 1), ("c", 4))]  # fmt: skip
    joined = Joined(parts)
    names = ["a0", "a1", "a2", "b0", "c0", "c1", "c2", "c3"]
    assert [joined.sample(joined.at(index)).id for index in range(len(joined))] == names
    for start in range(9):
        assert [joined.sample(raw).id for raw in joined.forward(start)] == names[start:]
    found = joined.scan(lambda text: b'"n": 0' in text)
    assert [(one.number, one.row["id"]) for one in found] == [(0, "a0"), (3, "b0"), (4, "c0")]
