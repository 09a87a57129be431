"""Importing parfocal, or a room that promises to stay quick, loads no deep-learning library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import parfocal

HEAVY = {"torch", "torchvision", "transformers", "timm", "accelerate"}


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter loads for a statement."""
    here = Path(parfocal.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    reports = [line for line in done.stderr.splitlines() if "import time:" not in line]
    if done.returncode:
        pytest.fail(f"{statement!r} failed:\n" + "\n".join(reports))
    names = (line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line)
    return {name.split(".")[0] for name in names}


def test_importing_parfocal_loads_nothing_heavy() -> None:
    loaded = loaded_by("import parfocal")
    assert "parfocal" in loaded
    assert not loaded & (HEAVY | {"numpy", "PIL"})


ROOMS = ["errors", "boxes", "images", "video", "hub", "dialects", "data", "eval.metrics"]


@pytest.mark.parametrize("room", ROOMS)
def test_quick_rooms_load_nothing_heavy(room: str) -> None:
    assert not loaded_by(f"import parfocal.{room}") & HEAVY


def test_the_command_line_starts_without_the_model() -> None:
    assert not loaded_by("import parfocal.cli") & HEAVY


def test_a_heavy_import_would_be_seen() -> None:
    assert "numpy" in loaded_by("import parfocal; parfocal.Boxes")


def test_public_names_are_listed_and_load() -> None:
    assert set(parfocal.__all__) <= set(dir(parfocal))
    assert set(parfocal.__all__) == {*parfocal._HOMES, "__version__"}
    for name in parfocal.__all__:
        assert getattr(parfocal, name) is not None


def test_an_unknown_public_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Bokses'.*'Boxes'"):
        parfocal.Bokses  # noqa: B018
