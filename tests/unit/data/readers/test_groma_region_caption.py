"""Groma's region captions: words in the annotation, one or several regions an entry."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.groma_format import find_picture
from parfocal.data.readers.groma_region_caption import GromaRegionCaptionReader
from parfocal.errors import DataError

MULTI = "groma/vg_train_multi.json"


def check(sample, expected):
    assert sample.turns == ()
    assert list(sample.regions.labels) == [label for label, _ in expected]
    for found, (_, box) in zip(sample.regions.to_json(), expected, strict=True):
        assert found == pytest.approx(box, abs=1e-6)


def test_several_regions_an_entry(datasets, read_all):
    reader = GromaRegionCaptionReader([datasets / MULTI], split="train")
    cars, table = read_all(reader)
    # x, y, x + width, y + height, worked by hand
    check(
        cars,
        [
            ("Red Car", [20, 30, 80, 75]),
            ("same car again", [22, 31, 80, 76]),
            ("a tree", [100, 60, 140, 100]),
            ("duplicate box", [100, 60, 140, 100]),
            ("thing at the edge", [0, 0, 20, 20]),  # clipped
        ],
    )
    check(
        table,
        [
            ("corner of the table", [790, 590, 800, 600]),  # clipped
            ("na\xefve fa\xe7ade", [0.5, 1.5, 10.75, 22.25]),
            ("a cup", [100, 100, 150, 150]),
        ],
    )
    assert (cars.id, cars.meta["image_key"]) == (
        "groma_region_caption:train:vg_train_multi:3",
        "vg:2370806",
    )
    assert table.meta["image_key"] == "vg:61512"
    assert reader.skipped == {
        "regions without words": 1,
        "boxes without area inside their picture": 2,
        "pictures without a region": 2,
    }


def test_one_region_an_entry_of_coco(datasets, read_all):
    reader = GromaRegionCaptionReader([datasets / "groma/refcocog_cap_val.json"])
    samples = read_all(reader)
    assert [sample.meta["image_key"] for sample in samples] == ["coco:1", "coco:1", "coco:581857"]
    check(samples[0], [("A red square on the left.", [10, 20, 40, 40])])
    check(samples[1], [("a blue block", [60, 5, 90, 55])])
    check(samples[2], [("Gr\xfcn", [5, 40, 55, 80])])
    assert reader.skipped == {}


def test_visual_genome_in_one_folder_or_two(datasets, make_pictures):
    root = make_pictures({"VG_100K_2/2370806.jpg": (500, 375), "61512.jpg": (800, 600)})
    reader = GromaRegionCaptionReader([datasets / MULTI], images=root)
    assert [s.images[0].path for s in reader] == ["VG_100K_2/2370806.jpg", "61512.jpg"]


def test_files_without_captions_are_refused(tmp_path):
    entry = {"id": 7, "file_name": "1.jpg", "width": 100, "height": 60, "caption": "a"}
    row = {"id": 5, "image_id": 7, "bbox": [1, 2, 3, 4]}
    (tmp_path / "a.json").write_text(json.dumps({"images": [entry], "annotations": [row]}))
    with pytest.raises(DataError, match="annotation 5 lacks caption"):
        list(GromaRegionCaptionReader([tmp_path / "a.json"]))


@pytest.mark.parametrize(
    ("name", "key", "candidate"),
    [
        ("000000581857.jpg", "coco:581857", "train2017/000000581857.jpg"),
        ("COCO_val2014_000000000025.jpg", "coco:25", "coco/val2017/000000000025.jpg"),
        ("2370806.jpg", "vg:2370806", "VG_100K/2370806.jpg"),
        ("VG_100K/2370806.jpg", "vg:2370806", "VG_100K_2/2370806.jpg"),
    ],
)
def test_pictures_are_told_by_their_names(name, key, candidate):
    names, found = find_picture(name)
    assert found == key
    assert names[0] == name
    assert candidate in names
    assert len(set(names)) == len(names)
