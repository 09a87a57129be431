"""The command `parfocal`: parse, call one function, print.

Results go to stdout, progress and logs to stderr, and `--json` makes the result machine-readable.
The exit code is 0 when all went well, 1 for an error that the user can repair (one paragraph on
stderr), 2 for wrong usage. Nothing heavy is imported before a command needs it, so that `--help`
answers at once.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from parfocal.cli import ask, convert, data, demo, evaluate, info, train
from parfocal.cli.common import Settings, complain, error_console
from parfocal.errors import ParfocalError

app = typer.Typer(
    name="parfocal",
    help="Ask a picture; get an answer that points.\n\nStart with: parfocal demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from parfocal import __version__

        typer.echo(f"parfocal {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and detailed logs.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more to stderr.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Ask a picture; get an answer that points. Start with `parfocal demo`."""
    context.ensure_object(Settings).debug = debug
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    _log_to_stderr(level)


def _log_to_stderr(level: int) -> None:
    from rich.logging import RichHandler

    logger = logging.getLogger("parfocal")
    logger.handlers[:] = [RichHandler(console=error_console(), show_path=False, markup=False)]
    logger.setLevel(level)
    logger.propagate = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: the words after `parfocal`; None takes them from `sys.argv`.

    Returns:
        The exit code.
    """
    settings = Settings()
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever it cannot write is written as \u1234
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(args=words, prog_name="parfocal", obj=settings)
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else int(finished.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left
        return 1
    except (ParfocalError, OSError) as error:
        if settings.debug:
            raise
        complain(error)
        return 1
    return 0


def _open_streams() -> None:
    """Let streams that the caller has closed (`>&-`) read nothing, and write to nowhere."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, mode, encoding="utf-8"))


ASKING, MAKING = "Ask a picture", "Measure and make"
for command in (ask.ask, ask.locate, ask.describe, ask.propose, ask.chat, demo.demo):
    app.command(rich_help_panel=ASKING)(command)
app.add_typer(data.app, name="data", rich_help_panel=MAKING)
app.command("eval", rich_help_panel=MAKING)(evaluate.evaluate)
app.command(rich_help_panel=MAKING)(train.train)
app.command(rich_help_panel=MAKING)(convert.convert)
app.command(rich_help_panel=MAKING)(info.info)

__all__ = ["app", "main"]
