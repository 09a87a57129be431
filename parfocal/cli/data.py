"""`parfocal data`: look at data files and find what is wrong in them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parfocal.cli import show
from parfocal.cli.common import JsonOption, check_place, console
from parfocal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from parfocal.data.check import CheckReport
    from parfocal.data.mixture_report import MixtureReport

app = typer.Typer(help="Convert, check, preview, count and mix data.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines or Parquet.")]
RootOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Where the pictures are; default: beside FILE."),
]


@app.command()
def check(file: FileArgument, images: RootOption = None, as_json: JsonOption = False) -> None:
    """Explain every bad row by file and line; exit 1 if there is one.

    Example: parfocal data check out/demo/samples.jsonl
    """
    from parfocal.data.check import check_file

    report = check_file(file, images)
    if as_json:
        show.print_json(report.to_json())
    else:
        out = console()
        for issue in report.issues:
            out.print(str(issue), soft_wrap=True)
        out.print(f"{report.rows} rows, {report.bad_rows} with something wrong")
    if not report.ok:
        raise DataError(_verdict(file, report.bad_rows, report.rows) + _advice(file, report))
    _warn_if_empty(file, report.rows)


@app.command()
def preview(
    file: FileArgument,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The page to write, .html.")
    ] = Path("preview.html"),
    images: RootOption = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="Draw the first N rows.")
    ] = 200,
    as_json: JsonOption = False,
) -> None:
    """Draw every row with its boxes and words on one HTML page that needs no other file.

    Up to N later rows with something wrong are on it as well, in every likely reading; if any row
    is wrong, the exit code is 1.

    Example: parfocal data preview out/demo/samples.jsonl --out preview.html
    """
    from parfocal.data.preview import preview_file

    report = preview_file(file, out, images, limit)
    if as_json:
        show.print_json({"schema": "parfocal.preview/1", "page": str(out), **asdict(report)})
    else:
        console().print(f"{report.shown} of {report.rows} rows drawn, {report.flagged} flagged")
    show.show_saved(out)
    if report.flagged:
        reasons = f"The page shows them; `parfocal data check {file}` lists every reason."
        raise DataError(_verdict(file, report.flagged, report.rows) + reasons)
    _warn_if_empty(file, report.rows)


@app.command()
def readers(as_json: JsonOption = False) -> None:
    """List the datasets that can be read, the files each wants and its options.

    Example: parfocal data readers
    """
    from textwrap import fill

    from rich.text import Text

    from parfocal.data.convert import describe_readers

    found = describe_readers()
    if as_json:
        show.print_json({"schema": "parfocal.readers/1", "readers": [asdict(row) for row in found]})
        return
    out = console()
    for row in found:
        out.print(Text(row.name, "bold"), soft_wrap=True)
        options = " ".join(f"{name}={default}" for name, default in row.options.items())
        for label, words in ("what", row.what), ("SRC", " ".join(row.files)), ("options", options):
            if words:  # names are to be typed: lines end between words, never within
                lines = fill(
                    f"  {label:<9}{words}",
                    out.width,
                    subsequent_indent=" " * 11,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                out.print(lines, soft_wrap=True)


@app.command()
def convert(
    reader: Annotated[
        str, typer.Argument(metavar="READER", help="Which dataset; `data readers` lists them.")
    ],
    paths: Annotated[
        list[Path], typer.Argument(metavar="SRC... OUT", help="Its files, then the file to write.")
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Where the pictures are; checks their sizes."),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="What rows say of their split.")
    ] = "",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="Of the reader; may be repeated."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N rows.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a dataset's own files into one file of samples: .jsonl or .parquet.

    Example: parfocal data convert sa1b tests/fixtures/datasets/sa1b out.jsonl
    """
    from parfocal.data.convert import build_reader
    from parfocal.data.convert import convert as convert_to

    if len(paths) < 2:
        raise ConfigError(
            "give the files of the dataset, then the file to write. `parfocal data readers` says "
            "which files each reader wants."
        )
    *sources, out = paths
    report = convert_to(build_reader(reader, sources, images, split, option or ()), out, limit)
    if as_json:
        show.print_json({"schema": "parfocal.data_convert/1", "out": str(out), **asdict(report)})
    else:
        console().print(f"{report.rows} rows, {report.turns} turns, {report.boxes} boxes")
        for reason, count in report.skipped.items():
            console().print(f"left out: {count} {reason}")
    show.show_saved(out)


