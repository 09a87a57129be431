import copy
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data import Sample
from parfocal.data.check import CheckReport, check_file, guess_convention
from parfocal.data.parquet import write_parquet
from parfocal.data.preview import preview_file
from parfocal.errors import DataError


def row(**change: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "images": [{"path": "a.png", "width": 640, "height": 480}],
        "regions": [[10, 20, 300, 400]],
        "turns": [],
    } | change


def check(tmp_path: Path, *lines: dict[str, Any] | bytes, **options: Any) -> CheckReport:
    path = tmp_path / "rows.jsonl"
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    if not (tmp_path / "a.png").exists():
        PIL.Image.new("1", (640, 480)).save(tmp_path / "a.png")
    return check_file(path, **options)


def spans(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "spans": list(entries)}]


def test_a_good_file_has_no_issues(tmp_path: Path) -> None:
    report = check(tmp_path, row(), row(id="2"))
    assert (report.rows, report.issues, report.ok) == (2, [], True)


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        pytest.param(b"{", ["bad_json"], id="cut line"),
        pytest.param(b"null", ["wrong_type"], id="JSON that is no row"),
        pytest.param(b'{"id": "\xe9"}', ["bad_utf8"], id="latin-1"),
        pytest.param(row(regoins=[]), ["unknown_field"], id="misspelt key"),
        pytest.param({"id": "1", "images": []}, ["missing_field"], id="no turns"),
        pytest.param(row(id=1), ["wrong_type"], id="id is a number"),
        pytest.param(
            row(regions=[[600, 400, 100, 300]]), ["swapped_corners"], id="swapped, no xywh either"
        ),
        pytest.param(
            row(regions=[[300, 200, 100, 50], [10, 20, 30, 40]]),
            ["swapped_corners", "looks_like_xywh"],
            id="x, y, width, height",
        ),
        pytest.param(
            row(regions=[[0.1, 0.2, 0.5, 0.9]]), ["looks_like_unit"], id="fractions of the picture"
        ),
        pytest.param(
            row(regions=[[100, 100, 900, 900]]),
            ["outside_image", "looks_like_thousand"],
            id="thousandths of the picture",
        ),
        pytest.param(row(regions=[[0, 0, 645, 480]]), ["outside_image"], id="a slip at the edge"),
        pytest.param(row(regions=[[0, 0, 2000, 480]]), ["outside_image"], id="far outside"),
        pytest.param(row(regions=[[5, 5, 5, 9]]), ["degenerate_box"], id="no width"),
        pytest.param(
            row(turns=spans({"type": "region", "index": 1})),
            ["bad_region_ref"],
            id="no such region",
        ),
        pytest.param(
            row(turns=spans({"type": "phrase", "text": "", "boxes": []})),
            ["empty_phrase"],
            id="empty phrase",
        ),
        pytest.param(
            row(images=[{"path": "no.png", "width": 640, "height": 480}]),
            ["missing_image"],
            id="no such file",
        ),
        pytest.param(
            row(images=[{"path": None, "width": 640, "height": 480}]),
            ["missing_image"],
            id="no path and no parent",
        ),
        pytest.param(
            row(images=[{"path": "a.png", "width": 480, "height": 640}]),
            ["wrong_size"],
            id="declared on its side",
        ),
        pytest.param(
            row(images=[{"path": "rows.jsonl", "width": 640, "height": 480}]),
            ["unreadable_image"],
            id="not a picture",
        ),
        pytest.param(
            row(images=[{"path": "a\0", "width": 640, "height": 480}]),
            ["missing_image"],
            id="impossible path",
        ),
        pytest.param(
            row(images=[{"path": 300 * "a", "width": 640, "height": 480}]),
            ["unreadable_image"],
            id="a name that is too long",
        ),
    ],
)
def test_each_kind_is_found_where_it_is(
    tmp_path: Path, line: dict[str, Any] | bytes, kinds: list[str]
) -> None:
    report = check(tmp_path, row(id="first"), line, row(id="last"))
    assert [issue.kind for issue in report.issues] == kinds
    assert {issue.line for issue in report.issues} == {2}
    assert report.rows == 3


