"""Videos and finders behind the verbs: frames, their boxes, batches, and who may be asked."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.errors import ConfigError, DataError, FrameError
from parfocal.images import image_frame
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.predict.predictor import Predictor
from tests.unit.models.builders import build_mg_llava, pictures

SHORT = {"max_new_tokens": 6}
QUESTION = "what is it?"
BOX, OTHER = [3, 4, 20, 25], [10, 2, 30, 28]


@pytest.fixture(scope="module")
def pair():
    return build_mg_llava()


@pytest.fixture
def watcher(pair):
    return Predictor(*pair, "watcher")


@pytest.fixture(scope="module")
def frames():
    """Eight frames of 44 x 30 pixels."""
    values = np.random.default_rng(0).integers(0, 256, (8, 30, 44, 3), dtype=np.uint8)
    return [Image.fromarray(value) for value in values]


class TableFinder:
    """Finds the same boxes in every picture and counts the pictures that it is asked for."""

    def __init__(self, *boxes: list[float]) -> None:
        self.boxes, self.seen = boxes, 0

    def find(self, images):
        self.seen += len(images)
        scores = np.linspace(0.2, 0.9, len(self.boxes))
        names = ["thing"] * len(self.boxes)
        return [Boxes(self.boxes, image_frame(image), scores, names) for image in images]


@pytest.fixture
def prompts(monkeypatch):
    """What reaches `generate`."""
    seen: list[dict] = []
    generate = ParfocalForConditionalGeneration.generate

    def spy(self, **options):
        seen.append(options)
        return generate(self, **options)

    monkeypatch.setattr(ParfocalForConditionalGeneration, "generate", spy)
    return seen


def test_a_video_is_eight_pictures_in_a_row_of_text(watcher, frames, prompts):
    answer = watcher.ask(frames, QUESTION, **SHORT)
    settings = watcher.processor.settings
    ids = prompts[0]["input_ids"]
    assert int((ids == settings.token_ids.image).sum()) == 8 * settings.num_image_tokens
    slots = ids == settings.token_ids.region
    assert int(slots.sum()) == 8 * settings.num_slots
    assert int(prompts[0]["attention_mask"][slots].sum()) == 8  # the empty box of each frame
    assert answer.image.tobytes() == frames[0].tobytes()
    assert answer.regions is None


def test_a_batch_of_videos_and_pictures_equals_singles(watcher, frames):
    first, second, _ = pictures()
    shown = [frames, first, frames[2:5], second, frames]
    boxes = [[[BOX], [], [BOX, OTHER], *[None] * 5], [OTHER], None, None, None]
    together = watcher.ask_batch(shown, [QUESTION] * 5, boxes, **SHORT)
    for one, own, answer in zip(shown, boxes, together, strict=True):
        alone = watcher.ask(one, QUESTION, own, **SHORT)
        assert str(alone) == str(answer)
        assert alone.regions == answer.regions
        np.testing.assert_allclose(alone.proposals.xyxy, answer.proposals.xyxy, atol=1e-3)
    assert together[0].regions.to_json() == [BOX]


def test_boxes_of_every_frame_reach_the_model(watcher, frames, prompts):
    watcher.ask(frames[:2], QUESTION, [[BOX], [OTHER]], **SHORT)
    watcher.ask(frames[:2], QUESTION, [[BOX], [BOX]], **SHORT)
    one, other = (seen["region_features"].unflatten(1, (2, -1))[0] for seen in prompts)
    assert torch.allclose(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-4)
    assert torch.equal(prompts[0]["input_ids"], prompts[1]["input_ids"])  # not named in the words


def test_boxes_that_the_crop_leaves_out_do_not_count(watcher, frames, prompts):
    watcher.ask(frames[:1], QUESTION, [[[0, 0, 5, 30], BOX]], **SHORT)  # 7 columns are cut off
    watcher.ask(frames[:1], QUESTION, [[BOX]], **SHORT)
    assert torch.allclose(prompts[0]["region_features"], prompts[1]["region_features"])


def test_the_same_video_is_encoded_once(watcher, frames, monkeypatch):
    sizes = []
    encode = ParfocalForConditionalGeneration.encode
    monkeypatch.setattr(
        ParfocalForConditionalGeneration,
        "encode",
        lambda self, values: sizes.append(len(values[0])) or encode(self, values),
    )
    watcher.ask_batch([frames, frames], [QUESTION, "is it?"], **SHORT)
    assert sizes == [8]


def test_a_file_equals_its_frames(watcher, tmp_path):
    from parfocal.video import load_video
    from tests.unit.clips import write_clip

    clip = write_clip(tmp_path / "clip.mp4", 11)
    answer = watcher.ask(clip, QUESTION, **SHORT)
    assert str(answer) == str(watcher.ask(load_video(clip), QUESTION, **SHORT))
    assert str(answer) == str(watcher.ask(clip.read_bytes(), QUESTION, **SHORT))


def test_long_questions_are_noticed(watcher, frames, caplog, monkeypatch):
    monkeypatch.setattr(watcher.model.config.text_config, "max_position_embeddings", 20)
    with caplog.at_level(logging.WARNING, "parfocal"):
        watcher.ask(frames, QUESTION, **SHORT)
    assert "was made for 20" in caplog.text


def test_who_may_be_asked_about_a_video(watcher, tiny_predictor, frames):
    assert watcher.takes_video
    assert not tiny_predictor.takes_video
    with pytest.raises(ConfigError, match="tiny reads one picture at a time"):
        tiny_predictor.ask(frames, QUESTION)
    with pytest.raises(ConfigError, match="asked about and nothing else"):
        watcher.describe(frames)
    with pytest.raises(DataError, match="list of frames is empty"):
        watcher.ask([], QUESTION)
    with pytest.raises(DataError, match="one list of boxes a frame"):
        watcher.ask(frames, QUESTION, [[BOX]])
    with pytest.raises(FrameError, match="not inside the picture"):
        watcher.ask(frames[:1], QUESTION, [[[0, 0, 90, 90]]])


# Finders


def test_a_finder_gives_what_the_user_did_not(pair, frames, prompts):
    finder = TableFinder(BOX, OTHER)
    with_finder, without = Predictor(*pair, "finder", finder), Predictor(*pair, "watcher")
    picture = frames[0]
    found = with_finder.ask(picture, QUESTION, **SHORT)
    assert finder.seen == 1
    assert found.regions is None
    np.testing.assert_allclose(found.proposals.xyxy, [BOX, OTHER], atol=1)
    given = without.ask(picture, QUESTION, [BOX, OTHER], **SHORT)
    assert torch.allclose(prompts[0]["region_features"], prompts[1]["region_features"])
    assert given.regions is not None
    with_finder.ask(picture, QUESTION, [OTHER], **SHORT)
    assert finder.seen == 1  # the user's boxes stand


def test_a_finder_is_asked_for_every_frame_and_turn(pair, frames):
    finder = TableFinder(BOX)
    asking = Predictor(*pair, "finder", finder)
    asking.ask(frames, QUESTION, **SHORT)
    assert finder.seen == 8
    talk = asking.chat(frames[0])
    talk.ask(QUESTION, **SHORT)
    talk.ask(QUESTION, **SHORT)
    assert finder.seen == 10


def test_the_best_boxes_fill_the_slots_in_order(pair, frames):
    boxes = [[k, k, k + 9, k + 9] for k in range(0, 20, 4)]  # scores rise
    outside = [-60.0, -60.0, -50.0, -50.0]
    answer = Predictor(*pair, "finder", TableFinder(outside, *boxes)).ask(
        frames[0], QUESTION, **SHORT
    )
    np.testing.assert_allclose(answer.proposals.xyxy, boxes[2:], atol=1)


def test_models_that_ask_no_detector_take_no_finder(tiny_pair):
    with pytest.raises(ConfigError, match=r"tiny does not read the boxes of a detector.*MG-LLaVA"):
        Predictor(*tiny_pair, "tiny", TableFinder(BOX))


def test_without_a_finder_the_log_says_so_once(watcher, tiny_predictor, frames, caplog):
    with caplog.at_level(logging.WARNING, "parfocal"):
        tiny_predictor.ask(frames[0], "Where?", **SHORT)
        watcher.ask(frames[0], QUESTION, [BOX], **SHORT)
        assert not caplog.records
        watcher.ask(frames[0], QUESTION, **SHORT)
        watcher.ask(frames[1], QUESTION, **SHORT)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "finder=" in caplog.text
