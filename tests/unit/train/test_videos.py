"""Training on videos: a row holds what asking the same question holds, whatever is beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from parfocal.boxes import Boxes, Frame
from parfocal.data.proposals import frame_regions
from parfocal.data.readers.clips import Clips
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects import GroundedText, Phrase
from parfocal.dialects.grounded import ObjectRef, RegionRef
from parfocal.errors import ConfigError, DataError
from parfocal.models.frames import seen_boxes
from parfocal.models.splicing import rows_of
from parfocal.models.text_batch import IGNORED
from parfocal.train.data import AnswerCollator
from parfocal.train.feature_cache import FeatureCache, fill
from parfocal.train.language import LanguageObjective
from tests.unit.models.builders import build_dense, build_mg_llava

WIDTH, HEIGHT = 44, 30  # of which the crop cuts off 7 columns on both sides
CUT, BOX, OTHER = [0, 0, 5, 30], [8, 4, 20, 25], [10, 2, 30, 28]


@pytest.fixture(scope="module")
def pair():
    return build_mg_llava()


@pytest.fixture(scope="module")
def dense():
    return build_dense()


def talk(question: object = "what is it?", answer: object = "it is") -> tuple[Turn, ...]:
    return Turn("user", GroundedText.of(question)), Turn("assistant", GroundedText.of(answer))


def refs(count: int, size=(WIDTH, HEIGHT), seed: int = 0) -> tuple[ImageRef, ...]:
    shape = (count, size[1], size[0], 3)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return tuple(
        ImageRef("v.mp4", *size, pixels=Image.fromarray(value), video_frame=2 * index)
        for index, value in enumerate(values)
    )


def make_video(boxes: list[list[list[float]]], turns=None, seed: int = 0) -> Sample:
    """A video of as many frames as `boxes` has lists, of what is in each."""
    images = refs(len(boxes), seed=seed)
    rest = [{"boxes": own, "labels": ["thing"] * len(own)} for own in boxes[1:]]
    first = Boxes(boxes[0], images[0].frame()) if boxes[0] else Boxes.empty(images[0].frame())
    return Sample(f"video{seed}", images, turns or talk(), first, meta={"frame_regions": rest})


@pytest.fixture
def video() -> Sample:
    return make_video([[CUT, BOX], [], [OTHER, CUT, BOX]])


@pytest.fixture
def picture() -> Sample:
    (image,) = refs(1, (30, 44), seed=1)
    image = replace(image, path="a.png", video_frame=None)
    return Sample("picture", (image,), talk("is it?"), Boxes([BOX], image.frame()))


@pytest.fixture
def words() -> Sample:
    return Sample("words", (), talk("what?", "it"))


def asked(processor, sample: Sample):
    """Tokens, boxes and pixels of asking a Sample's question about its video, as `predict` does."""
    frames = sample.open_images()
    pixels, warps = processor.pixel_values(frames, [True] * len(frames))
    frame = Frame("image", WIDTH, HEIGHT)  # of a picture that is opened
    boxes = [
        seen_boxes(Boxes(own.to_json(), frame) if len(own) else Boxes.empty(frame), warp)
        for own, warp in zip(frame_regions(sample), warps, strict=True)
    ]
    question = [sample.turns[0].text]
    return processor.ask(question, boxes, warps, pictures=[len(boxes)]), pixels


def test_a_video_enters_as_it_does_when_asked_about(pair, video):
    _, processor = pair
    batch = AnswerCollator(processor)([video])
    text, pixels = asked(processor, video)
    length = text.input_ids.shape[1]
    assert torch.equal(batch["text"].input_ids[:, :length], text.input_ids)
    answer = batch["text"].labels[0]
    assert bool((answer[:length] == IGNORED).all()) and bool((answer[length:] != IGNORED).all())
    assert torch.equal(batch["text"].user_boxes, text.user_boxes)
    assert batch["text"].user_mask.tolist() == text.user_mask.tolist()
    assert text.user_mask.sum(1).tolist() == [1, 0, 2]  # without those that the crop cuts off
    assert batch["pictures"] == [3]
    for found, expected in zip(batch["pixel_values"], pixels, strict=True):
        assert torch.equal(found, expected)


