"""Opened sources: files of every kind give the same rows; which are used and in which order."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parfocal.data.mixture import MixtureSource
from parfocal.data.mixture_sources import OpenSource, draw_rows
from parfocal.data.permute import key_of
from parfocal.errors import ConfigError, DataError
from tests.unit.data.mixed import make_samples, write_rows

FORMS = ("jsonl", "parquet", "shards", "tar", "tar.gz")


def opened(path: Path, shuffled: bool = True, seed: int = 1, **values: Any) -> OpenSource:
    return OpenSource(MixtureSource("s", str(path), **values), seed, shuffled)


def pass_of(source: OpenSource, number: int = 0) -> list[str]:
    places = np.arange(len(source)) + number * len(source)
    return [source.read(index).id for index in source.order(places).tolist()]


@pytest.mark.parametrize("streaming", [False, True], ids=["indexed", "streaming"])
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_file_gives_its_rows(tmp_path: Path, form: str, streaming: bool) -> None:
    if form in ("parquet", "shards"):
        pytest.importorskip("pyarrow")
    samples = make_samples("a", 10)
    path = write_rows(tmp_path, "a", samples, form)
    if form == "tar.gz" and not streaming:
        with pytest.raises(ConfigError, match="is compressed, so its rows come in order only"):
            opened(path)
        return
    source = opened(path, streaming=streaming, buffer=4)
    names = [sample.id for sample in samples]
    first, second = pass_of(source), pass_of(source, 1)
    assert sorted(first) == sorted(second) == names
    assert first != names and first != second
    assert pass_of(pickle.loads(pickle.dumps(source))) == first
    assert pass_of(opened(path, False, streaming=streaming, buffer=4)) == names


def test_what_streams_is_shuffled_in_blocks(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 100), "tar.gz")
    source = opened(path, streaming=True, buffer=30)
    order = source.order(np.arange(200)).tolist()
    for start in (0, 30, 60, 90, 100, 130):
        size = 10 if start == 90 else 30
        first = start % 100
        assert sorted(order[start : start + size]) == list(range(first, first + size))
    assert order[:30] != order[100:130] and order[:30] != [n - 30 for n in order[30:60]]


def test_a_stream_goes_back_to_the_start_and_keeps_only_its_block(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 20), "tar.gz")
    source = opened(path, streaming=True, buffer=5, ratio=0.5)
    numbers = source.numbers(np.arange(10)).tolist()
    for index in (7, 9, 5, 2, 0, 9):
        assert source.read(index).id == f"a{numbers[index]}"
        assert len(source._block[1]) == 5
    other = copy.copy(source)
    assert (other.read(1).id, source.read(8).id) == (f"a{numbers[1]}", f"a{numbers[8]}")


def test_a_stream_that_ends_early_says_so(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 5))
    assert len(opened(path, streaming=True, rows=3)) == 3
    source = opened(path, streaming=True, rows=7)
    with pytest.raises(DataError, match=r"ended after 5 rows, 7 were announced.*rows = N"):
        pass_of(source)


def test_ratio_draws_a_subset_once(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 30))
    source = opened(path, ratio=0.5)
    assert len(source) == 15
    rows = set(pass_of(source))
    assert len(rows) == 15 and rows == set(pass_of(source, 1)) == set(pass_of(source, 7))
    assert rows == set(pass_of(opened(path, False, ratio=0.5))), "the order has no say in it"
    assert rows != set(pass_of(opened(path, seed=2, ratio=0.5)))
    assert pass_of(opened(path, False, ratio=0.5)) == sorted(rows, key=lambda name: int(name[1:]))


def test_ratio_counts_exactly_and_all_rows_are_as_likely() -> None:
    assert draw_rows(10, 1.0, 0) is None
    assert len(draw_rows(10, 0.3, 0)) == 3  # 0.3 * 10 is below 3 in binary
    assert len(draw_rows(1000, 0.29, 0)) == 290
    assert len(draw_rows(5, 0.01, 0)) == 1, "a row at least"
    counts = np.zeros(40)
    for seed in range(400):
        rows = draw_rows(40, 0.25, key_of(seed))
        assert rows.dtype == np.int32 and len(set(rows.tolist())) == 10
        counts[rows] += 1
    assert counts.min() > 60 and counts.max() < 145  # 100 expected, standard deviation 8.7


def test_epochs_take_parts_of_an_endless_series_of_passes(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 10))
    spans = {0.5: [(0, 5), (5, 5), (10, 5)], 1: [(0, 10), (10, 10), (20, 10)],
             2.5: [(0, 25), (25, 25), (50, 25)], 0.25: [(0, 2), (2, 3), (5, 2), (7, 3)],
             0.1: [(epoch, 1) for epoch in range(12)], 0.05: [(0, 0), (0, 1), (1, 0)]}  # fmt: skip
    for epochs, expected in spans.items():
        source = opened(path, epochs=epochs)
        assert [source.span(epoch) for epoch in range(len(expected))] == expected
    halves = source.order(np.arange(10))
    assert sorted(halves.tolist()) == list(range(10)), "two half epochs show every row once"


def test_order_can_be_asked_for_in_parts(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 7))
    for values in ({}, {"streaming": True, "buffer": 3}):
        source = opened(path, **values)
        whole = source.order(np.arange(30)).tolist()
        for first, last in ((0, 1), (5, 9), (6, 7), (13, 29), (4, 4)):
            assert source.order(np.arange(first, last)).tolist() == whole[first:last]


def test_excluded_rows_are_gone_and_the_others_stay(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 10))
    for ratio in (1.0, 0.6):
        source = opened(path, False, ratio=ratio)
        before, print_before = pass_of(source), source.fingerprint()
        gone = [0, 3, 3, 9]
        source.exclude(np.array(gone))
        assert pass_of(source) == [name for name in before if int(name[1:]) not in gone]
        assert source.fingerprint() != print_before
        assert source.uses(np.array([0, 3, 9])).tolist() == [False] * 3
    source.exclude(np.arange(10))
    assert len(source) == 0 and not source.uses(np.array([1]))[0]
    assert source.span(0) == (0, 0) and source.order(np.arange(0)).tolist() == []


def test_pictures_can_be_opened_from_anywhere(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 1))
    assert opened(path).read(0).images[0].path == str(tmp_path / "a0.png")
    assert opened(path, images="/data/pictures").read(0).images[0].path == "/data/pictures/a0.png"


def test_patterns_and_folders_name_several_files(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_rows(tmp_path, f"set-{name}", make_samples(name, 2), "tar")
    write_rows(tmp_path, "other", make_samples("o", 1))
    names = ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert pass_of(opened(tmp_path / "set-*.tar", False)) == names
    assert pass_of(opened(tmp_path, False)) == names
    assert pass_of(opened(tmp_path, False, kind="jsonl")) == ["o0"]


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    for name in ("no.jsonl", "no-*.jsonl"):
        with pytest.raises(DataError, match=r"source 's': .*does not exist or matches no file"):
            opened(tmp_path / name)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match=r"source 's': .*empty.jsonl holds no rows"):
        opened(tmp_path / "empty.jsonl")
