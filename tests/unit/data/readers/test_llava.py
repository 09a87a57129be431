"""LLaVA-style files: pictures in many folders, rows of words, ids twice, boxes in the words."""

from __future__ import annotations

import json
import logging

import pytest
from PIL import Image

from parfocal.data.readers import READERS
from parfocal.data.readers.llava import (
    LlavaInstructReader,
    LlavaMix665kReader,
    LlavaPretrainReader,
    LlavaReader,
    ShareGpt4vReader,
)
from parfocal.data.sample import Sample
from parfocal.dialects import GroundedText, Phrase
from parfocal.errors import ConfigError, DataError

MIX = "llava_mix665k/llava_v1_5_mix665k.json"
PICTURES = {
    "train2017/000000000001.jpg": (640, 480),  # stated in coco/train2017
    "coco/train2017/000000000025.jpg": (427, 640),
    "vg/VG_100K_2/2.jpg": (100, 60),
    "vg/VG_100K_2/3.jpg": (50, 50),  # stated in VG_100K
    "gqa/7.jpg": (30, 20),
    "ocr_vqa/images/0312868766.gif": (40, 60),  # stated as .jpg
}


@pytest.fixture
def pictures(make_pictures):
    root = make_pictures(PICTURES)
    (root / "textvqa/train_images").mkdir(parents=True)
    with (root / "textvqa/train_images/0054c91397f2fe05.jpg").open("wb") as file:
        Image.new("P", (33, 44)).save(file, "GIF")  # not what its name says
    return root


def words(sample: Sample) -> list[tuple[str, str]]:
    return [(turn.role, turn.text.plain) for turn in sample.turns]


def boxes(sample: Sample) -> list[list[float]]:
    return [box for turn in sample.turns for p in turn.text.phrases for box in p.boxes.to_json()]


def test_the_mixture(datasets, pictures, read_all):
    reader = LlavaMix665kReader([datasets / MIX], images=pictures, split="train")
    samples = {sample.meta["row"]: sample for sample in read_all(reader)}
    assert list(samples) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16]
    assert words(samples[0]) == [
        ("user", "What colour is the left square?\n"
         "Answer the question using a single word or phrase."),
        ("assistant", "Red"), ("user", "And the right one?"), ("assistant", "Blue"),
    ]  # fmt: skip
    assert samples[0].id == "llava_mix665k:train:0:000000000001"
    assert samples[1].id == "llava_mix665k:train:1:000000000001"
    assert samples[1].turns[1].text == GroundedText.of("None")  # a word, not an absence
    assert words(samples[6])[0][1].endswith("Reference OCR token: CAF\u00c9, 24")
    assert words(samples[12]) == [
        ("user", "See here.\nWhat is it?"), ("assistant", "A cat.\nOr a dog.")
    ]  # fmt: skip
    # asked by the picture alone
    assert words(samples[16]) == [("user", ""), ("assistant", "A cat on a mat.")]
    assert samples[16].id == "llava_mix665k:train:16"
    assert "id" not in samples[16].meta
    assert samples[7].meta == {"row": 7, "picture_row": 6, "id": "7", "image_key": "vg:7"}
    assert reader.skipped == {
        "answers before the first question": 2,
        "pictures that are not in the folder": 1,
        "questions whose boxes do not fit the stated frame": 2,
        "questions whose boxes have no area": 1,
        "questions with an empty answer": 1,
        "questions without an answer": 2,
        "rows with a video, which the reader llava_video reads": 1,
        "rows without a question and its answer": 2,
        "system turns": 1,
    }


def test_pictures_are_found_under_any_of_their_names(datasets, pictures):
    reader = LlavaMix665kReader([datasets / MIX], images=pictures)
    found = {sample.meta["row"]: sample for sample in reader}
    refs = {
        row: [(ref.path, ref.width, ref.height) for ref in sample.images]
        for row, sample in found.items()
    }
    assert refs[0] == [("train2017/000000000001.jpg", 640, 480)]
    assert refs[5] == [("ocr_vqa/images/0312868766.gif", 40, 60)]
    assert refs[6] == [("textvqa/train_images/0054c91397f2fe05.jpg", 33, 44)]
    assert refs[7] == [("gqa/7.jpg", 30, 20)]
    assert refs[8] == [("train2017/000000000001.jpg", 640, 480), ("vg/VG_100K_2/3.jpg", 50, 50)]
    assert found[8].meta["image_key"] == "coco:1"
    assert found[8].meta["image_keys"] == ["coco:1", "vg:3"]
    assert found[6].open_image(root=pictures).size == (33, 44)
    for row in (3, 14):
        assert refs[row] == []
        assert set(found[row].meta) == {"row", "id"}


