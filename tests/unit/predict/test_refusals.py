"""Nothing that is given with a question is left out in silence: it is read, or refused.

Every kind of predictor is asked with boxes, object images and videos that it has no way to read.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.dialects import DIALECTS
from parfocal.dialects.grounded import GroundedText, RegionRef
from parfocal.errors import ConfigError, DataError, FrameError
from parfocal.images import image_frame
from parfocal.predict.predictor import Predictor
from tests.unit.models.builders import build_mg_llava, build_two_towers

SHORT = {"max_new_tokens": 2}
BOX, OTHER = [5, 10, 30, 45], [40, 50, 90, 90]
PART = Image.new("RGB", (20, 30), "red")
BARE = {"proposer": {"kind": "none"}, "regions": {"kind": "none"}}


@pytest.fixture(scope="module")
def models(make_tiny) -> dict[str, Predictor]:
    """What our own models can be like, as far as reading goes."""
    pairs = {
        "words": make_tiny(difference=BARE, dialect="plain"),
        "masks": make_tiny(difference=BARE, dialect="glamm"),
        "names without slots": make_tiny(difference=BARE, dialect="region_tokens"),
        "numbers": build_two_towers(),
        "slots": build_mg_llava(),
    }
    return {name: Predictor(*pair, name) for name, pair in pairs.items()}


@pytest.fixture
def picture(pictures) -> Image.Image:
    return pictures[0]  # 96 x 96


@pytest.mark.parametrize("door", ["ask", "locate"])
def test_halves_of_letters_are_refused(models, picture, door):
    with pytest.raises(DataError, match="is not whole Unicode text"):
        getattr(models["numbers"], door)(picture, "caf\udce9")


@pytest.mark.parametrize("words", [None, ["a cat", "a dog"], 3])
@pytest.mark.parametrize("door", ["ask", "locate"])
def test_what_is_no_text_is_refused(models, picture, door, words):
    with pytest.raises(DataError, match="must be text"):
        getattr(models["numbers"], door)(picture, words)


@pytest.mark.parametrize("boxes", [[[0.1, 0.2, 0.5, 0.9]], [[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.4]]])
def test_fractions_are_not_taken_for_pixels(models, picture, boxes):
    with pytest.raises(FrameError, match=r"look like fractions .* with Boxes\.from_unit"):
        models["numbers"].describe(picture, boxes, **SHORT)
    frame = image_frame(picture)
    models["numbers"].describe(picture, Boxes.from_unit(boxes, frame), **SHORT)


def test_a_frame_of_another_name_is_told_how_to_make_the_right_one(models, picture):
    boxes = Boxes([BOX], Frame("photo", *picture.size))
    with pytest.raises(FrameError, match=r"image_frame\(picture\)"):
        models["numbers"].describe(picture, boxes, **SHORT)


DOORS: dict[str, Callable] = {
    "ask": lambda model, image: model.ask(image, "What is it?", [BOX], **SHORT),
    "a batch": lambda model, image: model.ask_batch(
        [image, image], ["What?", "What is [region 0]?"], [None, [BOX]], **SHORT
    ),
    "describe": lambda model, image: model.describe(image, [BOX], **SHORT),
    "a first turn": lambda model, image: model.chat(image).ask("What is it?", [BOX], **SHORT),
}


@pytest.mark.parametrize("name", ["words", "masks", "names without slots"])
@pytest.mark.parametrize("door", DOORS)
def test_boxes_that_no_word_can_name_are_refused(models, picture, name, door):
    with pytest.raises(ConfigError, match=rf"{name} cannot be told which region.*picture of the"):
        DOORS[door](models[name], picture)


@pytest.mark.parametrize("boxes", [None, []], ids=["none", "empty"])
def test_a_model_of_words_alone_is_asked_without_boxes(models, picture, boxes):
    assert models["words"].ask(picture, "What is it?", boxes, **SHORT).regions is None


def test_a_later_turn_may_not_bring_boxes_either(models, picture):
    chat = models["words"].chat(picture)
    chat.ask("What is it?", **SHORT)
    with pytest.raises(ConfigError, match="words cannot be told which region"):
        chat.ask("And [region 0]?", [BOX], **SHORT)
    assert len(chat.answers) == len(chat.regions) == 1


@pytest.mark.parametrize("name", ["numbers", "slots"])
@pytest.mark.parametrize("door", DOORS)
def test_models_that_read_boxes_take_them(models, picture, name, door):
    DOORS[door](models[name], picture)


def test_only_dialects_of_numbers_say_where_a_region_is():
    silent = {name for name, dialect in DIALECTS.items() if not dialect.writes_boxes}
    assert silent == {"plain", "region_tokens", "glamm"}


# questions that were put together by hand


def test_what_is_read_where_it_is_named_must_be_named(models, picture):
    question = GroundedText.of("What is ", RegionRef(1), "?")
    with pytest.raises(DataError, match=r"does not name \[region 0\].*RegionRef\(0\)"):
        models["numbers"].ask(picture, question, [BOX, OTHER], **SHORT)
    asked = GroundedText.of("Is ", RegionRef(1), " like ", RegionRef(0), "?")
    assert models["numbers"].ask(picture, asked, [BOX, OTHER], **SHORT).regions is not None


def test_what_has_a_slot_need_not_be_named(models, tiny_predictor, picture):
    for model in (models["slots"], tiny_predictor):
        answer = model.ask(picture, GroundedText.of("what is it?"), [BOX], **SHORT)
        assert answer.regions.to_json() == [BOX]


def test_a_later_turn_must_name_its_own_boxes_only(models, picture):
    chat = models["numbers"].chat(picture)
    chat.ask("What is [region 0]?", [BOX], **SHORT)
    chat.ask(GroundedText.of("And ", RegionRef(0), "?"), [OTHER], **SHORT)
    with pytest.raises(DataError, match=r"does not name \[region 0\]"):
        chat.ask(GroundedText.of("And?"), [OTHER], **SHORT)
    assert len(chat.answers) == 2


# object images


@pytest.mark.parametrize("objects", [[BOX], [PART]], ids=["a box", "a picture"])
@pytest.mark.parametrize("question", ["Is it [object 1]?", "What is it?", GroundedText.of("What?")])
@pytest.mark.parametrize("name", ["words", "numbers", "slots"])
def test_object_images_are_refused_by_models_that_read_none(
    models, picture, name, question, objects
):
    with pytest.raises(ConfigError, match=f"{name} reads no object images"):
        models[name].ask(picture, question, objects=objects, **SHORT)


def test_a_later_turn_may_not_bring_objects_either(models, picture):
    chat = models["numbers"].chat(picture)
    chat.ask("What is it?", **SHORT)
    with pytest.raises(ConfigError, match="numbers reads no object images"):
        chat.ask("And [object 1]?", objects=[BOX], **SHORT)
    assert len(chat.answers) == len(chat.objects) == 1


# boxes that are nobody's


def test_a_slot_that_only_fills_a_place_is_no_proposal(models, picture):
    slots = models["slots"]
    with pytest.raises(ConfigError, match="slots proposes no boxes"):
        slots.propose(picture)
    bare, given = slots.ask_batch([picture] * 2, ["What?"] * 2, [None, [BOX]], **SHORT)
    assert len(bare.proposals) == 0
    assert given.proposals.xyxy[0] == pytest.approx(BOX, abs=1)  # of the pixels of the input


# videos


VERBS: dict[str, Callable] = {
    "ask": lambda model, video: model.ask(video, "What?"),
    "locate": lambda model, video: model.locate(video, "a dog"),
    "describe": lambda model, video: model.describe(video),
    "describe boxes": lambda model, video: model.describe(video, [BOX]),
    "propose": lambda model, video: model.propose(video),
    "chat": lambda model, video: model.chat(video),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_of_a_model_of_pictures_takes_a_video(tiny_predictor, picture, verb):
    with pytest.raises(ConfigError, match="tiny reads one picture at a time"):
        VERBS[verb](tiny_predictor, [picture, picture])


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "ask"])
def test_a_model_that_watches_is_asked_and_nothing_else(models, picture, verb):
    with pytest.raises(ConfigError, match="a video can be asked about and nothing else"):
        VERBS[verb](models["slots"], [picture, picture])


def test_boxes_in_a_video_need_slots(models, picture, monkeypatch):
    numbers = models["numbers"]
    monkeypatch.setattr(type(numbers), "takes_video", True)
    read = numbers.processor.pixel_values
    monkeypatch.setattr(numbers.processor, "pixel_values", lambda images, frames: read(images))
    with pytest.raises(ConfigError, match="takes none with a video"):
        numbers.ask([picture, picture], "What?", [[BOX], None], **SHORT)
    assert str(numbers.ask([picture, picture], "What?", **SHORT)) is not None


# options


def test_an_option_that_nothing_reads_is_refused(tiny_predictor, picture):
    for option in ("threshold", "max_tokens"):
        with pytest.raises(ValueError, match=option):
            tiny_predictor.ask(picture, "What?", **{option: 1})
