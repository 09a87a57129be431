"""Recipes: functions that return training recipes, one module a paper.

`RECIPES` maps a name to the function that returns its recipe and the one that builds its processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from parfocal.errors import ConfigError
from parfocal.models.presets import get_preset, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.recipes.mini import mini, mini_processor
from parfocal.train.recipe import Recipe, override
from parfocal.train.run import start_run

RECIPES: dict[str, tuple[Callable[[], Recipe], Callable[[], ParfocalProcessor]]] = {
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
    recipe, processor = get_recipe(name, overrides), RECIPES[name][1]()
    preset = get_preset(recipe.model, vocab_size=len(processor.tokenizer))
    config = vary(preset, recipe.model_overrides)
    config.token_ids = processor.settings.token_ids
    return start_run(recipe, config, processor, out, processes, resume)