@app.command()
def stats(
    file: FileArgument,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE.png", help="Also draw a picture of it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count what a file holds: boxes and their sizes, words, labels, sources.

    Example: parfocal data stats out/demo/samples.jsonl --save stats.png
    """
    from parfocal.data.stats import stats_of

    if save is not None:
        if save.suffix.lower() != ".png":
            raise ConfigError(f"--save {save} must end in .png.")
        check_place(save)
    counted = stats_of(file)
    if as_json:
        show.print_json({"schema": "parfocal.stats/1", "file": str(file), **counted.to_json()})
    else:
        for name, values in counted.summary():
            console().print(f"{name:<16} {values}", soft_wrap=True)
    _warn_if_empty(file, counted.rows)
    if save is not None:
        from parfocal.data.charts import draw_stats
        from parfocal.data.outputs import atomic_file

        with atomic_file(save) as target:
            draw_stats(counted, file.name).save(target, "png")
        show.show_saved(save)


@app.command()
def mix(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The mixture.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the mixture will show.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write an epoch: .jsonl or .parquet."),
    ] = None,
    leaks: Annotated[
        str | None,
        typer.Option(
            "--leaks",
            metavar="refuse|allow|exclude",
            help="What to do with rows that show a picture of a benchmark.",
        ),
    ] = None,
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option(
            "--benchmarks",
            metavar="INDEX",
            help="Index (.json) or samples of a benchmark, beside those FILE names; repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Mix files of samples: how much of each an epoch shows, and the epoch itself as a file.

    FILE.toml has a table for each source: its name, its path, how much of it. See docs/mixtures.md.

    Example: parfocal data mix mixture.toml --dry-run
    """
    from parfocal.data.mixing import open_mixture, task_views
    from parfocal.data.mixture import override, read_mixture
    from parfocal.data.mixture_report import check_epoch_file, describe_mixture, write_epoch
    from parfocal.data.picture_files import pictures_folder

    if dry_run == (out is not None):
        both = " Not both: a dry run writes nothing." if dry_run else ""
        raise ConfigError(
            f"give --out FILE to write an epoch, or --dry-run to look at it first.{both}"
        )
    mixture = override(read_mixture(file), leaks, [str(path) for path in benchmarks or ()])
    if out is not None:
        check_epoch_file(mixture, out)
    opened = open_mixture(mixture, task_views(mixture), refuse=not dry_run)
    report = describe_mixture(opened)
    if as_json:
        show.print_json({**report.to_json(), "file": str(file)})
    else:
        _print_mixture(report, str(opened.leaks))
    if dry_run:
        opened.refuse_leaks()
    elif out is not None:
        written = write_epoch(opened, out)
        show.show_saved(out)
        if written.pictures:
            show.show_saved(pictures_folder(out))


def _print_mixture(report: MixtureReport, leaks: str) -> None:
    """A line a source, then what comes first and what the leak guard found."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("source")
    for column in ("rows", "used", "epochs", "weight", "rows an epoch", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.sources:
        counts = (f"{row.rows:,}", f"{row.used:,}", f"{row.epochs:g}", f"{row.weight:g}")
        share = f"{100 * row.share:.1f} %"
        table.add_row(row.name, *counts, f"{row.expected:,.10g}", share)
    out = console()
    out.print(table)
    words = f"{report.rows:,} rows in the first epoch, {report.interleave}, seed {report.seed}"
    out.print(words)
    out.print(f"first: {', '.join(report.first)}", soft_wrap=True)
    guard = leaks if report.leaks["benchmarks"] else "no benchmarks named, nothing to compare with"
    out.print(f"leaks ({report.leaks['policy']}): {guard}", soft_wrap=True)


def _advice(file: Path, report: CheckReport) -> str:
    """What to do about a file with something wrong in it."""
    if set(report.counts) == {"missing_image"}:
        return "Say where the pictures are: --images DIR."
    if file.suffix == ".json" and report.bad_rows == report.rows:
        return (
            "Is it a dataset's own file? `parfocal data convert` makes samples of it, if "
            "`parfocal data readers` lists the dataset."
        )
    return "Repair those listed."


def _warn_if_empty(file: Path, rows: int) -> None:
    if not rows:
        show.show_warning(f"{file} has no rows.")


def _verdict(file: Path, bad: int, rows: int) -> str:
    return f"{file} has something wrong in {bad} of {rows} rows. "
