"""Streams of `datasets`: the library itself where it is installed, a stand-in everywhere."""

from __future__ import annotations

import builtins
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from parfocal.data import Sample
from parfocal.data.rows import HubRows
from parfocal.errors import ConfigError, DataError
from tests.unit.data.mixed import make_sample, make_samples, write_rows


class Stream(list):
    """What `load_dataset(streaming=True)` gives."""

    info = SimpleNamespace(splits={"val": SimpleNamespace(num_examples=4)})

    def iter(self, batch_size: int) -> Iterator[dict[str, list[Any]]]:
        for first in range(0, len(self), batch_size):
            rows = self[first : first + batch_size]
            names = sorted({name for row in rows for name in row})
            yield {name: [row.get(name) for row in rows] for name in names}

    def skip(self, count: int) -> Stream:
        return Stream(self[count:])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Puts a library in place that has four rows of every dataset; lists what it was asked for."""
    calls: list[dict[str, Any]] = []
    module = ModuleType("datasets")

    def load_dataset(path: str, **options: Any) -> Stream:
        if path == "a/missing":
            raise FileNotFoundError("no dataset\n  of that name")
        calls.append({"path": path, **options})
        return Stream(sample.to_json() for sample in make_samples("h", 4))

    def from_json(files: list[str], **options: Any) -> Stream:
        return load_dataset("from_json", files=files, **options)

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    module.Dataset = SimpleNamespace(from_json=from_json)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def read(rows: HubRows, start: int = 0) -> list[Sample]:
    return [rows.sample(raw) for raw in rows.forward(start)]


def test_a_dataset_of_the_hub_is_streamed(asked: list[dict[str, Any]], monkeypatch) -> None:
    rows = HubRows("owner/name", split="val", revision="abc")
    assert rows.remote and len(rows) == 4
    assert read(rows) == make_samples("h", 4)
    assert read(rows, 3) == make_samples("h", 4)[3:]
    wanted = {"path": "owner/name", "data_files": None, "split": "val", "revision": "abc"}
    assert asked == [{**wanted, "streaming": True}] * 3
    assert [raw.where for raw in rows.forward(3)] == ["owner/name/val:4"]
    monkeypatch.setattr("parfocal.data.rows.hub.BATCH", 3)
    assert read(rows) == make_samples("h", 4)


def test_the_number_of_rows_comes_from_the_source_or_the_user(asked) -> None:
    assert len(HubRows("owner/name", rows=2)) == 2
    assert asked == [], "nothing is opened before it is read"
    with pytest.raises(ConfigError, match=r"how many rows its split 'train' has.*rows = N"):
        HubRows("owner/name")
    local = HubRows("json", ["a.jsonl"])
    assert not local.remote and len(local) == 4
    call = {"path": "from_json", "files": ["a.jsonl"], "split": "train", "streaming": True}
    assert asked[-1] == call
    assert HubRows("json", ["https://a/b.jsonl"], rows=1).remote
    with pytest.raises(ConfigError, match=r"'json' of kind 'hub' means local files"):
        HubRows("json")


def test_errors_are_told_in_one_line(asked: list, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="'a/missing' cannot be opened: no dataset of that name"):
        HubRows("a/missing")
    real_import = builtins.__import__

    def no_datasets(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_datasets)
    with pytest.raises(ConfigError, match=r"pip install 'parfocal\[stream\]'"):
        HubRows("owner/name")


def test_scan_reads_the_stream(asked: list[dict[str, Any]]) -> None:
    found = list(HubRows("json", ["a"]).scan(lambda text: b'"n": 2' in text))
    assert [(one.number, one.where, one.read().id) for one in found] == [(2, "json/train:3", "h2")]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_library_reads_our_files(tmp_path: Path, monkeypatch, form: str) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    samples = [make_sample(f"a{number}", number, third=None) for number in range(5)]
    if form == "jsonl":  # of which the library keeps ten decimals and no null in meta
        row = {"id": "a", "images": [{"path": "a", "width": 8, "height": 6}], "turns": []}
        rows_json = [{**row, "id": f"a{n}", "regions": [[0, n, 2.5, 5]]} for n in range(5)]
        samples = [Sample.from_json(row) for row in rows_json]
    path = write_rows(tmp_path, "a", samples, form)
    builder = "json" if form == "jsonl" else "parquet"
    rows = HubRows(builder, [str(path)])
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert len(rows) == 5
    assert read(rows) == samples
    assert read(rows, 2) == samples[2:]