def test_boxes_of_the_padded_square_become_pixels(datasets, pictures):
    reader = LlavaMix665kReader([datasets / MIX], images=pictures)
    found = {sample.meta["row"]: sample for sample in reader}
    expected = {
        # side 100, 20 above: 0.4 * 100 - 20; question 2: 0.2 * 100 - 20, 0.5 * 100 - 20
        2: [[25, 20, 75, 60], [0, 0, 50, 30]],
        # side 640, (640 - 427) // 2 = 106 left: 0.3 * 640 - 106, 0.6 * 640 - 106; 0.166 * 640 - 106
        4: [[86, 64, 278, 352], [0.24, 64, 86, 128]],
        # side 640, 80 above: 0.25 * 640 - 80, 0.875 * 640 - 80; the others do not fit
        9: [[64, 80, 320, 480]],
        8: [],  # of two pictures, so that nobody knows which is meant
        13: [],  # pixels, or no boxes at all
    }
    for row, truth in expected.items():
        assert len(boxes(found[row])) == len(truth), row
        for box, numbers in zip(boxes(found[row]), truth, strict=True):
            assert box == pytest.approx(numbers, abs=1e-6), row
    assert words(found[2])[2:] == [
        ("user", "Please provide a short description for this region: "),
        ("assistant", "the upper left"),
    ]
    assert words(found[9])[1:] == [("assistant", "it touches the lower edge")]
    assert isinstance(found[2].turns[1].text.spans[0], Phrase)
    assert words(found[13])[1] == ("assistant", "They say [12, 40, 310, 255].")
    # of all boxes in oblong pictures, those that do not become Phrases among them, one is too high
    assert (reader.frame_test.tested, reader.frame_test.outside) == (8, 1)


def test_boxes_of_the_picture_on_request(datasets, pictures):
    reader = LlavaMix665kReader([datasets / MIX], images=pictures, boxes="image")
    found = {sample.meta["row"]: sample for sample in reader}
    assert boxes(found[2])[0] == pytest.approx([25, 24, 75, 48], abs=1e-6)
    assert boxes(found[9])[0] == pytest.approx([64, 24, 320, 288], abs=1e-6)
    assert reader.skipped["questions whose boxes do not fit the stated frame"] == 1


def test_boxes_as_words_on_request(datasets, pictures):
    reader = LlavaMix665kReader([datasets / MIX], images=pictures, boxes="text")
    found = {sample.meta["row"]: sample for sample in reader}
    assert words(found[2])[1] == ("assistant", "[0.25, 0.4, 0.75, 0.8]")
    assert words(found[10])[1] == ("assistant", "[0.25, 0.4, 0.25, 0.5]")
    assert reader.frame_test.tested == 0


