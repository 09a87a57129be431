"""MG-LLaVA's scorers against what the official evaluation scripts gave for the same answers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from parfocal.eval.metrics import (
    MME_PERCEPTION,
    MME_REASONING,
    ChoiceRow,
    GqaQuestion,
    MmeItem,
    anls_distance,
    anls_score,
    choice_scores,
    evalai_normalise,
    extract_yes_no,
    gqa_scores,
    mme_scores,
    options_text,
    relaxed_match,
    textvqa_accuracy,
    textvqa_question,
    yes_no_scores,
)
from tests.parity.conftest import recorded

RECORDED = json.loads(recorded("mg_llava/metric_cases.json").read_text())
MME = "mme_rating_each_category_[TT,TF,FF]"
CHOICES = RECORDED["multiple_choice"]


def test_every_kind_of_case_is_compared() -> None:
    assert set(RECORDED) == {
        *("yes_no_extraction", "evalai_normalise", "textvqa", "textvqa_prompt_to_question"),
        *("anls_distance", "docvqa_hit", "chartqa_relaxed", MME, "pope_f1", "multiple_choice"),
        "gqa_log",
    }


@pytest.mark.parametrize(("text", "expected"), RECORDED["yes_no_extraction"].items())
def test_yes_no(text: str, expected: str) -> None:
    assert extract_yes_no(text) == expected


@pytest.mark.parametrize(("text", "expected"), RECORDED["evalai_normalise"].items())
def test_normal_form(text: str, expected: str) -> None:
    assert evalai_normalise(text) == expected


@pytest.mark.parametrize("case", RECORDED["textvqa"], ids=lambda case: case["pred_answer"])
def test_textvqa(case: dict) -> None:
    assert textvqa_accuracy(case["pred_answer"], case["gt_answers"]) == case["score"]


@pytest.mark.parametrize(("prompt", "question"), RECORDED["textvqa_prompt_to_question"].items())
def test_textvqa_question(prompt: str, question: str) -> None:
    assert textvqa_question(prompt) == question


@pytest.mark.parametrize("case", RECORDED["anls_distance"], ids=lambda case: case["pred"])
def test_anls_distance(case: dict) -> None:
    assert anls_distance(case["gt"], case["pred"]) == case["distance"]


@pytest.mark.parametrize("case", RECORDED["docvqa_hit"], ids=lambda case: str(case["match"]))
def test_docvqa(case: dict) -> None:
    assert anls_score(case["match"]) == case["hit"]


@pytest.mark.parametrize("case", RECORDED["chartqa_relaxed"], ids=lambda case: case["gt"])
def test_chartqa(case: dict) -> None:
    assert relaxed_match(case["pred"], [case["gt"]]) == case["ok"]


def test_mme() -> None:
    pictures = {"TT": (True, True), "TF": (True, False), "FF": (False, False)}
    items = [
        MmeItem(category, image, correct)
        for category in (*MME_PERCEPTION, *MME_REASONING)
        for image, pair in pictures.items()
        for correct in pair
    ]
    assert mme_scores(items) == pytest.approx(RECORDED[MME], rel=1e-12)


@pytest.mark.parametrize("case", RECORDED["pope_f1"], ids=lambda case: str(case["pred"]))
def test_pope(case: dict) -> None:
    assert yes_no_scores(case["pred"], case["label"]).f1 == case["f1"]


def test_options() -> None:
    assert [options_text(row) for row in CHOICES["rows"]] == CHOICES["options_prompt"]


@pytest.mark.parametrize("case", CHOICES["cases"], ids=lambda case: str(case["result"]["Average"]))
def test_multiple_choice(case: dict) -> None:
    rows = [
        ChoiceRow(row["index"], row["answer"], row["category"], row["l2-category"])
        for row in CHOICES["rows"]
    ]
    scores = choice_scores(rows, case["predictions_for_rows_1_2_1000001_3"])
    assert list(scores) == ["all"]
    assert scores["all"].to_flat() == case["result"]


def test_gqa_log() -> None:
    """Its input is not recorded: two questions of three words, of which one went right."""
    right = GqaQuestion("Is it red?", "yes", "verify", "attr", steps=1, group="color")
    wrong = dataclasses.replace(right, answer="cat", structural="query", semantic="obj")
    scores = gqa_scores({"1": right, "2": wrong}, {"1": "Yes.", "2": "dog"})
    assert scores.lines() == RECORDED["gqa_log"]
