"""MDETR's RefCOCO: an entry a sentence under a running number, COCO's ids beside it."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.refcoco_mdetr import RefCocoMdetrReader
from parfocal.errors import DataError

FILE = "mdetr/finetune_refcoco+_val.json"


@pytest.fixture
def changed(datasets, tmp_path):
    """The fixture after a change."""

    def make(change):
        rows = json.loads((datasets / FILE).read_text())
        change(rows)
        (tmp_path / "a.json").write_text(json.dumps(rows))
        return [tmp_path / "a.json"]

    return make


def test_a_sample_a_sentence(datasets, read_all):
    reader = RefCocoMdetrReader([datasets / FILE], split="val")
    samples = read_all(reader)
    expected = {
        # x, y, x + width, y + height, worked by hand
        0: ("the lady with the blue shirt", [103.93, 299.99, 238.15, 477.41]),
        1: ("lady with back to us", [103.93, 299.99, 238.15, 477.41]),
        2: ("small dog right", [473.07, 395.93, 511.72, 424.6]),
        3: ("person", [1.08, 187.69, 612.67, 473.53]),
        4: ("toothbrush at the edge", [600.5, 400.25, 640, 426]),  # clipped to 640x426
        5: ("the crowd", [10, 20, 310, 420]),
        7: ("top left corner guy", [0, 0, 5.5, 8]),
        9: ("dog by the caf\u00e9", [10, 20, 40, 40]),
        10: ("brush in the corner", [0, 0, 10, 10]),  # began outside
    }
    assert [sample.id for sample in samples] == [
        f"refcoco_mdetr:val:refcoco+:{n}" for n in expected
    ]
    for sample, (text, box) in zip(samples, expected.values(), strict=True):
        assert sample.regions.labels == (text,)
        assert sample.regions.to_json()[0] == pytest.approx(box, abs=1e-6), text
        assert sample.turns == ()
    assert reader.skipped == {
        "boxes without area inside their picture": 1,  # no width
        "sentences without words": 1,
    }


def test_ids_are_those_of_coco(datasets):
    samples = {sample.id: sample for sample in RefCocoMdetrReader([datasets / FILE])}
    assert samples["refcoco_mdetr:refcoco+:5"].meta == {
        "image_key": "coco:36", "ann_id": 900100000036, "category": "person", "area": 60000.0,
        "iscrowd": 1, "dataset": "refcoco+",
    }  # fmt: skip
    assert samples["refcoco_mdetr:refcoco+:1"].meta["image_key"] == "coco:581857"


def test_pictures_are_found_by_coco_id(datasets, make_pictures):
    root = make_pictures({
        "COCO_train2014_000000581857.jpg": (427, 640),
        "train2017/000000000009.jpg": (640, 480),
        "000000000000.jpg": (481, 640),  # running numbers name no files
    })  # fmt: skip
    reader = RefCocoMdetrReader([datasets / FILE], images=root)
    assert [sample.images[0].path for sample in reader] == [
        "COCO_train2014_000000581857.jpg", "COCO_train2014_000000581857.jpg",
        "train2017/000000000009.jpg", "train2017/000000000009.jpg",
    ]  # fmt: skip
    assert reader.skipped["pictures that are not in the folder"] == 6


def test_the_dataset_need_not_be_named(changed):
    sources = changed(lambda rows: [image.pop("dataset_name") for image in rows["images"]])
    sample = next(iter(RefCocoMdetrReader(sources)))
    assert sample.id == "refcoco_mdetr:0"
    assert "dataset" not in sample.meta


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["images"][0].pop("original_id"), "no `original_id`"),
        (lambda rows: rows["images"][0].pop("caption"), "no `caption`"),
        (lambda rows: rows["annotations"][0].update(image_id=0), "entry 0 has 2 boxes"),
        (lambda rows: rows["annotations"].pop(), "entry 0 has 0 boxes"),
        (lambda rows: rows["annotations"][-1].pop("bbox"), "must be four numbers"),
        (lambda rows: rows["annotations"][-1].update(category_id=2), "unknown category 2"),
        (lambda rows: rows["annotations"][-1].update(category_id={}), "`category_id` is {}, must"),
        (lambda rows: rows.update(images=[]), "no `images`"),
    ],
)
def test_files_of_another_kind_are_refused(changed, change, message):
    with pytest.raises(DataError, match=message):
        list(RefCocoMdetrReader(changed(change)))
