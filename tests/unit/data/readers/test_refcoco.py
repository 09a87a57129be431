"""RefCOCO as published: a Python-2 pickle joined to instances.json, a Sample a sentence."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter

import pytest

from parfocal.data.readers import refcoco
from parfocal.data.readers.pickles import read_pickle
from parfocal.data.readers.refcoco import RefCocoReader
from parfocal.errors import ConfigError, DataError

# xyxy by sentence: x, y, x + width, y + height, worked by hand
BOXES = {
    0: [103.93, 299.99, 238.15, 477.41],
    1: [103.93, 299.99, 238.15, 477.41],
    2: [473.07, 395.93, 511.72, 424.6],
    3: [1.08, 187.69, 612.67, 473.53],
    4: [1.08, 187.69, 612.67, 473.53],
    5: [600.5, 400.25, 640, 426],  # clipped to 640x426
    7: [10, 20, 310, 420],
    8: [10, 20, 310, 420],
    10: [0, 0, 5.5, 8],
    11: [10, 20, 40, 40],
    12: [10, 20, 40, 40],
}
COUNTS = {"train": 3, "val": 4, "testA": 4, "testB": 2}


class _Call:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def sources(datasets):
    folder = datasets / "refer" / "refcoco"
    return [folder / "refs(unc).p", folder / "instances.json"]


@pytest.fixture
def repickled(sources, tmp_path):
    """The fixture's references after a change, beside the same instances.json."""

    def make(change=lambda refs: None, protocol=2):
        refs = read_pickle(sources[0])
        change(refs)
        (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol))
        return [tmp_path / "refs(unc).p", sources[1]]

    return make


def test_a_sample_a_sentence(sources, read_all):
    reader = RefCocoReader(sources, split="all")
    samples = {sample.meta["sent_id"]: sample for sample in read_all(reader)}
    assert list(samples) == list(BOXES)
    for number, box in BOXES.items():
        assert samples[number].regions.to_json()[0] == pytest.approx(box, abs=1e-6), number
        assert len(samples[number].regions) == 1
        assert samples[number].turns == ()
    assert reader.skipped == {
        "sentences without words": 1,
        "boxes without area inside their picture": 1,
    }


def test_words_and_what_is_known_of_the_box(sources):
    samples = {sample.meta["sent_id"]: sample for sample in RefCocoReader(sources)}
    labels = {number: sample.regions.labels[0] for number, sample in samples.items()}
    assert labels[1] == "lady with back to us"  # `sent`
    assert samples[1].meta["raw"] == "Lady w/ back to us!"
    assert labels[2] == "small dog right"
    assert labels[11] == "dog by the caf\u00e9"
    assert labels[12] == "perro peque\u00f1o"
    assert samples[0].meta == {
        "image_key": "coco:581857", "split": "train", "ref_id": 0, "ann_id": 1719310, "sent_id": 0,
        "raw": "THE LADY WITH THE BLUE SHIRT", "category": "person", "area": 14863.6, "iscrowd": 0,
    }  # fmt: skip
    assert samples[5].meta["category"] == "toothbrush"
    assert samples[7].meta["iscrowd"] == 1  # crowds are kept


def test_samples_say_their_own_split_unless_told(sources):
    samples = list(RefCocoReader(sources))
    assert Counter(s.split for s in samples) == {"train": 3, "val": 3, "testA": 3, "testB": 2}
    assert samples[0].id == "refcoco:0"
    told = list(RefCocoReader(sources, split="all"))
    assert {s.split for s in told} == {"all"}
    assert [s.meta["split"] for s in told] == [s.split for s in samples]
    assert told[0].id == "refcoco:all:0"


@pytest.mark.parametrize(
    ("only", "numbers"),
    [("train", [0, 1, 2]), ("val", [3, 4, 5]), ("testA", [7, 8, 10]), ("testB", [11, 12])],
)
def test_one_split_alone(sources, only, numbers):
    samples = list(RefCocoReader(sources, only=only))
    assert [sample.meta["sent_id"] for sample in samples] == numbers
    assert {sample.split for sample in samples} == {only}


