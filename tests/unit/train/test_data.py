"""Training data: the same item whoever asks, and batches in the model's own frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from parfocal.boxes import Boxes, Frame
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import ImageRef, Sample
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.expressions import COMPARISONS
from parfocal.errors import DataError
from parfocal.models.text_batch import IGNORED
from parfocal.train.augment import DetectionAugment
from parfocal.train.data import (
    KIND_INDEX,
    ConversationCollator,
    ConversationDataset,
    DetectionCollator,
    ObjectCollator,
    SceneDataset,
    compared_objects,
    dataset_of,
    kinds_of,
    score_heads_of,
)
from tests.unit.train.drawn import drawn_sample


@pytest.fixture(scope="module")
def reader(toy_bank) -> SceneReader:
    return SceneReader("train", 6, (64,), toy_bank)


def same(one, other) -> bool:
    return one == other and one.open_image().tobytes() == other.open_image().tobytes()


def test_item_i_is_scene_first_plus_i(reader):
    dataset = SceneDataset(reader, first=2)
    assert len(dataset) == 4
    assert [dataset[index].id for index in range(4)] == [f"scenes:train:{n}" for n in range(2, 6)]
    assert same(dataset[1], reader[3])


def test_conversations_are_the_same_in_every_process_and_order(reader, processor):
    one = ConversationDataset(reader, processor.dialect, seed=4, first=1)
    other = ConversationDataset(reader, processor.dialect, seed=4, first=1)
    forwards = [one[index] for index in range(len(one))]
    backwards = [other[index] for index in reversed(range(len(other)))][::-1]
    assert len(forwards) == 5
    for left, right in zip(forwards, backwards, strict=True):
        assert left.turns
        assert same(left, right)
    assert forwards[0].id == "scenes:train:1"


def test_the_same_scene_gets_the_same_turns_whichever_stage_begins_where(reader, processor):
    whole = ConversationDataset(reader, processor.dialect, seed=4)
    rest = ConversationDataset(reader, processor.dialect, seed=4, first=3)
    assert whole[4] == rest[1]
    reseeded = ConversationDataset(reader, processor.dialect, seed=5)
    assert whole[4].turns != reseeded[4].turns


def test_kinds_follow_the_catalogue_and_padding_is_zero():
    frame = Frame("image", 50, 50)
    box = [0, 0, 9, 9]
    rows = [
        Boxes([box, box], frame, labels=["dog", "bee"]),
        Boxes.empty(frame),
        Boxes([box], frame, labels=[KINDS[-1].name]),
    ]
    mask = torch.zeros(3, 2, dtype=torch.bool)
    found = kinds_of(rows, mask)
    assert found.tolist() == [[KIND_INDEX["dog"], KIND_INDEX["bee"]], [0, 0], [len(KINDS) - 1, 0]]


def scene_of(hidden: list[str], *rows: tuple[str, list[float]]) -> Sample:
    """A scene with the objects named, as `with_turns` leaves it."""
    objects = [{"name": name, "xyxy": box} for name, box in rows]
    meta = {"objects": objects, "hidden": hidden}
    return Sample("one", (ImageRef("one.png", 100, 100),), (), meta=meta)


def test_comparisons_pick_one_of_several_of_a_name():
    dogs = (("dog", [0, 0, 10, 10]), ("dog", [60, 2, 90, 32]), ("bee", [5, 50, 9, 54]))
    mask = torch.ones(3, 4, dtype=torch.bool)
    samples = [scene_of([], *dogs), scene_of(["dog"], *dogs), scene_of([], *dogs[1:])]
    found = compared_objects(samples, mask)
    told = {word: found[0, :2, at].tolist() for at, word in enumerate(COMPARISONS)}
    assert told == {
        "leftmost": [1, 0], "rightmost": [0, 1], "topmost": [1, 0], "bottommost": [0, 1],
        "largest": [0, 1], "smallest": [1, 0],
    }  # fmt: skip
    assert (found[0, 2:] == -1).all()  # one bee is no comparison, nor is padding
    assert (found[1:] == -1).all()  # a dog that is hidden may be the largest; one dog is not


def test_a_margin_too_small_is_not_told():
    level = scene_of([], ("dog", [0, 0, 10, 10]), ("dog", [60, 2, 70, 12]))
    found = compared_objects([level], torch.ones(1, 2, dtype=torch.bool))[0]
    known = {word for at, word in enumerate(COMPARISONS) if (found[:, at] >= 0).all()}
    assert known == {"leftmost", "rightmost"}


def test_objects_are_collated_in_the_unit_frame_of_the_square_input(toy_samples, processor):
    batch = ObjectCollator(processor)(toy_samples)
    assert [tuple(value.shape) for value in batch["pixel_values"]] == [(4, 3, 96, 96)]
    counts = [len(sample.regions) for sample in toy_samples]
    assert batch["mask"].sum(1).tolist() == counts
    assert batch["boxes"].shape == (4, max(counts), 4)
    for row, sample in enumerate(toy_samples):
        longest = max(sample.images[0].width, sample.images[0].height)
        left = (longest - sample.images[0].width) // 2
        top = (longest - sample.images[0].height) // 2
        for column, (x1, y1, x2, y2) in enumerate(sample.regions.xyxy.tolist()):
            expected = ((x1 + x2) / 2 + left, (y1 + y2) / 2 + top, x2 - x1, y2 - y1)
            found = batch["boxes"][row, column] * longest
            assert found.tolist() == pytest.approx(expected, abs=1e-3)
            assert batch["labels"][row, column] == KIND_INDEX[sample.regions.labels[column]]
        assert not batch["boxes"][row, counts[row] :].any()


def test_conversations_carry_all_objects_not_only_the_users(toy_samples, toy_talk, processor):
    plain, batch = ObjectCollator(processor)(toy_samples), ConversationCollator(processor)(toy_talk)
    for key in ("boxes", "mask", "labels"):
        assert torch.equal(batch[key], plain[key])
    assert torch.equal(batch["pixel_values"][0], plain["pixel_values"][0])
    text = batch["text"]
    assert text.user_mask.sum(1).tolist() == [len(sample.regions) for sample in toy_talk]
    ground = (text.input_ids == processor.settings.token_ids.ground_box).sum(1)
    assert ground.tolist() == text.ground_mask.sum(1).tolist()
    assert ground.min() > 0


def test_only_answers_are_learned(toy_talk, processor):
    text = ConversationCollator(processor)(toy_talk)["text"]
    learned = text.labels != IGNORED
    assert torch.equal(text.labels[learned], text.input_ids[learned])
    for row, sample in enumerate(toy_talk):
        for number in range(len(sample.turns) // 2):
            inside = learned[row] & (text.turn[row] == number + 1)
            said = processor.tokenizer.decode(text.input_ids[row][inside])
            assert said.endswith(processor.settings.template.end)
            assert "<user>" not in said
            assert "<answer>" not in said
        assert not learned[row][text.turn[row] <= 0].any()


def test_a_loader_hands_out_every_scene_once(reader):
    loader = DataLoader(
        SceneDataset(reader), batch_size=2, shuffle=True,
        collate_fn=lambda rows: [row.id for row in rows],
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    seen = [identity for batch in loader for identity in batch]
    assert sorted(seen) == [f"scenes:train:{index}" for index in range(6)]


# detection on files

ONE_HEAD = score_heads_of(["object"])
SMALL = DetectionAugment(short_sides=(40, 60), crop_sides=(40, 80))


def test_boxes_are_collated_as_labelled_objects_are(toy_samples, processor):
    known = ObjectCollator(processor)(toy_samples)
    found = DetectionCollator(processor, ONE_HEAD)(toy_samples)
    assert torch.equal(found["pixel_values"][0], known["pixel_values"][0])
    assert torch.equal(found["mask"], known["mask"])
    assert torch.allclose(found["boxes"], known["boxes"], atol=1e-6)
    assert found["heads"] == ["object"] * 4
    assert set(found) == {"pixel_values", "boxes", "mask", "heads"}


def single(collate: DetectionCollator, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    batch = collate([sample])
    return batch["pixel_values"][0][0], batch["boxes"][0][batch["mask"][0]]


def test_a_picture_changes_by_its_id_and_the_seed_whatever_is_beside_it(processor):
    samples = [drawn_sample(index) for index in range(4)]
    collate = DetectionCollator(processor, ONE_HEAD, SMALL, seed=3)
    forwards, backwards = collate(samples), collate(samples[::-1])
    for row, sample in enumerate(samples):
        pixels, boxes = single(collate, sample)
        for batch, at in ((forwards, row), (backwards, 3 - row)):
            assert torch.equal(batch["pixel_values"][0][at], pixels)
            assert torch.equal(batch["boxes"][at][batch["mask"][at]], boxes)
    other = DetectionCollator(processor, ONE_HEAD, SMALL, seed=4)(samples)
    assert not torch.equal(other["pixel_values"][0], forwards["pixel_values"][0])
    renamed = collate([replace(sample, id=f"{sample.id}b") for sample in samples])
    assert not torch.equal(renamed["pixel_values"][0], forwards["pixel_values"][0])


def test_augmented_boxes_hold_what_the_model_sees(processor):
    collate = DetectionCollator(processor, ONE_HEAD, SMALL)
    side = processor.settings.vision.level_tower.image_size
    for index in range(6):
        batch = collate([drawn_sample(index)])
        bright = batch["pixel_values"][0][0, 0] > 0.5
        outside = torch.ones_like(bright)
        for cx, cy, w, h in (batch["boxes"][0] * side).tolist():
            x1, y1, x2, y2 = (round(v) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
            if min(w, h) > 10:
                assert bright[y1:y2, x1:x2].float().mean() > 0.8
            outside[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = False
        assert (bright & outside).float().mean() < 0.02  # slivers that are not learned


def boxed(*rows: list[float], size_wh=(448, 448), **origin) -> Sample:
    ref = ImageRef(None, *size_wh, pixels=Image.new("RGB", size_wh))
    return Sample("one", (ref,), (), Boxes(list(rows), ref.frame()), **origin)


ROWS = ([0, 0, 9, 9], [10, 10, 100, 100], [200, 5, 300, 90], [0, 0, 400, 400])
"""In an input of 96 pixels: 1.9, 19 and 21 wide, and 86."""


def test_boxes_too_small_in_the_input_are_not_learned(processor):
    still = DetectionAugment(short_sides=(448,), crop_sides=(448, 448), flip_share=0.0)
    collate = DetectionCollator(processor, ONE_HEAD, still)
    (found,) = collate([boxed(*ROWS)])["boxes"]
    assert (found[:, 2] * 448).tolist() == pytest.approx([90, 100, 400])
    areas = replace(still, sa1b_areas=(370.0, 7000.0))  # of 96 x 96
    collate = DetectionCollator(processor, ONE_HEAD, areas)
    (found,) = collate([boxed(*ROWS, source="sa1b")])["boxes"]
    assert (found[:, 2] * 448).tolist() == pytest.approx([90, 100])
    (all_of_them,) = DetectionCollator(processor, ONE_HEAD)([boxed(*ROWS)])["mask"]
    assert int(all_of_them.sum()) == 4
    nothing = DetectionCollator(processor, ONE_HEAD, still)([boxed(ROWS[0])])
    assert nothing["boxes"].shape == (1, 0, 4)


def test_each_dataset_trains_its_score_head(processor):
    heads = score_heads_of(["coco", "sa1b"])
    joined = {"source": "groma_detection"}
    samples = [
        boxed(ROWS[1], source="sa1b"),
        boxed(ROWS[1], source="objects365"),
        boxed(ROWS[1]),
        boxed(ROWS[1], **joined, meta={"image_key": "sa1b:17"}),
        boxed(ROWS[1], **joined, meta={"image_key": "v3det:a/b"}),
        boxed(ROWS[1], source="made", meta={"image_key": "sa1b:17"}),  # boxes by someone else
    ]
    datasets = ["sa1b", "objects365", "", "sa1b", "v3det", "made"]
    assert [dataset_of(sample) for sample in samples] == datasets
    found = DetectionCollator(processor, heads)(samples)["heads"]
    assert found == ["sa1b", "coco", "coco", "sa1b", "coco", "coco"]
    own = DetectionCollator(processor, {"v3det": "fine", "sa1b": "all"})
    assert own([samples[4], samples[3]])["heads"] == ["fine", "all"]
    with pytest.raises(DataError, match=r"'one' is of the dataset 'objects365'.*'sa1b', 'v3det'"):
        own([samples[1]])


def test_samples_without_a_picture_or_objects_are_refused(processor):
    collate = DetectionCollator(processor, ONE_HEAD)
    with pytest.raises(DataError, match=r"'one' has 1 pictures and 0 regions.*'detect'"):
        collate([boxed()])
    with pytest.raises(DataError, match="'words' has 0 pictures"):
        collate([Sample("words", (), ())])
