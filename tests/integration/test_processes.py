"""Several processes compute what one does: the same losses, step by step."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from parfocal.data.jsonl import write_jsonl
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.scenes.turns import with_turns
from parfocal.dialects import get_dialect
from parfocal.train.recipe import Optim, Recipe, Stage
from parfocal.train.runtime import Runtime

pytestmark = pytest.mark.integration

STEPS = 20
TALK = Stage(
    "talk", "language", ("projector", "regions.position", "regions.lift", "text"),
    samples=4 * STEPS, batch_size=4, mixture=Mixture((MixtureSource("toy", "toy.jsonl"),)),
    optim=Optim(lr=1e-3, warmup_steps=2), eval_samples=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(toy_bank, toy_parts, tmp_path_factory):
    """Make a run's folder that any number of processes may start from."""
    data = tmp_path_factory.mktemp("data")
    reader, rows = SceneReader("train", 8, (64,), toy_bank), []
    dialect = get_dialect("region_tokens")
    for index in range(8):
        sample = with_turns(reader[index], dialect, np.random.default_rng(index))
        sample.open_image().save(data / f"{index}.png")
        image = dataclasses.replace(sample.images[0], path=f"{index}.png", pixels=None)
        rows.append(dataclasses.replace(sample, images=(image,)))
    write_jsonl(rows, data / "toy.jsonl")

    def prepare(name: str, micro_batch: int = 0) -> Path:
        out = tmp_path_factory.mktemp(name)
        for part in toy_parts:
            part.save_pretrained(out / "start")
        recipe = Recipe("toy", "tiny", (TALK,), seed=3, bf16=False)
        (out / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
        Runtime(data=str(data), micro_batch=micro_batch).save(out)
        return out

    return prepare


def launch(out: Path, processes: int, extra: dict[str, str] | None = None) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | (extra or {})
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", "-m", "parfocal.train.worker", str(out),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def losses(out: Path) -> list[float]:
    lines = (out / "talk" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.fixture(scope="module")
def single(prepared) -> Path:
    out = prepared("single")
    launch(out, 1)
    return out


def test_two_processes_take_the_steps_of_one(prepared, single):
    out = prepared("two")
    launch(out, 2)
    assert len(losses(single)) == STEPS
    assert losses(out) == pytest.approx(losses(single), abs=1e-5)


def test_divided_weights_take_the_steps_of_whole_ones(prepared, single):
    out = prepared("divided", micro_batch=1)
    fsdp = {
        "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_USE_CPU": "true",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_OFFLOAD_PARAMS": "false",
    }  # fmt: skip
    launch(out, 2, fsdp)
    assert losses(out) == pytest.approx(losses(single), abs=1e-5)
    one, two = (load_file(path / "talk" / "model.safetensors") for path in (single, out))
    assert {name: value.shape for name, value in one.items()} == {
        name: value.shape for name, value in two.items()
    }
