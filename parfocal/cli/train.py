"""`parfocal train`: run a recipe."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from parfocal.cli import show


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A name ('mini', 'groma', ...) or a Python file with a RECIPE."
        ),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a value; may be repeated."),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="S", help="Only this stage; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run.")] = Path(
        "out/train"
    ),
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder that paths of mixtures start from."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", metavar="N", min=1, help="Default: one a GPU, or up to two on a CPU."
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch",
            metavar="N",
            min=1,
            help="Samples that a process computes at a time; the step stays as large as it is.",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="DIR",
            help="Compute what frozen towers see once, and keep it here.",
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track", metavar="NAME", help="'tensorboard', 'wandb' or 'trackio'; may be repeated."
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
    from parfocal.train.runtime import Runtime

    chosen = recipes.find_recipe(recipe)
    resolved = recipes.resolve(chosen, assignments or [], stage or [])
    if print_config:
        sys.stdout.write(resolved.to_json() + "\n")
        return
    logging.getLogger("parfocal").setLevel(logging.INFO)
    runtime = Runtime(
        data=str(data or ""),
        micro_batch=micro_batch or 0,
        features=str(features or ""),
        trackers=tuple(track or ()),
    )
    show.show_saved(recipes.run_recipe(chosen, resolved, out, processes, resume, runtime))
