"""REC: phrases that can mean one thing only, and their boxes."""

from __future__ import annotations

import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.views import get_view
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.errors import ConfigError, DataError

NOT_UNIQUE = "phrases that are not unique in their picture"
REC = get_view("rec")


def answers(made):
    """Phrase asked for -> boxes answered."""
    return {
        item.turns[0].text.phrases[0].text: item.turns[1]
        .text.boxes(item.images[0].frame())
        .to_json()
        for item in made
    }


def test_the_answer_is_the_bare_box(annotate, make):
    made, skipped = make(annotate([("the red hat", [10, 20, 60, 80])]), REC())
    (sample,) = made
    assert sample.turns[1].text == GroundedText.of(
        Phrase("", Boxes([[10, 20, 60, 80]], sample.images[0].frame()))
    )
    assert sample.turns[0].text.phrases == (Phrase("the red hat"),)
    assert len(sample.regions) == 0  # as the user's, it would be the answer
    assert not skipped


@pytest.mark.parametrize(
    ("labels", "asked"),
    [
        (["dog", "cat"], ["dog", "cat"]),
        (["dog", "Dog"], []),
        (["dog", "brown dog"], ["brown dog"]),
        (["dog", "a dog on the beach", "beach"], ["a dog on the beach", "beach"]),
        (["dog", "dog", "cat"], ["cat"]),
        (["dog", "beach with a dog"], ["dog", "beach with a dog"]),
    ],
)
def test_what_is_not_unique_is_left_out(annotate, make, labels, asked):
    regions = [(label, [100 * i, 10, 100 * i + 50, 60]) for i, label in enumerate(labels)]
    made, skipped = make(annotate(regions), REC())
    assert list(answers(made)) == asked
    assert skipped == ({NOT_UNIQUE: len(labels) - len(asked)} if len(asked) < len(labels) else {})


def test_one_thing_drawn_twice_is_asked_for_once(annotate, make):
    # IoU of the first two is 80 / 100: MDETR's rule takes them for one
    regions = [("hat", [0, 0, 100, 100]), ("the hat", [0, 0, 100, 80]), ("tree", [0, 0, 100, 90])]
    made, skipped = make(annotate(regions), REC())
    assert answers(made) == {"hat": [[0, 0, 100, 100]], "tree": [[0, 0, 100, 90]]}
    assert skipped == {"phrases that were there before": 1}


def test_phrases_of_captions_bring_all_their_boxes(annotate, make):
    frame = Frame("image", 400, 300)
    men = Boxes([[0, 0, 50, 100], [60, 0, 110, 100]], frame)
    caption = GroundedText.of(
        Phrase("Two men", men), " follow ", Phrase("another", men[[0]]), " near ",
        Phrase("a tree"), " by ", Phrase("a river", Boxes([[0, 200, 400, 300]], frame)), ".",
    )  # fmt: skip
    made, skipped = make(annotate(caption=caption), REC())
    assert answers(made) == {"Two men": men.to_json(), "a river": [[0, 200, 400, 300]]}
    assert skipped == {"phrases that do not tell what they are about": 1}


def test_what_is_there_without_a_box_makes_its_name_unclear(annotate, make):
    regions = [("apple", [0, 0, 50, 50]), ("pear", [60, 0, 110, 50])]
    for key in ("hidden", "not_exhaustive_categories"):
        made, skipped = make(annotate(regions, **{key: ["green apple"]}), REC())
        assert list(answers(made)) == ["pear"]
        assert skipped == {NOT_UNIQUE: 1}
    with pytest.raises(DataError, match="must be a list of names"):
        make(annotate(regions, hidden="apple"), REC())


def test_phrases_about_a_second_picture_are_left_out(make):
    images = (ImageRef("a.jpg", 40, 30), ImageRef("b.jpg", 50, 20))
    there = Phrase("a cat", Boxes([[0, 0, 9, 9]], images[1].frame(1)))
    here = Phrase("a dog", Boxes([[1, 1, 9, 9]], images[0].frame()))
    sample = Sample("1", images, (Turn("assistant", GroundedText.of(there, here)),))
    made, skipped = make(sample, REC())
    assert list(answers(made)) == ["a dog"]
    assert skipped == {"phrases about another picture than the first": 1}


def test_unusable_samples_say_why(annotate, make):
    nameless = annotate([("object", [0, 0, 50, 50]), (" ", [0, 0, 60, 60])])
    assert make(nameless, REC())[1] == {"regions whose label does not tell what they are": 2}
    assert make(annotate(), REC())[1] == {"samples without regions": 1}
    words = Sample("1", (), (Turn("assistant", GroundedText.of("hello")),))
    assert make(words, REC())[1] == {"samples without a picture": 1}
    unlabelled = Sample(
        "1", (image := ImageRef("a.jpg", 9, 9),), (), Boxes([[0, 0, 4, 4]], image.frame())
    )
    assert make(unlabelled, REC())[1] == {"regions whose label does not tell what they are": 1}


def test_rounds_and_limit(annotate, make):
    sample = annotate([(f"thing {n}", [10 * n, 0, 10 * n + 9, 9]) for n in range(7)])
    made, _ = make(sample, REC(rounds=3))
    assert [len(item.turns) // 2 for item in made] == [3, 3, 1]
    whole = {text for item in made for text in (turn.text.plain for turn in item.turns[::2])}
    assert len(whole) == 7
    (first,), _ = make(sample, REC(rounds=3, limit=1))
    assert first == made[0]
    picked = {make(sample, REC(limit=1), seed)[0][0].turns[0].text.phrases[0] for seed in range(40)}
    assert len(picked) == 7


@pytest.mark.parametrize("options", [{"rounds": 0}, {"limit": 0}, {"rounds": True}, {"limit": 1.5}])
def test_options_are_checked(options):
    with pytest.raises(ConfigError, match="whole number from 1"):
        REC(**options)
