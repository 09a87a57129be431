"""Short answers: normal form, soft accuracy, edit distance, numbers that are near enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import DataError
from parfocal.eval.metrics import (
    anls_distance,
    anls_score,
    best_anls,
    edit_distance,
    evalai_match,
    evalai_normalise,
    ocrvqa_match,
    relaxed_match,
    split_mean,
    textvqa_accuracy,
    textvqa_question,
    vqav2_submission,
)
from parfocal.eval.metrics.evalai import remove_punctuation

NORMAL_FORMS = {
    "the comma goes before it could part words": ("left,right", "leftright"),
    "a mark between words parts them": ("t-shirt", "t shirt"),
    "a mark with a space beside it goes": ("rock - paper-scissors", "rock paperscissors"),
    "& is no mark": ("black&white", "black&white"),
    "a full stop inside a number stays": ("3.5 m.", "3.5 m"),
    "a full stop after a number goes": ("3.", "3"),
    "a clock stays": ("10:30", "10:30"),
    "line ends and tabs": (" blue\n\tsky ", "blue sky"),
    "number words up to ten": ("Zero ten eleven", "0 10 eleven"),
    "articles alone": ("An apple, a thing: the", "apple thing:"),
    "one apostrophe left out": ("dont couldn'tve couldnt've", "don't couldn't've couldn't've"),
    "both apostrophes left out": ("couldntve", "couldntve"),
    "somebody'd, which the table has the wrong way round": ("somebody'd", "somebodyd"),
    "what a small letter cannot match": ("Im Ive", "im ive"),
    "nothing": ("", ""),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), NORMAL_FORMS.values(), ids=NORMAL_FORMS)
def test_normal_form(text: str, expected: str) -> None:
    assert evalai_normalise(text) == expected


def test_only_32_full_stops_go() -> None:
    assert remove_punctuation("." * 40) == "." * 8


def test_a_comma_between_digits_deletes_every_mark() -> None:
    assert remove_punctuation("1,000-2,000/x") == "10002000x"
    assert remove_punctuation("a,b-c") == "a b c"


@given(st.text())
def test_a_normal_form_has_single_blanks_and_small_letters(text: str) -> None:
    found = evalai_normalise(text)
    assert found == " ".join(found.split())
    assert found == found.lower()


@pytest.mark.parametrize(
    ("agree", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_soft_accuracy_by_number_who_agree(agree: int, score: float) -> None:
    answers = ["the Cat"] * agree + [f"dog {index}" for index in range(10 - agree)]
    assert textvqa_accuracy("cat.", answers) == pytest.approx(score)


def test_soft_accuracy_needs_ten_answers() -> None:
    with pytest.raises(DataError, match=r"has 9 answers, it must have 10.*validation file"):
        textvqa_accuracy("cat", ["cat"] * 9)


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("What is it?", id="one line"),
        pytest.param("a\nb\nc", id="three lines without OCR tokens"),
        pytest.param("OCR tokens: A. What is it?", id="OCR tokens without a question"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_prompt_without_a_question_is_refused(prompt: str) -> None:
    with pytest.raises(DataError, match="no question that can be told"):
        textvqa_question(prompt)


def test_exact_matches() -> None:
    assert evalai_match("Two dogs", ["cat", "2 dogs."])
    assert not evalai_match("dogs", ["dog"])
    assert not evalai_match("a", ["the"]), "both are empty in normal form"
    assert ocrvqa_match(" Stephen KING\n", ["x", "stephen king "])
    assert not ocrvqa_match("the king", ["king"])


def test_every_question_of_the_test_set_is_submitted() -> None:
    rows = vqav2_submission([3, 1, 2], {1: "Two!", 2: "dont know"})
    assert rows == [
        {"question_id": 3, "answer": ""},
        {"question_id": 1, "answer": "2"},
        {"question_id": 2, "answer": "don't know"},
    ]
    with pytest.raises(DataError, match=r"2 outputs belong to no question.*first: 8"):
        vqav2_submission([3], {9: "x", 8: "y"})


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "bca", 2), ("same", "same", 0)],
)
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == distance


@given(st.text("ab ", max_size=6), st.text("ab ", max_size=6), st.text("ab ", max_size=6))
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def test_anls() -> None:
    assert best_anls("coca  cola", ["Pepsi", "Coca Cola"]) == 1.0
    assert best_anls("hello", ["hello world"]) == 0.0, "5 of 11 letters are below one half"
    assert best_anls("abxy", ["abcd"]) == 0.5, "one half itself counts"
    assert best_anls("", ["x"]) == 0.0
    assert anls_score([0.4], threshold=0.7) == 0.0
    assert anls_distance("spaced   ouT", "spaced out!") == pytest.approx(1 / 12), "raw length"


def test_relaxed_match() -> None:
    assert relaxed_match(" 95 ", ["100"]), "five percent itself counts"
    assert not relaxed_match("94.9", ["100"])
    assert relaxed_match("-1.04", ["-1"])
    assert not relaxed_match("0.0", ["0"]), "an answer of 0 must be equal in letters"
    assert relaxed_match("blue", ["Red", "Blue"])
    assert not relaxed_match("12 apples", ["12"])
    assert relaxed_match("12", ["10"], tolerance=0.2)


@pytest.mark.parametrize("score", [best_anls, relaxed_match, evalai_match, ocrvqa_match])
def test_answers_are_needed(score) -> None:
    with pytest.raises(DataError, match="there are no answers to score"):
        score("x", [])


def test_a_mean_of_nothing_is_refused() -> None:
    assert split_mean({"human": 0.0, "augmented": 1.0}) == 0.5
    with pytest.raises(DataError, match="no splits"):
        split_mean({})
    with pytest.raises(DataError, match="no questions"):
        vqav2_submission([], {})