@pytest.mark.parametrize(
    ("frame", "ask", "warned"),
    [("padded", "image", True), ("image", "padded", True), ("padded", "padded", False)],
)
def test_the_other_frame_is_suspected(tmp_path, caplog, frame, ask, warned):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    numbers = []
    for step in range(100):
        low, high = step / 200, step / 200 + 0.5
        if frame == "padded":
            low, high = low / 2 + 0.25, high / 2 + 0.25
        numbers.append(f"[0.1, {low:.3f}, 0.6, {high:.3f}]")
    answers = [" ".join(numbers[:50]), " ".join(numbers[50:])]
    said = [
        {"from": side, "value": value}
        for answer in answers
        for side, value in (("human", "where?"), ("gpt", answer))
    ]
    said += [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "boxes"}]
    rows = [{"id": 0, "image": "a.png", "conversations": said}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    reader = LlavaMix665kReader([tmp_path / "a.json"], images=tmp_path, boxes=ask)
    with caplog.at_level(logging.WARNING):
        assert list(reader)
    assert (f"try boxes='{frame}'" in caplog.text) is warned


KEYS = {
    "llava_pretrain": {
        "00453/000453004.jpg": "llava_pretrain:000453004",
        "images/00453/000453005.jpg": "llava_pretrain:000453005",
        "LLaVA-Pretrain/images/00000/000000100.jpg": "llava_pretrain:000000100",
        "GCC_train_002109690.jpg": "cc3m:GCC_train_002109690",
    },
    "llava_instruct": {
        "000000052846.jpg": "coco:52846",
        "coco/train2017/000000334872.jpg": "coco:334872",
        "train2014/COCO_train2014_000000033471.jpg": "coco:33471",
    },
    "sharegpt4v": {
        "coco/train2017/000000000009.jpg": "coco:9",
        "LLaVA-Pretrain/images/00453/004539375.jpg": "llava_pretrain:004539375",
        "sam/images/sa_545504.jpg": "sa1b:545504",
        "share_textvqa/images/0054c91397f2fe05.jpg": "openimages:0054c91397f2fe05",
        "web-celebrity/images/face.jpg": "web-celebrity:face",
        "web-landmark/images/tower.jpg": "web-landmark:tower",
        "wikiart/images/art.jpg": "wikiart:art",
    },
    "sharegpt4v_pretrain": {
        "sam/images/sa_1.jpg": "sa1b:1",
        "sam/sa_22.jpg": "sa1b:22",
        "train2017/000000000025.jpg": "coco:25",
        "llava/llava_pretrain/images/00000/000000100.jpg": "llava_pretrain:000000100",
    },
    "allava_caption": {
        "allava_laion/images/100277305.jpeg": "allava_laion:100277305",
        "allava_laion/images/5.png": "allava_laion:5",
    },
    "allava_instruct": {
        "allava_vflan/images/images_191task_1k/Task_1.png":
            "allava_vflan:images_191task_1k/Task_1",
        "allava_vflan/images/images_191task_1k/a/3.jpg": "allava_vflan:images_191task_1k/a/3",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_each_set_knows_its_folders(name, datasets, make_pictures, read_all):
    (file,) = (datasets / name).iterdir()
    rows = json.loads(file.read_text("utf-8"))
    assert len(rows) >= 10
    root = make_pictures({picture: (20 + len(picture), 60) for picture in KEYS[name]})
    reader = READERS[name]([file], images=root, split="train")
    samples = read_all(reader)
    shown = [sample for sample in samples if sample.images]
    found = {sample.images[0].path: sample.meta["image_key"] for sample in shown}
    assert found == KEYS[name]
    assert all(sample.images[0].width == 20 + len(sample.images[0].path) for sample in shown)
    assert reader.skipped["pictures that are not in the folder"] == len(rows) - len(samples)
    for sample in samples:
        row = rows[sample.meta["row"]]
        assert sample.meta["id"] == row["id"]
        said = [turn.text.plain for turn in sample.turns]
        assert "<image>" not in "".join(said)
        assert said[1].startswith(row["conversations"][1]["value"])
        assert [turn.role for turn in sample.turns] == ["user", "assistant"] * (len(said) // 2)


def test_ids_repeat_and_names_do_not(datasets, make_pictures):
    root = make_pictures({"000000033471.jpg": (9, 9)})
    file = datasets / "llava_instruct/llava_instruct_150k.json"
    samples = list(LlavaInstructReader([file], images=root))
    assert [sample.meta["id"] for sample in samples] == ["000000033471"] * 3
    assert len({sample.id for sample in samples}) == 3
    assert [len(sample.turns) for sample in samples] == [4, 2, 2]


def test_sharegpt4v_reads_boxes_too(datasets, make_pictures):
    root = make_pictures({"coco/train2017/000000000009.jpg": (80, 60)})
    file = datasets / "sharegpt4v/sharegpt4v_instruct_gpt4-vision_cap100k.json"
    found = {sample.meta["id"]: sample for sample in ShareGpt4vReader([file], images=root)}
    # side 80, 10 above
    assert boxes(found["ref"]) == [pytest.approx([24, 30, 48, 50], abs=1e-6)]


def test_sizes_need_the_pictures(datasets):
    with pytest.raises(DataError, match="Give the folder of the pictures"):
        list(LlavaMix665kReader([datasets / MIX]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is no list of rows"),
        ("[]", "is no list of rows"),
        ("[3]", r"a.json: row 0 is 3"),
        ('[{"id": 1}]', r"row 0 has no list `conversations`"),
        ('[{"id": 1, "image": 3, "conversations": []}]', "`image` is 3"),
        ('[{"id": 1, "image": ["a", ""], "conversations": []}]', "must be a path or a list"),
        ('[{"id": 1, "conversations": [{"from": "x"}]}]', "row 0: turn 0 is from 'x'"),
        ('[{"id": 1, "conversations": []', "not JSON"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list(LlavaPretrainReader([tmp_path / "a.json"], images=tmp_path))


def test_the_frame_is_one_of_three(datasets):
    with pytest.raises(ConfigError, match="boxes is 'square', must be one of padded, image, text"):
        LlavaMix665kReader([datasets / MIX], boxes="square")


def test_all_of_them_are_one_reader():
    names = [name for name, reader in READERS.items() if issubclass(reader, LlavaReader)]
    assert [READERS[name].source for name in names] == names
    assert set(names) == {*KEYS, "llava_mix665k", "llava_video"}
    assert list(READERS) == sorted(READERS)
