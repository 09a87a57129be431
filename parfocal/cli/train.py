"""`parfocal train`: run a recipe."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parfocal.cli import common, show
from parfocal.errors import ConfigError

if TYPE_CHECKING:
    from parfocal.train.recipe import Recipe
    from parfocal.train.runtime import Runtime


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A name ('mini', 'groma', ...), a Python file with a RECIPE, or 'ablate'.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value; may be repeated."),
]
StageOption = Annotated[
    list[str] | None,
    typer.Option("--stage", metavar="S", help="Only this stage; may be repeated."),
]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder that paths of mixtures start from."),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes", metavar="N", min=1, help="Default: one a GPU, or up to two on a CPU."
    ),
]
MicroBatchOption = Annotated[
    int | None,
    typer.Option(
        "--micro-batch",
        metavar="N",
        min=1,
        help="Samples that a process computes at a time; the step stays as large as it is.",
    ),
]
FeaturesOption = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="DIR",
        help="Compute what frozen towers see once, and keep it here.",
    ),
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track", metavar="NAME", help="'wandb', 'trackio', 'none'; default: TensorBoard."
    ),
]
AccelerateOption = Annotated[
    str | None,
    typer.Option(
        "--accelerate",
        metavar="NAME|FILE",
        help="Launch with 'ddp', 'fsdp', 'zero2', 'zero3' or a file of Accelerate.",
    ),
]
PrepareOption = Annotated[
    bool, typer.Option("--prepare", help="Only write the folder, for `accelerate launch`.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
]
PrintConfigOption = Annotated[
    bool, typer.Option("--print-config", help="Print the resolved recipe and stop.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what it would take, check every path, and stop.")
]
TflopsOption = Annotated[
    float | None,
    typer.Option(
        "--tflops",
        metavar="X",
        min=0.001,
        help="TFLOP/s that --dry-run takes a process to reach; default: 100 a GPU, 0.05 a core.",
    ),
]


def train(
    recipe: RecipeArgument,
    assignments: SetOption = None,
    stage: StageOption = None,
    out: OutOption = Path("out/train"),
    data: DataOption = None,
    processes: ProcessesOption = None,
    micro_batch: MicroBatchOption = None,
    features: FeaturesOption = None,
    track: TrackOption = None,
    accelerate: AccelerateOption = None,
    prepare: PrepareOption = False,
    resume: ResumeOption = False,
    print_config: PrintConfigOption = False,
    dry_run: DryRunOption = False,
    tflops: TflopsOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Train a model from a recipe; the run folder holds the recipe, the metrics and the weights.

    Example: parfocal train mini --set seed=1 --print-config
    """
    _check_extra()
    from parfocal import recipes

    _check_looks(prepare=prepare, print_config=print_config, dry_run=dry_run, tflops=tflops)
    chosen, before = assignments or [], out if resume else None
    runtime = _runtime(
        before,
        stage=stage,
        data=data,
        micro_batch=micro_batch,
        features=features,
        track=track,
        processes=processes,
    )
    if recipe == "ablate":
        _refuse(stage=stage, data=data, features=features, accelerate=accelerate, prepare=prepare)
        if dry_run or print_config:
            _refuse(_OF_ALL_RUNS, resume=resume, tflops=tflops)
        _ablate(chosen, out, resume, runtime, print_config, dry_run, as_json)
        return
    resolved = recipes.recipe_of_run(recipe, chosen, before)
    _check_named(resolved, stage or [], data)
    if print_config:
        sys.stdout.write(resolved.to_json() + "\n")
    elif dry_run:
        _show_plan(recipe, resolved, before, runtime, accelerate, tflops, as_json)
    else:
        logging.getLogger("parfocal").setLevel(logging.INFO)
        written = recipes.run_recipe(
            recipe,
            chosen,
            out,
            resume=resume,
            runtime=runtime,
            accelerate=accelerate,
            begin=not prepare,
        )
        _show_run(out, written, as_json)


_OF_ALL_RUNS = "--dry-run and --print-config tell of all its runs, done or not, and of no hours"


def _check_extra() -> None:
    if find_spec("accelerate") is None:
        raise ConfigError(
            "training needs Accelerate, which is not installed: pip install 'parfocal[train]'."
        )


