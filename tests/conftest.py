"""One deterministic world for every test: no hub, fixed threads and seeds, no Hypothesis database.

Torch is configured only when a test module has loaded it: tests of the NumPy rooms stay quick.
"""

from __future__ import annotations

import os
import random
import sys

# Read at import time by the libraries they steer, hence before anything else is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import pytest
from hypothesis import settings

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
