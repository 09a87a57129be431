"""How a plan looks: a column a stage, then what would be fetched and what is wrong; or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from parfocal.cli import show
from parfocal.cli.common import console

if TYPE_CHECKING:
    from rich.table import Table

    from parfocal.train.costs import Memory, Row
    from parfocal.train.plan import PartPlan, Plan, StagePlan

_BASIS = {
    "measured": "measured",
    "max_length": "at most",
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
        out.print(plan_table(found))
        out.print()
        out.print(
            f"hours at an assumed {found.tflops:g} TFLOP/s for each of {found.processes} "
            "processes; a multiply-add is 2 FLOPs",
            soft_wrap=True,
        )
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
    console().print(table)


def plan_table(found: Plan) -> Table:
    """One column a stage: counts, data, tokens of a mean row, work, memory and hours."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column(f"{found.recipe}, {found.budget}", no_wrap=True)
    for stage in found.stages:
        table.add_column(stage.name, justify="right")
    for group in (_parameters(found), _data(found), _row(), _costs()):
        for label, cell in group:
            table.add_row(label, *(cell(stage) for stage in found.stages))
        table.add_section()
    return table


Lines = Iterator[tuple[str, "Callable[[StagePlan], str]"]]


def _parameters(found: Plan) -> Lines:
    yield "trained parameters", lambda stage: f"{stage.trained:,}"
    yield "frozen parameters", lambda stage: f"{stage.frozen:,}"
    names = dict.fromkeys(part.name for stage in found.stages for part in stage.parts)
    for name in names:
        yield f"  {name}", partial(_part, name=name)


def _data(found: Plan) -> Lines:
    yield "samples", lambda stage: _whole(stage.samples)
    yield "optimiser steps", lambda stage: _whole(stage.steps)
    yield "samples a step", lambda stage: f"{stage.batch_size:,}"
    yield (
        "  processes x batches x samples",
        lambda stage: (
            f"{found.processes} x {_whole(stage.accumulation)} x {_whole(stage.micro_batch)}"
        ),
    )


def _row() -> Lines:
    yield "tokens a row", lambda stage: _tokens(stage.row, lambda row: row.tokens)
    yield "  image", lambda stage: _tokens(stage.row, lambda row: row.image)
    yield "  region slots", lambda stage: _tokens(stage.row, lambda row: row.regions)
    yield "  text", lambda stage: _tokens(stage.row, lambda row: row.text)
    yield "  basis", lambda stage: "unknown" if stage.row is None else _BASIS[stage.row.basis]
    yield "tokens", lambda stage: _whole(stage.tokens)


def _costs() -> Lines:
    yield "work, PFLOP", lambda stage: _small(stage.flops, 1e15)
    yield "memory a process, GB", lambda stage: _bytes(stage.memory, lambda held: held.total)
    yield "  weights", lambda stage: _bytes(stage.memory, lambda held: held.weights)
    yield "  copies in bfloat16", lambda stage: _bytes(stage.memory, lambda held: held.copies)
    yield "  gradients", lambda stage: _bytes(stage.memory, lambda held: held.gradients)
    yield "  the optimiser's moments", lambda stage: _bytes(stage.memory, lambda held: held.moments)
    yield "  activations", lambda stage: _bytes(stage.memory, lambda held: held.activations)
    yield "hours", lambda stage: _small(stage.hours, 1.0)


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
    return "-" if memory is None else f"{of(memory) / 1e9:,.2f}"