def test_a_split_that_is_not_there(sources):
    with pytest.raises(ConfigError, match="no split 'test'; there are testA, testB, train, val"):
        list(RefCocoReader(sources, only="test"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_of_python_3_read_the_same(sources, repickled, protocol):
    assert list(RefCocoReader(repickled(protocol=protocol))) == list(RefCocoReader(sources))


def test_pictures_come_from_the_table_and_not_from_the_reference(sources, make_pictures):
    root = make_pictures({
        "COCO_train2014_000000581857_16.jpg": (427, 640),  # named like the reference
        "train2014/COCO_train2014_000000000009.jpg": (640, 480),
        "train2017/000000000025.jpg": (640, 426),
        "mscoco/images/train2014/COCO_train2014_000000000036.jpg": (481, 640),
        "000000000061.jpg": (488, 640),  # sides swapped
    })  # fmt: skip
    reader = RefCocoReader(sources, images=root)
    assert Counter((s.meta["image_key"], s.images[0].path) for s in reader) == {
        ("coco:9", "train2014/COCO_train2014_000000000009.jpg"): 3,
        ("coco:25", "train2017/000000000025.jpg"): 1,
        ("coco:36", "mscoco/images/train2014/COCO_train2014_000000000036.jpg"): 2,
    }
    assert reader.skipped == {
        "pictures that are not in the folder": 2 + 1 + 2,  # sentences
        "pictures of another size than the dataset states": 1,
        "sentences without words": 1,
    }
    (path,) = {s.images[0].path for s in RefCocoReader(sources) if s.meta["ref_id"] == 0}
    assert path == "COCO_train2014_000000581857.jpg"


def test_official_sets_have_their_number_of_sentences(sources, monkeypatch):
    monkeypatch.setitem(refcoco.SENTENCES, "refcoco+", COUNTS)
    samples = list(RefCocoReader(sources, official="refcoco+", split="x"))
    assert len(samples) == len(BOXES)
    assert samples[0].meta["dataset"] == "refcoco+"
    assert samples[0].id == "refcoco:x:refcoco+:0"


def test_other_numbers_of_sentences_are_refused(sources, repickled, monkeypatch):
    with pytest.raises(DataError, match=r"val: 4 instead of 10,834.*Give refcoco/refs\(unc\)\.p"):
        list(RefCocoReader(sources, official="refcoco"))
    with pytest.raises(DataError, match=r"test: 0 instead of 9,602.*refcocog/refs\(umd\)\.p"):
        list(RefCocoReader(sources, official="refcocog"))
    monkeypatch.setitem(refcoco.SENTENCES, "refcoco", COUNTS)
    fewer = repickled(lambda refs: refs[2]["sentences"].pop())
    with pytest.raises(DataError, match=r"\(val: 3 instead of 4\)"):
        list(RefCocoReader(fewer, official="refcoco"))
    with pytest.raises(DataError, match="val: 3 instead of 4"):
        list(RefCocoReader(fewer, official="refcoco", only="val"))
    assert len(list(RefCocoReader(fewer, official="refcoco", only="train"))) == 3
    assert len(list(RefCocoReader(fewer))) == len(BOXES) - 1  # only who asks is checked


def test_numbers_of_sentences_add_up_to_the_published_totals():
    totals = {name: sum(counts.values()) for name, counts in refcoco.SENTENCES.items()}
    assert totals == {"refcoco": 142_210, "refcoco+": 141_564, "refcocog": 95_010}


def test_official_is_one_of_three(sources):
    with pytest.raises(ConfigError, match="must be refcoco, refcoco\\+, refcocog"):
        RefCocoReader(sources, official="refclef")


def test_a_pickle_with_a_command_is_refused(repickled, tmp_path):
    marker = tmp_path / "it_ran"
    sources = repickled(lambda refs: refs.append(_Call(f"mkdir {marker}")))
    with pytest.raises(DataError, match="asks for"):
        list(RefCocoReader(sources))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda refs: refs[0].update(ann_id=5), "annotation 5 of picture 581857, which"),
        (lambda refs: refs[0].update(image_id=9), "annotation 1719310 of picture 9, which"),
        (lambda refs: refs[0].update(image_id=8), "of picture 8, which .*the same folder"),
        (lambda refs: refs[0].pop("split"), "no `split`"),
        (lambda refs: refs[0].update(sentences="a dog"), "must be a list"),
        (lambda refs: refs[0].update(ann_id="101"), "must be a whole number"),
        (lambda refs: refs[0]["sentences"][0].pop("sent"), "no `sent`"),
        (lambda refs: refs[0]["sentences"][0].update(sent=b"a dog"), "must be text"),
        (lambda refs: refs.append("a dog"), "no `split`"),
    ],
)
def test_references_that_make_no_sense(repickled, change, message):
    with pytest.raises(DataError, match=message):
        list(RefCocoReader(repickled(change, protocol=4)))


def test_the_pickle_holds_a_list(sources, tmp_path):
    (tmp_path / "refs.p").write_bytes(pickle.dumps({"refs": []}))
    with pytest.raises(DataError, match="holds a dict, not a list of references"):
        list(RefCocoReader([tmp_path / "refs.p", sources[1]]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bbox", [1, 2, 3], "must be four numbers"),
        ("bbox", None, "must be four numbers"),
        ("category_id", 2, "unknown category 2"),
    ],
)
def test_annotations_that_make_no_sense(sources, tmp_path, name, value, message):
    rows = json.loads(sources[1].read_text())
    rows["annotations"][0][name] = value
    (tmp_path / "instances.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        list(RefCocoReader([sources[0], tmp_path / "instances.json"]))
