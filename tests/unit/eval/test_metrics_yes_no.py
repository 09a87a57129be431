"""Yes or no: POPE's rates, MME's pictures, HallusionBench's figures, by hand."""

from __future__ import annotations

import pytest

from parfocal.errors import DataError, ShapeError
from parfocal.eval.metrics import (
    MME_PERCEPTION,
    MME_REASONING,
    HallusionItem,
    HallusionScores,
    MmeItem,
    extract_yes_no,
    hallusion_scores,
    mme_category_score,
    mme_scores,
    pope_scores,
    split_mean,
    yes_no_match,
    yes_no_scores,
)

READ = {
    "not says neither": ("There is not a dog.", "Unknown"),
    "a full stop does not end the reading": ("No. Yes.", "Unknown"),
    "no as a word": ("There isn't any. no", "No"),
    "capitals": ("NO", "No"),
    "part of a word": ("know", "Unknown"),
    "a mark parts words": ("yes-sir", "Yes"),
    "a mark with a space beside it joins them": ("yes-sir - ok", "Unknown"),
}


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=READ)
def test_reading(text: str, expected: str) -> None:
    assert extract_yes_no(text) == expected


def test_what_says_neither_is_wrong() -> None:
    assert yes_no_match("yes!", "Yes")
    assert not yes_no_match("I cannot see", "No")
    with pytest.raises(DataError, match="'maybe' is neither yes nor no"):
        yes_no_match("yes", "maybe")


def test_pope_by_hand() -> None:
    outputs = ["Yes", "yes, it is", "No", "not sure", "Yes"]
    scores = pope_scores(outputs, ["yes", "no", "no", "yes", "yes"])
    assert scores.n == 5
    assert scores.accuracy == pytest.approx(3 / 5), "'not sure' counts as no, which is wrong"
    assert scores.precision == scores.recall == pytest.approx(2 / 3)
    assert scores.f1 == pytest.approx(2 / 3)
    assert scores.yes_ratio == pytest.approx(3 / 5), "of the answers, not of the labels"
    assert split_mean({"random": scores.f1, "popular": 0.0}) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("said", "right", "expected"),
    [
        pytest.param([0, 0], [1, 0], (0, 0.5, 0, 0, 0), id="never yes"),
        pytest.param([1, 1], [1, 0], (2 / 3, 0.5, 0.5, 1, 1), id="always yes"),
        pytest.param([1, 1], [0, 0], (0, 0, 0, 0, 1), id="yes is never right"),
        pytest.param([0, 0], [0, 0], (0, 1, 0, 0, 0), id="right, but nothing to find"),
    ],
)
def test_rates_at_the_edges(said: list, right: list, expected: tuple) -> None:
    scores = yes_no_scores(said, right)
    found = (scores.f1, scores.accuracy, scores.precision, scores.recall, scores.yes_ratio)
    assert found == pytest.approx(expected)


def test_pope_refuses_what_does_not_pair() -> None:
    with pytest.raises(ShapeError, match="1 outputs for 2 answers"):
        pope_scores(["yes"], ["yes", "no"])
    with pytest.raises(DataError, match="no outputs to score"):
        pope_scores([], [])
    with pytest.raises(DataError, match="neither yes nor no"):
        pope_scores(["yes"], [""])


def mme_items(correct: bool) -> list[MmeItem]:
    names = (*MME_PERCEPTION, *MME_REASONING)
    return [MmeItem(name, "1.jpg", correct) for name in names for _ in range(2)]


@pytest.mark.parametrize(("correct", "share"), [(True, 1), (False, 0)])
def test_mme_of_a_perfect_and_a_wrong_model(correct: bool, share: int) -> None:
    scores = mme_scores(mme_items(correct))
    assert (scores["perception"], scores["reasoning"]) == (2000 * share, 800 * share)
    assert list(scores) == ["perception", "reasoning", *MME_PERCEPTION, *MME_REASONING]


def test_mme_by_hand() -> None:
    one_of_two = [MmeItem("color", "1.jpg", True), MmeItem("color", "1.jpg", False)]
    both = [MmeItem("color", "2.jpg", True)] * 2
    assert mme_category_score(one_of_two + both) == 75 + 50
    interleaved = [one_of_two[0], both[0], one_of_two[1], both[1]]
    assert mme_category_score(interleaved) == 125, "pictures are told by name, not by order"


def test_mme_refuses_half_a_benchmark() -> None:
    with pytest.raises(DataError, match=r"missing: \['OCR'\]"):
        mme_scores([item for item in mme_items(True) if item.category != "OCR"])
    with pytest.raises(DataError, match=r"unknown here: \['ocr'\]"):
        mme_scores([*mme_items(True), MmeItem("ocr", "1.jpg", True)])
    with pytest.raises(DataError, match=r"'1\.jpg' has 3 questions, it must have 2"):
        mme_scores([*mme_items(True), MmeItem("OCR", "1.jpg", True)])
    with pytest.raises(DataError, match="no MME questions"):
        mme_scores([])
    with pytest.raises(DataError, match="no MME questions"):
        mme_category_score([])


def hallusion(l2: str, numbers: str, correct: bool, category: str = "VD") -> HallusionItem:
    return HallusionItem(f"x_{category}_{l2}_{numbers}", category, l2, correct)


def test_hallusion_by_hand() -> None:
    items = [  # the last three numbers: set, figure, question
        hallusion("map", "0_0_0", True),
        hallusion("map", "0_0_1", True),  # figure 0 of set 0 is right
        hallusion("map", "0_1_0", False),
        hallusion("map", "0_1_1", True),  # question 1 of set 0 is right, figure 1 is not
        hallusion("ocr", "0_0_0", False, "VS"),  # another set 0
    ]
    report = hallusion_scores(items)
    assert report.overall == HallusionScores(60.0, 100 / 3, 100 / 3)
    assert report.by_category == {
        "VD": HallusionScores(75.0, 50.0, 50.0),
        "VS": HallusionScores(0.0, 0.0, 0.0),
    }
    assert list(report.by_l2_category) == ["map", "ocr"]


def test_hallusion_refuses_what_it_cannot_number() -> None:
    with pytest.raises(DataError, match="'7' has 1 parts"):
        hallusion_scores([HallusionItem("7", "VD", "map", True)])
    with pytest.raises(DataError, match="no HallusionBench items"):
        hallusion_scores([])
