"""The rules that keep the rooms apart, read from the sources of this checkout with `ast`.

Each rule is a plain function from a module to its violations, so that the tests at the end can show
it bad modules.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

# Who may import whom: a room sees itself and the rooms of earlier levels, never a sibling.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"boxes"}),
    frozenset({"images"}),
    frozenset({"video"}),
    frozenset({"hub"}),
    frozenset({"dialects"}),
    frozenset({"data"}),
    frozenset({"models", "detectors"}),
    frozenset({"predict"}),
    frozenset({"synthesis", "train", "eval", "explain"}),
    frozenset({"recipes", "serve"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Geometry, decoding, dialects, data and scoring stay quick: no torch, not even inside a function.
PURE = (
    "parfocal.errors",
    "parfocal.boxes",
    "parfocal.images",
    "parfocal.video",
    "parfocal.hub",
    "parfocal.dialects",
    "parfocal.data",
    "parfocal.eval.metrics",
)
HEAVY = frozenset({"torch", "torchvision", "transformers", "timm", "accelerate"})

MAX_LINES = 600


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name and its text."""

    name: str
    source: str
    is_package: bool = False

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)


def read_module(path: Path) -> Module:
    parts = list(path.relative_to(REPO).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, path.read_text(encoding="utf-8"), is_package)


def sources(folder: str = "parfocal") -> list[Path]:
    return sorted((REPO / folder).rglob("*.py"))


MODULES = [read_module(path) for path in sources()]


def base_of(module: Module, node: ast.ImportFrom) -> str:
    """The dotted name that `from ... import` reads from, relative dots resolved."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def imports_of(module: Module) -> list[tuple[str, int]]:
    """Every dotted name that a module imports, with its line, wherever it stands.

    Type-checking and function-level imports count, and so do strings that spell a module of ours
    ("parfocal.room.module" or "parfocal.room.module:name"), which is how tables import lazily.
    """
    found: list[tuple[str, int]] = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = base_of(module, node)
            found += [(f"{base}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = re.fullmatch(r"(parfocal\.(\w+)(?:\.\w+)*)(?::\w+)?", node.value)
            if match and match[2] in LEVEL:
                found.append((match[1], node.lineno))
    return found


def order_violations(module: Module) -> list[str]:
    """Imports of a room that this module's room may not see."""
    if module.name == "parfocal":
        return []  # the lazy public names; test_import_time checks what they load
    if module.room not in LEVEL:
        return [f"{module.name}: room {module.room!r} has no place in the import order (LEVELS)"]
    return [
        f"{module.name}:{line} imports {name}: {reason}"
        for name, line in imports_of(module)
        if name.split(".")[0] == "parfocal" and (reason := refusal(module.room, name))
    ]


def refusal(room: str, name: str) -> str:
    """Why `room` may not import the dotted name `name` of ours; empty when it may."""
    target = name.split(".")[1] if "." in name else ""
    if target == "__version__" or (not target and room == "cli"):
        return ""  # the command line may see everything, so the root hides nothing from it
    if target not in LEVEL:
        return "import from the room that defines it, not from the package root"
    if target == room or LEVEL[target] < LEVEL[room]:
        return ""
    if LEVEL[target] == LEVEL[room]:
        return f"{target} and {room} are siblings"
    return f"{target} comes after {room}"


def is_pure(name: str) -> bool:
    return any(name == pure or name.startswith(pure + ".") for pure in PURE)


def purity_violations(module: Module) -> list[str]:
    """Imports that would bring torch into a room that must stay free of it."""
    if not is_pure(module.name):
        return []
    return [
        f"{module.name}:{line} imports {name}"
        for name, line in imports_of(module)
        if name.split(".")[0] in HEAVY or (name.startswith("parfocal.") and not admitted(name))
    ]


def admitted(name: str) -> bool:
    return is_pure(name) or name == "parfocal.__version__"


