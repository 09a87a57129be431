"""What a run was made with, so that it can be repeated; what differs when another goes on."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parfocal.train.recipe import Recipe

LIBRARIES = (
    "parfocal", "torch", "torchvision", "transformers", "accelerate", "peft", "bitsandbytes",
    "numpy",
)  # fmt: skip


def run_record(data: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return versions, platform, the state of the code, what was set and what data was read.

    Args:
        data: fingerprint of the data, by stage.
        overrides: `path=value` assignments to the recipe of its name.
    """
    return {
        "schema": "parfocal.run/1",
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "code": _git_state(Path(__file__).parents[2]),
        "overrides": list(overrides),
        "data": dict(data),
    }


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield "path: old -> new" for every value of one JSON document that another has otherwise.

    >>> list(differences({"seed": 1, "stages": [{"lr": 2}]}, {"seed": 1, "stages": [{"lr": 3}]}))
    ['stages.0.lr: 2 -> 3']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            here = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key, "unset"), now.get(key, "unset"), here)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            name = old.get("name", index) if isinstance(old, dict) else index
            yield from differences(old, new, f"{path}.{name}")
    elif before != now:
        yield f"{path}: {_short(before)} -> {_short(now)}"


def recipe_changes(saved: Path, recipe: Recipe) -> list[str]:
    """Return what of a recipe differs from the one that a run was started with.

    A setting that there was not when the run was started has its default there, and is no change.

    Args:
        saved: the run's recipe.json.
        recipe: that it is to go on with.
    """
    before = Recipe.from_json(saved.read_text(encoding="utf-8"))
    return list(differences(json.loads(before.to_json()), json.loads(recipe.to_json())))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """The commit the code is at and whether it was changed; None outside a checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
