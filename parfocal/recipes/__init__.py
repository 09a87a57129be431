"""Recipes: functions that return training recipes, one module a paper.

`RECIPES` names what each consists of; all its functions are pure.
"""

from __future__ import annotations

import logging
import runpy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from parfocal.errors import CheckpointError, ConfigError
from parfocal.eval.benchmarks import BUNDLED
from parfocal.eval.run import REPORT, run_benchmark
from parfocal.hub import first_line
from parfocal.models.checkpoints.official import with_language_model
from parfocal.models.config import ParfocalConfig
from parfocal.models.presets import get_preset, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.predict.loading import load
from parfocal.recipes import groma, mg_llava, mini, tiny_grounding_gpt
from parfocal.train.checks import check_benchmarks
from parfocal.train.overrides import override
from parfocal.train.recipe import Recipe
from parfocal.train.run import SAVED, finished, overrides_of, start_run
from parfocal.train.runtime import Runtime

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


@lru_cache
def find_entry(name: str) -> RecipeEntry:
    """Return a recipe by its name in `RECIPES`, or `RECIPE` of a Python file, which is run.

    Raises:
        ConfigError: if there is no such name or file, or the file defines no RecipeEntry.
    """
    if not name.endswith(".py"):
        if name not in RECIPES:
            raise ConfigError(
                f"there is no recipe {name!r}; choose one of {sorted(RECIPES)}, or give a Python "
                "file that defines RECIPE."
            )
        return RECIPES[name]
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"there is no file {name!r} to read a recipe from.")
    try:
        found = runpy.run_path(str(path)).get("RECIPE")
    except Exception as err:
        raise ConfigError(f"{name} cannot be run: {type(err).__name__}: {err}.") from err
    if not isinstance(found, RecipeEntry):
        raise ConfigError(
            f"{name} does not define RECIPE, a parfocal.recipes.RecipeEntry; it is {found!r}."
        )
    return found


