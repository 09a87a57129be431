"""One deterministic world for every test: no hub, fixed threads and seeds, no Hypothesis database.

Torch is configured only when a test module has loaded it: tests of the NumPy rooms stay quick.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING

# Read at import time by the libraries they steer, hence before anything else is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in a process a core

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parfocal.data.scenes.sprites import SpriteBank

settings.register_profile("parfocal", derandomize=True, deadline=None, database=None)
settings.load_profile("parfocal")


def pytest_report_header() -> str:
    """Say which copy is under test: an old install is easily mistaken for the checkout."""
    import parfocal

    return f"parfocal: {parfocal.__version__} from {os.path.dirname(parfocal.__file__)}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed before any fixture is made, shared ones too, and skip `gpu` tests without CUDA."""
    fix_randomness()
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Seed again, so that a test draws the same whether or not it was the one to make a fixture."""
    fix_randomness()


def fix_randomness() -> None:
    """Put every generator at its start; torch only where it is loaded."""
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def toy_bank() -> SpriteBank:
    """Every kind as a flat shape of its own colour: scenes without the art of the real ones."""
    return make_toy_bank()


def make_toy_bank() -> SpriteBank:
    """Draw the shapes of `toy_bank`; a process that a test starts does so by itself."""
    from PIL import Image, ImageDraw

    from parfocal.data.scenes.catalogue import KINDS
    from parfocal.data.scenes.sprites import MIP_SIDES, SpriteBank

    def sprite(index: int, side: int) -> Image.Image:
        height = round(side * (0.6 + 0.1 * (index % 5)))
        right, bottom = side - 1, height - 1
        red, green, blue = (37 * index % 256, 91 * index % 256, 153 * index % 256)
        picture = Image.new("RGBA", (side, height))
        draw = ImageDraw.Draw(picture)
        if index % 3 == 0:
            draw.ellipse((0, 0, right, bottom), fill=(red, green, blue, 255))
        elif index % 3 == 1:
            draw.rectangle((0, 0, right, bottom), fill=(red, green, blue, 255))
        else:
            corners = ((0, bottom), (right, bottom), (side // 2, 0))
            draw.polygon(corners, fill=(red, green, blue, 255))
        return picture.convert("RGBa")

    mips = tuple(tuple(sprite(index, side) for side in MIP_SIDES) for index in range(len(KINDS)))
    return SpriteBank(KINDS, mips)


@pytest.fixture(scope="session")
def keep_in_process(toy_bank: SpriteBank) -> Callable[[pytest.MonkeyPatch], list[Path]]:
    """The function that lets runs train in this process, on the CPU, on scenes of drawn shapes.

    The list that it returns grows by the folder of every run that is launched.
    """
    import torch

    from parfocal.data.readers import scenes
    from parfocal.train import run

    def keep(patch: pytest.MonkeyPatch) -> list[Path]:
        launched: list[Path] = []

        def launch(out: Path, processes: int, command: object) -> None:
            launched.append(out)
            run.work(out)

        patch.setattr(run, "launch", launch)
        patch.setattr(scenes, "load_sprites", lambda: toy_bank)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            patch.delenv(name, raising=False)
        return launched

    return keep


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, keep_in_process: Callable[[pytest.MonkeyPatch], list[Path]]
) -> list[Path]:
    """Runs of a test train in this process; the folders of those that were launched."""
    return keep_in_process(monkeypatch)
