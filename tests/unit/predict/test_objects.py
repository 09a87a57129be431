"""Object images through the predictor: as boxes, as pictures, in options, in conversations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.sample import cut
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText, ObjectRef
from parfocal.errors import ConfigError, DataError, FrameError
from parfocal.images import image_frame
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.predict.asking import read_objects, read_question
from parfocal.predict.predictor import Predictor
from tests.unit.models.builders import build_tiny_grounding_gpt

ONE, TWO = [5, 10, 30, 45], [40.5, 50, 90, 90]
OPTIONS = "Which is it? a. [object 1]; b. [object 2]"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_tiny_grounding_gpt(), "toy")


@pytest.fixture
def seen(monkeypatch) -> list[tuple[torch.Tensor, list[list[bool]]]]:
    """First tower's object pixels, and the masks, of each question that shows objects."""
    calls: list = []
    encode = ParfocalForConditionalGeneration.encode_objects

    def spy(self, pixel_values, mask):
        calls.append((pixel_values[0], mask.tolist()))
        return encode(self, pixel_values, mask)

    monkeypatch.setattr(ParfocalForConditionalGeneration, "encode_objects", spy)
    return calls


@pytest.fixture
def picture(pictures) -> Image.Image:
    return pictures[0]  # 96 x 96


def test_boxes_are_cut_out_and_pictures_taken_as_they_are(predictor, picture, seen):
    other = Image.new("RGB", (20, 30), "red")
    answer = predictor.ask(picture, OPTIONS, objects=[ONE, other], max_new_tokens=3)
    assert answer.question.plain == OPTIONS
    ((pixels, mask),) = seen
    assert mask == [[True, True]]
    expected = predictor.processor.pixel_values([picture.crop(tuple(ONE)), other])[0][0]
    assert torch.equal(pixels[0], expected)


def test_objects_that_the_words_leave_out_come_at_the_end(predictor, picture, seen):
    answer = predictor.ask(picture, "Where is it?", objects=Boxes([ONE], image_frame(picture)))
    assert answer.question == GroundedText.of("Where is it? ", ObjectRef(1))
    assert len(seen) == 1


def test_a_batch_equals_singles(predictor, pictures):
    questions = [OPTIONS, "What is it?", "Where is [object 1]?", OPTIONS]
    objects = [[ONE, pictures[1]], None, [pictures[2]], [[0, 0, 20, 30], [10, 10, 30, 60]]]
    together = predictor.ask_batch(pictures, questions, objects=objects, max_new_tokens=6)
    for answer, image, question, own in zip(together, pictures, questions, objects, strict=True):
        alone = predictor.ask(image, question, objects=own, max_new_tokens=6)
        assert str(answer) == str(alone)


def test_later_turns_of_a_chat_see_the_objects_of_earlier_ones(predictor, picture, seen):
    chat = predictor.chat(picture)
    chat.ask("Where is [object 1]?", objects=[ONE], max_new_tokens=2)
    chat.answers[0] = _with_words(chat.answers[0], "there")
    chat.ask("Or [object 1]?", objects=[TWO], max_new_tokens=2)
    pixels, mask = seen[1]
    assert mask == [[True, True]]
    expected = predictor.processor.pixel_values([cut(picture, ONE), cut(picture, TWO)])[0][0]
    assert torch.equal(pixels[0], expected)
    assert chat.answers[1].question == GroundedText.of("Or ", ObjectRef(2), "?")


def _with_words(answer, words: str):
    """The same answer in words that can be written again."""
    from dataclasses import replace

    return replace(answer, text=GroundedText.of(words))


@pytest.mark.parametrize(
    "objects",
    [[(1, 2, 11, 22)], [np.array([1.0, 2, 11, 22])], [Image.new("RGB", (10, 20))],
     [np.zeros((20, 10, 3), np.uint8)]],
    ids=["tuple", "array of a box", "picture", "array of pixels"],
)  # fmt: skip
def test_what_an_object_may_be(picture, objects):
    (found,) = read_objects(picture, objects)
    assert found.size == (10, 20)


def test_questions_count_objects_from_one():
    text = read_question("Is [object 2] like [object 1] or [object 0]?", 0, num_objects=3)
    assert text.plain == "Is [object 2] like [object 1] or [object 0]? [object 3]"
    assert [span.image for span in text.spans if isinstance(span, ObjectRef)] == [2, 1, 3]


def test_refusals(predictor, picture):
    with pytest.raises(DataError, match=r"\[object 2\] but 1 object images were given"):
        predictor.ask(picture, OPTIONS, objects=[ONE])
    with pytest.raises(FrameError, match="not inside the picture"):
        predictor.ask(picture, OPTIONS, objects=[ONE, [0, 0, 200, 20]])
    unnamed = GroundedText.of("Is it ", ObjectRef(1), "?")
    with pytest.raises(DataError, match=r"does not name \[object 2\].*ObjectRef\(2\)"):
        predictor.ask(picture, unnamed, objects=[ONE, TWO])
    with pytest.raises(DataError, match="as many of each"):
        predictor.ask_batch([picture], ["what?"], objects=[])


def test_a_model_without_words_for_boxes_is_told_to_show_objects(predictor, picture, monkeypatch):
    monkeypatch.setattr(predictor.processor, "dialect", get_dialect("plain"))
    with pytest.raises(ConfigError, match=r"as an object image, objects=\[\.\.\.\], or ask about"):
        predictor.ask(picture, "What is it?", [ONE])
