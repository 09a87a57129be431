"""Run the comparisons of `parfocal.recipes.ablation`: one folder, gone on with after any stop.

- OUT/shared/RUN/: runs that arms take parts of
- OUT/arms/ARM/seed-N/: an ordinary run; `scores.json` when it is trained and scored
- OUT/ablation.json, OUT/ablation.md: the table, written anew after every arm
- OUT/runtime.json: what was said of the machine
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from parfocal.data.outputs import make_folder
from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.predict.loading import load
from parfocal.recipes import RecipeEntry, parts_of
from parfocal.recipes.ablation import (
    BUDGETS,
    COMPARISONS,
    Arm,
    Comparison,
    arm_folder,
    arm_recipe,
    distinct_arms,
    shared_folder,
    shared_recipe,
    shared_runs,
)
from parfocal.recipes.ablation_report import write_report
from parfocal.recipes.ablation_score import score_arm
from parfocal.recipes.mini import mini, mini_processor
from parfocal.train.parameters import freeze, trainable_counts
from parfocal.train.processes import default_processes
from parfocal.train.recipe import Recipe
from parfocal.train.record import recipe_changes
from parfocal.train.run import RECORD, SAVED, finished, start_run
from parfocal.train.runtime import Runtime

logger = logging.getLogger(__name__)

SCORES = "scores.json"
ENTRY = RecipeEntry(mini, processor=mini_processor)  # whatever the arm, mini's words
_SCORING = threading.Lock()  # one model at a time: others train beside it


@dataclass(frozen=True)
class Settings:
    """What to compare, how thoroughly.

    Attributes:
        budget: key of `BUDGETS`.
        seeds: number of them, from 0.
        only: keys of `COMPARISONS`; all when empty.
    """

    budget: str = "small"
    seeds: int = 3
    only: tuple[str, ...] = ()

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """Those that are chosen."""
        return {name: COMPARISONS[name] for name in COMPARISONS if name in (self.only or (name,))}

    @property
    def arms(self) -> list[Arm]:
        """Those of the comparisons that are chosen."""
        return distinct_arms(self.comparisons)


def read_settings(assignments: Sequence[str]) -> Settings:
    """Read `budget=NAME`, `seeds=N` and `only=COMPARISON,COMPARISON`.

    Raises:
        ConfigError: for another name, or a value that there is not; the message lists what there
            is.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, value = (word.strip() for word in assignment.partition("="))
        if not separator or name not in ("budget", "seeds", "only"):
            raise ConfigError(
                f"ablate: {assignment!r} is no setting; there are budget=NAME, seeds=N and "
                "only=COMPARISON,COMPARISON."
            )
        if name == "seeds":
            if not value.isdigit() or int(value) < 1:
                raise ConfigError(f"ablate: seeds is {value!r}, must be a number from 1.")
            values[name] = int(value)
        elif name == "budget":
            values[name] = _known("budget", value, BUDGETS)
        else:
            chosen = [_known("comparison", word.strip(), COMPARISONS) for word in value.split(",")]
            values[name] = tuple(chosen)
    return Settings(**values)


def _known(what: str, name: str, table: Mapping[str, Any]) -> str:
    if name not in table:
        raise ConfigError(f"ablate: there is no {what} {name!r}; choose from {list(table)}.")
    return name