def _check_looks(*, prepare: bool, print_config: bool, dry_run: bool, tflops: float | None) -> None:
    """Refuse options of which one would go unheard beside, or without, another."""
    looks = {"--prepare": prepare, "--print-config": print_config, "--dry-run": dry_run}
    given = [name for name, wanted in looks.items() if wanted]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} each stop before training. Give one of them.")
    if tflops is not None and not dry_run:
        raise ConfigError(
            "--tflops is what --dry-run counts hours with. Add --dry-run, or leave --tflops out."
        )


def _check_named(recipe: Recipe, stages: Sequence[str], data: Path | None) -> None:
    """Refuse stages that the recipe does not have, and a folder that it has no use for."""
    names = [stage.name for stage in recipe.stages]
    for name in stages:
        if name not in names:
            raise ConfigError(f"recipe {recipe.name!r} has no stage {name!r}; there are {names}.")
    if data is None:
        return
    if not any(stage.mixture or stage.eval_mixture for stage in recipe.stages):
        raise ConfigError(
            f"recipe {recipe.name!r} reads no files (mixture), so no path starts from --data. "
            "Leave --data out."
        )
    if not data.is_dir():
        raise ConfigError(
            f"--data {str(data)!r} is no folder. Give the one that paths of mixtures start from."
        )


def _runtime(
    before: Path | None,
    *,
    stage: list[str] | None,
    data: Path | None,
    micro_batch: int | None,
    features: Path | None,
    track: list[str] | None,
    processes: int | None,
) -> Runtime:
    """What the run is told of the machine: what is given, else what the one in `before` was."""
    from parfocal.train.runtime import Runtime

    given = {
        "data": str(data.resolve()) if data else None,  # a run may go on from another folder
        "micro_batch": micro_batch,
        "features": str(features.resolve()) if features else None,
        "processes": processes,
        "trackers": tuple(item for item in track if item != "none") if track else None,
    }
    start = Runtime(trackers=_trackers()) if before is None else Runtime.of(before)
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(start, **chosen, stages=tuple(stage or ()))


def _trackers() -> tuple[str, ...]:
    """TensorBoard, where it is installed."""
    return ("tensorboard",) if find_spec("tensorboard") else ()


def _refuse(why: str = "its runs are laid out by itself", **options: object) -> None:
    """Refuse options of recipes that an ablation cannot honour."""
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise ConfigError(f"ablate takes no {', '.join(given)}: {why}.")


def _show_run(out: Path, written: Path, as_json: bool) -> None:
    """Say where the run and what it wrote last are."""
    if as_json:
        show.print_json({"schema": "parfocal.train/1", "run": str(out), "wrote": str(written)})
    show.show_saved(written)


def _ablate(
    assignments: list[str],
    out: Path,
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
    _show_run(out, ablation_run.run_ablation(assignments, out, resume, runtime), as_json)


def _show_plan(
    name: str,
    recipe: Recipe,
    before: Path | None,
    runtime: Runtime,
    accelerate: str | None,
    tflops: float | None,
    as_json: bool,
) -> None:
    """Print what the recipe would take; exit code 1 if something is missing.

    Of a run that goes on, in the folder `before`, it is what is left.
    """
    from parfocal import recipes
    from parfocal.cli.train_plan import show_plan
    from parfocal.eval.benchmarks import BUNDLED
    from parfocal.train.plan import plan
    from parfocal.train.processes import default_processes, divided_states
    from parfocal.train.run import configuration_of, done_stages

    done = () if before is None else done_stages(recipe, before)
    refused: list[str] = []
    divided: tuple[str, ...] = ()
    try:
        config, processor = recipes.parts_of_run(recipe, name, before)
    except ConfigError as err:  # the tokenizer is not here, or cannot be built
        config, processor = recipes.config_of(recipe), None
        refused.append(str(err))
    try:
        given = None if accelerate is None else recipes.accelerate_file(accelerate)
        divided = divided_states(given or (before and configuration_of(before)))
    except ConfigError as err:
        refused.append(str(err))
    found = plan(
        recipe,
        config,
        processor,
        replace(runtime, processes=runtime.processes or default_processes()),
        benchmarks=BUNDLED,
        tflops=tflops,
        done=done,
        divided=divided,
        problems=refused,
    )
    show_plan(found, as_json)
    if found.problems:
        raise typer.Exit(1)
