"""V3Det: a folder a kind, labels in many words, row ids that train and val share."""

from __future__ import annotations

import numpy as np
import pytest

from parfocal.data.readers.v3det import V3DetReader

FILE = "v3det/v3det_2023_v1_val.json"


@pytest.fixture
def reader(datasets) -> V3DetReader:
    return V3DetReader([datasets / FILE], split="val")


def test_boxes_and_labels(reader, read_all):
    samples = read_all(reader)
    assert [sample.id for sample in samples] == [f"v3det:val:{n}" for n in range(1, 11)]
    pinata, mercury = "pi\u00f1ata", "dog's mercury"
    expected = [
        # x, y, x + width, y + height, worked by hand
        (["bandeau", "road map"], [[0, 0, 640, 480], [100.5, 50.25, 121, 91]]),
        (["road map"], [[790, 500, 800, 533]]),  # clipped to 800x533
        ([], []),  # a crowd
        (["bandeau"], [[0, 0, 20, 20]]),  # from -10
        ([pinata, pinata], [[10, 20, 40, 40], [60, 5, 90, 55]]),
        ([mercury], [[5, 40, 55, 80]]),
        ([], []),  # 24 x 0.02 pixels
        (["nail file"], [[1, 1, 3, 3]]),  # category 13204
        (["nail file"], [[426, 639, 427, 640]]),
        ([], []),
    ]
    for sample, (labels, boxes) in zip(samples, expected, strict=True):
        assert list(sample.regions.labels or ()) == labels, sample.id
        found = sample.regions.xyxy
        np.testing.assert_allclose(found, np.reshape(boxes, (-1, 4)), rtol=0, atol=1e-6)
    assert reader.skipped == {"crowds": 1, "boxes without area inside their picture": 1}


def test_crowds_on_request(datasets):
    samples = list(V3DetReader([datasets / FILE], crowds=True))
    assert samples[2].regions.to_json() == [[3, 4, 8, 10]]


def test_keys_name_the_file_not_the_row(reader):
    keys = [sample.meta["image_key"] for sample in reader]
    assert keys[0] == "v3det:a00000066/26_275_28143226914_ff3a247c53_c"
    assert keys[5] == "v3det:Q100507578/28_1219_caf\u00e9_c"
    assert len(set(keys)) == len(keys)


def test_pictures_are_found_with_and_without_images(datasets, make_pictures):
    root = make_pictures({
        "images/a00000066/27_9_1_c.jpg": (800, 533),
        "n07745046/3_14_15_c.jpg": (500, 500),
    })  # fmt: skip
    reader = V3DetReader([datasets / FILE], images=root)
    assert [sample.images[0].path for sample in reader] == [
        "images/a00000066/27_9_1_c.jpg",
        "n07745046/3_14_15_c.jpg",
    ]
    assert reader.skipped["pictures that are not in the folder"] == 8
