"""`parfocal convert`: official checkpoints, or public parts, to a folder that `--model` takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parfocal.cli import show
from parfocal.cli.common import JsonOption, console, error_console
from parfocal.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from parfocal.models.checkpoints.convert import Report


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="An official folder or file, a cached hub id, or a preset."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A new folder.")],
    family: Annotated[
        str | None,
        typer.Option("--family", metavar="F", help="'groma' or 'mg_llava'; default: recognised."),
    ] = None,
    vision: Annotated[
        list[str] | None,
        typer.Option(
            "--vision", metavar="M", help="Folder or cached hub id of a tower; may be repeated."
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text", metavar="M", help="Folder or cached hub id of the words, or 'mini'."
        ),
    ] = None,
    stage: Annotated[
        str,
        typer.Option(
            "--stage", metavar="S", help="Of Groma: 'auto', 'finetune', 'pretrain' or 'detector'."
        ),
    ] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", metavar="T", help="'float32', 'bfloat16', 'float16'; default: as in SRC."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert Groma's or MG-LLaVA's weights, or start a preset from public parts.

    --vision (twice) and --text name parts of MG-LLaVA that lie outside SRC.

    A preset needs --text, and takes --vision.

    Example: parfocal convert mini out/fresh --text mini
    """
    from rich.text import Text
    from transformers.utils import logging as hub_logging

    from parfocal.models.checkpoints import official

    kind = parse_dtype(dtype)
    hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it tears the status line
    with error_console().status(Text(f"converting {source}")):
        report = official.convert(source, target, family, vision or (), text, stage, kind)
    if as_json:
        show.print_json(report_json(report))
    else:
        show_report(report)
    show.show_saved(target)


def parse_dtype(name: str | None) -> torch.dtype | None:
    """Read `--dtype`; None without it.

    Raises:
        ConfigError: for a type that weights are not written in.
    """
    from parfocal.predict.loading import DTYPES

    if name is not None and name not in DTYPES:
        raise ConfigError(f"--dtype {name!r} is not known; choose one of {', '.join(DTYPES)}.")
    return None if name is None else DTYPES[name]


def report_json(report: Report) -> dict[str, Any]:
    """The report for `--json`: counts, and what was dropped and kept by name."""
    filled = {name for names in report.used.values() for name in names}
    return {
        "schema": "parfocal.convert/1",
        "family": report.family,
        "source_tensors": len(report.used) + len(report.dropped),
        "used": len(report.used),
        "repeated": len(report.aliases),
        "targets_filled": len(filled),
        "parameters": report.parameters,
        "dropped": dict(report.dropped),
        "kept": dict(report.kept),
    }


def show_report(report: Report) -> None:
    """Print counts, and the reasons of what was dropped and kept."""
    out = console()
    out.print(str(report), soft_wrap=True)
    for what, names in (("dropped", report.dropped), ("kept initial", report.kept)):
        for reason in dict.fromkeys(names.values()):
            count = sum(value == reason for value in names.values())
            example = next(name for name, value in names.items() if value == reason)
            out.print(f"  {what} {count}: {reason} (such as {example})", soft_wrap=True)
