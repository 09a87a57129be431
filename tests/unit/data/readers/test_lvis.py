"""LVIS: pictures by their address, labels in words, what is absent and what is not complete."""

from __future__ import annotations

import json

import numpy as np
import pytest

from parfocal.data.readers.lvis import LvisReader
from parfocal.errors import DataError

FILE = "lvis/lvis_v1_val.json"
BOW = "bow (decorative ribbons)"


@pytest.fixture
def reader(datasets) -> LvisReader:
    return LvisReader([datasets / FILE], split="val")


def test_boxes_and_labels(reader, read_all):
    samples = {sample.id: sample for sample in read_all(reader)}
    expected = {
        # x, y, x + width, y + height, worked by hand
        9: ([BOW, "brick"], [[10, 20, 40, 40], [60.5, 5.25, 90.5, 55.25]]),
        25: (["zucchini"], [[620, 400, 640, 426]]),  # clipped to 640x426
        30: (["zebra"], [[0, 10, 16.5, 30]]),  # from x = -3.5
        34: ([], []),
        36: ([], []),  # no width
        42: (["cr\u00e8me br\u00fbl\u00e9e"], [[0, 0, 640, 478]]),
        49: ([BOW], [[1.01, 2.02, 4.04, 6.06]]),
        61: (["zebra"], [[400, 300, 410.5, 320.5]]),
        64: (["brick"] * 3, [[1, 2, 4, 6], [5.5, 6.5, 12.5, 14.5], [470, 630, 480, 640]]),
        900001: ([BOW], [[10, 20, 40, 40]]),
    }
    assert list(samples) == [f"lvis:val:{number}" for number in expected]
    for number, (labels, boxes) in expected.items():
        regions = samples[f"lvis:val:{number}"].regions
        assert list(regions.labels or ()) == labels
        np.testing.assert_allclose(regions.xyxy, np.reshape(boxes, (-1, 4)), rtol=0, atol=1e-6)
    assert reader.skipped == {"boxes without area inside their picture": 1}


def test_absent_and_incomplete_categories_are_named(reader):
    meta = {sample.id: sample.meta for sample in reader}
    assert meta["lvis:val:9"] == {
        "image_key": "coco:9",
        "neg_categories": ["zebra", "zucchini"],
        "not_exhaustive_categories": ["brick"],
    }
    assert meta["lvis:val:34"]["neg_categories"] == [BOW]
    assert meta["lvis:val:25"] == {
        "image_key": "coco:25", "neg_categories": [], "not_exhaustive_categories": []
    }  # fmt: skip


def test_one_picture_under_two_ids_has_one_key(reader):
    samples = {sample.id: sample for sample in reader}
    first, again = samples["lvis:val:9"], samples["lvis:val:900001"]
    assert first.meta["image_key"] == again.meta["image_key"] == "coco:9"
    assert first.images[0].path == again.images[0].path == "train2017/000000000009.jpg"


def test_pictures_of_coco_are_found(datasets, make_pictures):
    root = make_pictures({
        "train2017/000000000009.jpg": (640, 480),
        "000000000030.jpg": (640, 428),
        "val2014/COCO_val2014_000000000025.jpg": (640, 426),
        "val2017/000000000049.jpg": (500, 381),  # sides swapped
    })  # fmt: skip
    reader = LvisReader([datasets / FILE], images=root)
    assert [sample.images[0].path for sample in reader] == [
        "train2017/000000000009.jpg",
        "val2014/COCO_val2014_000000000025.jpg",
        "000000000030.jpg",
        "train2017/000000000009.jpg",
    ]
    assert reader.skipped["pictures of another size than the dataset states"] == 1
    assert reader.skipped["pictures that are not in the folder"] == 5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("coco_url", None, "picture 9: .* has no `coco_url`"),
        ("coco_url", "http://example.invalid/dog.jpg", "does not end in the number"),
        ("neg_category_ids", [4], "picture 9 has category 4"),
        ("not_exhaustive_category_ids", True, "`not_exhaustive_category_ids` is True, must be a"),
    ],
)
def test_bad_pictures_are_refused(datasets, tmp_path, field, value, message):
    content = json.loads((datasets / FILE).read_text("utf-8"))
    content["images"][0].pop(field)
    if value is not None:
        content["images"][0][field] = value
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        list(LvisReader([tmp_path / "a.json"]))
