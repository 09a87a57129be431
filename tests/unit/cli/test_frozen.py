"""The command line as users know it: commands and flags change on purpose only.

After a wanted change run `PARFOCAL_FREEZE=1 pytest tests/unit/cli/test_frozen.py`, read the diff.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from parfocal.cli import app

FROZEN = Path(__file__).with_name("commands.json")


def commands(command: Any, path: str = "parfocal") -> Iterator[tuple[str, Any]]:
    """Every command and group with its words."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def signature(command: Any) -> list[str]:
    """Arguments by their names, options by all their spellings; required ones have a star."""
    lines = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            spelling = parameter.metavar or parameter.name.upper()
        else:
            spelling = " ".join(sorted([*parameter.opts, *parameter.secondary_opts]))
        lines.append(spelling + (" *" if parameter.required else ""))
    return lines


ALL = dict(commands(typer.main.get_command(app)))
LEAVES = {path: command for path, command in ALL.items() if not hasattr(command, "commands")}


def test_commands_and_flags_are_frozen() -> None:
    found = {path: signature(command) for path, command in ALL.items()}
    if os.environ.get("PARFOCAL_FREEZE"):
        FROZEN.write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")
    assert found == json.loads(FROZEN.read_text(encoding="ascii"))


def test_everything_has_help() -> None:
    for path, command in ALL.items():
        assert command.help, path
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{path} {parameter.name}"


def example_of(command: Any) -> str:
    found = re.findall(r"Example: (parfocal .+|echo .+)", command.help)
    assert len(found) == 1, "one example"
    return found[0]


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_has_an_example_that_parses(path: str) -> None:
    words = shlex.split(example_of(LEAVES[path]))
    words = words[words.index("parfocal") :]
    names = path.split()
    assert words[: len(names)] == names
    LEAVES[path].make_context(path, words[len(names) :]).close()


def test_examples_ask_about_what_the_demo_saves_as_scene() -> None:
    from parfocal.cli.demo import choose_pictures
    from parfocal.eval.scenes import load_scenes

    first = choose_pictures(load_scenes())[0]
    asked = {step.words for step in first.steps}
    assert first.name == "scene"
    for command, file in (("ask", "out/demo/scene.png"), ("locate", "out/demo/scene.png")):
        words = shlex.split(example_of(LEAVES[f"parfocal {command}"]))
        assert words[2] == file
        assert set(words[3:]) <= asked, "the scenes have changed: take words from their first steps"
