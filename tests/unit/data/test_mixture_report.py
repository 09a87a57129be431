"""The account of a mixture, and an epoch of it as a file."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from parfocal.data.check import check_file
from parfocal.data.files import read_samples
from parfocal.data.mixing import open_mixture
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.mixture_report import check_epoch_file, describe_mixture, write_epoch
from parfocal.data.sample import Sample
from parfocal.errors import ConfigError, DataError
from tests.unit.data.mixed import (
    make_sample,
    make_samples,
    picture_bytes,
    tar_row,
    write_rows,
    write_tar,
)


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
    assert write_epoch(opened, out) == (25, 0)
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
    assert write_epoch(opened, tmp_path / "e.jsonl") == (20, 0)
    assert check_file(tmp_path / "e.jsonl").ok


def tar_mixture(folder: Path, rows: list[dict[str, bytes]], **more: Any) -> Mixture:
    return Mixture((MixtureSource("t", str(write_tar(folder / "t.tar", rows)), **more),), seed=1)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_pictures_inside_tar_files_are_carried_over(
    tmp_path: Path, suffix: str, streaming: bool
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    rows = [tar_row(sample) for sample in make_samples("t", 4)]
    turned = make_sample("turned", 9)
    rows.append({"turned.jpg": sideways(), "turned.json": json.dumps(turned.to_json()).encode()})
    opened = open_mixture(tar_mixture(tmp_path, rows, epochs=2.0, streaming=streaming))
    out = tmp_path / "out" / f"epoch.{suffix}"
    out.parent.mkdir()
    assert write_epoch(opened, out) == (10, 5), "a picture that comes again is written once"
    assert check_file(out).issues == []
    found = {sample.id: sample for sample in read_samples(out)}
    for members in rows:
        picture, row = members.values()
        image = found[json.loads(row)["id"]].images[0]
        assert image.path is not None and image.path.startswith("epoch.images/")
        assert (out.parent / image.path).read_bytes() == picture, "not a byte is another"
        assert found[json.loads(row)["id"] + "#2"].images == (image,)
    upright = found["turned"].open_image(0, out.parent)
    assert (upright.size, found["turned"].images[0].path[-4:]) == ((8, 6), ".jpg")


def sideways() -> bytes:
    """A JPEG that EXIF turns upright: 6 x 8 pixels as it is stored."""
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 8), (200, 30, 40)).save(data, "JPEG", exif=exif)
    return data.getvalue()


def test_the_same_epoch_is_the_same_folder(tmp_path: Path) -> None:
    opened = open_mixture(tar_mixture(tmp_path, [tar_row(s) for s in make_samples("t", 5)]))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert write_epoch(opened, tmp_path / name / "e.jsonl") == (5, 5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert write_epoch(opened, tmp_path / "a" / "e.jsonl") == (5, 0), "nothing is written again"
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_fails_leaves_no_pictures(tmp_path: Path) -> None:
    rows = [tar_row(sample) for sample in make_samples("t", 5)]
    good = open_mixture(tar_mixture(tmp_path, rows[:2]))
    (tmp_path / "out").mkdir()
    write_epoch(good, tmp_path / "out" / "e.jsonl")
    before = contents(tmp_path / "out")
    rows[4]["set/t4.json"] = b"{}"
    bad = open_mixture(replace(tar_mixture(tmp_path, rows), interleave="sequential"))
    with pytest.raises(DataError, match="t4"):
        write_epoch(bad, tmp_path / "out" / "e.jsonl")
    assert contents(tmp_path / "out") == before, "what was there stays"
    with pytest.raises(DataError, match="t4"):
        write_epoch(bad, tmp_path / "other.jsonl")
    assert not list(tmp_path.glob("other*"))


def test_pictures_that_a_view_changed_are_written_as_they_are(tmp_path: Path) -> None:
    def darken(sample: Sample) -> list[Sample]:
        (image,) = sample.images
        pixels = Image.new("RGB", (8, 6), (1, 2, 3))
        return [replace(sample, images=(replace(image, pixels=pixels),))]

    mixture = tar_mixture(tmp_path, [tar_row(s) for s in make_samples("t", 2)], views=("darken",))
    assert write_epoch(open_mixture(mixture, {"darken": darken}), tmp_path / "e.jsonl") == (2, 1)
    for sample in read_samples(tmp_path / "e.jsonl"):
        assert sample.open_image(0, tmp_path).getpixel((4, 4)) == (1, 2, 3)


def test_crops_of_pictures_inside_tar_files_stay_crops(tmp_path: Path) -> None:
    crop = {"path": None, "width": 4, "height": 4, "parent": 0, "crop": [1, 1, 5, 5]}
    row = make_sample("t", 3).to_json()
    row["images"].append(crop)
    members = {"t.png": picture_bytes((9, 8, 7)), "t.json": json.dumps(row).encode()}
    opened = open_mixture(tar_mixture(tmp_path, [members]))
    assert write_epoch(opened, tmp_path / "e.jsonl") == (1, 1)
    (found,) = read_samples(tmp_path / "e.jsonl")
    assert (found.images[1].path, found.images[1].parent) == (None, 0)
    assert found.open_image(1, tmp_path).getpixel((2, 2)) == (9, 8, 7)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    opened = open_mixture(tar_mixture(tmp_path, [tar_row(s) for s in make_samples("t", 2)]))
    (tmp_path / "e.images").write_text("not a folder")
    with pytest.raises(DataError, match=r"e\.images.* cannot be written"):
        write_epoch(opened, tmp_path / "e.jsonl")
    assert (tmp_path / "e.images").read_text() == "not a folder"
    assert not (tmp_path / "e.jsonl").exists()


def test_other_endings_are_refused(mixture: Mixture, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must end in"):
        write_epoch(open_mixture(mixture), tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("path", ["rows/*.jsonl", "rows", "rows/a.jsonl"])
def test_a_file_that_is_mixed_is_not_written_over(
    mixture: Mixture, tmp_path: Path, path: str
) -> None:
    opened = open_mixture(Mixture((MixtureSource("a", str(tmp_path / path), kind="jsonl"),)))
    before = (tmp_path / "rows" / "a.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"a\.jsonl is read to make"):
        write_epoch(opened, tmp_path / "rows" / ".." / "rows" / "a.jsonl")
    assert (tmp_path / "rows" / "a.jsonl").read_bytes() == before


def test_a_benchmark_that_rows_are_compared_with_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("", encoding="utf-8")
    mixture = Mixture(
        (MixtureSource("a", str(tmp_path / "rows.jsonl")),),
        benchmarks=(str(tmp_path / "bench.jsonl"),),
    )
    with pytest.raises(ConfigError, match="give another name"):
        check_epoch_file(mixture, tmp_path / "bench.jsonl")
    check_epoch_file(mixture, tmp_path / "epoch.jsonl")


def test_shards_that_are_mixed_are_not_written_over(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    folder = write_rows(tmp_path, "s", make_samples("s", 4), "shards")
    mixture = Mixture((MixtureSource("s", str(folder), kind="parquet"),))
    with pytest.raises(ConfigError, match="is read to make"):
        check_epoch_file(mixture, folder / "part-00001.parquet")
    check_epoch_file(mixture, folder / "other.parquet")
    with pytest.raises(DataError, match=r"the folder .*no does not exist"):
        check_epoch_file(mixture, tmp_path / "no" / "e.parquet")
