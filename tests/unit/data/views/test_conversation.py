"""Conversations that are there already: as they are, behind a mark, or left out with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.data.sample import ImageRef, Turn
from parfocal.data.views.conversation import Conversation
from parfocal.dialects.grounded import GroundedText, ObjectRef, Phrase, RegionRef

FRAME = Frame("image", 400, 300)
DOG = Phrase("a dog", Boxes([[1, 2, 30, 40]], FRAME))


def talk(*texts: GroundedText) -> tuple[Turn, ...]:
    """The texts, question and answer in turn."""
    roles = ("user", "assistant")
    return tuple(Turn(roles[index % 2], text) for index, text in enumerate(texts))


@pytest.fixture
def hat(annotate):
    """A Sample with a region."""
    return annotate([("a hat", [0, 0, 50, 50])], relations=[])


def test_turns_boxes_and_regions_stay(hat, make):
    texts = (GroundedText.of("What is ", RegionRef(0), "?"), GroundedText.of("See ", DOG, "."))
    ((made,), skipped) = make(replace(hat, turns=talk(*texts)), Conversation())
    assert tuple(turn.text for turn in made.turns) == texts
    assert made.regions == Boxes([[0, 0, 50, 50]], FRAME)
    assert made.meta["relations"] == []
    assert not skipped


def test_a_mark_leads_questions_alone(hat, make, asked):
    texts = [GroundedText.of(text) for text in ("A ", "b", "C", "d")]
    texts[0] = GroundedText.of("A ", RegionRef(0))
    sample = replace(hat, turns=talk(*texts))
    ((made,), _) = make(sample, Conversation(mark="[grounding]"))
    assert asked(made) == [("[grounding]A [region 0]", "b"), ("[grounding]C", "d")]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ((), "samples that are not questions and answers in turn"),
        (("a", "b", "c"), "samples that are not questions and answers in turn"),
        ((ObjectRef(1), "b"), "conversations that speak of an object image"),
    ],
)
def test_the_rest_is_left_out(texts, reason, hat, make):
    shown = ImageRef(None, 50, 50, parent=0, crop=(0.0, 0.0, 50.0, 50.0))
    turns = talk(*map(GroundedText.of, texts))
    sample = replace(hat, images=(*hat.images, shown), turns=turns)
    assert make(sample, Conversation()) == ([], {reason: 1})
