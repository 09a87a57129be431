"""`parfocal train`: run a recipe."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from parfocal.cli import show


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="'mini'.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a value; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run.")] = Path(
        "out/train"
    ),
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", metavar="N", min=1, help="Default: one a GPU, or up to two on a CPU."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")
    ] = False,
) -> None:
    """Train a model from a recipe; the run folder holds the recipe, the metrics and the weights.

    Example: parfocal train mini --set seed=1 --print-config
    """
    from parfocal import recipes

    resolved = recipes.get_recipe(recipe, assignments or [])
    if print_config:
        sys.stdout.write(resolved.to_json() + "\n")
        return
    logging.getLogger("parfocal").setLevel(logging.INFO)
    show.show_saved(recipes.run_recipe(recipe, assignments or [], out, processes, resume))
