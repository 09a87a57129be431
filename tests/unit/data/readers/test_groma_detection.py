"""Groma's box files: whose a picture is shows in its name; keys equal those of its own dataset."""

from __future__ import annotations

import json

import numpy as np
import pytest

from parfocal.data.readers.coco import CocoReader
from parfocal.data.readers.groma_detection import GromaDetectionReader
from parfocal.data.readers.objects365 import Objects365Reader
from parfocal.data.readers.sa1b import Sa1bReader
from parfocal.data.readers.v3det import V3DetReader
from parfocal.errors import DataError

FOLDER = "groma_detection"
V3DET = "a00000066/26_275_28143226914_ff3a247c53_c"
CAFE = "Q100507578/28_1219_caf\u00e9_c"


@pytest.mark.parametrize(
    ("name", "expected", "paths"),
    [
        (
            "class_agnostic_coco_train2017",
            {
                "coco:9": [[1.08, 187.69, 612.67, 473.53]],
                "coco:25": [[10, 20, 40, 40], [600, 400, 640, 426]],  # clipped; and a crowd
                "coco:581857": [],
            },
            ["000000000009.jpg", "000000000025.jpg", "COCO_train2014_000000581857.jpg"],
        ),
        (
            "class_agnostic_obj365v2_train_new",
            {"objects365:420917": [[0, 0, 769, 512]], "objects365:2278994": [[12.5, 13.5, 27, 29]]},
            ["patch8/objects365_v1_00420917.jpg", "patch50/objects365_v2_02278994.jpg"],
        ),
        (
            "class_agnostic_openimages_v6_train_bbox",
            {
                "openimages:000002b66c9c498e": [[102.4, 192, 409.6, 576]],
                "openimages:000002b97e5471a0": [],  # no width
            },
            ["train/000002b66c9c498e.jpg", "000002b97e5471a0.jpg"],
        ),
        (
            "class_agnostic_v3det_2023_v1_train",
            {f"v3det:{V3DET}": [[100.5, 50.25, 121, 91]], f"v3det:{CAFE}": [[5, 40, 55, 80]]},
            [f"images/{V3DET}.jpg", f"{CAFE}.jpg"],
        ),
        (
            "class_agnostic_sa1b_2m",
            {"sa1b:1": [[10, 20, 39, 39], [60, 5, 89, 54]], "sa1b:11188": [[1.5, 2.5, 4.5, 6.5]]},
            ["sa_000000/sa_1.jpg", "sa_11188.jpg"],
        ),
    ],
)
def test_boxes_keys_and_paths(datasets, read_all, name, expected, paths):
    samples = read_all(GromaDetectionReader([datasets / FOLDER / f"{name}.json"], split=name))
    assert [sample.meta["image_key"] for sample in samples] == list(expected)
    assert [sample.images[0].path for sample in samples] == paths
    for sample, boxes in zip(samples, expected.values(), strict=True):
        found = sample.regions.xyxy
        np.testing.assert_allclose(found, np.reshape(boxes, (-1, 4)), rtol=0, atol=1e-6)
        assert set(sample.regions.labels or ()) <= {"object"}


@pytest.mark.parametrize(
    ("name", "reader", "source"),
    [
        ("coco_train2017", CocoReader, "coco/instances_train2017.json"),
        ("obj365v2_train_new", Objects365Reader, "objects365/zhiyuan_objv2_val.json"),
        ("v3det_2023_v1_train", V3DetReader, "v3det/v3det_2023_v1_val.json"),
        ("sa1b_2m", Sa1bReader, "sa1b"),
    ],
)
def test_keys_are_those_of_the_dataset(datasets, name, reader, source):
    path = datasets / FOLDER / f"class_agnostic_{name}.json"
    keys = {sample.meta["image_key"] for sample in GromaDetectionReader([path])}
    assert len(keys & {sample.meta["image_key"] for sample in reader([datasets / source])}) >= 2


def test_crowds_are_counted_or_kept(datasets):
    path = datasets / FOLDER / "class_agnostic_coco_train2017.json"
    reader = GromaDetectionReader([path])
    assert [len(sample.regions) for sample in reader] == [1, 2, 0]
    assert reader.skipped == {"crowds": 1}
    reader = GromaDetectionReader([path], crowds=True)
    assert [len(sample.regions) for sample in reader] == [1, 3, 0]


@pytest.mark.parametrize(
    ("name", "path", "size_wh"),
    [
        ("coco_train2017", "train2014/COCO_train2014_000000000009.jpg", (640, 480)),
        ("obj365v2_train_new", "train/patch50/objects365_v2_02278994.jpg", (640, 427)),
        ("openimages_v6_train_bbox", "train_0/000002b66c9c498e.jpg", (1024, 768)),
        ("v3det_2023_v1_train", f"{V3DET}.jpg", (640, 480)),
        ("sa1b_2m", "sa_1.jpg", (100, 60)),
    ],
)
def test_pictures_are_found_as_in_their_dataset(datasets, make_pictures, name, path, size_wh):
    root = make_pictures({path: size_wh})
    file = datasets / FOLDER / f"class_agnostic_{name}.json"
    (sample,) = GromaDetectionReader([file], images=root)
    assert sample.images[0].path == path


def test_pictures_of_other_datasets_are_refused(tmp_path):
    content = {
        "images": [{"id": 4, "file_name": "VG_100K/4.jpg", "width": 9, "height": 9}],
        "annotations": [],
        "categories": [{"id": 1, "name": "object"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"picture 4 is 'VG_100K/4\.jpg'.*coco, objects365"):
        list(GromaDetectionReader([tmp_path / "a.json"]))
