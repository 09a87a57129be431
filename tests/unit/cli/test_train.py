"""`parfocal train`: what it passes on, and what it says before it trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from parfocal.recipes import get_recipe
from parfocal.train.plan import Plan
from parfocal.train.runtime import Runtime


def test_train_passes_its_options_on(run, tmp_path, monkeypatch) -> None:
    seen: list[tuple] = []

    def run_recipe(*words, **named) -> Path:
        seen.append((words, named))
        return tmp_path / "model"

    monkeypatch.setattr("parfocal.recipes.run_recipe", run_recipe)
    (tmp_path / "recipe.json").write_text(get_recipe("groma").to_json(), encoding="utf-8")
    words = ["train", "groma", "--set", "seed=3", "--set", "bf16=false", "--processes", "2"]
    words += ["--data", tmp_path, "--micro-batch", "4", "--features", "seen", "--track", "none"]
    words += ["--stage", "instruction", "--accelerate", "fsdp", "--out", tmp_path, "--resume"]
    done = run(*words)
    assert (done.code, done.out, done.err) == (0, "", f"wrote {tmp_path / 'model'}\n")
    data, features = (str(Path(name).resolve()) for name in (tmp_path, "seen"))
    machine = Runtime(data, 4, features, stages=("instruction",), processes=2)
    named = {"resume": True, "runtime": machine, "accelerate": "fsdp", "begin": True}
    assert seen == [(("groma", ["seed=3", "bf16=false"], tmp_path), named)]
    done = run(*words, "--json")
    wrote = {"run": str(tmp_path), "wrote": str(tmp_path / "model")}
    assert json.loads(done.out) == {"schema": "parfocal.train/1", **wrote}


def test_train_says_what_it_would_take_and_what_is_missing(run, tmp_path) -> None:
    done = run("train", "mini", "--dry-run", "--micro-batch", "7", "--json")
    found = json.loads(done.out)
    assert found["schema"] == "parfocal.plan/1"
    assert [stage["name"] for stage in found["stages"]] == ["perception", "language", "wording"]
    assert done.code == 1
    assert any("is not a multiple of" in problem for problem in found["problems"])


def test_a_dry_run_of_a_run_that_goes_on_is_of_what_is_left(run, tmp_path, monkeypatch) -> None:
    seen: list[tuple] = []

    def plan(
        recipe, config, processor, runtime, *, benchmarks, tflops, done, divided, problems
    ) -> Plan:
        assert not problems
        assert not divided
        seen.append((recipe, config, done))
        count = runtime.processes
        head = (recipe.name, recipe.budget, recipe.model, count, tflops)
        return Plan(*head, "cpu", "eager", (), (), ())

    monkeypatch.setattr("parfocal.train.plan.plan", plan)
    parts = "parfocal.recipes.parts_of_run"
    monkeypatch.setattr(parts, lambda recipe, entry, before: (f"config of {before}", None))
    saved = get_recipe("mini", ["budget=smoke", "stages.language.samples=48"])
    (tmp_path / "recipe.json").write_text(saved.to_json(), encoding="utf-8")
    (tmp_path / "perception").mkdir()
    (tmp_path / "perception" / "model.safetensors").touch()
    resumed = ("train", "mini", "--dry-run", "--resume", "--out", tmp_path)
    done = run(*resumed)
    assert (done.code, done.out) == (0, "no stage is left to train\nno problems\n")
    assert seen == [(saved, f"config of {tmp_path}", ("perception",))]
    assert run(*resumed[:3]).code == 0
    assert seen[1:] == [(get_recipe("mini"), "config of None", ())]
    changed = run(*resumed, "--set", "budget=smoke")
    assert (changed.code, len(seen)) == (1, 2)
    assert "another recipe: stages.language.samples: 48 -> " in changed.err


def test_a_dry_run_says_why_there_is_no_processor(run, tmp_path) -> None:
    own = """
from parfocal.recipes import RecipeEntry
from parfocal.train.recipe import Recipe, Stage
stage = Stage("talk", "language", trainable=("text",), samples=4, batch_size=2)
RECIPE = RecipeEntry(lambda budget: Recipe("own", "tiny", (stage,)))
"""
    (tmp_path / "own.py").write_text(own, encoding="utf-8")
    done = run("train", tmp_path / "own.py", "--dry-run")
    assert done.code == 1
    refused = run("train", tmp_path / "own.py", "--out", tmp_path / "out").err
    assert refused.removeprefix("error: ").strip() in " ".join(done.out.split())


def test_a_dry_run_tells_what_cannot_be_divided(run, tmp_path) -> None:
    words = ["train", "mini", "--stage", "perception", "--dry-run", "--accelerate"]
    done = run(*words, "fsdp", "--json")
    assert done.code == 1
    problems = json.loads(done.out)["problems"]
    assert [item for item in problems if "'perception' cannot train with FSDP" in item]
    done = run(*words, "nosuch")
    assert "there is no file 'nosuch' to configure Accelerate" in " ".join(done.out.split())


def test_print_config_of_a_run_is_its_recipe(run, tmp_path) -> None:
    saved = get_recipe("mini", ["seed=5"])
    (tmp_path / "recipe.json").write_text(saved.to_json(), encoding="utf-8")
    shown = run("train", "mini", "--resume", "--out", tmp_path, "--print-config").out
    assert json.loads(shown) == json.loads(saved.to_json())


def test_train_print_config_is_the_resolved_recipe(run, monkeypatch) -> None:
    monkeypatch.setattr("parfocal.recipes.run_recipe", None)
    got = json.loads(run("train", "mini", "--set", "seed=3", "--print-config").out)
    assert (got["name"], got["seed"]) == ("mini", 3)


def test_training_without_its_extra_says_what_to_install(run, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)  # as if it was not installed
    done = run("train", "mini", "--print-config")
    assert (done.code, done.out) == (1, "")
    assert "pip install 'parfocal[train]'" in done.err
