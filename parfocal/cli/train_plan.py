"""How a plan looks: a column a stage, then what would be fetched and what is wrong; or JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from parfocal.cli import show
from parfocal.cli.common import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from parfocal.train.costs import Memory, Row
    from parfocal.train.plan import FeaturesPlan, PartPlan, Plan, StagePlan

_BASIS = {
    "measured": "measured",
    "max_length": "at most",
    "one_picture": "one picture",
    "pictures": "pictures only",
}


def show_plan(found: Plan, as_json: bool = False) -> None:
    """Print a plan on stdout; the caller exits with 1 if it has problems.

    Args:
        found: the plan.
        as_json: print `Plan.to_json` instead of tables.
    """
    if as_json:
        show.print_json(found.to_json())
        return
    out = console()
    if found.stages:
        for table in plan_tables(found, out):
            print_whole(table, out)
            out.print()
        for line in _assumed(found):
            out.print(line, soft_wrap=True)
    else:
        out.print("no stage is left to train")
    for name in found.to_fetch:
        out.print(f"to be fetched: {name}", soft_wrap=True)
    for problem in found.problems:
        out.print(f"problem: {problem}", soft_wrap=True)
    count = len(found.problems)
    out.print({0: "no problems", 1: "1 problem"}.get(count, f"{count} problems"))


def show_arms(rows: Sequence[Mapping[str, Any]], as_json: bool = False) -> None:
    """Print the runs of an ablation on stdout, one a row.

    Args:
        rows: from `parfocal.recipes.ablation_run.plan_rows`.
        as_json: print them as they are.
    """
    if as_json:
        show.print_json(list(rows))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right", no_wrap=True)
    for row in rows:
        cells = (value if isinstance(value, str) else f"{value:,}" for value in row.values())
        table.add_row(*cells)
    print_whole(table, console())


def print_whole(table: Table, out: Console) -> None:
    """Print a table whose columns do not wrap; lines grow too long before anything is cut."""
    out.width = max(out.width, _width(table, out))
    out.print(table)


def _width(table: Table, out: Console) -> int:
    return out.measure(table, options=out.options.update(width=10_000)).maximum


def plan_tables(found: Plan, out: Console) -> list[Table]:
    """The stages in one table, or in as few as are needed for them to fit."""
    tables: list[Table] = []
    for count in range(1, len(found.stages) + 1):
        size = math.ceil(len(found.stages) / count)
        firsts = range(0, len(found.stages), size)
        tables = [plan_table(found, found.stages[first : first + size]) for first in firsts]
        if all(_width(table, out) <= out.width for table in tables):
            break
    return tables


def _assumed(found: Plan) -> Iterator[str]:
    """What the numbers rest on."""
    if found.device == "cuda":
        yield f"memory: of a process on a GPU, with {found.attention} attention"
        yield (
            f"host memory: processes on one machine: {found.processes}; each builds the whole "
            "model in float32 before anything is divided or goes to a GPU"
        )
    elif found.attention == "turns":
        yield "memory: on CPUs; attention by turns keeps less than is counted here, all pairs"
    else:
        yield f"memory: on CPUs, with {found.attention} attention"
    yield (
        f"hours at an assumed {found.tflops:g} TFLOP/s (--tflops) for each of {found.processes} "
        "processes; a multiply-add is 2 FLOPs"
    )
    if any(stage.row and stage.row.basis == "one_picture" for stage in found.stages):
        yield (
            "tokens: as much text as there may be beside one picture, as the data are not here; "
            "further frames of videos, and the work of object images, come on top"
        )
    if found.free is not None:
        yield (
            "features: at most, in float32, each picture once; "
            f"{found.free / 1e9:,.1f} GB are free on the disk"
        )


def plan_table(found: Plan, stages: Sequence[StagePlan]) -> Table:
    """One column a stage: counts, data, tokens of a mean row, work, memory and hours."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column(f"{found.recipe}, {found.budget}", no_wrap=True)
    for stage in stages:
        table.add_column(stage.name, justify="right", no_wrap=True)
    for group in (_parameters(found), _data(found), _row(), _costs(), _features(found)):
        for label, cell in group:
            table.add_row(label, *map(cell, stages))
        table.add_section()
    return table


