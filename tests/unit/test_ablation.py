"""Ablations: arms differ in what they say, fit their parts, and their table adds up."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from parfocal.cli import main
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.scenes.object_turns import show_objects
from parfocal.data.scenes.turns import with_turns
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import ObjectRef
from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.config_vision import FusionConfig
from parfocal.models.fusion import ConvGateFusion, FusionInputs
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.predict.loading import load
from parfocal.recipes import ablation_run, parts_of
from parfocal.recipes.ablation import (
    BASE,
    BUDGETS,
    COMPARISONS,
    DETAIL,
    SHARED,
    SIGHT,
    WORDS,
    arm_folder,
    arm_recipe,
    distinct_arms,
    shared_recipe,
    shared_runs,
)
from parfocal.recipes.ablation_report import build_report, render
from parfocal.recipes.ablation_run import ENTRY, Settings, read_settings, run_ablation
from parfocal.recipes.ablation_score import METRICS, Spread, ranking
from parfocal.train.arguments import divide
from parfocal.train.data import ConversationCollator, conversations
from parfocal.train.recipe import Recipe
from parfocal.train.runtime import Runtime
from parfocal.train.stages import build_language_objective
from parfocal.train.weights import load_parts

ONE = Runtime(processes=1)
ARMS = [(name, arm) for name, item in COMPARISONS.items() for arm in item.arms]
BATCH_FIELDS = ("samples", "batch_size", "optim", "objective", "region_loss_weight")


@cache
def recipe_of(name: str, arm: str, budget: str = "small") -> Recipe:
    return arm_recipe(COMPARISONS[name].arms[arm], 0, budget, Path("out"))


@cache
def built(name: str, arm: str, budget: str) -> tuple[ParfocalConfig, ParfocalProcessor]:
    return parts_of(recipe_of(name, arm, budget), ENTRY)


def meta_model(config: ParfocalConfig) -> ParfocalForConditionalGeneration:
    with torch.device("meta"):
        return ParfocalForConditionalGeneration(config)


@cache
def shared_model(name: str) -> ParfocalForConditionalGeneration:
    if name == SIGHT and BUDGETS["small"].sight:
        return meta_model(load(BUDGETS["small"].sight).model.config)
    return meta_model(parts_of(shared_recipe(name, "small", Path("out")), ENTRY)[0])


def names_under(names: list[str], prefix: str) -> list[str]:
    return [name for name in names if f"{name}.".startswith(f"{prefix}.")]


@pytest.mark.parametrize(("name", "arm"), ARMS)
def test_an_arm_fits_its_parts_and_what_it_starts_from(name, arm):
    config, processor = built(name, arm, "small")
    recipe, model = recipe_of(name, arm), meta_model(config)
    assert processor.settings.num_image_tokens == model.num_image_tokens
    assert len(processor.tokenizer) == config.text_config.vocab_size
    assert Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()
    own = model.state_dict()
    for prefix in recipe.stages[0].trainable:
        assert names_under(list(own), prefix), prefix
    for part, shared in COMPARISONS[name].arms[arm].weights.items():
        given = shared_model(shared).state_dict()
        taken = names_under(list(own), part)
        assert taken
        assert {key: own[key].shape for key in taken} == {key: given[key].shape for key in taken}


@pytest.mark.parametrize("name", COMPARISONS)
def test_arms_differ_in_what_is_compared_alone(name):
    item = COMPARISONS[name]
    recipes = {arm: recipe_of(name, arm) for arm in item.arms}
    stages = [recipe.stages[0] for recipe in recipes.values()]
    talking = [stage for stage in stages if "text" in stage.trainable]
    assert len({str(stage.optim) for stage in talking}) == 1
    without = {"muon": (), "lr_factors": {}}  # of the language model, where it trains
    stages = [replace(stage, optim=replace(stage.optim, **without)) for stage in stages]
    for field in BATCH_FIELDS:
        assert len({str(getattr(stage, field)) for stage in stages}) == 1, field
    for field in ("seed", "sides", "kinds", "num_objects", "bf16", "loss_mean"):
        assert len({getattr(recipe, field) for recipe in recipes.values()}) == 1, field
    base = _comparable(parts_of(arm_recipe(BASE, 0, "small", Path("out")), ENTRY)[0])
    for arm, value in item.arms.items():
        parts = {*value.model, *(("vision",) if value.detail else ())}
        found = _comparable(built(name, arm, "small")[0])
        assert {part for part in base if found[part] != base[part]} == parts
    assert item.metrics
    assert set(item.metrics) <= set(METRICS)
    for arm in item.direction.replace("~", ">").split(" > "):
        assert arm.strip() in item.arms


def _comparable(config: ParfocalConfig) -> dict[str, object]:
    """All that a config holds, but what its tokenizer decides."""
    values = {key: item for key, item in config.to_dict().items() if key != "token_ids"}
    text = {key: item for key, item in values["text_config"].items() if key != "vocab_size"}
    return {**values, "text_config": text}


def test_an_untrained_gate_passes_the_first_tower_on():
    fusion = ConvGateFusion(FusionConfig(kind="conv_gate"), FusionInputs((4, 6), (3, 3)))
    low = torch.randn(2, 4, 3, 3)
    assert torch.equal(fusion([low, torch.randn(2, 6, 3, 3)]), low)
    none, gate = (COMPARISONS["fusion"].arms[arm] for arm in ("none", "conv_gate"))
    assert none == replace(gate, name=none.name, trainable=none.trainable)
    assert {*gate.trainable} - {*none.trainable} == {"fusion"}


def test_a_name_is_one_arm_and_an_arm_has_one_name():
    arms = [arm for item in COMPARISONS.values() for arm in item.arms.values()]
    distinct = distinct_arms(COMPARISONS)
    assert all(arm in distinct for arm in arms)
    unnamed = [str(replace(arm, name="")) for arm in distinct]
    assert len({*unnamed}) == len(distinct) < len(arms)


def test_shared_runs_come_before_what_builds_on_them():
    assert shared_runs({"merge": COMPARISONS["merge"]}, "smoke") == [SIGHT]
    assert shared_runs({"merge": COMPARISONS["merge"]}, "small") == []
    assert shared_runs({"fusion": COMPARISONS["fusion"]}, "smoke") == [SIGHT, DETAIL]
    assert shared_runs(COMPARISONS, "smoke") == list(SHARED)
    seeds = {arm_recipe(BASE, seed, "small", Path("out")).seed for seed in range(100)}
    for run_name in shared_runs(COMPARISONS, "small"):
        recipe = shared_recipe(run_name, "small", Path("out"))
        assert run_name != WORDS or recipe.seed not in seeds
        names = list(shared_model(run_name).state_dict())
        for prefix in recipe.stages[0].trainable:
            assert names_under(names, prefix), prefix
        assert divide(recipe.stages[0], 2, None)


@pytest.fixture(scope="module")
def talk(toy_bank):
    """A scene with questions, before any shows an object."""
    sample = SceneReader("train", 3, (256,), toy_bank)[2]
    return with_turns(sample, get_dialect("coordinates"), np.random.default_rng(0))


def test_questions_that_show_objects_take_the_place_of_others(talk):
    shown = show_objects(talk, np.random.default_rng(1), 2)
    assert len(shown.turns) == len(talk.turns)
    assert shown.turns[4:] == talk.turns[4:]
    assert len(shown.images) == 3
    for place in (1, 2):
        question, answer = shown.turns[2 * place - 2 : 2 * place]
        assert [span.image for span in question.text.spans if isinstance(span, ObjectRef)] == [
            place
        ]
        crop = shown.images[place].crop
        boxes = answer.text.boxes(talk.regions.frame)
        if len(boxes):  # the object that is shown, a little smaller than its picture
            x1, y1, x2, y2 = boxes.to_json()[0]
            assert crop[0] <= x1 + 1e-6
            assert crop[1] <= y1 + 1e-6
            assert crop[2] >= x2 - 1e-6
            assert crop[3] >= y2 - 1e-6
    assert shown.open_images()[1].size == (shown.images[1].width, shown.images[1].height)


@pytest.mark.parametrize(
    ("name", "arm"),
    [("alignment", "T,C,I"), ("object_tokens", "on"), ("pointing", "coordinates")],
)
def test_arms_without_region_names_learn_from_scenes(name, arm, toy_bank):
    config, processor = built(name, arm, "smoke")
    torch.manual_seed(0)
    model = ParfocalForConditionalGeneration(config)
    reader = SceneReader("train", 2, (192,), toy_bank)
    data = conversations(reader, processor, seed=0)
    batch = ConversationCollator(processor)([data[0], data[1]])
    assert (batch["text"].object_pixels is not None) == (arm == "T,C,I")
    objective = build_language_objective(model, processor, alignment_weight=0.0)
    loss = objective(**batch, counts=objective.counts(batch)).loss
    loss.backward()
    for prefix in COMPARISONS[name].arms[arm].trainable:
        found = [v.grad for n, v in model.named_parameters() if n.startswith(prefix)]
        assert any(value is not None and value.abs().sum() > 0 for value in found), prefix
    if arm != "on":
        with pytest.raises(ConfigError, match="alignment_weight to 0"):
            build_language_objective(model, processor)


def test_means_and_deviations():
    spread = Spread.of([70.0, 80.0, 90.0])
    assert (spread.mean, spread.sd, str(spread)) == (80.0, 10.0, "80.0 +- 10.0")
    assert Spread.of([70.0]) == Spread(70.0, None, (70.0,))
    near, far = Spread.of([82.0, 84.0, 86.0]), Spread.of([10.0, 10.0, 10.0])
    assert ranking({"a": far, "b": spread, "c": near}) == "c ~ b > a"


def _entry(seed: int, rec: float) -> dict[str, object]:
    scores = {name: 50.0 for name in METRICS if name != "rec_twins"}
    return {
        "seed": seed, "scores": {**scores, "rec": rec}, "parameters": 4_000_000,
        "trained": 3_000_000, "train_seconds": 180.0, "score_seconds": 180.0,
        "code": {"commit": f"{seed}abcdef0123456789", "changed": seed == 1},
    }  # fmt: skip


def test_the_table_stands_beside_the_papers():
    chosen = {"merge": COMPARISONS["merge"]}
    on, off = [_entry(0, 80.0), _entry(1, 84.0)], [_entry(0, 60.0), _entry(1, 62.0)]
    report = build_report(chosen, "small", {"base": on, "not_merged": off}, "the command")
    assert json.loads(json.dumps(report))["schema"] == "parfocal.ablation/1"
    found = report["comparisons"]["merge"]
    assert found["here"]["rec"] == "on > off"
    assert found["here"]["rec_twins"] == ""
    assert found["arms"]["on"]["scores"]["rec"]["sd"] == pytest.approx(8**0.5)
    assert report["hours"] == pytest.approx(0.4)
    text = render(report)
    assert "| merge | rec | off ~ on | on > off |" in text
    assert "| on | 82.0 +- 2.8 | - | 50.0 +- 0.0 |" in text
    assert "4,000,000 | 3,000,000 | 3.0 | 2 |" in text
    assert "Groma, Table 8" in text
    assert "proposer: mini; kinds of objects in scenes: 24, 2 to 6 objects" in text
    assert "`the command`" in text
    assert report["code_of_runs"] == {"0abcdef01234": 2, "1abcdef01234 (changed)": 2}
    assert "and how many: 0abcdef01234: 2, 1abcdef01234 (changed): 2; it was written by" in text


def test_minutes_are_those_of_runs_that_nothing_stopped():
    chosen = {"merge": COMPARISONS["merge"]}
    stopped = _entry(0, 80.0) | {"train_seconds": None}
    scored = {"base": [stopped, _entry(1, 84.0)], "not_merged": [stopped]}
    report = build_report(chosen, "small", scored, "the command")
    assert (report["runs"], report["whole_runs"], report["hours"]) == (3, 1, 0.1)
    text = render(report)
    assert "hours, training and scoring, without the shared runs: 0.1, of the 1 of 3 runs" in text
    assert "4,000,000 | 3,000,000 | 3.0 | 2 |" in text
    assert "4,000,000 | 3,000,000 | - | 1 |" in text


def test_hours_count_an_arm_once_in_all_comparisons():
    chosen = {name: COMPARISONS[name] for name in ("merge", "towers")}
    scored = {arm.name: [_entry(0, 80.0)] for arm in distinct_arms(chosen)}
    report = build_report(chosen, "small", scored, "the command")
    assert [item["hours"] for item in report["comparisons"].values()] == [0.2, 0.2]
    assert report["hours"] == pytest.approx(0.3)


def test_a_table_can_begin_before_all_arms_are_done():
    chosen = {"merge": COMPARISONS["merge"]}
    report = build_report(chosen, "small", {"base": [], "not_merged": []}, "the command")
    assert "| merge | rec | off ~ on | - |" in render(report)


@pytest.mark.parametrize(
    ("assignment", "match"),
    [
        ("only=fusions", r"no comparison 'fusions'; choose from \['alignment'"),
        ("budget=large", r"no budget 'large'; choose from \['small', 'smoke'\]"),
        ("seeds=0", "must be a number from 1"),
        ("lr=3", "there are budget=NAME, seeds=N"),
    ],
)
def test_unknown_settings_say_what_there_is(assignment, match):
    with pytest.raises(ConfigError, match=match):
        read_settings([assignment])


def test_settings():
    settings = read_settings(["seeds=2", "only=merge, fusion", "budget=smoke"])
    assert settings == Settings("smoke", 2, ("merge", "fusion"))
    assert list(settings.comparisons) == ["fusion", "merge"]
    assert list(Settings().comparisons) == list(COMPARISONS)


def test_a_plan_names_every_run():
    rows = ablation_run.plan_rows(Settings("smoke", 2, ("fusion",)))
    assert [row["run"] for row in rows] == [
        "shared/sight", "shared/detail",
        "arms/not_fused", "arms/concat", "arms/conv_gate",
    ]  # fmt: skip
    none, _, gate = rows[2:]
    assert none["parameters"] == gate["parameters"]
    assert none["trained"] < gate["trained"]
    assert {row["steps"] for row in rows[2:]} == {4}
    json.dumps(ablation_run.describe(Settings()))


def test_the_command_says_what_it_would_run_and_what_it_does_not_take(capsys, monkeypatch):
    words = ["train", "ablate", "--set", "budget=smoke", "--set", "only=merge"]
    monkeypatch.setattr(ablation_run, "run_ablation", None)
    assert main([*words, "--dry-run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in rows] == ["shared/sight", "arms/base", "arms/not_merged"]
    assert main([*words, "--dry-run"]) == 0
    assert f"{rows[2]['parameters']:,}" in capsys.readouterr().out
    assert main([*words, "--print-config"]) == 0
    assert list(json.loads(capsys.readouterr().out)["comparisons"]) == ["merge"]
    assert main([*words, "--stage", "language", "--prepare"]) == 1
    assert "ablate takes no --stage, --prepare" in capsys.readouterr().err


def test_the_command_runs(monkeypatch, tmp_path):
    seen: list[object] = []

    def remember(*given: object) -> Path:
        seen.extend(given)
        return tmp_path / "ablation.md"

    monkeypatch.setattr(ablation_run, "run_ablation", remember)
    words = ["--set", "seeds=1", "--out", str(tmp_path), "--resume", "--processes", "2"]
    assert main(["train", "ablate", *words, "--track", "none"]) == 0
    assert seen == [["seeds=1"], tmp_path, True, Runtime(processes=2)]


def test_an_ablation_goes_on_with_what_it_was_told(tmp_path, monkeypatch):
    told: list[tuple[Path, Runtime]] = []

    def train(recipe, folder, runtime):
        told.append((folder, runtime))
        assert not any(".." in str(source) for source in recipe.weights.values())

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ablation_run, "_train", lambda *given: None)
    monkeypatch.setattr(ablation_run, "_train_and_score", train)
    out, only = tmp_path / "there", ["only=towers", "seeds=1"]
    machine = Runtime(micro_batch=2, trackers=("tensorboard",), processes=3)
    run_ablation(only, out, runtime=machine)
    begun = sorted(told, key=str)
    told.clear()
    (tmp_path / "here").mkdir()
    run_ablation(only, tmp_path / "here" / ".." / "there", resume=True)
    assert sorted(told, key=str) == begun
    assert begun[0][1] == replace(machine, processes=1)
    assert Runtime.of(out) == machine


def test_arms_run_side_by_side_and_a_fault_ends_all(tmp_path, monkeypatch):
    meeting, ran, threads = threading.Barrier(2, timeout=60), [], []

    def train(recipe, folder, runtime):
        assert runtime.processes == 1
        threads.append((os.environ["OMP_NUM_THREADS"], torch.get_num_threads()))
        ran.append(recipe.name)
        if len(ran) <= 2:
            meeting.wait()  # in vain, if they came one after the other
        elif len(ran) == 3:
            raise ConfigError("no more")
        else:
            threading.Event().wait(1)  # time to be told

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ablation_run, "_train", lambda *given: None)
    monkeypatch.setattr(ablation_run, "_train_and_score", train)
    before, part = torch.get_num_threads(), max(1, os.cpu_count() // 2)
    with pytest.raises(ConfigError, match="no more"):
        run_ablation(["seeds=3"], tmp_path, runtime=Runtime(processes=2))
    assert 3 <= len(ran) < 10
    assert set(threads) == {(str(part), min(before, part))}
    assert "OMP_NUM_THREADS" not in os.environ
    assert torch.get_num_threads() == before


@pytest.mark.integration
def test_an_ablation_from_scenes_to_a_table(in_process, tmp_path, monkeypatch):
    chosen = ["budget=smoke", "seeds=1", "only=towers"]
    out = tmp_path / "runs"
    table = run_ablation(chosen, out, runtime=ONE)
    folders = ["shared/sight", "shared/detail", "arms/base/seed-0", "arms/concat/seed-0"]
    assert in_process == [out / folder for folder in folders]
    assert "| towers | rec | two > one |" in table.read_text(encoding="utf-8")
    report = json.loads((out / "ablation.json").read_text(encoding="utf-8"))
    arms = report["comparisons"]["towers"]["arms"]
    assert arms["two"]["parameters"] > arms["one"]["parameters"]
    assert {"rec", "name", "count", "absent"} <= set(arms["two"]["scores"])
    two = arm_folder(out, COMPARISONS["towers"].arms["two"], 0)
    # frozen towers are those of the shared runs
    weights = {}
    for part, folder in (("vision.towers.1", "shared/detail"), ("vision.towers.0", "shared/sight")):
        weights[part] = str(out / folder / "perception")
    model = ParfocalForConditionalGeneration.from_pretrained(two / "model")
    before = {key: value.clone() for key, value in model.vision.towers.state_dict().items()}
    load_parts(model, weights)
    for key, value in model.vision.towers.state_dict().items():
        assert torch.equal(before[key], value.to(torch.bfloat16).to(value.dtype)), key
    with pytest.raises(ConfigError, match="add --resume"):
        run_ablation(chosen, out, runtime=ONE)
    # what is done is left alone, what is not is done again
    (two / "scores.json").unlink()
    in_process.clear()
    run_ablation(chosen, out, resume=True, runtime=ONE)
    assert in_process == []
    assert (two / "scores.json").exists()
    smaller = replace(BUDGETS["smoke"], language=8)
    monkeypatch.setitem(BUDGETS, "smoke", smaller)
    with pytest.raises(ConfigError, match=r"of another recipe: stages\.language\.samples: 16 -> 8"):
        run_ablation(chosen, out, resume=True, runtime=ONE)
