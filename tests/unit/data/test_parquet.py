import builtins
from pathlib import Path
from typing import Any

import pytest

from parfocal.boxes import Boxes
from parfocal.data import ImageRef, Sample, Turn
from parfocal.data.parquet import read_parquet, write_parquet, write_parquet_shards
from parfocal.dialects import GroundedText, Nothing, Phrase, RegionRef
from parfocal.errors import ConfigError, DataError

IMAGE = ImageRef("a.png", 64, 48)
CROP = ImageRef(None, 8, 8, parent=0, crop=(0, 0, 8, 8))


def sample(name: str) -> Sample:
    boxes = Boxes([[0.1, 0, 1 / 3, 40]], IMAGE.frame(), scores=[0.5])
    spans = GroundedText.of("a ", Phrase("dog", boxes), Phrase("cat"), RegionRef(0), Nothing("x"))
    regions = Boxes([[1, 2, 3, 4]], IMAGE.frame(), labels=["dog"])
    meta = {"null": None, "deep": [1, {"a": None}]}
    return Sample(name, (IMAGE, CROP), (Turn("user", spans),), regions, "s", "train", "MIT", meta)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    video = Sample("v", (ImageRef("a.mp4", 9, 9, video_frame=0), IMAGE), ())
    rows = [sample("1"), Sample("2", (), ()), sample("3"), video]
    assert write_parquet(rows, tmp_path / "rows.parquet") == 4
    assert list(read_parquet(tmp_path / "rows.parquet")) == rows


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [sample(str(index)) for index in range(5)]
    paths = write_parquet_shards(iter(rows), tmp_path / "set", rows_per_shard=2)
    assert [path.name for path in paths] == [f"part-0000{index}.parquet" for index in range(3)]
    assert list(read_parquet(tmp_path / "set")) == rows
    with pytest.raises(ConfigError, match="already has shards"):
        write_parquet_shards(rows, tmp_path / "set")


def test_a_bad_row_is_named_by_file_and_row(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = [{"id": "1", "images": [], "turns": []}, {"id": "", "images": [], "turns": []}]
    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet:2: id: must not be empty"):
        list(read_parquet(tmp_path / "rows.parquet"))


def test_half_a_character_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    half = Sample("half", (), (Turn("user", GroundedText.of("a \ud83d")),))
    with pytest.raises(DataError, match=r"sample 'half' cannot be written"):
        write_parquet([sample("1"), half], tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"PAR1 or so", "is not a readable")],
    ids=["missing", "garbage"],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "rows.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"rows.parquet {message}"):
        list(read_parquet(path))
    with pytest.raises(DataError, match=r"holds no part"):
        list(read_parquet(tmp_path))


def test_without_pyarrow_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def no_pyarrow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    with pytest.raises(ConfigError, match=r"pip install 'parfocal\[data\]'"):
        write_parquet([], tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=r"pip install 'parfocal\[data\]'"):
        list(read_parquet(tmp_path / "rows.parquet"))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    bad = Sample("m", (), (), meta={"x": float("nan")})
    with pytest.raises(DataError, match="'m'"):
        write_parquet([sample("1"), bad], tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []
