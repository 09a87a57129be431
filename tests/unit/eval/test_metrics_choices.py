"""Multiple choice with rotated rows, and GQA's tables, by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from parfocal.errors import DataError, ShapeError
from parfocal.eval.metrics import (
    ChoiceRow,
    GqaQuestion,
    choice_scores,
    extract_choice,
    gqa_answer,
    gqa_scores,
    options_text,
)

LETTERS = {
    "alone": ("A", "A"),
    "in brackets": ("(B) cat", "B"),
    "in a sentence": ("The answer is C", "C"),
    "small letters are not read": ("option d", ""),
    "the first capital wins": ("Based on the picture, A", "B"),
    "beyond D": ("E", ""),
    "a run is one answer": ("AB", "AB"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("output", "letter"), LETTERS.values(), ids=LETTERS)
def test_letters(output: str, letter: str) -> None:
    assert extract_choice(output) == letter


def test_empty_options_are_left_out() -> None:
    row = {"C": "z", "A": 1.5, "B": math.nan, "D": "", "E": None, "answer": "A", "b": "x"}
    assert options_text(row) == "A. 1.5\nC. z\n"
    assert options_text({}) == ""


def test_a_question_counts_if_every_rotation_is_right() -> None:
    rows = [ChoiceRow(2, "B", "c"), ChoiceRow(1_000_002, "C", "c"), ChoiceRow(2_000_002, "D", "c")]
    assert choice_scores(rows, ["B", "C", "D"])["all"].average == 1.0
    assert choice_scores(rows, ["B", "C", "A"])["all"].average == 0.0
    assert choice_scores(rows[::-1], ["D", "C", "B"])["all"].average == 1.0, "in any order"


def test_splits_have_their_own_categories() -> None:
    rows = [
        ChoiceRow(1, "A", "color", "coarse", "dev"),
        ChoiceRow(2, "B", "count", "fine", "dev"),
        ChoiceRow(3, "C", "color", "coarse", "val"),
        ChoiceRow(1_000_003, "D", "other", "other", "other"),  # the first row names it
    ]
    scores = choice_scores(rows, ["A", "A", "C", "D"])
    assert list(scores) == ["dev", "val"]
    assert scores["dev"].to_flat() == {
        **{"Average": 0.5, "coarse": 1.0, "fine": 0.0},
        **{"color": 1.0, "count": 0.0},
    }
    assert scores["val"].to_flat() == {"Average": 1.0, "coarse": 1.0, "color": 1.0}
    assert (scores["dev"].n, scores["val"].n) == (2, 1)


def test_a_table_without_coarse_categories() -> None:
    assert choice_scores([ChoiceRow(1, "A", "c")], [""])["all"].to_flat() == {"Average": 0, "c": 0}


def test_broken_tables_are_refused() -> None:
    row = ChoiceRow(1, "A", "c")
    with pytest.raises(ShapeError, match="2 outputs for 1 rows"):
        choice_scores([row], ["A", "B"])
    with pytest.raises(DataError, match="no outputs"):
        choice_scores([], [])
    with pytest.raises(DataError, match="index 1 stands in two rows"):
        choice_scores([row, row], ["A", "A"])
    with pytest.raises(DataError, match=r"rotated rows but not the first one .*index 5"):
        choice_scores([row, ChoiceRow(1_000_005, "A", "c")], ["A", "A"])
    for answer in ("", "AB", "a", "nan"):
        with pytest.raises(DataError, match=r"no letter A to Z.*servers"):
            choice_scores([ChoiceRow(1, answer, "c")], ["A"])


RED = GqaQuestion("Is it red?", "yes", "verify", "attr", steps=1, group="color")


def test_gqa_answers_lose_capitals_and_final_full_stops() -> None:
    assert gqa_answer("Traffic Light...") == "traffic light"
    assert gqa_answer("yes. ") == "yes. ", "blanks stay"


def test_gqa_by_hand() -> None:
    what = dataclasses.replace(RED, question="What is it?", answer="cat", structural="query")
    questions = {
        "0": RED,
        "1": what,
        "2": dataclasses.replace(what, question="What can this be?", steps=10, semantic="obj"),
        "3": dataclasses.replace(what, steps=2, group=None),
        "4": dataclasses.replace(what, balanced=False),
    }
    outputs = {"0": "No", "1": "cat", "2": "Cat.", "3": "dog", "unasked": "x"}
    scores = gqa_scores(questions, outputs)
    assert (scores.n, scores.accuracy) == (4, 50.0), "the unbalanced question is not scored"
    assert (scores.binary, scores.open) == (0.0, pytest.approx(200 / 3))
    assert scores.by_structural == {"query": (pytest.approx(200 / 3), 3), "verify": (0.0, 1)}
    assert scores.by_semantic == {"attr": (pytest.approx(100 / 3), 3), "obj": (100.0, 1)}
    assert list(scores.by_steps) == [1, 2, 10], "as numbers, not as words"
    assert scores.by_words == {3: (pytest.approx(100 / 3), 3), 4: (100.0, 1)}
    # Of the group's three answers (one yes, two cat), two cat and no yes were said: (1 + 0) / 1.
    assert scores.distribution == pytest.approx(0.01)


def test_gqa_weighs_groups_by_their_size() -> None:
    other = dataclasses.replace(RED, answer="cat", group="animal")
    questions = {"0": RED, "1": other, "2": other, "3": other}
    scores = gqa_scores(questions, dict.fromkeys(questions, "yes"))
    assert scores.distribution == pytest.approx((0 * 1 + 3 * 3) / 4 / 100)


def test_gqa_without_groups_has_no_distribution() -> None:
    scores = gqa_scores({"0": dataclasses.replace(RED, group=None)}, {"0": "yes"})
    assert scores.distribution is None
    assert not any("Distribution" in line for line in scores.lines())


def test_gqa_reads_its_question_file() -> None:
    operations = [("select", "dog (1)"), ("filter color", "red"), ("exist", "?"), ("query", "name")]
    operations += [("choose name", "dog|cat"), ("verify color", "exists")]
    row = {
        "question": "What is it?",
        "answer": "dog",
        "types": {"structural": "query", "semantic": "obj", "detailed": "x"},
        "semantic": [{"operation": name, "argument": words} for name, words in operations],
        "groups": {"global": None, "local": "x"},
        "isBalanced": True,
    }
    assert GqaQuestion.from_json(row) == GqaQuestion("What is it?", "dog", "query", "obj", 2)
    with pytest.raises(DataError, match=r"question '7' is no question of GQA .*types"):
        GqaQuestion.from_json({**row, "types": {}}, "question '7'")
    with pytest.raises(DataError, match="TypeError"):
        GqaQuestion.from_json({**row, "groups": None})


def test_gqa_needs_an_answer_to_every_question() -> None:
    with pytest.raises(DataError, match=r"1 GQA questions have no output .first: '1'"):
        gqa_scores({"0": RED, "1": RED}, {"0": "yes"})
    with pytest.raises(DataError, match="no balanced GQA questions"):
        gqa_scores({"0": dataclasses.replace(RED, balanced=False)}, {})
