from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path

import pytest

from parfocal.data import ImageRef, Sample
from parfocal.data.rows import TarRows, TarStream
from parfocal.errors import DataError
from tests.unit.data.mixed import make_sample, make_samples, picture_bytes, tar_row, write_tar


def ids(rows: TarRows | TarStream) -> list[str]:
    return [rows.sample(raw).id for raw in rows.forward()]


def test_rows_in_any_order_with_their_pictures(tmp_path: Path) -> None:
    samples = make_samples("a", 6)
    rows = TarRows(write_tar(tmp_path / "a.tar", map(tar_row, samples)))
    assert len(rows) == 6
    for index in (4, 0, 5, 2):
        raw = rows.at(index)
        assert raw.where == f"{tmp_path / 'a.tar'}:set/a{index}"
        found = rows.sample(raw)
        assert (found.id, found.turns) == (samples[index].id, samples[index].turns)
        assert found.images[0].path is None
        assert found.open_image().getpixel((0, 0)) == (index, 7, 9)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
def test_a_stream_reads_compressed_files_too(tmp_path: Path, mode: str) -> None:
    paths = tuple(
        write_tar(tmp_path / f"{name}.tar", map(tar_row, make_samples(name, 3)), mode)
        for name in "ab"
    )
    stream = TarStream(paths)
    assert len(stream) == 6
    assert ids(stream) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert [stream.sample(raw).id for raw in stream.forward(4)] == ["b1", "b2"]


def test_long_names_folders_and_foreign_members(tmp_path: Path) -> None:
    row, long = tar_row(make_sample("x")), "f" * 120
    rows = [
        {"__about__.txt": b"no row", "._junk": b"no row"},
        {name.replace("set", long): data for name, data in row.items()},
        {"b.text.json": row["set/x.json"], "._b": b"", "b.png": row["set/x.png"]},
    ]
    path = write_tar(tmp_path / "a.tar", rows)
    with tarfile.open(path, "a") as tar:
        folder = tarfile.TarInfo("b.d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    found = TarRows(path)
    assert [found.at(index).where for index in range(2)] == [f"{path}:{long}/x", f"{path}:b"]
    assert len(found) == 2
    assert ids(found) == ids(TarStream((path,))) == ["x", "x"]


def test_several_pictures_in_one_row(tmp_path: Path) -> None:
    images = (ImageRef("k.left.png", 8, 6), ImageRef("else/k.right.png", 4, 3),
              ImageRef(None, 2, 2, 0, (0, 0, 2, 2)))  # fmt: skip
    row = json.dumps(Sample("m", images, ()).to_json()).encode()
    left, right = picture_bytes((1, 2, 3)), picture_bytes((4, 5, 6), (4, 3))
    members = {"k.json": row, "k.right.png": right, "k.left.png": left}
    rows = TarRows(write_tar(tmp_path / "a.tar", [members]))
    found = rows.sample(rows.at(0))
    colours = [picture.getpixel((0, 0)) for picture in found.open_images()]
    assert colours == [(1, 2, 3), (4, 5, 6), (1, 2, 3)]


BAD = {
    "no json": ({"a.png": b"x"}, r"a.tar:a has no .json member, only a.png"),
    "json broken": ({"a.json": b"{"}, r"a.tar:a: not JSON"),
    "no row": ({"a.json": b"{}"}, r"a.tar:a: the field 'id' is missing"),
    "no picture": ({"a.json": tar_row(make_sample("x"))["set/x.json"]}, r"no member .*'x.png'"),
    "none of two is it": (
        {"x.json": tar_row(make_sample("y"))["set/y.json"], "x.a.png": b"", "x.b.png": b""},
        r"no member holds the picture 'y.png'; there are x.a.png, x.b.png",
    ),
    "picture broken": (tar_row(make_sample("x")) | {"set/x.png": b"PNG"}, r"not a picture"),
    "another size": (
        tar_row(make_sample("x")) | {"set/x.png": picture_bytes((0, 0, 0), (9, 9))},
        r"x: pixels is 9x9, declared as 8x6",
    ),
}


@pytest.mark.parametrize(("members", "message"), BAD.values(), ids=BAD)
def test_a_bad_row_is_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    rows = TarRows(write_tar(tmp_path / "a.tar", [members]))
    with pytest.raises(DataError, match=message):
        rows.sample(rows.at(0))


def test_files_that_are_no_tar_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with pytest.raises(DataError, match="cannot be read"):
        TarRows(path)
    path.write_bytes(b"no tar" * 200)
    for kind in (TarRows, lambda path: TarStream((path,))):
        with pytest.raises(DataError, match="is not a readable tar file"):
            kind(path)
    write_tar(path, [tar_row(make_sample("x"))])
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="is not a readable tar file"):
        TarStream((path,))


def test_the_index_is_kept_and_the_file_reopened(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", map(tar_row, make_samples("a", 4)))
    rows = TarRows(path, cache=True)
    assert (tmp_path / ".a.tar.rows.npz").exists()
    assert ids(pickle.loads(pickle.dumps(rows))) == ids(TarRows(path, cache=True))


def test_scan_looks_at_the_json_member(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", map(tar_row, make_samples("a", 4)))
    for rows in (TarRows(path), TarStream((path,))):
        found = list(rows.scan(lambda text: b'"n": 2' in text))
        assert [(one.number, one.row["id"], one.read().id) for one in found] == [(2, "a2", "a2")]
