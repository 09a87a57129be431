"""What the documents promise is true: Python blocks run, commands parse, links lead somewhere.

The Python blocks of one document share a namespace and run in order, as a reader would type them.
They run in an empty folder. A picture that a block or command names is there: the repository's own
if it has one of that name, otherwise a plain drawing.
"""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from PIL import Image, ImageDraw

from parfocal.data import Sample

REPO = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"[\w./-]+\.(?:jpe?g|png|webp)\b")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def documents() -> list[Path]:
    named = [REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [path for path in [*named, *sorted((REPO / "docs").rglob("*.md"))] if path.exists()]


def name_of(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """(first line, source) of every fenced block in a language."""
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in FENCE.finditer(text)
        if match[1] == language
    ]


def commands(text: str) -> list[list[str]]:
    """Arguments of every `parfocal ...` in the bash blocks of a text, in order.

    Continued lines are joined; comments, redirections and what stands before `&&` or `|` are cut.
    """
    found = []
    for _, source in blocks(text, "bash"):
        for line in source.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.wordchars += "[],:=@%+"
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("&|;<>()"):
                    if words[:1] == ["parfocal"]:
                        found.append(words[1:])
                    words = []
                else:
                    words.append(word)
    return found


def lay_out_pictures(text: str) -> None:
    """Put every picture that a text names into the current folder."""
    for name in sorted(set(PICTURE.findall(text))):
        target = Path(name)
        if target.is_absolute() or ".." in target.parts or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPO / name).is_file():
            shutil.copyfile(REPO / name, target)
        else:
            image = Image.new("RGB", (320, 240), "#dfe7ee")
            ImageDraw.Draw(image).ellipse((60, 50, 180, 170), fill="#c02020")
            image.save(target)


def parse(command, name: str, args: list[str]) -> None:
    """Parse a command line down to its last command, running nothing."""
    try:
        context = command.make_context(name, list(args))
    except typer.Exit:
        return  # --help and --version answer while they are parsed
    if not hasattr(command, "get_command"):
        return
    rest = [*context._protected_args, *context.args]
    if rest:
        child = command.get_command(context, rest[0])
        assert child is not None, f"{name} has no command {rest[0]!r}"
        parse(child, f"{name} {rest[0]}", rest[1:])


WITH_PYTHON = [path for path in documents() if blocks(path.read_text("utf-8"), "python")]
COMMANDS = [
    pytest.param(args, id=f"{name_of(path)}: {' '.join(args)}")
    for path in documents()
    for args in commands(path.read_text("utf-8"))
]
WITH_EXAMPLES = [
    path
    for path in sorted((REPO / "parfocal").rglob("*.py"))
    if re.search(r"^\s*>>> ", path.read_text("utf-8"), re.MULTILINE)
]


@pytest.mark.integration
@pytest.mark.parametrize("path", WITH_PYTHON, ids=name_of)
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = path.read_text("utf-8")
    namespace: dict[str, object] = {"__name__": "document"}
    for line, source in blocks(text, "python"):
        lay_out_pictures(source)
        padded = "\n" * (line - 1) + source  # tracebacks then name the line of the document
        exec(compile(padded, name_of(path), "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("args", COMMANDS)
def test_commands_parse(args: list[str], tmp_path: Path, monkeypatch) -> None:
    from parfocal.cli import app

    monkeypatch.chdir(tmp_path)
    lay_out_pictures(" ".join(args))
    parse(typer.main.get_command(app), "parfocal", args)


@pytest.mark.integration
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=name_of)
def test_docstring_examples_run(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out_pictures(path.read_text("utf-8"))
    parts = path.relative_to(REPO).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert not doctest.testmod(module, optionflags=flags).failed


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text("utf-8"))
    local = [target for target in targets if ":" not in target]
    assert not [target for target in local if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_fences_are_closed_and_known(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n```") % 2 == 0
    assert {match[1] for match in FENCE.finditer(text)} <= {
        "python",
        "bash",
        "json",
        "text",
        "toml",
    }


SHOWN = """
```bash
pip install . && parfocal demo   # all the set-up there is
parfocal ask a.jpg "Where is the red car?" --box 1,2.5,3,4 \\
    --json | head -3
parfocal locate a.jpg 'x' > out.json
python -m pytest
```
```text
parfocal is not a command here
```
"""


def test_commands_are_found_in_bash_blocks() -> None:
    assert commands(SHOWN) == [
        ["demo"],
        ["ask", "a.jpg", "Where is the red car?", "--box", "1,2.5,3,4", "--json"],
        ["locate", "a.jpg", "x"],
    ]


@pytest.mark.parametrize(
    ("args", "good"),
    [
        (["data", "check", "rows.jsonl", "--strict"], True),
        (["data", "--help"], True),
        (["data", "inspect", "rows.jsonl"], False),
        (["data", "check", "rows.jsonl", "--strikt"], False),
        (["nothing"], False),
    ],
    ids=["whole", "help", "unknown command of a group", "misspelt flag", "no such command"],
)
def test_a_wrong_command_does_not_parse(args: list[str], good: bool) -> None:
    app, data = typer.Typer(), typer.Typer()
    app.add_typer(data, name="data")

    @data.command()
    def check(path: str, strict: bool = False) -> None:
        raise RuntimeError("parsing must not run the command")

    @data.command()
    def preview(path: str) -> None: ...

    command = typer.main.get_command(app)
    if good:
        parse(command, "parfocal", args)
    else:
        usage_error = typer.BadParameter.__base__
        with pytest.raises((AssertionError, usage_error)):
            parse(command, "parfocal", args)


def test_blocks_know_their_line() -> None:
    assert blocks("one\n\n```python\nx = 1\n```\n", "python") == [(4, "x = 1\n")]


def test_rows_that_are_shown_are_samples() -> None:
    text = (REPO / "docs" / "data.md").read_text("utf-8")
    rows = [json.loads(source) for _, source in blocks(text, "json")]
    assert [Sample.from_json(row).id for row in rows] == ["street-1"]


def test_every_reader_and_view_is_described() -> None:
    from parfocal.data.readers import READERS
    from parfocal.data.views import VIEWS

    text = (REPO / "docs" / "data.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert named == set(READERS) | set(VIEWS)