def test_frames_of_videos_are_looked_up(tmp_path: Path) -> None:
    clips = pytest.importorskip("tests.unit.clips")
    clips.write_clip(tmp_path / "a.mp4", 9)
    (tmp_path / "broken.mp4").write_bytes(b"no video")

    def frame(number: int, path: str = "a.mp4", width: int = 96) -> dict[str, Any]:
        return {"path": path, "width": width, "height": 64, "video_frame": number}

    report = check(
        tmp_path,
        {"id": "1", "images": [frame(0), frame(8)], "turns": []},
        {"id": "2", "images": [frame(9)], "turns": []},
        {"id": "3", "images": [frame(0, width=95)], "turns": []},
        {"id": "4", "images": [frame(0, "broken.mp4")], "turns": []},
        {"id": "5", "images": [frame(0, "none.mp4")], "turns": []},
        {"id": "6", "images": [frame(-1)], "turns": []},
        {"id": "7", "images": [{"path": "a.mp4", "width": 96, "height": 64}], "turns": []},
        {"id": "8", "images": [frame(0, "a.png")], "turns": []},
    )
    found = {issue.line: issue.kind for issue in report.issues}
    assert found == {
        2: "missing_image", 3: "wrong_size", 4: "unreadable_image", 5: "missing_image",
        6: "wrong_value", 7: "unreadable_image", 8: "unreadable_image",
    }  # fmt: skip
    assert "'a.mp4' has 9 frames, there is no frame 9" in report.issues[0].detail


def test_all_problems_of_a_file_are_listed(tmp_path: Path) -> None:
    report = check(
        tmp_path, b"[", row(regions=[[5, 5, 5, 9], [9, 9, 999, 99]]), row(), row(), b"\xff"
    )
    assert [(issue.line, issue.kind) for issue in report.issues] == [
        (1, "bad_json"),
        (2, "degenerate_box"),
        (2, "outside_image"),
        (2, "looks_like_thousand"),
        (3, "duplicate_id"),
        (4, "duplicate_id"),
        (5, "bad_utf8"),
    ]
    assert "rows.jsonl:2" in report.issues[4].detail
    assert report.bad_rows == 5
    assert next(iter(report.counts)) == "duplicate_id"


def test_the_report_is_json(tmp_path: Path) -> None:
    report = check(tmp_path, row(id="x", regions=[[5, 5, 5, 9]]))
    out = json.loads(json.dumps(report.to_json()))
    assert out["counts"] == {"degenerate_box": 1}
    assert (out["rows"], out["bad_rows"]) == (1, 1)
    assert out["issues"][0] == {
        "file": str(tmp_path / "rows.jsonl"),
        "line": 1,
        "kind": "degenerate_box",
        "detail": "regions[0]: box [5, 5, 5, 9] has no area",
        "sample_id": "x",
    }
    assert str(report.issues[0]).startswith(f"{tmp_path / 'rows.jsonl'}:1: degenerate_box: ")


def test_size_is_compared_after_exif_orientation(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (480, 640))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    image = {"path": "a.jpg", "width": 640, "height": 480}
    assert check(tmp_path, row(images=[image])).ok


def test_pictures_may_be_elsewhere_or_left_closed(tmp_path: Path) -> None:
    line = row(images=[{"path": "b.png", "width": 640, "height": 480}])
    assert not check(tmp_path, line).ok
    assert check(tmp_path, line, open_images=False).ok
    (tmp_path / "sub").mkdir()
    PIL.Image.new("1", (640, 480)).save(tmp_path / "sub" / "b.png")
    assert check(tmp_path, line, images_root=tmp_path / "sub").ok


