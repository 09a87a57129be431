"""`parfocal train`: run a recipe."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parfocal.cli import show
from parfocal.errors import ConfigError

if TYPE_CHECKING:
    from parfocal.train.recipe import Recipe


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="'mini'.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a value; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder.")] = Path(
        "out/train"
    ),
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, help="Training processes.")
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where OUT stopped.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")
    ] = False,
) -> None:
    """Train a model from a recipe; the run folder holds the recipe, the metrics and the weights.

    Example: parfocal train mini --set seed=1 --print-config
    """
    recipe_value = resolve(recipe, assignments or [])
    if print_config:
        sys.stdout.write(recipe_value.to_json() + "\n")
        return
    from parfocal import train as trainer

    logging.getLogger("parfocal").setLevel(logging.INFO)
    trainer.run(recipe, assignments or [], out, processes, resume)
    show.show_saved(out)


def resolve(name: str, assignments: Sequence[str]) -> Recipe:
    """The recipe of this name with some values changed.

    Raises:
        ConfigError: for an unknown recipe, path or value; the message lists what there is.
    """
    from parfocal.recipes import RECIPES
    from parfocal.train.recipe import override

    if name not in RECIPES:
        raise ConfigError(
            f"there is no recipe {name!r}. The recipes are: {', '.join(sorted(RECIPES))}."
        )
    return override(RECIPES[name](), assignments)