def test_the_loss_is_that_of_the_answer_behind_the_question(pair, video):
    model, processor = pair
    batch = AnswerCollator(processor)([video])
    text, pixels = asked(processor, video)
    labels = batch["text"].labels
    ids = torch.cat((text.input_ids, labels[:, text.input_ids.shape[1] :]), dim=1)
    features = model.encode(pixels)
    regions = model.propose(features, text.user_boxes, text.user_mask)
    mask = model.live_mask(ids, torch.ones_like(ids), rows_of(regions.mask, [3]))
    output = model(
        input_ids=ids,
        attention_mask=mask,
        image_features=rows_of(model.image_tokens(features, regions), [3]),
        region_features=rows_of(regions.features, [3]),
    )
    expected = cross_entropy(output.logits[0, :-1], labels[0, 1:], ignore_index=IGNORED)
    found = LanguageObjective(model).eval()(**batch).loss
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["mg_llava", "dense"])
def test_videos_pictures_and_words_share_a_batch(pair, dense, video, picture, words, kind):
    model, processor = pair
    if kind == "dense":  # proposals of its own, and region names in answers
        model, processor = dense
        vision = replace(processor.settings.vision, video="pad")
        settings = replace(processor.settings, vision=vision)
        processor = type(processor)(processor.tokenizer, settings)
        named = Phrase("it", Boxes([BOX], video.images[0].frame()))
        video = replace(video, turns=talk("what is it?", named))
    collate, objective = AnswerCollator(processor), LanguageObjective(model).eval()
    objective.offer_ground_boxes = kind == "dense"
    rows = [picture, video, words, make_video([[BOX], [OTHER]], seed=3), words]
    together = collate(rows)
    assert together["pictures"] == [1, 3, 0, 2, 0]
    counts = objective.counts(together)
    parts = [objective(**collate([row]), counts=counts) for row in rows]
    whole = objective(**together, counts=counts)
    assert whole.loss.item() == pytest.approx(sum(part.loss.item() for part in parts), abs=1e-5)
    if kind == "dense":
        assert "proposed" in whole.terms


def test_every_frame_and_its_boxes_are_learned_from(pair, video):
    model, processor = pair
    collate, objective = AnswerCollator(processor), LanguageObjective(model)
    batch = collate([video])
    pixels = [value.requires_grad_() for value in batch["pixel_values"]]
    objective(**batch).loss.backward()
    assert all(float(frame.abs().max()) > 0 for tower in pixels for frame in tower.grad)
    model.zero_grad()
    moved = make_video([[CUT, BOX], [], [OTHER, CUT, [12, 4, 33, 9]]])
    assert objective(**collate([moved])).loss != objective(**collate([video])).loss


def test_frames_that_a_reader_places_in_a_file(pair, tmp_path, monkeypatch):
    clips = pytest.importorskip("tests.unit.clips")
    clips.write_clip(tmp_path / "v.mp4", 5)
    monkeypatch.chdir(tmp_path)
    sample = Sample("1", Clips(".", 8).place(["v.mp4"]), talk())
    batch = AnswerCollator(pair[1])([sample])
    assert batch["pictures"] == [8]
    assert batch["pixel_values"][0].shape[0] == 8
    assert batch["text"].user_mask.shape == (8, 0)


def test_frames_are_kept_apart_from_pictures_in_the_cache(pair, video, picture, words, tmp_path):
    model, processor = pair
    cache = FeatureCache(tmp_path, model)
    still = replace(video, id="still", images=video.images[:1], meta={})
    rows = [video, words, picture, still, replace(video, id="again")]
    assert fill(cache, model, processor, rows, batch_size=2) == 5
    assert fill(cache, model, processor, rows) == 0
    objective = LanguageObjective(model).eval()
    plain = objective(**AnswerCollator(processor)(rows)).loss.item()
    kept = AnswerCollator(processor, cache=cache)(rows)
    assert objective(**kept).loss.item() == pytest.approx(plain, abs=1e-6)
    assert AnswerCollator(processor, cache=cache)([words])["pixel_values"] == []


def test_one_frame_alone_is_a_picture(pair, video):
    _, processor = pair
    still = replace(video, images=video.images[:1], meta={})
    batch = AnswerCollator(processor)([still])
    expected = processor.pixel_values([still.open_image()])[0]
    assert all(map(torch.equal, batch["pixel_values"], expected))
    assert batch["text"].user_mask.tolist() == [[True, True]]


def test_a_model_that_reads_one_picture_refuses_videos(dense, video, tmp_path):
    model, processor = dense
    with pytest.raises(ConfigError, match=r"vision.video is 'none'.*Leave videos out"):
        AnswerCollator(processor)([video])
    with pytest.raises(ConfigError, match=r"vision.video is 'none'"):
        fill(FeatureCache(tmp_path, model), model, processor, [video])


def test_pictures_that_are_no_video_and_what_cannot_stand_beside_one(pair, video):
    collate = AnswerCollator(pair[1])
    stills = tuple(replace(ref, video_frame=None) for ref in video.images)
    with pytest.raises(DataError, match="has 3 pictures; training reads one"):
        collate([replace(video, images=stills)])
    with pytest.raises(DataError, match="object images beside a video"):
        collate([replace(video, turns=talk(ObjectRef(1)))])


def test_a_region_that_the_crop_cuts_off_cannot_be_named(pair, video):
    collate = AnswerCollator(pair[1])
    named = talk(RegionRef(1))
    with pytest.raises(DataError, match="speaks of regions of a video, and 1 of them are cut off"):
        collate([replace(video, turns=named)])
    collate([make_video([[BOX, OTHER], []], named)])
