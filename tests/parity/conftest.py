"""Where the recorded outputs of the official implementations lie.

Tests import the two functions (`from tests.parity.conftest import fixture_folders`), because they
parametrise over the folders they find: more recordings can be laid beside those of the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[1] / "fixtures"


def fixture_root() -> Path:
    """The folder with one folder a family: $PARFOCAL_FIXTURES, or what the repository ships."""
    return Path(os.environ.get("PARFOCAL_FIXTURES") or SHIPPED)


def fixture_folders(family: str) -> list[Path]:
    """Every `fixture_*` folder of a family in name order; an error where there is none."""
    found = sorted(path for path in (fixture_root() / family).glob("fixture_*") if path.is_dir())
    if not found:
        raise FileNotFoundError(
            f"{fixture_root() / family} holds no fixture_* folder; unset PARFOCAL_FIXTURES, or "
            f"point it at a folder that has {family}/fixture_*."
        )
    return found
