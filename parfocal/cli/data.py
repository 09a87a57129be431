"""`parfocal data`: look at data files and find what is wrong in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from parfocal.cli import show
from parfocal.cli.common import JsonOption, console

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
        for issue in report.issues:
            console().print(str(issue), soft_wrap=True, markup=False)
        console().print(f"{report.rows} rows, {report.bad_rows} with something wrong")
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def preview(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page to write.")] = Path(
        "preview.html"
    ),
    images: RootOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N samples.")
    ] = None,
) -> None:
    """Draw every sample with its boxes on one HTML page that needs no other file.

    Example: parfocal data preview out/demo/samples.jsonl --out preview.html
    """
