"""`parfocal eval`: run a benchmark and report its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parfocal.cli import show
from parfocal.cli.common import (
    CacheOption,
    DetectorOption,
    DeviceOption,
    DialectOption,
    JsonOption,
    ModelOption,
    TaggerOption,
    console,
    error_console,
    finder_parts,
    load_predictor,
)

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCHMARK", help="'scenes', 'msvd_qa' or 'msrvtt_qa'.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder of a benchmark that is not bundled."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Only the first N pictures or videos."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="B", min=1, help="Pictures at a time.")
    ] = 16,
    model: ModelOption = "mini",
    dialect: DialectOption = None,
    tagger: TaggerOption = None,
    detector: DetectorOption = None,
    boxes_cache: CacheOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Ask a model a whole benchmark; writes predictions.jsonl and report.json.

    For models that read the boxes of a detector, --tagger and --detector find them.

    Example: parfocal eval scenes --limit 20 --out out/scenes
    """
    from parfocal.eval.benchmarks import get_benchmark
    from parfocal.eval.run import run_benchmark

    parts = finder_parts(tagger, detector, boxes_cache)
    get_benchmark(benchmark).load(limit, data)  # what is wrong is told before a model is loaded
    predictor = load_predictor(model, device, dialect, parts)
    with _progress(benchmark) as step:
        report = run_benchmark(benchmark, predictor, out, limit, batch_size, step, data=data)
    if as_json:
        show.print_json(report)
    else:
        console().print(report_table(report))
    show.show_saved(out / "report.json")


def report_table(report: dict[str, Any]) -> Table:
    """One line a number: value, interval and count, aligned."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column(f"{report['benchmark']}: {report['protocol']['model']}")
    for name in ("value", "95 % interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for key in (key for key in report if f"{key}_n" in report):
        low, high = report[f"{key}_low"], report[f"{key}_high"]
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        value = "-" if report[key] is None else f"{report[key]:.2f}"
        table.add_row(key, value, interval, str(report[f"{key}_n"]))
    return table


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that appears with the first step; gives the function that moves it."""
    from rich import progress

    columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
    bar = progress.Progress(title, *columns, console=error_console())
    task = bar.add_task(title, total=None)

    def step(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield step
    finally:
        if bar.live.is_started:
            bar.stop()