def run_ablation(
    assignments: Sequence[str] = (),
    out: Path = Path("out"),
    resume: bool = False,
    runtime: Runtime | None = None,
) -> Path:
    """Train and score every arm for every seed; returns the file with the table.

    On a CPU every run is one process, whatever their number, and arms run side by side, so that
    none waits for another at every step. With GPUs a run has all of them.

    Args:
        assignments: as `read_settings` takes them.
        out: folder of all runs.
        resume: go on with what is in `out`: what is done is left as it is.
        runtime: sizes and trackers of the machine; its processes are runs at a time on a CPU. When
            None, what the runs in `out` had before, or the defaults.

    Raises:
        ConfigError: for an unknown setting; if `out` holds runs and `resume` is off, or none and
            it is on, or runs of other recipes.
    """
    settings = read_settings(assignments)
    chosen = (word for item in assignments for word in ("--set", item))
    command = shlex.join(["parfocal", "train", "ablate", *chosen, "--out", str(out)])
    _check_folder(out, resume)
    out = out.resolve()  # it is part of the arms' recipes, and may be spelt otherwise next time
    runtime, beside = runtime or Runtime.of(out), 1
    make_folder(out)
    runtime.save(out)
    if not torch.cuda.is_available():
        beside = runtime.processes or default_processes()
        runtime = replace(runtime, processes=1)
    for run in shared_runs(settings.comparisons, settings.budget):
        recipe = shared_recipe(run, settings.budget, out)
        _train(recipe, shared_folder(out, run), runtime)
    with _threads(beside), ThreadPoolExecutor(beside) as pool:
        arms = [
            pool.submit(_train_and_score, arm_recipe(arm, seed, settings.budget, out),
                        arm_folder(out, arm, seed), runtime)
            for seed in range(settings.seeds)
            for arm in settings.arms
        ]  # fmt: skip
        try:
            for done in as_completed(arms):
                done.result()
                scored = found(settings, out)
                write_report(out, settings.comparisons, settings.budget, scored, command)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return out / "ablation.md"


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse to go on with nothing, and to begin where something is."""
    begun = out.exists() and any(out.iterdir())
    if resume and not begun:
        raise ConfigError(
            f"{out} holds no ablation to go on with. Check --out, or leave --resume out to start "
            "one."
        )
    if begun and not resume:
        raise ConfigError(
            f"{out} is not empty; add --resume to go on with the ablation there, or choose "
            "another folder."
        )


@contextmanager
def _threads(beside: int) -> Iterator[None]:
    """Let each of so many runs have its part of the threads, unless somebody said how many.

    Threads of this process score with as many: more of them would wait for each other where
    another run has the core.
    """
    name = "OMP_NUM_THREADS"
    if name in os.environ:
        yield
        return
    before, part = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // beside)
    os.environ[name] = str(part)
    torch.set_num_threads(min(before, part))
    try:
        yield
    finally:
        del os.environ[name]
        torch.set_num_threads(before)


def found(settings: Settings, out: Path) -> dict[str, list[dict[str, Any]]]:
    """Read what is scored so far: name of an arm -> one entry a seed, with the code it ran on."""
    scored = {}
    for arm in settings.arms:
        folders = [arm_folder(out, arm, seed) for seed in range(settings.seeds)]
        scored[arm.name] = [
            _read(folder / SCORES) | {"code": _read(folder / RECORD)["code"]}
            for folder in folders
            if (folder / SCORES).exists()
        ]
    return scored


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _train(
    recipe: Recipe, folder: Path, runtime: Runtime | None
) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """Train a recipe, unless that is done; returns the config and processor of its model."""
    parts = parts_of(recipe, ENTRY)
    if finished(recipe, folder) and (folder / "model").exists():
        _require_same(recipe, folder)
        return parts
    logger.info("%s, seed %d", recipe.name, recipe.seed)
    begun = (folder / SAVED).exists()
    start_run(recipe, *parts, folder, resume=begun, runtime=runtime)
    return parts


def _train_and_score(recipe: Recipe, folder: Path, runtime: Runtime | None) -> None:
    if (folder / SCORES).exists():
        _require_same(recipe, folder)
        return
    started = time.perf_counter()
    whole = not (folder / SAVED).exists()  # of what went before a stop nobody knows the time
    config, _ = _train(recipe, folder, runtime)
    trained = time.perf_counter()
    with _SCORING:
        begun = time.perf_counter()
        scores = score_arm(load(str(folder / "model")), recipe, BUDGETS[recipe.budget].scenes)
        scored = time.perf_counter()
    total, trainable = parameters(recipe, config)
    entry = {
        "seed": recipe.seed,
        "scores": scores,
        "parameters": total,
        "trained": trainable,
        "train_seconds": round(trained - started, 1) if whole else None,
        "score_seconds": round(scored - begun, 1),
    }
    logger.info("%s, seed %d: %s", recipe.name, recipe.seed, scores)
    part = folder / f"{SCORES}.part"
    part.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
    part.replace(folder / SCORES)


def _require_same(recipe: Recipe, folder: Path) -> None:
    """Refuse to build on what another recipe left."""
    changed = recipe_changes(folder / SAVED, recipe)
    if changed:
        raise ConfigError(
            f"{folder} is of another recipe: {'; '.join(changed)}. Go on with the settings it was "
            "made with, or choose another folder."
        )


def parameters(recipe: Recipe, config: ParfocalConfig) -> tuple[int, int]:
    """How many parameters the model has, and how many of them train in the recipe's stage."""
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(config)
    freeze(_Owner(model), recipe.stages[0])
    trained, frozen = trainable_counts(model)
    return trained + frozen, trained


class _Owner(torch.nn.Module):
    """What `freeze` takes: something that has a model."""

    def __init__(self, model: ParfocalForConditionalGeneration) -> None:
        super().__init__()
        self.model = model


def plan_rows(settings: Settings) -> list[dict[str, Any]]:
    """Return what every run would be, shared ones first: parameters, pictures, steps, seeds."""
    out = Path()
    runs = [
        ("shared", run, shared_recipe(run, settings.budget, out))
        for run in shared_runs(settings.comparisons, settings.budget)
    ]
    runs += [("arms", arm.name, arm_recipe(arm, 0, settings.budget, out)) for arm in settings.arms]
    rows = []
    for name, arm, recipe in runs:
        (stage,) = recipe.stages
        total, trained = parameters(recipe, parts_of(recipe, ENTRY)[0])
        rows.append(
            {
                "run": f"{name}/{arm}", "parameters": total, "trained": trained,
                "pictures": stage.samples, "steps": stage.steps,
                "seeds": 1 if name == "shared" else settings.seeds,
            }
        )  # fmt: skip
    return rows


def describe(settings: Settings) -> dict[str, Any]:
    """Return the settings and the comparisons as plain JSON values."""
    comparisons = {
        name: {
            "question": item.question,
            "arms": {
                arm: {
                    "run": value.name, "model": value.model, "second_tower": value.detail,
                    "trainable": value.trainable, "alignment_weight": value.alignment_weight,
                    "weights": value.weights,
                }
                for arm, value in item.arms.items()
            },
            "metrics": item.metrics,
            "papers": {"direction": item.direction, "source": item.source},
            "deviates": item.deviates,
        }
        for name, item in settings.comparisons.items()
    }  # fmt: skip
    return {"budget": settings.budget, "seeds": settings.seeds, "comparisons": comparisons}