Rows = Iterator[tuple[str, "Callable[[StagePlan], str]"]]


def _parameters(found: Plan) -> Rows:
    yield "trained parameters", lambda stage: f"{stage.trained:,}"
    yield "frozen parameters", lambda stage: f"{stage.frozen:,}"
    names = dict.fromkeys(part.name for stage in found.stages for part in stage.parts)
    for name in names:
        yield f"  {name}", partial(_part, name=name)


def _data(found: Plan) -> Rows:
    yield "samples", lambda stage: _whole(stage.samples)
    yield "optimiser steps", lambda stage: _whole(stage.steps)
    yield "samples a step", lambda stage: f"{stage.batch_size:,}"
    yield (
        "  processes x batches of",
        lambda stage: (
            f"{found.processes} x {_whole(stage.accumulation)} of {_whole(stage.micro_batch)}"
        ),
    )


def _row() -> Rows:
    yield "tokens a row", lambda stage: _tokens(stage.row, lambda row: row.tokens)
    yield "  image", lambda stage: _tokens(stage.row, lambda row: row.image)
    yield "  region slots", lambda stage: _tokens(stage.row, lambda row: row.regions)
    yield "  text", lambda stage: _tokens(stage.row, lambda row: row.text)
    yield "  basis", lambda stage: "unknown" if stage.row is None else _BASIS[stage.row.basis]
    yield "tokens", lambda stage: _whole(stage.tokens)


def _costs() -> Rows:
    yield "work, PFLOP", lambda stage: _small(stage.flops, 1e15)
    yield "memory a process, GB", lambda stage: _bytes(stage.memory, lambda held: held.total)
    yield "  weights", lambda stage: _bytes(stage.memory, lambda held: held.weights)
    yield "  copies in bfloat16", lambda stage: _bytes(stage.memory, lambda held: held.copies)
    yield "  gradients", lambda stage: _bytes(stage.memory, lambda held: held.gradients)
    yield "  the optimiser's moments", lambda stage: _bytes(stage.memory, lambda held: held.moments)
    yield "  activations", lambda stage: _bytes(stage.memory, lambda held: held.activations)
    yield "host memory a machine, GB", lambda stage: _giga(stage.host)
    yield "hours", lambda stage: _small(stage.hours, 1.0)


def _features(found: Plan) -> Rows:
    if any(stage.features for stage in found.stages):
        yield "features a picture, MB", lambda stage: _kept(stage, lambda kept: kept.picture, 1e6)
        yield "  pictures", lambda stage: _whole(stage.features and stage.features.pictures)
        yield "  of all, GB", lambda stage: _kept(stage, lambda kept: kept.size, 1e9)


def _part(stage: StagePlan, name: str) -> str:
    """Say how much of a part trains: "all", "frozen", or how much of how much."""
    parts: dict[str, PartPlan] = {part.name: part for part in stage.parts}
    if name not in parts:
        return "-"
    trained, size = parts[name].trained, parts[name].trained + parts[name].frozen
    if trained in (0, size):
        return f"{'all' if trained else 'frozen'} {_short(size)}"
    return f"{_short(trained)} of {_short(size)}"


def _short(count: int) -> str:
    """Three digits: 304 M."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _whole(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _small(number: float | None, unit: float) -> str:
    if number is None:
        return "-"
    value = number / unit
    return f"{value:,.1f}" if value >= 100 else f"{value:.3g}"


def _tokens(row: Row | None, of: Callable[[Row], float]) -> str:
    return "-" if row is None else f"{of(row):,.1f}"


def _bytes(memory: Memory | None, of: Callable[[Memory], int]) -> str:
    return "-" if memory is None else _giga(of(memory))


def _giga(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:,.2f}"


def _kept(stage: StagePlan, of: Callable[[FeaturesPlan], int | None], unit: float) -> str:
    return "-" if stage.features is None else _small(of(stage.features), unit)
