"""`parfocal train`: run a recipe."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parfocal.cli import common, show

if TYPE_CHECKING:
    from parfocal.train.recipe import Recipe
    from parfocal.train.runtime import Runtime


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A name ('mini', 'groma', ...), a Python file with a RECIPE, or 'ablate'.",
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
            "--track", metavar="NAME", help="'wandb', 'trackio', 'none'; default: TensorBoard."
        ),
    ] = None,
    accelerate: Annotated[
        str | None,
        typer.Option(
            "--accelerate",
            metavar="NAME|FILE",
            help="Launch with 'ddp', 'fsdp', 'zero2', 'zero3' or a file of Accelerate.",
        ),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Only write the folder, for `accelerate launch`."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would take, check every path, and stop."),
    ] = False,
    tflops: Annotated[
        float,
        typer.Option("--tflops", metavar="X", min=0.001, help="Speed a device, for --dry-run."),
    ] = 100.0,
    as_json: common.JsonOption = False,
) -> None:
    """Train a model from a recipe; the run folder holds the recipe, the metrics and the weights.

    Example: parfocal train mini --set seed=1 --print-config
    """
    from parfocal import recipes
    from parfocal.train.runtime import Runtime

    given = {
        "data": str(data) if data else None,
        "micro_batch": micro_batch,
        "features": str(features) if features else None,
        "trackers": tuple(item for item in track if item != "none") if track else None,
    }
    before = Runtime.of(out) if resume else Runtime(trackers=_trackers())
    chosen = {name: value for name, value in given.items() if value is not None}
    runtime = replace(before, **chosen, stages=tuple(stage or ()))
    if recipe == "ablate":
        _refuse(stage=stage, data=data, features=features, accelerate=accelerate, prepare=prepare)
        shown = print_config, dry_run, as_json
        _ablate(assignments or [], out, processes, resume, runtime, *shown)
        return
    resolved = recipes.get_recipe(recipe, assignments or [])
    if print_config:
        sys.stdout.write(resolved.to_json() + "\n")
        return
    if dry_run:
        _show_plan(recipe, resolved, runtime, processes, tflops, as_json)
        return
    logging.getLogger("parfocal").setLevel(logging.INFO)
    model = recipes.run_recipe(
        recipe, assignments or [], out, processes, resume, runtime, accelerate, begin=not prepare
    )
    show.show_saved(model)


def _trackers() -> tuple[str, ...]:
    """TensorBoard, where it is installed."""
    return ("tensorboard",) if find_spec("tensorboard") else ()


def _refuse(**options: object) -> None:
    """Refuse options of recipes that an ablation cannot honour."""
    from parfocal.errors import ConfigError

    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise ConfigError(f"ablate takes no {', '.join(given)}: its runs are laid out by itself.")


def _ablate(
    assignments: list[str],
    out: Path,
    processes: int | None,
    resume: bool,
    runtime: Runtime,
    print_config: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the papers' ablations at toy size, or say what they are."""
    from parfocal.cli.train_plan import show_arms
    from parfocal.recipes import ablation_run

    if print_config:
        show.print_json(ablation_run.describe(ablation_run.read_settings(assignments)))
        return
    if dry_run:
        rows = ablation_run.plan_rows(ablation_run.read_settings(assignments))
        show_arms(rows, as_json)
        return
    logging.getLogger("parfocal").setLevel(logging.INFO)
    show.show_saved(ablation_run.run_ablation(assignments, out, processes, resume, runtime))


def _show_plan(
    name: str,
    recipe: Recipe,
    runtime: Runtime,
    processes: int | None,
    tflops: float,
    as_json: bool,
) -> None:
    """Print what the recipe would take; exit code 1 if something is missing."""
    from parfocal import recipes
    from parfocal.cli.train_plan import show_plan
    from parfocal.errors import ConfigError
    from parfocal.eval.benchmarks import BENCHMARKS
    from parfocal.train.plan import plan
    from parfocal.train.run import default_processes

    try:
        config, processor = recipes.parts_of(recipe, recipes.find_entry(name))
    except ConfigError:  # the tokenizer is not here; the plan says so
        config, processor = recipes.config_of(recipe), None
    found = plan(
        recipe,
        config,
        processor,
        runtime,
        processes or default_processes(),
        benchmarks=BENCHMARKS,
        tflops=tflops,
    )
    show_plan(found, as_json)
    if found.problems:
        raise typer.Exit(1)
