"""Groma's referring expressions: an entry an expression, [x, y, width, height], 2017 file names."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.groma_rec import GromaRecReader
from parfocal.errors import DataError

FILE = "groma/refcoco_val.json"


def test_every_expression_with_its_box(datasets, read_all):
    reader = GromaRecReader([datasets / FILE], split="val")
    samples = read_all(reader)
    # x, y, x + width, y + height, worked by hand
    expected = [
        ("coco:1", "red square", [[10, 20, 40, 40]]),
        ("coco:1", "left one", [[10.25, 20.5, 40.75, 40.75]]),
        ("coco:1", "right blue", [[60, 5, 90, 55]]),
        ("coco:581857", "green thing", [[5, 40, 55, 80]]),
        ("coco:581857", "caf\xe9 sign", [[5, 40, 55, 80]]),
        ("coco:581857", "off the edge", [[0, 90, 15.5, 100]]),  # clipped
        ("coco:581857", "two of them", [[1, 2, 4, 6], [20, 30, 25, 36]]),
        ("coco:581857", "a crowd", [[2, 4, 10, 20]]),  # crowds are asked for too
        ("coco:581857", "last", [[0, 0, 60, 100]]),
    ]
    assert [sample.meta["image_key"] for sample in samples] == [key for key, _, _ in expected]
    for sample, (_, phrase, boxes) in zip(samples, expected, strict=True):
        assert sample.turns == ()
        assert sample.regions.labels == (phrase,) * len(boxes)
        for found, box in zip(sample.regions.to_json(), boxes, strict=True):
            assert found == pytest.approx(box, abs=1e-6), phrase
    assert samples[0].id == "groma_rec:val:refcoco_val:0"
    assert samples[0].meta["dataset"] == "refcoco"
    assert reader.skipped == {
        "expressions without a box": 2,
        "expressions without words": 1,
        "boxes without area inside their picture": 1,
    }


def test_pictures_of_2014_will_do(datasets, make_pictures):
    root = make_pictures({"train2014/COCO_train2014_000000581857.jpg": (60, 100)})
    reader = GromaRecReader([datasets / FILE], images=root)
    paths = {sample.images[0].path for sample in reader}
    assert paths == {"train2014/COCO_train2014_000000581857.jpg"}
    assert reader.skipped["pictures that are not in the folder"] == 3


@pytest.mark.parametrize(
    ("image", "annotation", "message"),
    [
        ({"caption": None}, {}, "entry 7 of `images`: caption is None, must be str"),
        ({"width": "100"}, {}, "width is '100', must be int"),
        ({}, {"bbox": [1, 2, 3]}, r"annotation 5: the box is \[1, 2, 3\]"),
        ({}, {"bbox": None}, "the box is None"),
        ({}, {"bbox": [1, 2, 3, "4"]}, "must be"),
    ],
)
def test_bad_rows_are_named(tmp_path, image, annotation, message):
    entry = {"id": 7, "file_name": "1.jpg", "width": 100, "height": 60, "caption": "a"} | image
    row = {"id": 5, "image_id": 7, "bbox": [1, 2, 3, 4]} | annotation
    (tmp_path / "a.json").write_text(json.dumps({"images": [entry], "annotations": [row]}))
    with pytest.raises(DataError, match=rf"a\.json.*{message}"):
        list(GromaRecReader([tmp_path / "a.json"]))


def test_files_of_another_kind_are_refused(tmp_path):
    entry = {"id": 7, "file_name": "1.jpg", "width": 100, "height": 60}
    (tmp_path / "a.json").write_text(json.dumps({"images": [entry], "annotations": []}))
    with pytest.raises(DataError, match=r"lacks caption; it has id, file_name"):
        list(GromaRecReader([tmp_path / "a.json"]))