def get_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe with `path=value` overrides.

    `budget=NAME` picks one of the recipe's sizes; the other overrides then change that.

    Args:
        name: as `find_entry` takes it.
        overrides: as in `parfocal.train.overrides.override`.

    Raises:
        ConfigError: for an unknown name, budget or path; the message lists what there is. Also if
            a file builds no recipe, or one with values of other types.
    """
    entry, budget, others = find_entry(name), "full", []
    for assignment in overrides:
        path, separator, value = assignment.partition("=")
        if separator and path.strip() == "budget":
            budget = value.strip()
        else:
            others.append(assignment)
    budgets = list(entry.budgets)
    if budget not in budgets:
        raise ConfigError(f"recipe {name!r} has no budget {budget!r}; choose one of {budgets}.")
    return override(_built(name, entry, budget), others)


def _built(name: str, entry: RecipeEntry, budget: str) -> Recipe:
    """Build a recipe; one of a file with values of the types that it would be saved with."""
    if not name.endswith(".py"):
        return entry.build(budget)
    try:
        return Recipe.from_json(entry.build(budget).to_json())
    except ConfigError as err:
        raise ConfigError(f"{name}: {err}") from err
    except Exception as err:
        raise ConfigError(
            f"{name} builds no recipe: {type(err).__name__}: {first_line(err)}. RECIPE.build takes "
            "the name of a budget and returns a Recipe of numbers, text, tuples and mappings, with "
            "paths as text; --debug shows the line."
        ) from err


def recipe_of_run(name: str, overrides: Sequence[str], before: Path | None) -> Recipe:
    """Return the recipe that `run_recipe` trains.

    Args:
        name: as `find_entry` takes it.
        overrides: `path=value` assignments to the recipe of that name.
        before: folder of the run to go on with, which says how if there are no overrides; None to
            start one. Of a Python file, the recipe is what the file now says, with the overrides
            that the run began with; one that is no longer there is not needed.

    Raises:
        ConfigError: for an unknown name or override, or if there is no run in `before`, or one of
            another recipe.
    """
    if before is None:
        return get_recipe(name, overrides)
    if not (before / SAVED).exists():
        raise ConfigError(
            f"{before} holds no run to go on with. Check --out, or leave --resume out to start one."
        )
    saved = Recipe.from_json((before / SAVED).read_text(encoding="utf-8"))
    is_file = name.endswith(".py")
    if is_file and not overrides:
        began = overrides_of(before)
        return get_recipe(name, began) if Path(name).is_file() and began is not None else saved
    recipe = get_recipe(name, overrides)
    if overrides:
        return recipe
    if saved.name != recipe.name:
        raise ConfigError(
            f"{before} holds a run of the recipe {saved.name!r}, not of {recipe.name!r}. Go on "
            "with that recipe, or choose another folder."
        )
    return saved


def parts_of_run(
    recipe: Recipe, name: str, before: Path | None
) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """Return the config and the processor of the model that `run_recipe` trains.

    Args:
        recipe: from `recipe_of_run`.
        name: of the recipe, as `find_entry` takes it.
        before: folder of the run to go on with, which holds its own, as what its words came from
            may be gone; None to start one.

    Raises:
        ConfigError: as `parts_of` does.
    """
    if before is None:
        return parts_of(recipe, find_entry(name))
    start = before / "start"
    return ParfocalConfig.from_pretrained(start), ParfocalProcessor.from_pretrained(start)


def run_recipe(
    name: str,
    overrides: Sequence[str] = (),
    out: Path = Path("out"),
    resume: bool = False,
    runtime: Runtime | None = None,
    accelerate: str | None = None,
    begin: bool = True,
) -> Path:
    """Train a recipe into `out` and evaluate it; returns the folder of the finished model.

    Reports of the recipe's benchmarks are written to OUT/eval/BENCHMARK when all stages are done.

    Args:
        name: as `find_entry` takes it.
        overrides: `path=value` assignments, as in `parfocal.train.overrides.override`; a run that
            is resumed needs none.
        out: the run's folder.
        resume: go on with the run in `out`.
        runtime: folders, sizes and processes of the machine.
        accelerate: a configuration of Accelerate: a file, or the name of one in
            `parfocal/recipes/accelerate`.
        begin: False only prepares the folder, for `accelerate launch`.

    Raises:
        ConfigError: for an unknown name or override, or if `out` does not fit `resume`, or the
            recipe names a benchmark that it cannot run.
    """
    recipe = recipe_of_run(name, overrides, out if resume else None)
    if not resume:
        check_benchmarks(recipe, BUNDLED)
    config, processor = parts_of_run(recipe, name, out if resume else None)
    settings = None if accelerate is None else accelerate_file(accelerate)
    model = start_run(
        recipe, config, processor, out, resume, runtime, settings,
        begin=begin, overrides=overrides,
    )  # fmt: skip
    if not begin:
        return out
    for benchmark in recipe.benchmarks if finished(recipe, out) else ():
        folder = out / "eval" / benchmark
        if not (folder / REPORT).exists():
            report = run_benchmark(benchmark, load(str(model)), folder, recipe.benchmark_limit)
            logger.info("%s: %s", benchmark, headline(report))
    return model


def accelerate_file(name: str) -> Path:
    """Return a configuration of Accelerate: a file, or one of those that are shipped, by name.

    Raises:
        ConfigError: if there is neither; the message lists the names.
    """
    shipped = Path(__file__).parent / "accelerate"
    for path in (Path(name), shipped / f"{name}.yaml"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in shipped.glob("*.yaml"))
    raise ConfigError(f"there is no file {name!r} to configure Accelerate; shipped are {names}.")


def headline(report: dict[str, Any]) -> str:
    """The numbers of a benchmark's report in one line."""
    keys = [key for key in report if f"{key}_n" in report and report[key] is not None]
    return ", ".join(f"{key} {report[key]:.1f}" for key in keys)


def parts_of(
    recipe: Recipe, entry: RecipeEntry | None = None
) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """Build the config and the processor of the model that a recipe trains; they fit each other.

    Args:
        recipe: of a model.
        entry: it is of; the one of its name when None.

    Raises:
        ConfigError: if the language model that the recipe starts from is not here.
    """
    build, config = (entry or RECIPES[recipe.name]).processor, config_of(recipe)
    if build is None:
        return _of_language_model(recipe, config)
    processor = build(config)
    text = {"vocab_size": len(processor.tokenizer)}
    ids = processor.settings.token_ids.to_dict()
    return vary(config, {"text_config": text, "token_ids": ids}), processor


def config_of(recipe: Recipe) -> ParfocalConfig:
    """The config of a recipe's model, before a tokenizer gives it words."""
    return vary(get_preset(recipe.model), recipe.model_overrides)


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
