"""MG-LLaVA's files of boxes: joined by place, ids compared, suppressed, limited, cut to size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.jsonl import read_jsonl, write_jsonl
from parfocal.data.parquet import read_parquet, write_parquet
from parfocal.data.proposals import Proposals, frame_regions
from parfocal.data.readers.llava import LlavaMix665kReader
from parfocal.data.readers.llava_video import LlavaVideoReader
from parfocal.data.sample import ImageRef, Sample
from parfocal.data.selection import BoxLimits
from parfocal.errors import ConfigError, DataError
from tests.unit.clips import write_clip

FIXTURES = Path(__file__).parents[2] / "fixtures" / "datasets"
FILE = FIXTURES / "mg_llava/instruct_only_box.json"
PICTURES = {
    "coco/train2017/000000000001.jpg": (640, 480),
    "coco/train2017/000000000025.jpg": (427, 640),
    "vg/VG_100K/3.jpg": (50, 50),
    "vg/VG_100K_2/2.jpg": (100, 60),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    root = tmp_path_factory.mktemp("pictures")
    for name, size_wh in PICTURES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size_wh).save(root / name)
    return list(LlavaMix665kReader([FIXTURES / "mg_llava/instruct.json"], images=root))


def found_in(samples: list[Sample]) -> dict[Any, list[tuple[str, list[float]]]]:
    return {
        sample.meta["row"]: list(
            zip(sample.regions.labels or (), sample.regions.to_json(), strict=True)
        )
        for sample in samples
    }


EXPECTED = {
    # 640x480: the second dog overlaps the first by 0.95; the cat is no dog; clipped; below the edge
    0: [("dog", [100, 100, 200, 200]), ("cat", [110, 100, 210, 200]), ("dog", [0, 0, 50, 40]),
        ("wall", [600, 470, 640, 480])],
    1: [("sign", [10, 10, 20, 20])],  # of the same id as row 0
    2: [],  # words alone
    3: [],  # nothing was found
    # IoU 0.2 is not above 0.2: 100 of 500 square pixels
    5: [("tree", [20, 20, 30, 30]), ("tree", [0, 0, 10, 10]), ("tree", [0, 0, 10, 50])],
    6: [("corner", [48, 49, 50, 50])],
    7: [],
    # 100x60
    8: [("block", [5, 40, 55, 60]), ("wall", [0, 0, 100, 60])],
    9: [],  # of which picture?
    10: [("bar", [50, 0, 100, 60]), ("caf\u00e9", [50, 0, 100, 60])],
    11: [("block", [5, 40, 55, 60]), ("wall", [0, 0, 100, 60])],
}  # fmt: skip


def test_boxes_come_by_place(samples, tmp_path):
    proposals = Proposals(FILE)
    joined = list(proposals.add_to(samples))
    assert found_in(joined) == EXPECTED
    assert proposals.skipped == {
        "boxes without area inside their picture": 1,
        "records of samples of several pictures": 1,
    }
    for before, after in zip(samples, joined, strict=True):
        assert replace(after, regions=before.regions) == before
    assert list(proposals.add_to(samples)) == joined  # again from the start
    write_jsonl(joined, tmp_path / "rows.jsonl")
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == joined


def test_files_without_rows_of_words(samples, tmp_path):
    records = [r for r in json.loads(FILE.read_text("utf-8")) if r["id"] not in ("t0", "t1")]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(records))
    joined = list(Proposals(path, join="picture_row").add_to(samples))
    assert found_in(joined) == EXPECTED
    with pytest.raises(DataError, match=r"record 3 is of 'gone', .* 'a2'.*join='picture_row'"):
        list(Proposals(path).add_to(samples))


def test_files_in_another_order(samples, tmp_path):
    records = json.loads(FILE.read_text("utf-8"))
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(records[::-1]))
    with pytest.raises(DataError, match=r"record 0 is of 'a8', .* '000000000001'.*join='id'"):
        list(Proposals(path).add_to(samples))
    by_id = Proposals(path, join="id")
    with pytest.raises(DataError, match="2 records of the id '000000000001', and they differ"):
        list(by_id.add_to(samples))
    assert found_in(list(by_id.add_to(reversed(samples[2:])))) == {
        row: boxes for row, boxes in EXPECTED.items() if row >= 2
    }
    path.write_text(json.dumps({str(record["id"]): record for record in records}))
    assert found_in(list(by_id.add_to(samples[2:])))[5] == EXPECTED[5]
    with pytest.raises(DataError, match="an object, id -> record, which has no places"):
        list(Proposals(path).add_to(samples))


def test_limits(tmp_path):
    boxes = [[4 * k, 4 * row, 4 * k + 4, 4 * row + 4] for row in range(4) for k in range(30)]
    labels = [label for label in "dcba" for _ in range(30)]
    scores = [1 - k / 1000 for k in range(120)]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"id": "1", "boxes": boxes, "scores": scores, "labels": labels}]))
    sample = Sample("s", (ImageRef("a.png", 200, 200),), (), meta={"row": 0, "id": 1})

    def kept(**options: Any) -> Boxes:
        (joined,) = Proposals(path, **options).add_to([sample])
        return joined.regions

    assert kept().labels == tuple(label for label in "dcba" for _ in range(20))
    assert kept().to_json() == [boxes[30 * row + k] for row in range(4) for k in range(20)]
    assert len(kept(limits=BoxLimits(total=None))) == 120
    assert kept(crowded=lambda own: own is sample).labels == ("d", "c", "b", "a")
    assert len(kept(limits=BoxLimits(total=7, mode="per_image"))) == 7


def test_many_labels_leave_no_more_than_the_models_have_slots(tmp_path):
    boxes = [[4 * k, 4 * row, 4 * k + 4, 4 * row + 4] for row in range(9) for k in range(15)]
    labels = [label for label in "ihgfedcba" for _ in range(15)]
    scores = [k / 1000 for k in range(135)]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"id": "1", "boxes": boxes, "scores": scores, "labels": labels}]))
    sample = Sample("s", (ImageRef("a.png", 200, 200),), (), meta={"row": 0, "id": 1})
    (joined,) = Proposals(path).add_to([sample])
    assert sorted(joined.regions.to_json()) == sorted(boxes[35:])


def test_boxes_turn_with_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.new("RGB", (100, 60)).save(tmp_path / "a.jpg", exif=exif)
    record = {"id": "1", "boxes": [[10, 20, 40, 70]], "scores": [0.5], "labels": ["car"]}
    (tmp_path / "boxes.json").write_text(json.dumps([record]))
    sample = Sample("s", (ImageRef("a.jpg", 60, 100),), (), meta={"row": 0, "id": "1"})
    (joined,) = Proposals(tmp_path / "boxes.json", images=tmp_path).add_to([sample])
    assert joined.regions.to_json() == [[0, 10, 60 - 20, 40]]
    assert joined.regions.frame == sample.images[0].frame()
    other = replace(sample, images=(ImageRef("a.jpg", 100, 60),))
    with pytest.raises(DataError, match=r"a\.jpg is 60x100, the Sample says 100x60"):
        list(Proposals(tmp_path / "boxes.json", images=tmp_path).add_to([other]))
    gone = replace(sample, images=(ImageRef("b.jpg", 100, 60),))
    with pytest.raises(DataError, match=r"b\.jpg: pictures that are not in the folder"):
        list(Proposals(tmp_path / "boxes.json", images=tmp_path).add_to([gone]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Sample]:
    root = tmp_path_factory.mktemp("videos")
    for name in ("videochatgpt_tune/v_one", "valley/000001_000050/two", "valley/three"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(root / f"{name}.mp4", 9)
    for name in ("llava_image/00453/004539375.jpg", "coco/train2017/000000000009.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(root / name)
    return list(LlavaVideoReader([FIXTURES / "llava_video/video_tiny.json"], images=root))


def test_boxes_of_videos_come_by_frame(clips, tmp_path):
    joined = list(Proposals(FIXTURES / "mg_llava/video_only_box.json").add_to(clips))
    found = {sample.meta["row"]: sample for sample in joined}
    assert list(found) == [0, 1, 2, 3, 6, 7, 8, 11]
    first = found[0]
    assert first.regions.labels == ("square",)  # the other overlaps it
    regions = frame_regions(first)
    assert [boxes.frame for boxes in regions] == list(first.frames)
    assert [boxes.to_json() for boxes in regions] == [
        [[10, 20, 40, 40]], [[11, 20, 41, 40]], [], [[13, 20, 43, 40], [90, 60, 96, 64]],
        [[14, 20, 44, 40]], [[15, 20, 45, 40]], [[16, 20, 46, 40]],
        [[17, 20, 47, 40], [0, 0, 3, 4]],
    ]  # fmt: skip
    assert regions[3].labels == ("square", "edge")
    assert frame_regions(found[1]) == regions  # told by the name of its video
    assert [len(boxes) for boxes in frame_regions(found[2])] == [0] * 8
    assert frame_regions(found[6])[0].labels == ("lamp",)
    assert found[8].images == ()
    assert [len(boxes) for boxes in frame_regions(clips[0])] == [0] * 8
    write_parquet(joined, tmp_path / "rows.parquet")
    assert list(read_parquet(tmp_path / "rows.parquet")) == joined


def test_damaged_regions_of_frames_are_refused(clips):
    for damage in ([], "x", [{"boxes": [[1, 2]], "labels": ["a"]}] * 7, [{}] * 7):
        sample = replace(clips[0], meta={**clips[0].meta, "frame_regions": damage})
        with pytest.raises(DataError, match="frame_regions"):
            frame_regions(sample)


BOX = {"boxes": [[1, 2, 3, 4]], "scores": [0.5], "labels": ["a"]}


@pytest.mark.parametrize(
    ("records", "change", "message"),
    [
        pytest.param([], {}, "has 0 records, .* wants record 0", id="too few"),
        pytest.param([BOX], {}, "no id to compare", id="no id in the record"),
        pytest.param([BOX | {"id": 1}], {"meta": {}}, "no id to compare", id="no id in the Sample"),
        pytest.param([BOX | {"id": 2}], {}, "is of 2, sample 's' of '1'", id="another id"),
        pytest.param([3], {}, "record 0 is 3", id="no object"),
        pytest.param([{"id": 1}], {}, r"record 0: not a record of boxes \(KeyError", id="no boxes"),
        pytest.param([BOX | {"id": 1, "labels": []}], {}, "record 0: .*label", id="no label"),
        pytest.param(
            [BOX | {"id": 1, "boxes": [[3, 2, 1, 4]]}], {}, "record 0: .*x2 < x1", id="swapped"
        ),
        pytest.param(
            [BOX | {"id": 1}],
            {"regions": Boxes([[0, 0, 1, 1]], ImageRef("a", 9, 9).frame())},
            "has regions already",
            id="regions",
        ),
        pytest.param(
            [BOX | {"id": 1}],
            {"images": (ImageRef("a.mp4", 9, 9, video_frame=0),) * 2},
            "has boxes of no frames, sample 's' has 2",
            id="no frames",
        ),
        pytest.param(
            [{"id": 1, "frames": [BOX]}],
            {"images": (ImageRef("a.mp4", 9, 9, video_frame=0),) * 2},
            "has boxes of 1 frames, sample 's' has 2",
            id="too few frames",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, records, change, message):
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    sample = Sample("s", (ImageRef("a", 9, 9),), (), meta={"row": 0, "id": "1"})
    with pytest.raises(DataError, match=message):
        list(Proposals(tmp_path / "boxes.json").add_to([replace(sample, **change)]))


def test_samples_come_in_order(samples):
    with pytest.raises(DataError, match="has the row 0 in its meta, after 1"):
        list(Proposals(FILE).add_to([samples[1], samples[0]]))
    with pytest.raises(DataError, match="has the picture_row None"):
        list(Proposals(FILE, join="picture_row").add_to([replace(samples[0], meta={"id": "1"})]))
    with pytest.raises(DataError, match="no record of the id 'x'"):
        list(Proposals(FILE, join="id").add_to([replace(samples[0], meta={"id": "x"})]))


def test_options_are_checked_at_once(tmp_path):
    with pytest.raises(ConfigError, match="join is 'position', must be one of row, picture_row"):
        Proposals(FILE, join="position")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="does not exist"):
        Proposals(tmp_path / "none.json")
