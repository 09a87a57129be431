from collections.abc import Iterator
from pathlib import Path

import pytest

from parfocal.boxes import Boxes
from parfocal.data import ImageRef, Sample, Turn, read_jsonl, write_jsonl
from parfocal.dialects import GroundedText, Phrase
from parfocal.errors import DataError

IMAGE = ImageRef("a.png", 64, 48)
GOOD = '{"id": "1", "images": [], "turns": []}\n'


def samples(count: int) -> Iterator[Sample]:
    for index in range(count):
        phrase = Phrase("caf\u00e9\n", Boxes([[0.1, 0, 1 / 3, 40]], IMAGE.frame()))
        yield Sample(str(index), (IMAGE,), (Turn("user", GroundedText.of(phrase)),))


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(samples(3), path) == 3
    assert list(read_jsonl(path)) == list(samples(3))
    assert len(path.read_bytes().splitlines()) == 3


def test_reading_is_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD + "broken\n")
    reader = read_jsonl(path)
    assert next(reader).id == "1"
    with pytest.raises(DataError, match=r"rows.jsonl:2: not JSON"):
        next(reader)


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\n  \n" + GOOD.encode().strip())
    assert [sample.id for sample in read_jsonl(path)] == ["1", "1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b'{"id": "1"', "not JSON: .* at column 11. `parfocal data check", id="cut"),
        pytest.param(b'{"id": "\xff"}', "not UTF-8 at byte 8", id="latin-1"),
        pytest.param(b'{"id": NaN}', "NaN is not a JSON number", id="NaN"),
        pytest.param(b'{"id": "1", "id": "2"}', "'id' stands twice", id="key twice"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b"[1]", "must be object", id="no object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=rf"rows.jsonl:3: .*{message}"):
        list(read_jsonl(path))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(samples(1), path)
    before = path.read_bytes()

    def failing() -> Iterator[Sample]:
        yield from samples(2)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_jsonl(failing(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "meta", [{"x": float("nan")}, {"x": {1, 2}}, {"x": "\ud800"}], ids=["NaN", "set", "surrogate"]
)
def test_meta_that_is_not_json_is_refused(tmp_path: Path, meta: dict[str, object]) -> None:
    with pytest.raises(DataError, match="sample 'm' cannot be written"):
        write_jsonl([Sample("m", (), (), meta=meta)], tmp_path / "rows.jsonl")  # type: ignore[arg-type]


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.jsonl cannot be opened"):
        list(read_jsonl(tmp_path / "no.jsonl"))
    with pytest.raises(DataError, match=r"rows.jsonl cannot be written: the folder .* not exist"):
        write_jsonl([], tmp_path / "no" / "rows.jsonl")


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(DataError, match=r"rows.jsonl cannot be written: it is a folder\. Give"):
        write_jsonl([], tmp_path / "rows.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_jsonl(samples(1), tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").stat().st_mode == (tmp_path / "plain").stat().st_mode