def print_calls(module: Module) -> list[str]:
    if module.room == "cli":
        return []
    return [
        f"{module.name}:{node.lineno} print"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


def unfinished(module: Module) -> list[str]:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    lines = enumerate(module.source.splitlines(), start=1)
    return [f"{module.name}:{line} {text.strip()}" for line, text in lines if pattern.search(text)]


RULES = (order_violations, purity_violations, print_calls, unfinished)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_breaks_a_rule(rule) -> None:
    violations = [violation for module in MODULES for violation in rule(module)]
    assert not violations, "\n" + "\n".join(violations)


def test_every_source_is_ascii() -> None:
    places = [
        f"{path.relative_to(REPO)}:{line}"
        for folder in ("parfocal", "tests", "benchmarks")
        for path in sources(folder)
        for line, text in enumerate(path.read_bytes().splitlines(), start=1)
        if not text.isascii()
    ]
    assert not places, f"write the characters as escapes: {places}"


def test_no_module_is_too_long() -> None:
    lengths = sorted(((len(m.source.splitlines()), m.name) for m in MODULES), reverse=True)
    table = "\n".join(f"{lines:5d}  {name}" for lines, name in lengths[:10])
    sys.stdout.write(f"the ten longest modules\n{table}\n")
    assert lengths[0][0] <= MAX_LINES, f"split what is over {MAX_LINES} lines"


def test_every_kind_of_json_has_a_name_of_its_own() -> None:
    named = [
        (schema, module.name)
        for module in MODULES
        for schema in re.findall(r'"(parfocal\.\w+/\d+)"', module.source)
    ]
    places = Counter(schema for schema, _ in named)
    assert len(places) > 10
    assert not [(schema, name) for schema, name in named if places[schema] > 1]


GOOD = {
    "earlier room": ("parfocal.data.x", "from parfocal.boxes import Boxes"),
    "own room": ("parfocal.data.x", "from parfocal.data.sample import Sample"),
    "own room, relative": ("parfocal.data.x", "from .sample import Sample"),
    "errors from the first room": ("parfocal.boxes.x", "from parfocal.errors import FrameError"),
    "version of the root": ("parfocal.train.x", "from parfocal import __version__"),
    "room of the root": ("parfocal.train.x", "from parfocal import boxes"),
    "torch where models live": ("parfocal.models.x", "import torch"),
    "torch in eval, outside metrics": ("parfocal.eval.run", "import torch"),
    "method named print": ("parfocal.predict.x", "console.print('x')"),
    "print in the command line": ("parfocal.cli.x", "print('x')"),
    "the root in the command line": ("parfocal.cli.x", "import parfocal"),
    "a sentence about a room": ("parfocal.boxes.x", "'parfocal.cli and its flags'"),
}
BAD = {
    "later room": ("parfocal.boxes.x", "from parfocal.images import load_image"),
    "sibling": ("parfocal.train.x", "from parfocal.eval.metrics import rec"),
    "sibling, relative": ("parfocal.models.x", "from ..detectors import Detector"),
    "later room inside a function": ("parfocal.data.x", "def f():\n    import parfocal.models"),
    "later room for types": (
        "parfocal.data.x",
        "if TYPE_CHECKING:\n    from parfocal.predict import Answer",
    ),
    "later room as a string": ("parfocal.data.x", "HOMES = {'m': 'parfocal.models.mini:Mini'}"),
    "the root": ("parfocal.predict.x", "import parfocal"),
    "a public name of the root": ("parfocal.predict.x", "from parfocal import Boxes"),
    "an unknown room": ("parfocal.utils.x", ""),
    "torch in a pure room": ("parfocal.data.x", "import torch.nn as nn"),
    "torch inside a function": ("parfocal.dialects.x", "def f():\n    from torch import Tensor"),
    "transformers in metrics": ("parfocal.eval.metrics.x", "from transformers import pipeline"),
    "metrics see the rest of eval": ("parfocal.eval.metrics.x", "from parfocal.eval import run"),
    "print": ("parfocal.predict.x", "print('x')"),
    "unfinished": ("parfocal.predict.x", "raise NotImplementedError"),
}


@pytest.mark.parametrize(("name", "source"), GOOD.values(), ids=GOOD)
def test_rules_admit(name: str, source: str) -> None:
    assert not [violation for rule in RULES for violation in rule(Module(name, source))]


@pytest.mark.parametrize(("name", "source"), BAD.values(), ids=BAD)
def test_rules_refuse(name: str, source: str) -> None:
    assert [violation for rule in RULES for violation in rule(Module(name, source))]


def test_the_checkout_was_read() -> None:
    assert {"parfocal", "parfocal.errors", "parfocal.boxes"} <= {module.name for module in MODULES}
