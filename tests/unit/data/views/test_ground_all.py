"""All of a category, its order, negatives, and categories that are not complete."""

from __future__ import annotations

import pytest

from parfocal.data.views import get_view
from parfocal.dialects.grounded import GroundedText, Nothing
from parfocal.errors import ConfigError

VIEW = get_view("ground_all")
REGIONS = [
    ("dog", [10, 10, 60, 60]), ("Street_Light", [100, 10, 120, 90]), ("Dog", [0, 0, 30, 30]),
    ("person", [200, 50, 260, 200]), ("dog", [300, 200, 350, 250]),
]  # fmt: skip


def answers(made):
    found = {}
    for item in made:
        for question, answer in zip(item.turns[::2], item.turns[1::2], strict=True):
            boxes = answer.text.boxes(item.images[0].frame()).to_json()
            found[question.text.phrases[0].text] = None if answer.text.is_nothing else boxes
    return found


def test_every_box_of_a_category_in_order(annotate, make):
    made, skipped = make(annotate(REGIONS), VIEW())
    assert answers(made) == {
        "dog": [[10, 10, 60, 60], [0, 0, 30, 30], [300, 200, 350, 250]],
        "street light": [[100, 10, 120, 90]],
        "person": [[200, 50, 260, 200]],
    }
    assert not skipped


def test_negatives_are_answered_by_nothing(annotate, make):
    sample = annotate(REGIONS, neg_categories=["zebra", "fork", "yak", " "])
    assert "zebra" not in answers(make(sample, VIEW())[0])
    made, _ = make(sample, VIEW(negatives=2))
    absent = [name for name, boxes in answers(made).items() if boxes is None]
    assert len(absent) == 2
    assert set(absent) < {"zebra", "fork", "yak"}
    assert made[-1].turns[1].text == GroundedText.of(Nothing())
    chosen = {
        name for seed in range(30) for name in answers(make(sample, VIEW(negatives=1), seed)[0])
    }
    assert chosen >= {"zebra", "fork", "yak"}


def test_a_category_that_is_not_complete_is_not_asked_for(annotate, make):
    made, skipped = make(annotate(REGIONS, not_exhaustive_categories=["dog"]), VIEW())
    assert set(answers(made)) == {"street light", "person"}
    assert skipped == {"categories of which not everything has a box": 1}


def test_rounds_of_groma(annotate, make):
    # LVIS: up to three random categories, a round each
    (sample,), _ = make(annotate(REGIONS), VIEW(rounds=3, limit=1))
    assert len(sample.turns) == 6
    # COCO: one random category
    names = {
        name
        for seed in range(30)
        for name in answers(make(annotate(REGIONS), VIEW(limit=1), seed)[0])
    }
    assert names == {"dog", "street light", "person"}


def test_options_are_checked():
    with pytest.raises(ConfigError, match="negatives is -1"):
        VIEW(negatives=-1)
