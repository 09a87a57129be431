"""Relations: each part from the other two, never where there are several answers."""

from __future__ import annotations

import pytest

from parfocal.data.views.relation_qa import RelationQa
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.errors import ConfigError, DataError

MAN, HORSE, HAT, DOG = [0, 0, 100, 200], [50, 100, 250, 300], [20, 0, 60, 30], [300, 200, 380, 290]
REGIONS = [("man", MAN), ("horse", HORSE), ("hat", HAT), ("dog", DOG)]
SEVERAL = "questions about relations that have several answers"


def parts(made):
    """(answer as words, boxes answered, regions given) of every question."""
    return [
        (
            item.turns[1].text.plain,
            item.turns[1].text.boxes(item.images[0].frame()).to_json(),
            item.regions.to_json(),
        )
        for item in made
    ]


def test_each_part_from_the_other_two(annotate, make):
    made, skipped = make(annotate(REGIONS, relations=[[0, " Riding ", 1]]), RelationQa())
    assert parts(made) == [
        ("man", [MAN], [HORSE]),
        ("riding", [], [MAN, HORSE]),
        ("horse", [HORSE], [MAN]),
    ]
    subject, predicate, object_ = (item.turns[0].text.plain for item in made)
    assert "horse [region 0]" in subject
    assert "riding" in subject
    assert "man" not in subject
    assert "man [region 0]" in predicate
    assert "horse [region 1]" in predicate
    assert "riding" not in predicate
    assert "man [region 0]" in object_
    assert "horse" not in object_
    assert made[0].turns[1].text == GroundedText.of(
        Phrase("man", made[0].turns[1].text.phrases[0].boxes)
    )
    assert "relations" not in made[0].meta
    assert not skipped


def test_what_has_several_answers_is_not_asked(annotate, make):
    relations = [[0, "wearing", 2], [0, "wearing", 3], [0, "riding", 1], [0, "on", 1]]
    made, skipped = make(annotate(REGIONS, relations=relations), RelationQa())
    # "man wearing ?" has two answers, "man ? horse" as well: each is stated twice
    assert skipped == {SEVERAL: 4}
    assert [answer for answer, _, _ in parts(made)] == [
        "man", "wearing", "man", "wearing", "man", "horse", "man", "horse"
    ]  # fmt: skip


def test_one_thing_annotated_twice_is_one_answer(annotate, make):
    twice = [*REGIONS, ("Horse", [50, 100, 250, 295])]
    made, skipped = make(
        annotate(twice, relations=[[0, "riding", 1], [0, "riding", 4]]), RelationQa()
    )
    assert parts(made) == [
        ("man", [MAN], [HORSE]), ("riding", [], [MAN, HORSE]), ("horse", [HORSE], [MAN])
    ]  # fmt: skip
    assert not skipped


def test_asks_and_rounds(annotate, make):
    sample = annotate(REGIONS, relations=[[0, "riding", 1], [0, "wearing", 2], [3, "chasing", 1]])
    made, _ = make(sample, RelationQa(asks=["object"]))
    assert [answer for answer, _, _ in parts(made)] == ["horse", "hat", "horse"]
    (whole,), _ = make(sample, RelationQa(rounds=5))
    assert len(whole.turns) == 6  # one part of each: no answer stands in an earlier turn
    for asks in (["relation"], "object"):
        with pytest.raises(ConfigError, match="subject, predicate, object"):
            RelationQa(asks=asks)


def test_unusable_relations_say_why(annotate, make):
    assert make(annotate(REGIONS), RelationQa())[1] == {"samples without relations": 1}
    nameless = annotate([("object", MAN), ("horse", HORSE)], relations=[[0, "on", 1], [1, "", 1]])
    assert make(nameless, RelationQa())[1] == {"relations of what has no name": 2}


@pytest.mark.parametrize(
    "relations", ["x", [[0, "on"]], [[0, "on", 4]], [[-1, "on", 1]], [[0, 1, 1]], [[True, "on", 1]]]
)
def test_broken_relations_are_named(annotate, make, relations):
    with pytest.raises(DataError, match=r"'made:train:7'.*4 regions"):
        make(annotate(REGIONS, relations=relations), RelationQa())
