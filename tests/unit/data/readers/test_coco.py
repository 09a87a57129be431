"""COCO: [x, y, width, height] joined to pictures, ids with gaps, crowds, boxes at the border."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from parfocal.data.readers.coco import CocoReader, coco_names
from parfocal.data.views.absent import Absent
from parfocal.data.views.base import apply
from parfocal.data.views.ground_all import GroundAll
from parfocal.data.views.rec import Rec
from parfocal.errors import DataError

FILE = "coco/instances_train2017.json"


@pytest.fixture
def reader(datasets) -> CocoReader:
    return CocoReader([datasets / FILE], split="train")


def test_boxes_are_corners_in_pixels(reader, read_all):
    samples = {sample.meta["image_key"]: sample for sample in read_all(reader)}
    assert list(samples) == [f"coco:{n}" for n in (9, 25, 30, 34, 36, 42, 49, 61, 64, 71)]
    expected = {
        # x, y, x + width, y + height, worked by hand
        9: [[473.07, 395.93, 511.72, 424.6], [0, 0, 640, 480], [1.08, 187.69, 612.67, 473.53]],
        25: [[600, 400, 640, 426]],  # clipped to 640x426
        30: [[12.34, 56.78, 102.46, 91.34]],
        34: [],  # its only box marks a crowd
        36: [],  # a tenth of a pixel is left inside
        42: [[214.15, 41.29, 562.41, 285.07]],
        49: [],  # no width
        61: [[0, 0, 5.5, 8]],
        64: [[1, 2, 4, 6]],
        71: [[10.5, 20.25, 41, 61]],
    }
    for number, boxes in expected.items():
        found = samples[f"coco:{number}"].regions.to_json()
        assert len(found) == len(boxes), number
        for row, truth in zip(found, boxes, strict=True):
            assert row == pytest.approx(truth, abs=1e-6), number
    assert samples["coco:9"].regions.labels == ("dog", "person", "dog")
    assert samples["coco:25"].regions.labels == ("toothbrush",)
    assert reader.skipped == {"crowds": 1, "boxes without area inside their picture": 2}


def test_crowds_on_request(datasets):
    samples = {sample.id: sample for sample in CocoReader([datasets / FILE], crowds=True)}
    assert samples["coco:34"].regions.to_json() == [[5, 5, 55, 55]]
    assert "not_exhaustive_categories" not in samples["coco:34"].meta


def test_what_has_no_box_is_not_said_to_be_absent_or_alone(tmp_path):
    names, book = ["book", "dog", "person", "skis"], {"image_id": 1, "category_id": 1}
    rows = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 60}],
        "annotations": [
            {**book, "bbox": [10, 20, 30, 5], "iscrowd": 0},
            {**book, "bbox": [50, 20, 40, 30], "iscrowd": 1},
            {"image_id": 1, "category_id": 2, "bbox": [10, 30, 30, 20], "iscrowd": 0},
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 50, 50], "iscrowd": 1},
            {"image_id": 1, "category_id": 4, "bbox": [200, 0, 50, 50], "iscrowd": 0},  # outside
        ],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, 1)],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    (sample,) = CocoReader([path])
    assert sample.regions.labels == ("book", "dog")
    assert sample.meta["not_exhaustive_categories"] == ["book", "person", "skis"]
    views = Absent(vocabulary=[*names, "car"], count=9), Rec(), GroundAll()
    made = [each for view in views for each in apply(sample, view, seed=0)]
    words = " ".join(turn.text.plain for each in made for turn in each.turns)
    assert "car" in words
    assert "dog" in words
    assert not any(name in words for name in ("book", "person", "skis"))


def test_pictures_are_found_under_any_of_their_names(datasets, make_pictures):
    root = make_pictures({
        "000000000009.jpg": (640, 480),
        "train2014/COCO_train2014_000000000025.jpg": (640, 426),
        "coco/train2017/000000000042.jpg": (640, 478),
        "000000000071.jpg": (429, 640),  # sides swapped
    })  # fmt: skip
    (root / "000000000064.jpg").write_bytes(b"no picture")
    reader = CocoReader([datasets / FILE], images=root)
    found = {sample.meta["image_key"]: sample.images[0].path for sample in reader}
    assert found == {
        "coco:9": "000000000009.jpg",
        "coco:25": "train2014/COCO_train2014_000000000025.jpg",
        "coco:42": "coco/train2017/000000000042.jpg",
    }
    assert reader.skipped == {
        "pictures that are not in the folder": 5,
        "pictures of another size than the dataset states": 1,
        "files that are no pictures": 1,
    }


def test_boxes_turn_with_a_picture_that_exif_turns(tmp_path):
    rows = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 60}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 5], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "car"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(rows))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.new("RGB", (100, 60)).save(tmp_path / "a.jpg", exif=exif)
    (sample,) = CocoReader([tmp_path / "a.json"], images=tmp_path)
    assert (sample.images[0].width, sample.images[0].height) == (60, 100)
    assert sample.regions.to_json() == [[60 - 25, 10, 60 - 20, 40]]
    assert sample.open_image(root=tmp_path).size == (60, 100)


def test_names_of_one_picture():
    names = coco_names(25, "images/25.jpg")
    assert names[0] == "images/25.jpg"
    assert "val2014/COCO_val2014_000000000025.jpg" in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "categories"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": []}', "no `images`"),
        ('{"categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 5}]}', "image_id"),
        ('{"categories": [', "not JSON"),
        ("", "not JSON: parse error: premature EOF. Is it"),
        ("\xff\xfe\x00", "not JSON: lexical error: invalid char in json text. Is it"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        list(CocoReader([tmp_path / "a.json"]))


def test_sources_are_checked_at_once(datasets, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        CocoReader([tmp_path / "none.json"])
    with pytest.raises(DataError, match="not a folder"):
        CocoReader([datasets / FILE], images=tmp_path / "none")
    shutil.copy(datasets / FILE, tmp_path / "a.json")
    with pytest.raises(ValueError, match="takes 1 sources"):
        CocoReader([tmp_path / "a.json", tmp_path / "a.json"])
