"""Recipes: functions that return training recipes, one module a paper.

`RECIPES` names what each consists of; all its functions are pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from parfocal.errors import CheckpointError, ConfigError
from parfocal.eval.run import REPORT, run_benchmark
from parfocal.models.checkpoints.official import with_language_model
from parfocal.models.config import ParfocalConfig
from parfocal.models.presets import get_preset, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.predict.loading import load
from parfocal.recipes import groma, mg_llava, mini, tiny_grounding_gpt
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
        processor: builds the processor of a model's config; None: its words, and its config, are
            those of the language model that the recipe's `weights` name.
    """

    build: Callable[[str], Recipe]
    budgets: Iterable[str] = ("full",)
    processor: Callable[[ParfocalConfig], ParfocalProcessor] | None = None


RECIPES: dict[str, RecipeEntry] = {
    "groma": RecipeEntry(groma.groma),
    "mg_llava_llama3_8b": RecipeEntry(partial(mg_llava.mg_llava, "llama3_8b")),
    "mg_llava_phi3_3_8b": RecipeEntry(partial(mg_llava.mg_llava, "phi3_3_8b")),
    "mg_llava_vicuna_13b": RecipeEntry(partial(mg_llava.mg_llava, "vicuna_13b")),
    "mg_llava_vicuna_7b": RecipeEntry(partial(mg_llava.mg_llava, "vicuna_7b")),
    "mg_llava_video_vicuna_7b": RecipeEntry(mg_llava.mg_llava_video),
    "mg_llava_yi1_5_34b": RecipeEntry(partial(mg_llava.mg_llava, "yi1_5_34b")),
    "mini": RecipeEntry(mini.mini, mini.BUDGETS, mini.mini_processor),
    "tiny_grounding_gpt_1_5b": RecipeEntry(partial(tiny_grounding_gpt.tiny_grounding_gpt, "1_5b")),
    "tiny_grounding_gpt_3b": RecipeEntry(partial(tiny_grounding_gpt.tiny_grounding_gpt, "3b")),
    "tiny_grounding_gpt_7b": RecipeEntry(partial(tiny_grounding_gpt.tiny_grounding_gpt, "7b")),
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
    """Build the config and the processor of the model that a recipe trains; they fit each other.

    Raises:
        ConfigError: if the language model that the recipe starts from is not here.
    """
    build = RECIPES[recipe.name].processor
    config = vary(get_preset(recipe.model), recipe.model_overrides)
    if build is None:
        return _of_language_model(recipe, config)
    processor = build(config)
    text = {"vocab_size": len(processor.tokenizer)}
    ids = processor.settings.token_ids.to_dict()
    return vary(config, {"text_config": text, "token_ids": ids}), processor


def _of_language_model(
    recipe: Recipe, config: ParfocalConfig
) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """Give the model the config, the tokenizer and the prompt of `weights["text"]`."""
    source = recipe.weights.get("text")
    if source is None:
        raise ConfigError(
            f"recipe {recipe.name!r}: weights name no language model, whose tokenizer is needed; "
            "pass --set weights.text=FOLDER."
        )
    try:
        config, processor = with_language_model(config, source, recipe.model)
    except CheckpointError as err:
        raise ConfigError(
            f"recipe {recipe.name!r} starts from the language model {source!r}: {err} Or pass "
            "--set weights.text=FOLDER with the folder of one that is here."
        ) from err
    text = recipe.model_overrides.get("text_config", {})
    return vary(config, {"text_config": text}), processor
