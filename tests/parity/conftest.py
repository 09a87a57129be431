"""Where the recorded outputs of the official implementations lie.

Tests import the two functions (`from tests.parity.conftest import fixture_folders`), because they
parametrise over what they find. $PARFOCAL_FIXTURES names another folder of the same layout; what it
lacks is read from the repository's own, so that it need not hold everything.
"""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[1] / "fixtures"
FAMILIES = ("groma", "mg_llava", "ram_plus")


def recorded(path: str) -> Path:
    """A file or folder of the recordings: of $PARFOCAL_FIXTURES, or else of the repository."""
    given = _given()
    return given / path if given is not None and (given / path).exists() else SHIPPED / path


def fixture_folders(family: str) -> list[Path]:
    """Every `fixture_*` folder of a family in name order; the repository's where none are given."""
    for root in (_given(), SHIPPED):
        places = [] if root is None else (root / family).glob("fixture_*")
        found = sorted(path for path in places if path.is_dir())
        if found:
            return found
    raise FileNotFoundError(f"{SHIPPED / family} holds no fixture_* folder; the checkout is cut.")


def _given() -> Path | None:
    """$PARFOCAL_FIXTURES; None where it is not set, an error where it holds no family."""
    name = os.environ.get("PARFOCAL_FIXTURES")
    if not name:
        return None
    root = Path(name)
    if not any((root / family).is_dir() for family in FAMILIES):
        raise FileNotFoundError(
            f"PARFOCAL_FIXTURES is {name}, which has no folder {', '.join(FAMILIES[:-1])} or "
            f"{FAMILIES[-1]}; unset it, or name the folder that holds them."
        )
    return root
