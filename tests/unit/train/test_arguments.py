"""A stage in the Trainer's terms: one process computes on one device, whatever else there is."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from accelerate.state import AcceleratorState

from parfocal.train.arguments import training_arguments
from parfocal.train.context import StageContext
from parfocal.train.recipe import Optim, Recipe, Stage

STAGE = Stage("find", "detection", ("proposer",), samples=16, batch_size=8)
CONTEXT = StageContext(Recipe("demo", "tiny", (STAGE,), bf16=False), STAGE)


@pytest.fixture
def gpus(monkeypatch):
    """Make Transformers believe in so many GPUs; nothing is computed on them."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)

    def show(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    yield show
    AcceleratorState._reset_state(reset_partial_state=True)  # no later test is to find that device


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_process_takes_its_batch_on_one_device(gpus, tmp_path, count):
    gpus(count)
    found = training_arguments(CONTEXT, tmp_path, endless=False)
    assert found.device == torch.device("cuda:0" if count else "cpu")
    assert found.n_gpu == min(1, count)
    assert found.parallel_mode.value == "not_parallel"
    assert found.train_batch_size * found.gradient_accumulation_steps == STAGE.batch_size


@pytest.mark.parametrize(
    ("samples", "every", "found"), [(80, 0, 1), (800, 0, 10), (800_000, 0, 1000), (800_000, 7, 7)]
)
def test_checkpoints_are_written_every_thousand_steps_at_the_least(tmp_path, samples, every, found):
    stage = dataclasses.replace(STAGE, samples=samples, save_every=every)
    context = dataclasses.replace(CONTEXT, stage=stage)
    assert training_arguments(context, tmp_path, endless=False).save_steps == found


def test_a_stage_that_only_warms_up_is_told_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("parfocal"), "propagate", True)
    training_arguments(CONTEXT, tmp_path, endless=False)
    assert not caplog.records
    stage = dataclasses.replace(STAGE, optim=Optim(warmup_steps=80))
    training_arguments(dataclasses.replace(CONTEXT, stage=stage), tmp_path, endless=False)
    assert "warms up for 80 steps and has 2" in caplog.text
