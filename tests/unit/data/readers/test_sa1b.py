"""SA-1B: a file a picture, in the order of their numbers; boxes as stored; areas as Groma's."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from parfocal.data.readers.sa1b import Sa1bReader
from parfocal.errors import DataError

FOLDER = "sa1b"


def test_boxes_are_kept_as_stored(datasets, read_all):
    reader = Sa1bReader([datasets / FOLDER], split="train")
    samples = {sample.meta["image_key"]: sample for sample in read_all(reader)}
    expected = {
        # x, y, x + width, y + height, worked by hand; one short of the mask's far side
        1: [[10, 20, 39, 39], [60, 5, 89, 54]],
        2: [[0, 0, 2249, 1499], [100, 200, 110, 220], [1000, 700, 1300.5, 900.25]],
        3: [],
        9: [[0, 0, 14, 14], [0, 0, 13, 15], [10, 10, 410, 410], [10, 10, 411, 410]],
        10: [[2, 2, 22, 22]],
        11186: [],  # one pixel: no width
        11187: [[1490, 1490, 1500, 1500]],
        11188: [[1.5, 2.5, 4.5, 6.5]],
        11189: [[7, 8, 16, 18]],
        11190: [[0, 0, 1, 1]],
    }
    assert list(samples) == [f"sa1b:{number}" for number in expected]
    for number, boxes in expected.items():
        regions = samples[f"sa1b:{number}"].regions
        np.testing.assert_allclose(regions.xyxy, np.reshape(boxes, (-1, 4)), rtol=0, atol=1e-6)
        assert set(regions.labels or ()) <= {"object"}
    assert samples["sa1b:1"].id == "sa1b:train:1"
    assert samples["sa1b:1"].images[0].path == "sa_000000/sa_1.jpg"
    assert reader.skipped == {"boxes without area inside their picture": 1}


def test_areas_are_those_of_the_resized_picture(datasets):
    reader = Sa1bReader([datasets / FOLDER], min_area=14**2, max_area=400**2)
    samples = {sample.meta["image_key"]: sample for sample in reader}
    # 448x448: 196 stays, 195 goes, 160000 stays, 160400 goes
    assert samples["sa1b:9"].regions.to_json() == [[0, 0, 14, 14], [10, 10, 410, 410]]
    # 896x448: half as wide, so 20 x 20 = 400 counts as 200
    assert len(samples["sa1b:10"].regions) == 1
    # 2250x1500, times 200704 / 3375000: 200480 goes, 11.9 goes, 3578.5 stays
    assert samples["sa1b:2"].regions.to_json() == [[1000, 700, 1300.5, 900.25]]
    # others: 1087 and 2804 of 1 stay, of 11186 to 11190 all go: 0, 35.7, 1.0, 7.5, 0.1
    assert len(samples["sa1b:1"].regions) == 2
    assert reader.skipped == {"boxes of unwanted area": 2 + 2 + 5}


def test_pictures_lie_in_folders_or_not(datasets, make_pictures):
    root = make_pictures({
        "sa_000000/sa_1.jpg": (100, 60),
        "sa_11188.jpg": (1600, 1500),
        "sa_000001/sa_11189.jpg": (1500, 1500),
    })  # fmt: skip
    reader = Sa1bReader([datasets / FOLDER], images=root)
    paths = [sample.images[0].path for sample in reader]
    assert paths == ["sa_000000/sa_1.jpg", "sa_11188.jpg"]
    assert reader.skipped["pictures of another size than the dataset states"] == 1


def test_one_folder_of_files(datasets):
    samples = list(Sa1bReader([datasets / FOLDER / "sa_000001"]))
    assert [sample.images[0].path for sample in samples] == [
        f"sa_{number}.jpg" for number in range(11186, 11191)
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"sa_5\.json: .* has no `image`"),
        ({"image": {}, "annotations": []}, r"sa_5\.json: .* has no `file_name`"),
        ({"image": {"image_id": 5, "file_name": "a"}}, r"sa_5\.json: .* has no `annotations`"),
        (
            {"image": {"image_id": 5, "file_name": "a.jpg"}, "annotations": []},
            "picture 5: .* has no `width`",
        ),
        (
            {
                "image": {"image_id": 5, "file_name": "a.jpg", "width": 9, "height": 9},
                "annotations": [{"id": 3, "bbox": []}],
            },
            r"sa_5\.json: annotation 1: `bbox`",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    (tmp_path / "sa_5.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        list(Sa1bReader([tmp_path]))


def test_sources_without_files_are_refused(datasets, tmp_path):
    with pytest.raises(DataError, match=r"no sa_\*\.json"):
        list(Sa1bReader([tmp_path]))
    file = tmp_path / "sa_1.json"
    shutil.copy(datasets / FOLDER / "sa_000000" / "sa_1.json", file)
    with pytest.raises(DataError, match="is not a folder"):
        list(Sa1bReader([file]))
