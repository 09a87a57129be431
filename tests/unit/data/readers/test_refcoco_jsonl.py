"""RefCOCO as JSON Lines: corners in pixels, COCO's ids from the names of the pictures."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.refcoco_jsonl import RefCocoJsonlReader
from parfocal.errors import DataError

FILE = "refcoco_jsonl/REC_refcocog_umd_val.jsonl"
ROW = {
    "img_path": "COCO_train2014_000000000009.jpg", "expression": "a dog", "bbox": [1, 2, 3, 4],
    "dataset_name": "refcoco", "height": 480, "width": 640,
}  # fmt: skip


def test_boxes_are_corners_already(datasets, read_all):
    reader = RefCocoJsonlReader([datasets / FILE], split="val")
    samples = read_all(reader)
    expected = {
        # line: as in the file, unless it leaves the picture
        1: ("coco:581857", "the lady with the blue shirt", [103.93, 299.99, 238.15, 477.41]),
        2: ("coco:581857", "lady with back to us", [103.93, 299.99, 238.15, 477.41]),
        3: ("coco:9", "small dog right", [473, 395, 512, 425]),
        4: ("coco:9", "person", [1.08, 187.69, 612.67, 473.53]),
        5: ("coco:25", "toothbrush at the edge", [600.5, 400.25, 640, 426]),
        7: ("coco:36", "the crowd", [10, 20, 310, 420]),  # line 6 is blank
        10: ("coco:61", "top left corner guy", [0, 0, 5.5, 8]),
        12: ("coco:1000", "dog by the caf\u00e9", [10, 20, 40, 40]),
        13: ("coco:3", "brush in the corner", [0, 0, 10, 10]),
    }
    assert [s.id for s in samples] == [f"refcoco_jsonl:val:refcocog:{n}" for n in expected]
    for sample, (key, text, box) in zip(samples, expected.values(), strict=True):
        assert sample.meta == {"image_key": key, "dataset": "refcocog"}
        assert sample.regions.labels == (text,)
        assert sample.regions.to_json()[0] == pytest.approx(box, abs=1e-6), text
    assert reader.skipped == {
        "boxes without area inside their picture": 2,  # no width; corners swapped
        "sentences without words": 1,
    }


def test_counts_behind_names_of_pictures_are_dropped(datasets, make_pictures):
    paths = [sample.images[0].path for sample in RefCocoJsonlReader([datasets / FILE])]
    assert paths[:5] == [
        "COCO_train2014_000000581857.jpg",
        "COCO_train2014_000000581857.jpg",
        "000000000009.jpg",
        "coco/train2017/000000000009.jpg",
        "train2014/COCO_train2014_000000000025.jpg",
    ]
    root = make_pictures({
        "COCO_train2014_000000581857_16.jpg": (427, 640),  # not COCO's
        "COCO_train2014_000000000009.jpg": (640, 480),
        "coco/train2017/000000000025.jpg": (640, 426),
    })  # fmt: skip
    reader = RefCocoJsonlReader([datasets / FILE], images=root)
    assert [sample.images[0].path for sample in reader] == [
        "COCO_train2014_000000000009.jpg",
        "COCO_train2014_000000000009.jpg",
        "coco/train2017/000000000025.jpg",
    ]
    assert reader.skipped["pictures that are not in the folder"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, "a.jsonl:2: `bbox` is .* must be four numbers"),
        ({"bbox": "1,2,3,4"}, "must be four numbers"),
        ({"bbox": [1, 2, True, 4]}, "must be four numbers"),
        ({"img_path": "VG_100K/2317429.jpg"}, "a.jsonl:2: .* not named like a picture of COCO"),
        ({"img_path": 9}, "must be text"),
        ({"expression": None}, "must be text"),
        ({"width": "640"}, "must be a whole number"),
        ({"width": True}, "must be a whole number"),
    ],
)
def test_bad_lines_are_named(tmp_path, change, message):
    rows = [ROW, {**ROW, **change}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        list(RefCocoJsonlReader([tmp_path / "a.jsonl"]))


@pytest.mark.parametrize(
    ("line", "message"), [("[1]", "no `expression`"), ("{}", "no `expression`"), ("{", "not JSON")]
)
def test_lines_of_another_kind_are_refused(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(ROW)}\n{line}\n")
    with pytest.raises(DataError, match=f"a.jsonl:2: .*{message}"):
        list(RefCocoJsonlReader([tmp_path / "a.jsonl"]))


def test_the_dataset_need_not_be_named(tmp_path):
    row = {name: value for name, value in ROW.items() if name != "dataset_name"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (sample,) = RefCocoJsonlReader([tmp_path / "a.jsonl"])
    assert sample.id == "refcoco_jsonl:1"
    assert sample.meta == {"image_key": "coco:9"}


@pytest.mark.parametrize("field", ["expression", "dataset_name"])
def test_rows_with_half_an_emoji_are_left_out(tmp_path, field):
    rows = [{**ROW, field: f"a cat {half}"} for half in ("\U0001f600", "\ud83d", "\ude00")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader = RefCocoJsonlReader([tmp_path / "a.jsonl"])
    (sample,) = reader
    assert sample.id.endswith(":1") and "\U0001f600" in f"{sample.to_json()}"
    assert reader.skipped == {"words with half a character": 2}
