"""A recipe from drawn scenes to a report: train, save, load, answer, evaluate."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from parfocal.boxes import Boxes
from parfocal.data.readers.scenes import SceneReader
from parfocal.eval.run import run_benchmark
from parfocal.images import image_frame
from parfocal.predict import load
from parfocal.recipes import RECIPES, RecipeEntry, run_recipe
from parfocal.recipes.mini import mini
from parfocal.train.recipe import Recipe
from parfocal.train.runtime import Runtime

pytestmark = pytest.mark.integration

STEPS = {"perception": 16, "language": 12, "wording": 4}


def toy(budget: str) -> Recipe:
    """Mini's recipe with few steps, by AdamW alone, small pictures and the tiny model."""
    stages = tuple(
        dataclasses.replace(
            stage,
            samples=4 * STEPS[stage.name],
            batch_size=4,
            optim=dataclasses.replace(stage.optim, lr=3e-3, warmup_steps=2, muon=(), lr_factors={}),
            eval_samples=4 if stage.name == "perception" else 0,
        )
        for stage in mini().stages
    )
    return Recipe(
        "toy", "tiny", stages, sides=(64, 96), bf16=False,
        budget=budget, benchmarks=("scenes",), benchmark_limit=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(keep_in_process, toy_processor, tmp_path_factory):
    """The folder of a finished run, trained in this process on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        keep_in_process(patch)
        patch.setitem(RECIPES, "toy", RecipeEntry(toy, ("full",), toy_processor))
        out = tmp_path_factory.mktemp("run")
        assert run_recipe("toy", ["seed=3"], out, runtime=Runtime(processes=1)) == out / "model"
    return out


def metrics(folder, stage: str) -> list[dict]:
    text = (folder / stage / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("stage", ["perception", "language"])
def test_the_loss_falls(trained, stage):
    losses = [row["loss"] for row in metrics(trained, stage) if "loss" in row]
    assert len(losses) == STEPS[stage]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


def test_every_stage_took_its_steps_and_perception_was_scored(trained):
    for stage, steps in STEPS.items():
        assert metrics(trained, stage)[-1]["step"] == steps
    (scored,) = [row for row in metrics(trained, "perception") if "eval_samples" in row]
    assert scored["eval_samples"] == 4
    assert scored["proposals_per_image"] > 0


def test_language_left_perception_as_it_was(trained):
    before = load_file(trained / "perception" / "model.safetensors")
    after = load_file(trained / "wording" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    frozen = ("vision.", "proposer.", "refiner.", "regions.pool.", "regions.flatten.")
    assert not [name for name in changed if name.startswith(frozen)]
    assert {"text", "projector", "regions"} == {name.split(".")[0] for name in changed}


@pytest.fixture(scope="module")
def predictor(trained):
    return load(trained / "model", device="cpu")


def test_the_loaded_model_is_the_trained_one(trained, predictor):
    saved = load_file(trained / "wording" / "model.safetensors")
    loaded = predictor.model.state_dict()
    for name, value in saved.items():
        expected = value.to(torch.bfloat16).to(loaded[name].dtype)
        if not value.is_floating_point():
            expected = value
        assert torch.equal(loaded[name], expected), name


def test_it_answers(predictor, toy_bank):
    sample = SceneReader("validation", 1, (96,), toy_bank)[0]
    picture = sample.open_image()
    name = sample.regions.labels[0]
    for answer in (
        predictor.ask(picture, f"Where is the {name}?"),
        predictor.locate(picture, f"the {name}"),
        predictor.describe(picture),
        predictor.describe(picture, sample.regions[:1])[0],
    ):
        assert answer.boxes == answer.boxes.clip()
        assert answer.boxes.frame == image_frame(picture)
        assert isinstance(answer.text.plain, str)
        json.dumps(answer.to_json(), allow_nan=False)
    proposals = predictor.propose(picture, top=3)
    assert isinstance(proposals, Boxes)
    assert 0 < len(proposals) <= 3
    assert list(proposals.scores) == sorted(proposals.scores, reverse=True)


def test_two_loads_answer_alike(trained, predictor, toy_bank):
    picture: Image.Image = SceneReader("validation", 2, (96,), toy_bank)[1].open_image()
    again = load(trained / "model", device="cpu")
    one, other = (own.ask(picture, "What do you see?") for own in (predictor, again))
    assert one.text == other.text
    assert one.boxes == other.boxes


def test_it_is_evaluated_when_it_is_trained(trained, predictor, tmp_path):
    report = json.loads((trained / "eval" / "scenes" / "report.json").read_text(encoding="utf-8"))
    assert report["protocol"]["dtype"] == "torch.float32"
    done = []
    again = run_benchmark(
        "scenes", predictor, tmp_path, limit=2, on_progress=lambda n, total: done.append((n, total))
    )
    assert done == [(1, 2), (2, 2)]
    assert {key: again[key] for key in again if key.startswith("rec_")} == {
        key: report[key] for key in report if key.startswith("rec_")
    }
    assert (tmp_path / "predictions.jsonl").stat().st_size > 0
    assert 0 <= report["rec_acc_50"] <= 100
    assert 0 <= report["proposal_recall_50"] <= 100
