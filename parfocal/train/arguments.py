"""A stage in the terms of the Hugging Face Trainer: how a step is divided, what is told to it."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from transformers import TrainingArguments

from parfocal.errors import ConfigError
from parfocal.train.context import StageContext
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.runtime import world_size

logger = logging.getLogger(__name__)

MAX_SAVE_STEPS = 1000
"""Steps after which a checkpoint is written at the latest, unless a stage says how often."""


def divide(stage: Stage, world: int, micro_batch: int | None) -> tuple[int, int]:
    """Divide a step among processes and batches.

    Args:
        stage: whose `batch_size` is divided.
        world: number of processes.
        micro_batch: Samples that a process computes at a time; None: all of its part.

    Returns:
        Samples a batch, and batches a process and step.

    Raises:
        ConfigError: if it does not come out even.
    """
    micro = micro_batch or stage.batch_size // world
    if not micro or stage.batch_size % (world * micro):
        times = f" times {micro} Samples at a time" if micro_batch else ""
        raise ConfigError(
            f"stage {stage.name!r}: batch size {stage.batch_size} is not a multiple of {world} "
            f"processes{times}. Change batch_size, --processes or --micro-batch."
        )
    return micro, stage.batch_size // (world * micro)


def training_arguments(context: StageContext, out: Path, endless: bool) -> TrainingArguments:
    """Translate a stage into the Trainer's terms.

    Args:
        context: of the stage.
        out: the stage's folder.
        endless: its batches are `EndlessBatches`.

    Raises:
        ConfigError: as `divide` does.
    """
    recipe, stage, world = context.recipe, context.stage, world_size()
    warm = stage.optim.warmup(stage.steps)
    if warm > stage.steps:
        logger.warning(
            "stage %s warms up for %d steps and has %d, so its learning rate is never reached; "
            "lower optim.warmup_steps", stage.name, warm, stage.steps,
        )  # fmt: skip
    micro, accumulated = divide(stage, world, context.runtime.micro_batch or None)
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=stage.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        max_grad_norm=stage.optim.max_grad_norm or math.inf,  # so that norms are always looked at
        bf16=recipe.bf16,
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=not cuda,
        ddp_backend="gloo" if world > 1 and not cuda else None,
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=True,
        dataloader_num_workers=num_workers(recipe),
        dataloader_drop_last=True,
        ignore_data_skip=endless,  # they say themselves where they stand
        remove_unused_columns=False,
        save_steps=stage.save_every or max(1, min(stage.steps // 10, MAX_SAVE_STEPS)),
        logging_steps=max(1, min(50, stage.steps // 20)),
        logging_nan_inf_filter=False,
        log_level="warning",
        report_to=list(context.runtime.trackers),
        run_name=f"{recipe.name}-{stage.name}",
        disable_tqdm=True,
    )
    # With more, one process would train as nn.DataParallel does, and a step be as many times larger
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def num_workers(recipe: Recipe) -> int:
    """Processes that load data, for each that trains."""
    if recipe.workers is not None:
        return recipe.workers
    return 8 if torch.cuda.is_available() else 0
