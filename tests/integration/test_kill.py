"""A training process that is killed: what it leaves is enough to end at the same bits."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parfocal.recipes.mini import mini
from parfocal.train.processes import is_running
from parfocal.train.recipe import Recipe
from tests.integration.conftest import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# the process that trains: on drawn shapes, since sprites may have to be fetched
WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import make_toy_bank
from parfocal.data.readers import scenes
from parfocal.train import run
scenes.load_sprites = make_toy_bank
run.work(Path(sys.argv[1]))
"""
TESTS = Path(__file__).parents[1]


def begin(out: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None)
    command = [sys.executable, "-c", WORKER, str(out), str(TESTS)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def prepare(out: Path, recipe: Recipe, parts) -> None:
    out.mkdir()
    for part in parts:
        part.save_pretrained(out / "start")
    (out / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")


@pytest.fixture
def recipe() -> Recipe:
    language = dataclasses.replace(
        mini().stages[1], samples=96, batch_size=4, eval_samples=0,
        optim=dataclasses.replace(mini().stages[1].optim, warmup_steps=2),
    )  # fmt: skip
    return Recipe("toy", "tiny", (language,), sides=(64,), bf16=False, workers=2)


def test_killed_and_resumed_is_as_if_nothing_happened(recipe, toy_parts, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for out in (whole, killed):
        prepare(out, recipe, toy_parts)
    assert begin(whole).wait() == 0
    folder = killed / "language"
    process = begin(killed)
    while not list(folder.glob("checkpoint-*/files.json")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "model").exists()
    assert begin(killed).wait() == 0
    one, other = (load_file(out / "language" / "model.safetensors") for out in (whole, killed))
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    lines = (killed / "language" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["step"] == recipe.stages[0].steps


# a process like `parfocal train`, and a launcher like PyTorch's, which starts two that train
RUN = """
import sys
from pathlib import Path
from parfocal.train.processes import launch
spread = [sys.executable, "-m", "parfocal.train.spread", "launcher"]
launch(Path(sys.argv[1]), 2, [*spread, sys.argv[1]])
"""
LAUNCHER = """
import subprocess, sys
started = [
    subprocess.Popen([sys.executable, "-m", "trainer", *sys.argv[1:]], start_new_session=True)
    for _ in range(2)
]
for process in started:
    process.wait()
"""
TRAINER = """
import os, sys, time
from pathlib import Path
from parfocal.train.processes import end_with_parent
end_with_parent()
Path(sys.argv[1], str(os.getpid())).touch()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell of a parent's end")
def test_what_a_killed_run_has_started_ends_with_it(tmp_path):
    (tmp_path / "launcher.py").write_text(LAUNCHER, encoding="utf-8")
    (tmp_path / "trainer.py").write_text(TRAINER, encoding="utf-8")
    (tmp_path / "out").mkdir()
    roots = [str(TESTS.parent), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    command = [sys.executable, "-c", RUN, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment) as run:
        try:
            assert wait_for(lambda: len(list((tmp_path / "out").iterdir())) == 2)
        finally:
            os.kill(run.pid, signal.SIGKILL)
    trainers = [int(path.name) for path in (tmp_path / "out").iterdir()]
    assert wait_for(lambda: not any(map(is_running, trainers)))
