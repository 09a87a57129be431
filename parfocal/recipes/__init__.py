"""Recipes: functions that return training recipes, one module a paper.

`RECIPES` maps a name to the function that returns its recipe and the one that builds the processor
of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.presets import get_preset, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.recipes.mini import mini, mini_processor
from parfocal.train.recipe import Recipe, override
from parfocal.train.run import start_run

RECIPES: dict[str, tuple[Callable[[], Recipe], Callable[[ParfocalConfig], ParfocalProcessor]]] = {
    "mini": (mini, mini_processor)
}


def get_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return recipe `name` with `path=value` overrides; ConfigError lists the names."""
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; choose one of {sorted(RECIPES)}.")
    return override(RECIPES[name][0](), overrides)


def run_recipe(
    name: str,
    overrides: Sequence[str] = (),
    out: Path = Path("out"),
    processes: int | None = None,
    resume: bool = False,
) -> Path:
    """Train recipe `name` into `out`; returns the folder of the finished model.

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
    return start_run(recipe, config, processor, out, processes, resume)


def parts_of(recipe: Recipe) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """Build the config and the processor of the model that a recipe trains; they fit each other."""
    config = vary(get_preset(recipe.model), recipe.model_overrides)
    processor = RECIPES[recipe.name][1](config)
    text = {"vocab_size": len(processor.tokenizer)}
    ids = processor.settings.token_ids.to_dict()
    return vary(config, {"text_config": text, "token_ids": ids}), processor
