"""What all datasets in the COCO format share: structure is checked, nothing is lost unsaid."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.coco import CocoReader
from parfocal.errors import DataError

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 60}
ROW = {"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 5]}
CAR = {"id": 3, "name": "toy_car"}


@pytest.fixture
def write(tmp_path):
    def write(image: object = IMAGE, row: object = ROW, category: object = CAR):
        content = {"annotations": [row], "images": [image], "categories": [category]}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return CocoReader([tmp_path / "a.json"])

    return write


def test_flags_may_be_missing_and_labels_are_words(write):
    (sample,) = write()
    assert sample.regions.to_json() == [[10, 20, 40, 25]]
    assert sample.regions.labels == ("toy car",)
    assert sample.turns == ()


def test_annotations_of_no_picture_are_counted(write):
    reader = write(row={**ROW, "image_id": 2})
    (sample,) = reader
    assert len(sample.regions) == 0
    assert reader.skipped == {"annotations of pictures that the file does not list": 1}


def test_rows_that_are_no_boxes_are_counted(write):
    reader = write(row={**ROW, "bbox": [40, 20, -30, 5]})
    (sample,) = reader
    assert len(sample.regions) == 0
    assert reader.skipped == {"boxes without area inside their picture": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": {**ROW, "category_id": 4}}, "annotation 7 has category 4"),
        ({"row": {"id": 7, "image_id": 1, "bbox": [1, 2, 3, 4]}}, "annotation 7 has category None"),
        ({"row": {**ROW, "bbox": [1, 2, 3]}}, r"annotation 7: `bbox` is \[1, 2, 3\]"),
        ({"row": {**ROW, "bbox": None}}, "annotation 7: `bbox` is None"),
        ({"row": 7}, "annotation None: 7 has no `image_id`"),
        ({"image": {"id": 1, "width": 5, "height": 5}}, "picture 1: .* has no `file_name`"),
        ({"image": {**IMAGE, "width": "100"}}, "picture 1: `width` is '100'"),
        ({"image": {"file_name": "a.jpg"}}, "picture number 1: .* has no `id`"),
        ({"category": {"id": 3}}, "a category: .* has no `name`"),
    ],
)
def test_structure_is_checked_and_the_file_named(write, change, message):
    with pytest.raises(DataError, match=rf"a\.json: {message}"):
        list(write(**change))
