"""Every benchmark runs, on next to nothing; what it measures is not looked at."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from parfocal.data.readers import scenes
from parfocal.recipes import get_recipe
from parfocal.train.recipe import Recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def read(name: str) -> ModuleType:
    """Import a benchmark, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call(monkeypatch, toy_bank) -> Callable[..., None]:
    """Run a benchmark as from the command line, on the CPU and on scenes of drawn shapes."""
    monkeypatch.setattr(scenes, "load_sprites", lambda: toy_bank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(module: ModuleType, *words: object) -> None:
        monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, words)])
        module.main()

    return run


@pytest.fixture
def train(call, capsys, monkeypatch) -> Callable[..., dict[str, Any]]:
    """Run `bench_train.py`, with the tiny model in mini's place, and return what it prints."""

    def recipe(name: str) -> Recipe:
        return dataclasses.replace(get_recipe(name), model="tiny")

    def run(*words: object) -> dict[str, Any]:
        module = read("bench_train")
        monkeypatch.setattr(module, "get_recipe", recipe)
        call(module, *words)
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_what_a_benchmark_imports_is_there(name):
    assert callable(read(name).main)


@pytest.mark.integration
def test_training_of_mini_is_measured(train, tmp_path):
    found = train("--pictures", 2, "--repeats", 1, "--out", tmp_path / "found.json")
    assert found == json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    for name in ("packing", "shared_rows", "features"):
        assert found[name]["ratio"] > 0, name


TINY = ("--preset", "tiny", "--rows", 2, "--text-tokens", 8, "--turns", 2, "--repeats", 1)
SEEN = 9 + 6  # tokens of a picture and of its region slots


@pytest.mark.integration
def test_ways_to_train_a_preset_are_compared(train):
    found = train(*TINY)
    packed, single = found["packed"], found["single"]
    assert (packed["rows_a_step"], packed["tokens_a_row"]) == (2, SEEN + 8)
    assert (single["rows_a_step"], single["tokens_a_row"]) == (4, SEEN + 4)
    for case in (packed, single):
        assert case["text_tokens_per_second"] * case["seconds_a_step"] == pytest.approx(16)
        assert 0 < case["mfu"] < case["hfu"]
    assert list(found["ratios"]) == ["packing"]
    alone = train(*TINY, "--turns", 1, "--keep-activations")
    assert ("single" in alone, alone["ratios"]) == (False, {})
    kept = alone["packed"]
    assert kept["mfu"] == kept["hfu"]  # nothing is computed again
    work = [case["mfu"] * case["seconds_a_step"] for case in (packed, kept)]
    assert work[0] == pytest.approx(work[1])  # of as many tokens


@pytest.mark.integration
@pytest.mark.parametrize(("words", "rank"), [((), 0), (("--lora",), 64)])
def test_what_is_compiled_is_what_the_objective_calls(train, monkeypatch, words, rank):
    calls = []

    def compiled(function, **settings):
        def call(*args, **kwargs):
            calls.append(settings)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    found = train(*TINY, *words, "--turns", 1, "--compile")
    assert found["lora"] == rank
    assert len(calls) == 3 + 1  # to warm up, and a repeat
    assert list(found["ratios"]) == ["compile"]


@pytest.mark.slow
def test_proposers_are_compared(call, tmp_path):
    out = tmp_path / "found.json"
    words = ("--minutes", 0.01, "--points", 1, "--eval-samples", 2, "--out", out)
    call(read("bench_proposers"), *words)
    curves = json.loads(out.read_text(encoding="utf-8"))["curves"]
    assert {kind: len(rows) for kind, rows in curves.items()} == {
        "dense": 1, "deformable_detr": 1
    }  # fmt: skip


@pytest.mark.integration
def test_pooling_is_compared(call, capsys, monkeypatch):
    module = read("bench_roi_align")
    monkeypatch.setattr(module, "ROUNDS", 1)
    call(module)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.slow
def test_readers_are_measured(call, capsys, monkeypatch):
    module = read("bench_data")
    monkeypatch.setattr(module, "LIMIT_GIB", math.inf)  # a process begins with its parent's peak
    call(module, "--rows", 16, "--seconds", 0.001)
    assert "16 annotations on 2 pictures" in capsys.readouterr().out
