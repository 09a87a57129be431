"""OpenImages: parts of sides in the order XMin, XMax, YMin, YMax; sizes come from the pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from parfocal.data.readers.openimages import OpenImagesReader
from parfocal.errors import ConfigError, DataError

VAL = "openimages/validation-annotations-bbox.csv"
TRAIN = "openimages/oidv6-train-annotations-bbox.csv"
CLASSES = "openimages/class-descriptions-boxable.csv"
HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n"


@pytest.fixture
def pictures(make_pictures):
    return make_pictures({
        "0001eeaf4aed83f9.jpg": (1000, 400),
        "validation/0004886b7d043cfd.jpg": (1024, 768),
        "0/000595fe6fee6369.jpg": (64, 64),  # where nobody looks
        "000595fe6fee6369.jpg": (400, 200),
        "test/00075905539074f2.jpg": (100, 80),
        "train/0007cebe1b2ba653.jpg": (100, 100),
        "train_0/0007d6cf88afaa4a.jpg": (80, 60),
        "val/0008e425fb49a2bf.jpg": (50, 50),
        "0009bad4d8539bb4.jpg": (50, 50),
        "000002b66c9c498e.jpg": (20, 40),
        "000002b97e5471a0.jpg": (30, 30),
    })  # fmt: skip


def test_boxes_are_pixels_of_the_files(datasets, pictures, read_all):
    reader = OpenImagesReader(
        [datasets / VAL, datasets / CLASSES], images=pictures, split="validation"
    )
    samples = {sample.meta["image_key"]: sample for sample in read_all(reader)}
    expected = {
        # XMin * width, YMin * height, XMax * width, YMax * height, worked by hand
        "0001eeaf4aed83f9": [[100, 100, 400, 300]],  # and a group
        "0004886b7d043cfd": [[23.217183744, 54.5573760, 987.341312, 614.81968896]],
        "000595fe6fee6369": [[100, 0, 400, 100]],  # to 1.01 and from -0.01; flags unknown
        "00075905539074f2": [[50, 10, 75, 40]],
        "0007cebe1b2ba653": [],  # a hundredth of a pixel
        "0007d6cf88afaa4a": [],  # a group
        "0008e425fb49a2bf": [[10, 20, 15, 30]],
        "0009bad4d8539bb4": [],  # XMax < XMin
    }
    assert list(samples) == [f"openimages:{image_id}" for image_id in expected]
    for image_id, boxes in expected.items():
        found = samples[f"openimages:{image_id}"].regions.xyxy
        np.testing.assert_allclose(found, np.reshape(boxes, (-1, 4)), rtol=0, atol=1e-6)
    labels = [label for sample in samples.values() for label in sample.regions.labels or ()]
    assert labels == ["Airplane", "Person", "Animal, wild", "Caf\u00e9", "Animal, wild"]
    assert samples["openimages:0007d6cf88afaa4a"].images[0].path == "train_0/0007d6cf88afaa4a.jpg"
    unboxed = {
        key.removeprefix("openimages:"): sample.meta["not_exhaustive_categories"]
        for key, sample in samples.items()
        if "not_exhaustive_categories" in sample.meta
    }
    assert list(unboxed) == [
        "0001eeaf4aed83f9", "0004886b7d043cfd", "0007cebe1b2ba653", "0007d6cf88afaa4a",
        "0009bad4d8539bb4",
    ]  # fmt: skip
    assert reader.skipped == {
        "groups": 2,
        "boxes without area inside their picture": 3,
        "pictures that are not in the folder": 1,
    }


def test_groups_on_request(datasets, pictures):
    reader = OpenImagesReader([datasets / VAL, datasets / CLASSES], images=pictures, groups=True)
    samples = {sample.id: sample for sample in reader}
    first = samples["openimages:0001eeaf4aed83f9"].regions
    assert first.to_json() == [[100, 100, 400, 300], [0, 0, 1000, 400]]
    assert first.labels == ("Airplane", "Table")
    assert samples["openimages:0007d6cf88afaa4a"].regions.to_json() == [[10, 30, 30, 60]]
    assert "groups" not in reader.skipped


def test_rows_of_a_picture_need_not_be_adjacent(datasets, pictures, read_all):
    reader = OpenImagesReader(  # with the columns that only train has
        [datasets / TRAIN, datasets / CLASSES], images=pictures, split="train"
    )
    first, second = read_all(reader)
    assert first.id == "openimages:train:000002b66c9c498e"
    assert first.regions.to_json() == [[2, 10, 8, 30], [10, 20, 15, 30]]
    assert first.regions.labels == ("Airplane", "Animal, wild")
    assert second.regions.to_json() == [[0, 0, 30, 30]]


def test_boxes_fit_the_picture_as_it_lies(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.new("RGB", (100, 60)).save(tmp_path / "00ff00ff00ff00ff.jpg", exif=exif)
    (tmp_path / "boxes.csv").write_text(HEADER + "00ff00ff00ff00ff,/m/1,0.1,0.4,0.25,0.5,0\n")
    (tmp_path / "classes.csv").write_text("LabelName,DisplayName\n/m/1,Dog\n")
    (sample,) = OpenImagesReader(
        [tmp_path / "boxes.csv", tmp_path / "classes.csv"], images=tmp_path
    )
    assert sample.images[0].width == 60
    # x 10 to 40 and y 15 to 30 of 100x60; turned: x = 60 - y, y = x
    assert sample.regions.to_json() == [[30, 10, 45, 40]]


def test_pictures_are_needed(datasets):
    with pytest.raises(DataError, match="Give the folder"):
        list(OpenImagesReader([datasets / VAL, datasets / CLASSES]))
    with pytest.raises(ConfigError, match="takes 2 sources"):
        OpenImagesReader([datasets / VAL])


@pytest.mark.parametrize(
    ("boxes", "classes", "message"),
    [
        ("ImageID,XMin\n", "/m/1,Dog\n", r"boxes\.csv has no column LabelName"),
        ("", "/m/1,Dog\n", r"boxes\.csv has no column ImageID"),
        (HEADER + "a,/m/2,0,1,0,1,0\n", "/m/1,Dog\n", r"boxes\.csv:2: .*do not list '/m/2'"),
        (HEADER + "a,/m/1,0,1,0,1,0\na,/m/1,0,x,0,1,0\n", "/m/1,Dog\n", r"boxes\.csv:3: .*'x'"),
        (HEADER + "a,/m/1,0,1,0\n", "/m/1,Dog\n", r"boxes\.csv:2: "),
        (HEADER + "a,/m/1,0,1,0,1,0\n", "/m/1\n", r"classes\.csv:1: 1 columns"),
        (HEADER + "a,/m/1,0,1,0,1,0\n", "/m/1,Caf\u00e9\n", r"classes\.csv is not CSV"),
    ],
)
def test_bad_files_are_refused(tmp_path, boxes, classes, message):
    (tmp_path / "boxes.csv").write_text(boxes)
    (tmp_path / "classes.csv").write_text(classes, encoding="latin-1")
    sources = [tmp_path / "boxes.csv", tmp_path / "classes.csv"]
    with pytest.raises(DataError, match=message):
        list(OpenImagesReader(sources, images=tmp_path))
