"""Recipes: functions that return training recipes, one module a paper.

`RECIPES` names what each consists of; all its functions are pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parfocal.errors import ConfigError
from parfocal.eval.run import REPORT, run_benchmark
from parfocal.models.config import ParfocalConfig
from parfocal.models.presets import get_preset, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.predict.loading import load
from parfocal.recipes import mini
from parfocal.train.overrides import override
from parfocal.train.recipe import Recipe
from parfocal.train.run import start_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecipeEntry:
    """What a recipe consists of.

    Attributes:
        build: budget -> recipe.
        budgets: what `build` takes.
        processor: builds the processor of a model's config.
    """

    build: Callable[[str], Recipe]
    budgets: Iterable[str]
    processor: Callable[[ParfocalConfig], ParfocalProcessor]


RECIPES: dict[str, RecipeEntry] = {
    "mini": RecipeEntry(mini.mini, mini.BUDGETS, mini.mini_processor),
}


def get_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return recipe `name` with `path=value` overrides.

    `budget=NAME` picks one of the recipe's sizes; the other overrides then change that.

    Raises:
        ConfigError: for an unknown name, budget or path; the message lists what there is.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; choose one of {sorted(RECIPES)}.")
    budget, others = "full", []
    for assignment in overrides:
        path, separator, value = assignment.partition("=")
        if separator and path.strip() == "budget":
            budget = value.strip()
        else:
            others.append(assignment)
    budgets = list(RECIPES[name].budgets)
    if budget not in budgets:
        raise ConfigError(f"recipe {name!r} has no budget {budget!r}; choose one of {budgets}.")
    return override(RECIPES[name].build(budget), others)


def run_recipe(
    name: str,
    overrides: Sequence[str] = (),
    out: Path = Path("out"),
    processes: int | None = None,
    resume: bool = False,
) -> Path:
    """Train recipe `name` into `out` and evaluate it; returns the folder of the finished model.

    Reports of the recipe's benchmarks are written to OUT/eval/BENCHMARK.

    Args:
        name: key of `RECIPES`.
        overrides: `path=value` assignments, as in `parfocal.train.recipe.override`.
        out: the run's folder.
        processes: data-parallel processes; chosen by the machine when None.
        resume: go on with the run in `out`.

    Raises:
        ConfigError: for an unknown name or override, or if `out` does not fit `resume`.
    """
    recipe = get_recipe(name, overrides)
    config, processor = parts_of(recipe)
    model = start_run(recipe, config, processor, out, processes, resume)
    for benchmark in recipe.benchmarks:
        folder = out / "eval" / benchmark
        if not (folder / REPORT).exists():
            report = run_benchmark(benchmark, load(str(model)), folder, recipe.benchmark_limit)
            logger.info("%s: %s", benchmark, headline(report))
    return model


def headline(report: dict[str, Any]) -> str:
    """The numbers of a benchmark's report in one line."""
    keys = [key for key in report if f"{key}_n" in report and report[key] is not None]
    return ", ".join(f"{key} {report[key]:.1f}" for key in keys)


def parts_of(recipe: Recipe) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """Build the config and the processor of the model that a recipe trains; they fit each other."""
    config = vary(get_preset(recipe.model), recipe.model_overrides)
    processor = RECIPES[recipe.name].processor(config)
    text = {"vocab_size": len(processor.tokenizer)}
    ids = processor.settings.token_ids.to_dict()
    return vary(config, {"text_config": text, "token_ids": ids}), processor
