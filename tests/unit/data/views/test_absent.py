"""Absent things: verified ones, or those of a vocabulary that nothing in the picture may mean."""

from __future__ import annotations

import pytest

from parfocal.data.views import get_view
from parfocal.data.views.wording import read_wordings
from parfocal.dialects.grounded import GroundedText, Nothing
from parfocal.errors import ConfigError

VIEW = get_view("absent")
UNKNOWN = {"pictures of which nothing is known to be absent": 1}


def names(made):
    return [turn.text.phrases[0].text for item in made for turn in item.turns[::2]]


def test_what_may_be_there_is_never_asked_for(annotate, make):
    vocabulary = [
        "dog",  # a label
        "brown dog",  # the dog may be brown
        "glass",  # "two glasses" stands in the caption
        "green apple",  # hidden
        "hat",  # inside the label "man with a hat"
        "Zebra",
    ]
    caption = GroundedText.of("There are two glasses.")
    regions = [("the dog", [0, 0, 50, 50]), ("man with a hat", [60, 0, 99, 99])]
    sample = annotate(regions, caption, hidden=["green apple"])
    made, _ = make(sample, VIEW(vocabulary=vocabulary, count=6))
    assert names(made) == ["zebra"]
    assert made[0].turns[1].text == GroundedText.of(Nothing())
    assert make(sample, VIEW(vocabulary=vocabulary[:5]))[1] == UNKNOWN


def test_verified_negatives_are_all_there_is(annotate, make):
    # of a federated dataset, a name that is no label may still be in the picture
    sample = annotate([("dog", [0, 0, 50, 50])], neg_categories=["yak", "dog"])
    view = VIEW(vocabulary=["zebra"], count=9)
    assert names(make(sample, view)[0]) == ["yak"]
    assert make(annotate(neg_categories=[]), view)[1] == UNKNOWN
    assert make(annotate(), VIEW())[1] == UNKNOWN


def test_questions_are_worded_as_those_about_present_things():
    # otherwise the wording would give the answer away
    assert VIEW().wordings == read_wordings(get_view("rec")().wording, {"question": ("phrase",)})


def test_count_and_choice(annotate, make):
    vocabulary = [f"thing{letter}" for letter in "bcdfghjklm"]
    made, _ = make(annotate(), VIEW(vocabulary=vocabulary, count=4))
    assert len(set(names(made))) == 4
    seen = {names(make(annotate(), VIEW(vocabulary=vocabulary), seed)[0])[0] for seed in range(80)}
    assert seen == set(vocabulary)


@pytest.mark.parametrize("vocabulary", ["dog", ["dog", ""], ["object"]])
def test_vocabularies_are_checked(vocabulary):
    with pytest.raises(ConfigError, match="vocabulary"):
        VIEW(vocabulary=vocabulary)
