"""Scores while a stage trains choose the checkpoint that it leaves; progress is on stderr."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch
from safetensors.torch import load_file

from parfocal.data.scenes.turns import with_turns
from parfocal.dialects import get_dialect
from parfocal.errors import ConfigError, DataError
from parfocal.train import stages
from parfocal.train.callbacks import JsonLog, duration
from parfocal.train.checkpoints import best
from parfocal.train.context import StageContext
from parfocal.train.recipe import SCORES, Optim, Recipe, Stage
from parfocal.train.run import start_run
from parfocal.train.runtime import Runtime
from parfocal.train.validate import pointing_accuracy

FIND = Stage(
    "find", "detection", ("vision", "proposer", "regions.pool", "regions.flatten"), samples=12,
    batch_size=2, optim=Optim(lr=3e-3, warmup_steps=1), eval_samples=2, eval_every=2,
    best="proposal_recall_50",
)  # fmt: skip


@pytest.fixture
def scored(in_process, tiny_parts, tmp_path, monkeypatch):
    """Train a stage whose scores are as told; returns its folder."""

    def begin(scores: list[float], stage: Stage = FIND):
        given = iter(scores)
        monkeypatch.setattr(
            stages, "proposal_recall", lambda *parts: {"proposal_recall_50": next(given)}
        )
        recipe = Recipe("demo", "tiny", (stage,), sides=(64,), seed=5, bf16=False)
        start_run(recipe, *tiny_parts, tmp_path, runtime=Runtime(processes=1))
        return tmp_path / stage.name

    return begin


def test_a_stage_leaves_its_best_checkpoint(scored):
    folder = scored([10.0, 30.0, 20.0, 99.0])  # after 2, 4 and 6 steps, and at the end
    assert best(folder).name == "checkpoint-4"
    kept = load_file(folder / "checkpoint-4" / "model.safetensors")
    left = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, kept[f"model.{name}"]) for name, value in left.items())
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "proposal_recall_50" in row]
    assert [(row["step"], row["proposal_recall_50"]) for row in rows] == [
        (2, 10.0), (4, 30.0), (6, 20.0), (6, 99.0)
    ]  # fmt: skip


def test_a_stage_without_a_best_leaves_its_last_weights(scored):
    folder = scored([10.0, 30.0, 20.0, 99.0], dataclasses.replace(FIND, best=""))
    assert best(folder) is None
    last = load_file(folder / "checkpoint-6" / "model.safetensors")
    left = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, last[f"model.{name}"]) for name, value in left.items())


def test_a_best_that_is_no_score_is_an_error():
    with pytest.raises(ConfigError, match=r"'recall'; choose one of \['proposal_recall_50'"):
        dataclasses.replace(FIND, best="recall")


def test_the_log_of_a_run_that_goes_on_has_every_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLog(path)
    log.cut(0)
    assert not path.exists()
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0})
    with path.open("a") as stream:
        stream.write('{"step": 4, "lo{"step": 2}\n')  # killed, and gone on by older code
    log.cut(2)
    log.write(3, {"loss": 2.0})
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_a_best_needs_scores():
    with pytest.raises(ConfigError, match="say with eval_every how often"):
        dataclasses.replace(FIND, eval_every=0)


def test_the_first_of_equal_scores_stays(scored):
    assert best(scored([5.0, 7.0, 7.0, 0.0])).name == "checkpoint-4"


def test_progress_is_told_without_touching_stdout(scored, capsys, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("parfocal"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="parfocal"):
        scored([1.0, 1.0, 1.0, 1.0])
    assert capsys.readouterr().out == ""
    assert "stage find: step 6 of 6, loss " in caplog.text


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (600, "10 min"), (3661, "1 h 01 min")]
)
def test_durations_are_for_people(seconds, words):
    assert duration(seconds) == words


def test_pointing_counts_answers_with_one_box(make_model, processor, toy_talk, monkeypatch):
    model = make_model().train()
    found = pointing_accuracy(model, processor, toy_talk)
    assert set(SCORES["language"]) <= set(found)
    asked = sum(
        sum(len(phrase.boxes) for phrase in turn.text.phrases) == 1
        for sample in toy_talk
        for turn in sample.turns[1::2]
    )
    assert found["eval_questions"] == asked > 0
    assert 0 <= found["pointing_50"] <= 100
    assert model.training
    assert (
        pointing_accuracy(model, processor, toy_talk, threshold=0.0)["pointing_0"]
        >= found["pointing_50"]
    )


def test_pointing_needs_something_to_point_at(make_model, processor, toy_samples):
    with pytest.raises(DataError, match="none of the 4 Samples has an answer with exactly one box"):
        pointing_accuracy(make_model(), processor, toy_samples)


def test_pointing_needs_questions_with_their_answers(make_model, processor, toy_talk):
    caption = dataclasses.replace(toy_talk[0], turns=toy_talk[0].turns[1:2])
    with pytest.raises(DataError, match=r"turns \['assistant'\]; to be scored, questions"):
        pointing_accuracy(make_model(), processor, [caption])


def test_language_on_scenes_is_scored_by_pointing(tiny_parts, toy_bank, in_process):
    stage = dataclasses.replace(
        FIND, name="talk", objective="language", trainable=("text",), best="", eval_every=0
    )
    recipe = Recipe("demo", "tiny", (stage,), sides=(64,))
    rows = stages.validation_rows(StageContext(recipe, stage), tiny_parts[1])
    assert len(rows) == 2
    assert all(row.turns for row in (rows[0], rows[1]))
    assert with_turns(rows.reader[0], get_dialect("region_tokens"), _rng()).id == rows[0].id


def _rng():
    import numpy as np

    return np.random.default_rng(0)
