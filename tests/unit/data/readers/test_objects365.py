"""Objects365: folders of two versions, boxes that leave their picture, three flags."""

from __future__ import annotations

import numpy as np
import pytest

from parfocal.data.readers.objects365 import Objects365Reader, objects365_names

FILE = "objects365/zhiyuan_objv2_val.json"


@pytest.fixture
def reader(datasets) -> Objects365Reader:
    return Objects365Reader([datasets / FILE], split="val")


def test_boxes_are_corners_in_pixels(reader, read_all):
    samples = {sample.meta["image_key"]: sample for sample in read_all(reader)}
    expected = {
        # x, y, x + width, y + height, worked by hand
        420917: [[10.25, 20.5, 40.25, 40.5]],  # and a crowd
        320532: [[5, 6, 12, 14]],
        11: [[1.5, 2.5, 11.5, 12.5], [400.125, 300.25, 499.625, 374.25], [0, 0, 500, 375]],
        900001: [[0, 0, 1024, 741]],  # -0.4 to 1025.4 and 0 to 742.3 in 1024x741
        908726: [[5, 6, 12, 14]],
        922765: [[580.6163330048, 179.4965209869, 674.2155761688, 291.5979003717]],
        1118660: [[590, 790, 600, 800]],
        2060288: [[399.5, 10, 400, 210]],
        2278994: [[12.5, 13.5, 27, 29]],
        2278995: [],
    }
    assert list(samples) == [f"objects365:{number}" for number in expected]
    for number, boxes in expected.items():
        found = samples[f"objects365:{number}"].regions.xyxy
        np.testing.assert_allclose(found, np.reshape(boxes, (-1, 4)), rtol=0, atol=1e-6)
    assert samples["objects365:11"].regions.labels == ("Sneakers", "Person", "Table Tennis")
    assert samples["objects365:900001"].regions.labels == ("Cabinet/shelf",)
    assert reader.skipped == {"crowds": 2}


@pytest.mark.parametrize(
    ("options", "counts", "skipped"),
    [
        ({"crowds": True}, (2, 3), {}),
        ({"fakes": False}, (1, 1), {"crowds": 2, "fakes": 2}),
        ({"reflections": False}, (1, 1), {"crowds": 2, "reflections": 2}),
        (
            {"fakes": False, "reflections": False},
            (1, 0),
            {"crowds": 2, "fakes": 2, "reflections": 1},  # a reflected picture counts once
        ),
    ],
)
def test_flags_have_options(datasets, options, counts, skipped):
    reader = Objects365Reader([datasets / FILE], **options)
    samples = {sample.meta["image_key"]: sample for sample in reader}
    found = tuple(len(samples[f"objects365:{number}"].regions) for number in (420917, 11))
    assert found == counts
    assert reader.skipped == skipped


def test_folders_of_the_versions_are_stripped(reader):
    paths = [sample.images[0].path for sample in reader]
    assert paths[0] == "patch8/objects365_v1_00420917.jpg"
    assert paths[-1] == "patch50/objects365_v2_02278995.jpg"
    assert objects365_names("v2/patch50/a.jpg")[0] == "patch50/a.jpg"


def test_pictures_are_found_missing_or_broken(datasets, make_pictures):
    root = make_pictures({
        "patch8/objects365_v1_00420917.jpg": (769, 512),
        "images/v1/patch0/objects365_v1_00000011.jpg": (500, 375),
        "val/patch16/objects365_v2_00900001.jpg": (1024, 741),
        "objects365_v2_02060288.jpg": (400, 300),
        "patch24/objects365_v2_01118660.jpg": (800, 600),  # turned after it was annotated
    })  # fmt: skip
    (root / "patch8" / "objects365_v1_00320532.jpg").write_bytes(b"")
    (root / "objects365_v1_00320532.jpg").write_bytes(b"no picture")
    reader = Objects365Reader([datasets / FILE], images=root)
    assert [sample.images[0].path for sample in reader] == [
        "patch8/objects365_v1_00420917.jpg",
        "images/v1/patch0/objects365_v1_00000011.jpg",
        "val/patch16/objects365_v2_00900001.jpg",
        "objects365_v2_02060288.jpg",
    ]
    assert reader.skipped["files that are no pictures"] == 1
    assert reader.skipped["pictures of another size than the dataset states"] == 1
    assert reader.skipped["pictures that are not in the folder"] == 4