def test_parquet_is_checked_by_row(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [Sample.from_json(row(id=name)) for name in ("1", "2", "1")]
    write_parquet(rows, tmp_path / "rows.parquet")
    report = check_file(tmp_path / "rows.parquet", open_images=False)
    assert [(issue.line, issue.kind) for issue in report.issues] == [(3, "duplicate_id")]


def test_a_bad_row_of_parquet_does_not_end_the_check(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = [{"id": name, "images": [], "turns": [], "meta": "{"} for name in ("1", "2")]
    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    report = check_file(tmp_path / "rows.parquet")
    assert [(issue.line, issue.kind) for issue in report.issues] == [
        (1, "wrong_type"), (2, "wrong_type")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (["a.png"], "images[0]: 'a.png' is string"),
        ([{"path": "a.png", "width": 9, "height": 9}, None], "images[1]: None is null"),
        ({"path": "a.png"}, "images: an object with 1 fields is object"),
        (3, "images: 3 is integer"),
        ("a.png", "images: 'a.png' is string"),
    ],
)
def test_columns_of_other_types_in_parquet_are_found(
    tmp_path: Path, images: Any, said: str
) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = [{"id": "1", "images": images, "turns": []}]
    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (issue,) = check_file(tmp_path / "rows.parquet", open_images=False).issues
    assert (issue.line, issue.kind) == (1, "wrong_type")
    assert issue.detail.startswith(said)
    assert preview_file(tmp_path / "rows.parquet", tmp_path / "rows.html").flagged == 1


def test_names_are_written_so_that_they_can_be_printed(tmp_path: Path) -> None:
    strange = [{"path": "\ud800\x1b[2J.png", "width": 640, "height": 480}]
    (issue,) = check(tmp_path, row(images=strange)).issues
    assert issue.detail.isprintable()


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        check_file(tmp_path / "no.jsonl")


@pytest.mark.parametrize(
    ("boxes", "size_wh", "kind"),
    [
        pytest.param([[10, 20, 300, 400]], (640, 480), None, id="pixels"),
        pytest.param([], (640, 480), None, id="no boxes"),
        pytest.param([[0, 0, 1, 1]], (16, 16), None, id="one pixel of a small picture"),
        pytest.param([[0, 0, 0.5, 1]], (64, 64), "looks_like_unit", id="unit"),
        pytest.param(
            [[0.1, 0.1, 0.5, 1], [1, 1, 9, 9]], (64, 64), None, id="one small box among others"
        ),
        pytest.param([[50, 5, 10, 10]], (64, 64), "looks_like_xywh", id="xywh"),
        pytest.param([[50, 5, 20, 10]], (64, 64), None, id="too wide for xywh"),
        pytest.param([[50, 5, 500, 900]], (64, 64), "looks_like_thousand", id="thousand"),
        pytest.param([[50, 5, 500, 1100]], (64, 64), None, id="too far for thousandths"),
        pytest.param([[-1, 5, 500, 900]], (64, 64), None, id="negative is none of them"),
    ],
)
def test_guess_convention(
    boxes: list[list[float]], size_wh: tuple[int, int], kind: str | None
) -> None:
    guess = guess_convention(boxes, size_wh)
    assert (guess and guess[0]) == kind


BAD = st.sampled_from(
    [
        {"regions": [[0, 0, 0, 0]]},
        {"regions": [[9, 9, 1, 1]]},
        {"regions": "x"},
        {"regions": [], "region_labels": ["a"]},
        {"images": []},
        {"images": [{"path": "a", "width": 640, "height": 480, "crop": [0, 0, 1, 1]}]},
        {"id": ""},
        {"turns": spans({"type": "region", "index": 5})},
        {"turns": spans({"type": "phrase", "text": "", "boxes": [], "image": 4})},
        {"turns": spans({"type": "nothing"})},
        {"meta": {"a": {}}},
    ]
)


@given(st.lists(BAD, max_size=3))
def test_what_the_check_passes_can_be_read(tmp_path_factory: Any, changes: list[Any]) -> None:
    line = copy.deepcopy(row())
    for change in changes:
        line |= change
    report = check(tmp_path_factory.getbasetemp(), line, open_images=False)
    try:
        Sample.from_json(line)
    except DataError:
        assert not report.ok
    else:
        assert report.ok
