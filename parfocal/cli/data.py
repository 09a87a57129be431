"""`parfocal data`: look at data files and find what is wrong in them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from parfocal.cli import show
from parfocal.cli.common import JsonOption, console
from parfocal.errors import DataError

app = typer.Typer(help="Check and preview data files.", no_args_is_help=True)

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
            out.print(str(issue), soft_wrap=True, markup=False)
        out.print(f"{report.rows} rows, {report.bad_rows} with something wrong")
    if not report.ok:
        raise DataError(_verdict(file, report.bad_rows, report.rows) + "Repair those listed.")


@app.command()
def preview(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page to write.")] = Path(
        "preview.html"
    ),
    images: RootOption = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="Draw the first N rows.")
    ] = 200,
    as_json: JsonOption = False,
) -> None:
    """Draw every row with its boxes on one HTML page that needs no other file.

    Rows with something wrong are always on it, drawn in every reading of their boxes that makes
    sense; then the exit code is 1.

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


def _verdict(file: Path, bad: int, rows: int) -> str:
    return f"{file} has something wrong in {bad} of {rows} rows. "
