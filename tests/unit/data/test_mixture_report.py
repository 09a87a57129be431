"""The account of a mixture, and an epoch of it as a file."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from parfocal.data.check import check_file
from parfocal.data.files import read_samples
from parfocal.data.mixing import open_mixture
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.mixture_report import describe_mixture, write_epoch
from parfocal.errors import ConfigError, DataError
from tests.unit.data.mixed import make_samples, write_rows


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    (tmp_path / "rows").mkdir()
    a = write_rows(tmp_path / "rows", "a", make_samples("a", 10))
    b = write_rows(tmp_path / "rows", "b", make_samples("b", 20))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, size in (("a", 10), ("b", 20)):
        for number in range(size):
            Image.new("RGB", (8, 6)).save(pictures / f"{name}{number}.png")
    sources = (
        MixtureSource("a", str(a), images=str(pictures), epochs=1.5),
        MixtureSource("b", str(b), images=str(pictures), ratio=0.5),
    )
    return Mixture(sources, seed=2)


def test_the_report_counts_what_an_epoch_holds(mixture: Mixture) -> None:
    opened = open_mixture(mixture)
    report = describe_mixture(opened, first=3)
    assert report.rows == 25 == opened.rows()
    a, b = report.sources
    assert (a.name, a.rows, a.used, a.epochs, a.expected) == ("a", 10, 10, 1.5, 15)
    assert (b.name, b.rows, b.used, b.epochs, b.expected) == ("b", 20, 10, 1, 10)
    assert (a.epoch_rows, b.epoch_rows) == (15, 10)
    assert (a.share, b.share) == (0.6, 0.4)
    assert report.first == tuple(sample.id for sample in islice(opened.iterate(), 3))
    found = json.loads(json.dumps(report.to_json()))
    assert found["schema"] == "parfocal.mix/1"
    assert found["leaks"]["policy"] == "refuse" and found["leaks"]["benchmarks"] == []


def test_an_epoch_that_stops_early_is_counted_as_it_is(mixture: Mixture) -> None:
    weighted = replace(mixture, interleave="weighted", stop="first")
    report = describe_mixture(open_mixture(weighted))
    assert report.rows < 25 == sum(source.expected for source in report.sources)
    assert sum(source.epoch_rows for source in report.sources) == report.rows
    assert len(report.first) == 10


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_epoch_as_a_file_is_sound(mixture: Mixture, tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    opened = open_mixture(mixture)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / f"epoch.{suffix}"
    assert write_epoch(opened, out) == 25
    found = list(read_samples(out))
    whole = [sample.id for sample in opened.iterate()]
    assert [sample.id.partition("#")[0] for sample in found] == whole
    assert sum(sample.id.endswith("#2") for sample in found) == 5
    assert found[0].images[0].path.startswith("../pictures/")
    assert check_file(out).issues == [], "ids are unique and the pictures are found"


def test_an_epoch_as_a_file_goes_through_the_views(mixture: Mixture, tmp_path: Path) -> None:
    sources = (replace(mixture.sources[1], views=("twice",)),)
    twice = {"twice": lambda s: (replace(s, id=f"{s.id}.{n}") for n in range(2))}
    opened = open_mixture(replace(mixture, sources=sources), twice)
    assert write_epoch(opened, tmp_path / "e.jsonl") == 20
    assert check_file(tmp_path / "e.jsonl").ok


def test_what_a_file_cannot_hold_is_refused(mixture: Mixture, tmp_path: Path) -> None:
    path = write_rows(tmp_path, "t", make_samples("t", 2), "tar")
    opened = open_mixture(Mixture((MixtureSource("t", str(path)),)))
    with pytest.raises(DataError, match=r"is inside a tar file, .*Unpack the tar file"):
        write_epoch(opened, tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="must end in"):
        write_epoch(open_mixture(mixture), tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))
