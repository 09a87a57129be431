"""Visual Genome: two spellings of most fields, boxes of all kinds, two folders of pictures."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.visual_genome import (
    VgObjectsReader,
    VgQasReader,
    VgRegionsReader,
    VgRelationshipsReader,
    vg_names,
)
from parfocal.errors import DataError

READERS = [VgObjectsReader, VgQasReader, VgRegionsReader, VgRelationshipsReader]
NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2317429]


@pytest.fixture
def read(datasets, read_all):
    """Read the fixture with a reader; Samples by their picture, and the reader."""

    def run(kind):
        reader = kind([datasets / "vg" / name for name in kind.files], split="train")
        return {sample.meta["image_key"]: sample for sample in read_all(reader)}, reader

    return run


def check(sample, labels, boxes):
    assert sample.regions.labels == labels or (not labels and not len(sample.regions))
    found = sample.regions.to_json()
    assert len(found) == len(boxes)
    for row, truth in zip(found, boxes, strict=True):
        assert row == pytest.approx(truth, abs=1e-6)


def test_regions(read):
    samples, reader = read(VgRegionsReader)
    assert list(samples) == [f"vg:{number}" for number in NUMBERS]
    expected = {
        # x, y, x + width, y + height, clipped; worked by hand
        1: (
            ("the clock is green in colour", "shade is along the street", "man wearing sneakers"),
            [[421, 57, 503, 196], [372, 296, 613, 452], [0, 328, 110, 510]],
        ),
        2: (
            ("a red square", "a red square", "sky"),  # near-duplicates stay
            [[10, 20, 40, 40], [11, 21, 40, 40], [0, 0, 100, 10]],
        ),
        3: (("caf\u00e9 sign",), [[100, 50, 130, 70]]),  # spelled as in 1.0
        4: ((), []),
        5: (("the one that stays",), [[490, 370, 500, 375]]),
        6: (("A Boy",), [[1, 2, 4, 6]]),
        7: (("whole picture",), [[0, 0, 500, 333]]),
        8: (("half a pixel",), [[10.5, 20.25, 41, 61]]),
        9: (("computer mouse",), [[1000, 700, 1024, 768]]),
        10: (("one pixel",), [[299, 399, 300, 400]]),
        2317429: (("train on tracks",), [[5, 6, 12, 14]]),
    }
    for number, (labels, boxes) in expected.items():
        check(samples[f"vg:{number}"], labels, boxes)
    assert samples["vg:5"].meta["region_ids"] == [1412]  # those of the regions that are left
    assert samples["vg:3"].meta["region_ids"] == [1400]
    assert samples["vg:6"].meta["region_ids"] == [1421]
    assert samples["vg:1"].id == "vg_regions:train:1"
    assert reader.skipped == {
        "boxes without area inside their picture": 3,  # no width, outside, width below 0
        "pictures that image_data.json does not list": 1,
        "regions without words": 1,
    }


def test_pictures_name_their_id_in_coco(read):
    samples, _ = read(VgRegionsReader)
    assert samples["vg:2"].meta["coco_id"] == 391895
    assert "coco_id" not in samples["vg:1"].meta


def test_objects(read):
    samples, reader = read(VgObjectsReader)
    assert list(samples) == [f"vg:{number}" for number in NUMBERS]
    expected = {
        1: (
            ("clock", "street", "shade"),
            [[421, 91, 500, 430], [0, 320, 744, 574], [116, 338, 390, 527]],
        ),
        2: (("square", "block"), [[10, 20, 40, 40], [60, 5, 90, 55]]),  # names, name; w, width
        3: (("caf\u00e9",), [[0, 0, 15, 20]]),  # began outside
        4: ((), []),
        5: (("traffic light",), [[490, 370, 500, 375]]),
        10: (("pixel",), [[299, 399, 300, 400]]),
    }  # fmt: skip
    for number, (labels, boxes) in expected.items():
        check(samples[f"vg:{number}"], labels, boxes)
    assert samples["vg:2"].meta["object_ids"] == [21, 22]
    assert samples["vg:5"].meta["object_ids"] == [53]
    assert reader.skipped == {
        "boxes without area inside their picture": 2,  # no width; below the picture
        "objects without a name": 1,
    }


def test_relationships(read):
    samples, reader = read(VgRelationshipsReader)
    assert list(samples) == [f"vg:{number}" for number in NUMBERS]
    check(
        samples["vg:1"],
        ("shade", "street", "man", "sneakers"),  # each once
        [[116, 338, 390, 527], [0, 320, 744, 574], [367, 299, 560, 573], [370, 549, 431, 578]],
    )
    check(samples["vg:3"], ("man", "caf\u00e9"), [[0, 0, 15, 20], [0, 0, 640, 480]])
    check(samples["vg:4"], (), [])
    check(samples["vg:5"], ("car", "dog"), [[490, 370, 500, 375], [10, 20, 40, 60]])
    check(samples["vg:6"], ("boy", "boy"), [[1, 2, 4, 6], [100, 200, 130, 240]])
    relations = {key: sample.meta["relations"] for key, sample in samples.items()}
    assert relations == {
        "vg:1": [[0, "on", 1], [2, "wears", 3], [2, "on top of", 1]],
        "vg:2": [[0, "next to", 1]],  # once
        "vg:3": [[0, "at", 1]],
        "vg:4": [],
        "vg:5": [[1, "behind", 0]],  # counted without the wire, which has no box
        "vg:6": [[0, "has", 1]],  # one id, two boxes
        "vg:7": [[0, "in", 1]],
        "vg:8": [[0, "holding", 1]],
        "vg:9": [[0, "by", 1]],
        "vg:10": [[0, "of", 1]],
        "vg:2317429": [[0, "on", 1]],
    }
    assert samples["vg:5"].meta["object_ids"] == [53, 54]
    assert samples["vg:3"].meta["object_ids"] == [31, 32]
    assert reader.skipped == {
        "boxes without area inside their picture": 1,
        "relations that are stated twice": 1,
        "relations that lost a box": 1,
        "relations without a predicate": 1,
        "relations of things without a name": 1,
    }


def test_questions(datasets, read_all):
    reader = VgQasReader([datasets / "vg" / name for name in VgQasReader.files])
    samples = read_all(reader)
    spoken = {s.id: tuple((turn.role, turn.text.plain) for turn in s.turns) for s in samples}
    assert len(spoken) == 11
    assert spoken["vg_qas:986777"] == (
        ("user", "How many people are there?"), ("assistant", "Two."),
    )  # fmt: skip
    assert spoken["vg_qas:42"] == (("user", "Where is this?"), ("assistant", "At a caf\u00e9."))
    assert [s.meta["image_key"] for s in samples[:4]] == ["vg:1", "vg:1", "vg:2", "vg:3"]
    assert not any(len(sample.regions) for sample in samples)
    assert reader.skipped == {"questions or answers without words": 1}


def test_pictures_are_found_in_either_folder_or_one(datasets, make_pictures):
    root = make_pictures({
        "VG_100K_2/1.jpg": (800, 600),
        "2.jpg": (100, 60),
        "VG_100K_2/3.jpg": (640, 480),  # the table says VG_100K
        "vg/VG_100K_2/4.jpg": (60, 100),
        "VG_100K/5.jpg": (375, 500),  # sides swapped
    })  # fmt: skip
    files = [datasets / "vg" / name for name in VgRegionsReader.files]
    reader = VgRegionsReader(files, images=root)
    assert [sample.images[0].path for sample in reader] == [
        "VG_100K_2/1.jpg", "2.jpg", "VG_100K_2/3.jpg", "vg/VG_100K_2/4.jpg",
    ]  # fmt: skip
    assert reader.skipped["pictures of another size than the dataset states"] == 1
    assert reader.skipped["pictures that are not in the folder"] == 6
    stated = [sample.images[0].path for sample in VgRegionsReader(files)]
    assert stated[:3] == ["VG_100K_2/1.jpg", "VG_100K/2.jpg", "VG_100K/3.jpg"]


def test_names_of_one_picture():
    assert vg_names(7)[0] == "7.jpg"
    assert vg_names(7, "VG_100K_2")[:2] == ["VG_100K_2/7.jpg", "7.jpg"]
    assert "vg/VG_100K/7.jpg" in vg_names(7)
    assert len(set(vg_names(7, "VG_100K"))) == len(vg_names(7, "VG_100K"))


@pytest.mark.parametrize("kind", READERS)
def test_files_of_another_kind_are_refused(datasets, tmp_path, kind):
    table = datasets / "vg" / "image_data.json"
    with pytest.raises(DataError, match=f"no `{kind.rows_name}`"):
        list(kind([table, table]))
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match=f"lists no pictures. Is it {kind.files[1]}"):
        list(kind([table, tmp_path / "a.json"]))
    with pytest.raises(DataError, match=r"lists no pictures\. Is it image_data\.json"):
        list(kind([tmp_path / "a.json", datasets / "vg" / kind.files[1]]))


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        (VgRegionsReader, {"phrase": "a"}, "no `x`"),
        (VgRegionsReader, {"phrase": "a", "x": 1, "y": 2, "w": 3}, "no `h` or `height`"),
        (VgRegionsReader, {"phrase": 5}, "must be text"),
        (VgRegionsReader, "a dog", "no `phrase`"),
        (VgObjectsReader, {"x": 1}, "no `names` or `name`"),
        (VgObjectsReader, {"names": 1}, "must be a list"),
        (VgObjectsReader, {"name": "a", "x": "1", "y": 2, "w": 3, "h": 4}, "must be a number"),
        (VgObjectsReader, {"name": "a", "x": 1, "y": 2, "w": 3, "h": 4}, "no `object_id` or `id`"),
        (VgRelationshipsReader, {"predicate": "on", "subject": {}}, "no `object`"),
        (VgRelationshipsReader, {"subject": {}, "object": {}}, "no `predicate`"),
        (VgQasReader, {"question": "What?"}, "no `answer`"),
    ],
)
def test_rows_that_make_no_sense(datasets, tmp_path, kind, row, message):
    (tmp_path / "a.json").write_text(json.dumps([{"image_id": 1, kind.rows_name: [row]}]))
    with pytest.raises(DataError, match=f"a.json: .*{message}"):
        list(kind([datasets / "vg" / "image_data.json", tmp_path / "a.json"]))


def test_tables_that_make_no_sense(datasets, tmp_path):
    regions = datasets / "vg" / "region_descriptions.json"
    for row, message in (
        ({"image_id": 1, "width": 5}, "no `height`"),
        ({"width": 5, "height": 5}, "no `image_id` or `id`"),
        (5, "no `width`"),
    ):
        (tmp_path / "image_data.json").write_text(json.dumps([row]))
        with pytest.raises(DataError, match=message):
            list(VgRegionsReader([tmp_path / "image_data.json", regions]))
