"""The leak guard: pictures of benchmarks are found by name and content, and kept out."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from parfocal.data import ImageRef, Sample, read_jsonl, write_jsonl
from parfocal.data.leaks import (
    Benchmark,
    LeakIndex,
    build_index,
    check,
    load_benchmarks,
    picture_keys,
)
from parfocal.data.mixing import open_mixture
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.parquet import write_parquet
from parfocal.errors import DataError
from parfocal.images import image_digest
from tests.unit.data.mixed import flat, make_sample, write_rows

KEYS = ["coco:1", "coco:2", "coco:7", "flickr:3"]
INDEX = LeakIndex({
    "refcoco_val": Benchmark(5, frozenset(KEYS)),
    "pope": Benchmark(9, frozenset({"coco:2", "coco:99"})),
})  # fmt: skip


def rows(*metas: dict[str, Any]) -> list[Sample]:
    return [make_sample(f"r{number}", number, **meta) for number, meta in enumerate(metas)]


TRAIN = rows(
    {"image_key": "coco:10"},
    {"image_key": "coco:1"},
    {"image_key": "vg:5", "coco_id": 2},
    {"image_key": "vg:6", "coco_id": None},
    {},
    {"image_key": "coco:2"},
    {"image_key": "vg:8", "coco_id": "0000000000007"},
    {"other": {"image_key": "coco:1"}},
    {"image_key": ["coco:1"]},
    {"caption": 'says "image_key": "coco:1"'},
)
LEAKING = [1, 2, 5, 6]


def mixture(path: Path, **more: Any) -> Mixture:
    return Mixture((MixtureSource("train", str(path)),), interleave="sequential", **more)


def test_names_of_a_picture() -> None:
    assert picture_keys({"image_key": "coco:1"}) == ["coco:1"]
    assert picture_keys({"image_key": "vg:1", "coco_id": 3}) == ["vg:1", "coco:3"]
    assert picture_keys({"coco_id": "007"}) == ["coco:7"]
    several = {"image_key": "coco:1", "image_keys": ["coco:1", "coco:5", 3]}
    assert picture_keys(several) == ["coco:1", "coco:5"]
    for meta in ({}, {"image_key": 3}, {"coco_id": None}, {"coco_id": True}, {"coco_id": "x"}):
        assert picture_keys(meta) == []


@pytest.mark.parametrize("form", ["jsonl", "parquet", "shards", "tar", "tar.gz"])
def test_leaks_are_found_in_every_kind_of_file(tmp_path: Path, form: str) -> None:
    if form in ("parquet", "shards"):
        pytest.importorskip("pyarrow")
    path = write_rows(tmp_path, "a", TRAIN, form)
    source = MixtureSource("train", str(path), streaming=form == "tar.gz")
    report = check(Mixture((source,)), INDEX)
    assert report.rows["train"].tolist() == LEAKING
    assert report.counts == {"train": {"refcoco_val": 4, "pope": 2}}
    assert (report.checked, report.num_rows, report.ok) == ({"train": 10}, 4, False)
    shown = {(e.benchmark, e.mark) for e in report.examples}
    assert shown == {("refcoco_val", "coco:1"), ("refcoco_val", "coco:2"), ("pope", "coco:2"),
                     ("refcoco_val", "coco:7")}  # fmt: skip
    if form in ("jsonl", "parquet"):
        assert report.examples[0].where == f"{path}:2"


def test_the_report_as_text_and_json(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", TRAIN)
    report = check(mixture(path), INDEX)
    assert str(report) == (
        f"train has 4 of refcoco_val ({path}:2 shows coco:1; {path}:3 shows coco:2; {path}:6 shows "
        f"coco:2); train has 2 of pope ({path}:3 shows coco:2; {path}:6 shows coco:2)"
    )
    found = json.loads(json.dumps(report.to_json()))
    assert found["rows"] == {"train": 4}
    assert found["examples"][0] == {
        "source": "train", "benchmark": "refcoco_val", "where": f"{path}:2", "mark": "coco:1",
    }  # fmt: skip
    clean = check(mixture(write_rows(tmp_path, "b", TRAIN[3:5])), INDEX)
    assert clean.ok and str(clean) == "no picture of a benchmark"


def test_a_quick_look_never_misses_what_parsing_finds() -> None:
    metas = [sample.meta for sample in TRAIN]
    metas += [{"image_key": "coco:9", "image_keys": ["coco:9", "coco:1"]}]
    metas += [{"image_key": "coco:\u00e9"}, {"image_key": 'a"b'}, {"image_key": "a\\b"}]
    index = LeakIndex({"b": Benchmark(1, frozenset([*KEYS, "coco:\u00e9", 'a"b', "a\\b"]))})
    for meta in metas:
        for ascii_only in (True, False):
            for separators in ((",", ":"), (" , ", "  :  ")):
                text = json.dumps(meta, ensure_ascii=ascii_only, separators=separators)
                if index.find(meta):
                    assert index.likely(text.encode()), text
    odd = rb'{"image\u005fkey": "coco:1"}', rb'{"image_key": "coco\u003a1"}'
    assert all(index.likely(text) and index.find(json.loads(text)) for text in odd)
    assert not index.likely(b'{"image_key": "coco:10", "coco_id": 3}')
    assert not index.likely(json.dumps({"words": 'an "image_key": "coco:1"'}).encode())


def test_a_mixture_with_a_benchmark_refuses_to_start(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", TRAIN)
    INDEX.save(tmp_path / "index.json")
    mixed = mixture(path, benchmarks=(str(tmp_path / "index.json"),))
    message = (
        "4 rows of the mixture show pictures of benchmarks: train has 4 of refcoco_val "
        r".*a.jsonl:2 shows coco:1; .* Leave the rows out with leaks = 'exclude' "
        r"\(--leaks exclude\)"
    )
    with pytest.raises(DataError, match=message):
        open_mixture(mixed)
    assert open_mixture(mixed, refuse=False).leaks.num_rows == 4
    allowed = open_mixture(replace(mixed, leaks="allow"))
    assert [sample.id for sample in allowed.iterate(0)] == [sample.id for sample in TRAIN]


@pytest.mark.parametrize("form", ["jsonl", "tar.gz"])
def test_excluded_rows_are_left_out_and_the_others_come_once(tmp_path: Path, form: str) -> None:
    path = write_rows(tmp_path, "a", TRAIN, form)
    INDEX.save(tmp_path / "index.json")
    source = MixtureSource("train", str(path), streaming=form == "tar.gz", buffer=2, epochs=2)
    mixed = Mixture((source,), benchmarks=(str(tmp_path / "index.json"),), leaks="exclude")
    opened = open_mixture(mixed)
    assert opened.rows() == 12 and not opened.expands
    clean = [sample.id for number, sample in enumerate(TRAIN) if number not in LEAKING]
    for epoch in (0, 1):
        shards = [[s.id for s in opened.iterate(epoch, rank, 3)] for rank in range(3)]
        assert sorted(flat(shards)) == sorted(clean * 2)
    again = open_mixture(mixed)
    assert [s.id for s in again.iterate(1)] == [s.id for s in opened.iterate(1)]


def test_only_rows_in_use_count(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", TRAIN)
    source = MixtureSource("train", str(path), ratio=0.5)
    reports = [check(Mixture((source,), seed=seed), INDEX) for seed in range(6)]
    assert all(set(r.rows["train"].tolist()) <= set(LEAKING) for r in reports)
    assert len({len(r.rows["train"]) for r in reports}) > 1
    assert reports[0].checked == {"train": 5}


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", [TRAIN[1]])
    INDEX.save(tmp_path / "index.json")
    mixed = mixture(path, benchmarks=(str(tmp_path / "index.json"),), leaks="exclude")
    with pytest.raises(DataError, match="no row of the mixture is left"):
        open_mixture(mixed)


def draw(path: Path, shade: int, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 0)).save(path)


def pictured(folder: Path, shades: Sequence[int], name: str = "rows") -> Path:
    """Rows without names across datasets; each shows a picture of one shade."""
    samples = []
    for number, shade in enumerate(shades):
        draw(folder / f"p{number}.png", shade)
        samples.append(Sample(f"{name}{number}", (ImageRef(f"p{number}.png", 8, 6),), ()))
    write_jsonl(samples, folder / f"{name}.jsonl")
    return folder / f"{name}.jsonl"


def test_pictures_are_known_by_what_they_show(tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    bench.mkdir()
    index = build_index({"shown": [pictured(bench, [10, 20])]})
    digest = image_digest(Image.new("RGB", (8, 6), (10, 0, 0)))
    assert f"8x6:{digest}" in index.benchmarks["shown"].contents
    train = tmp_path / "train"
    train.mkdir()
    path = pictured(train, [5, 20, 10, 20])
    (train / "p3.png").unlink()  # what is not at hand is not looked at
    draw(train / "big.png", 10, (16, 12))
    crop = (ImageRef("big.png", 16, 12), ImageRef(None, 8, 6, 0, (0, 0, 8, 6)))
    write_jsonl([Sample("crop", crop, ())], tmp_path / "crop.jsonl")
    report = check(mixture(path), index)
    assert report.rows["train"].tolist() == [1, 2]
    assert report.examples[0].mark.startswith("8x6:")
    table_files = pytest.importorskip("pyarrow.parquet")
    bare = [replace(sample, meta={}) for sample in read_jsonl(path)]
    rows = train / "rows.parquet"
    write_parquet(bare, rows)
    table = table_files.read_table(rows)
    for written in (table, table.drop_columns(["meta"])):
        table_files.write_table(written, rows)
        assert check(mixture(rows), index).rows["train"].tolist() == [1, 2], "no meta, but pictures"
    apart = MixtureSource("train", str(tmp_path / "crop.jsonl"), images=str(train))
    assert check(Mixture((apart,)), index).ok, "another size is another picture"


def test_pictures_inside_tar_files_are_compared_too(tmp_path: Path) -> None:
    index = LeakIndex({
        "b": Benchmark(1, frozenset(), frozenset([
            f"8x6:{image_digest(Image.new('RGB', (8, 6), (2, 7, 9)))}"
        ]))
    })  # fmt: skip
    path = write_rows(tmp_path, "a", rows({}, {}, {}, {}), "tar")
    assert check(mixture(path), index).rows["train"].tolist() == [2]


def test_an_index_survives_the_disk(tmp_path: Path) -> None:
    contents = frozenset(["8x6:ab", "8x6:aa", "4x4:cc"])
    index = LeakIndex({**INDEX.benchmarks, "a": Benchmark(2, frozenset(["k"]), contents)})
    index.save(tmp_path / "i.json")
    assert LeakIndex.load(tmp_path / "i.json") == index
    row = json.loads((tmp_path / "i.json").read_text())
    assert list(row["benchmarks"]) == ["a", "pope", "refcoco_val"]
    assert row["benchmarks"]["a"]["contents"] == {"4x4": ["cc"], "8x6": ["aa", "ab"]}
    assert row["benchmarks"]["refcoco_val"]["keys"] == KEYS


BAD = {
    "missing": None,
    "no JSON": "{",
    "another schema": '{"schema": "x"}',
    "a list": "[]",
    "keys": '{"schema": "parfocal.leaks/1", "benchmarks": {"a": {"rows": 1, "keys": 3}}}',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_index_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "i.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"i.json is no index .*build_index"):
        LeakIndex.load(path)


def test_benchmarks_are_indexes_and_files_of_samples(tmp_path: Path) -> None:
    INDEX.save(tmp_path / "i.json")
    path = write_rows(tmp_path, "pope", rows({"image_key": "coco:5"}))
    found = load_benchmarks([tmp_path / "i.json", path])
    assert found.benchmarks["pope"].keys == {"coco:2", "coco:99", "coco:5"}
    assert found.benchmarks["pope"].rows == 10
    assert load_benchmarks([]).benchmarks == {}


def test_rows_that_tell_nothing_cannot_be_guarded(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "b", rows({"image_key": "coco:1"}, {}))
    with pytest.raises(DataError, match=r"of 1 of the 2 rows of 'b' nothing tells which picture"):
        build_index({"b": [path]})
    draw(tmp_path / "pictures" / "r1.png", 3)
    index = build_index({"b": [path]}, images=tmp_path / "pictures")
    assert index.benchmarks["b"].keys == {"coco:1"} and len(index.benchmarks["b"].contents) == 1
    words = Sample("w", (), ())
    write_jsonl([words], tmp_path / "words.jsonl")
    assert build_index({"w": [tmp_path / "words.jsonl"]}).benchmarks["w"] == Benchmark(
        1, frozenset()
    )


class Stream(list):
    def iter(self, batch_size: int) -> Iterator[dict[str, list[Any]]]:
        for first in range(0, len(self), batch_size):
            rows = self[first : first + batch_size]
            names = sorted({name for row in rows for name in row})
            yield {name: [row.get(name) for row in rows] for name in names}

    def skip(self, count: int) -> Stream:
        return Stream(self[count:])


def test_what_comes_over_the_network_is_looked_at_as_it_comes(tmp_path: Path, monkeypatch) -> None:
    module = ModuleType("datasets")
    module.load_dataset = lambda *w, **o: Stream(s.to_json() for s in TRAIN)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    INDEX.save(tmp_path / "i.json")
    source = MixtureSource("net", "a/b", "hub", streaming=True, rows=10)
    mixed = Mixture(
        (source,), interleave="sequential", benchmarks=(str(tmp_path / "i.json"),), skip_bad=9
    )
    opened = open_mixture(mixed)
    assert opened.leaks.ok and opened.leaks.unchecked == ("net",)
    stream = opened.iterate(0)
    assert next(stream).id == "r0"
    with pytest.raises(DataError, match="sample 'r1' shows coco:1 of the benchmark 'refcoco_val'"):
        next(stream)
    excluded = open_mixture(replace(mixed, leaks="exclude", skip_bad=0))
    assert excluded.expands
    found = [sample.id for rank in range(2) for sample in excluded.iterate(0, rank, 2)]
    assert sorted(found) == ["r0", "r3", "r4", "r7", "r8", "r9"]
    allowed = open_mixture(replace(mixed, leaks="allow"))
    assert len(list(allowed.iterate(0))) == 10


def test_no_benchmarks_means_no_guard_and_says_so(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, "parfocal"):
        opened = open_mixture(mixture(write_rows(tmp_path, "a", TRAIN)))
    assert opened.leaks.ok and "names no benchmarks" in caplog.text
