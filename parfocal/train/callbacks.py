"""What happens while a stage trains: its log, its progress, its scores."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from parfocal.data.outputs import atomic_file
from parfocal.train.recipe import Stage

logger = logging.getLogger(__name__)


class Validation(TrainerCallback):
    """Scores a stage after every `eval_every` steps, and marks its best checkpoint.

    Args:
        stage: says how often.
        score: computes the scores; called in the main process, others wait.
        out: the stage's folder.
    """

    def __init__(self, stage: Stage, score: Callable[[], dict[str, float]], out: Path) -> None:
        self.stage, self.score, self.out = stage, score, out

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score, if it is time, and let a checkpoint be written."""
        if state.global_step % self.stage.eval_every:
            return
        found: list[float | None] = [None]
        if state.is_world_process_zero:
            scores = self.score()
            logger.info("stage %s, step %d: %s", self.stage.name, state.global_step, scores)
            JsonLog(self.out / "metrics.jsonl").write(state.global_step, scores)
            found = [scores[self.stage.best] if self.stage.best else None]
        if torch.distributed.is_initialized():
            # All have to know: the Trainer's processes wait for each other where there is a best.
            torch.distributed.broadcast_object_list(found)
        (score,) = found
        if score is not None and (state.best_metric is None or score > state.best_metric):
            state.best_metric, state.best_global_step = score, state.global_step
        control.should_save = True


class JsonLog(TrainerCallback):
    """Writes every log line of the main process to `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one JSON object."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")

    def cut(self, step: int) -> None:
        """Leave the lines up to a step: a run that goes on from there writes the later ones."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # a line that was cut off
                kept += [line] if json.loads(line)["step"] <= step else []
        with atomic_file(self.path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Append what the trainer logs."""
        if state.is_world_process_zero and logs:
            self.write(state.global_step, logs)


class StageProgress(TrainerCallback):
    """Shows a stage's steps, loss and remaining time on stderr, in the main process.

    Args:
        name: of the stage.
    """

    def __init__(self, name: str) -> None:
        self.name, self._bar, self._task = name, None, None
        self._started, self._first = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count: from the step that a resumed stage goes on with."""
        self._started, self._first = time.monotonic(), state.global_step
        console = Console(file=sys.stderr)
        if state.is_world_process_zero and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(
                self.name, total=state.max_steps, completed=state.global_step, loss=""
            )
            self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Say the loss, and without a bar how long the rest will take at the pace so far."""
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        loss = f"loss {logs['loss']:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, loss=loss)
            return
        done = max(1, state.global_step - self._first)
        left = (time.monotonic() - self._started) / done * (state.max_steps - state.global_step)
        logger.info(
            "stage %s: step %d of %d, %s, about %s left",
            self.name, state.global_step, state.max_steps, loss, duration(left),
        )  # fmt: skip

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the finished bar where it is, and say how long it took."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if state.is_world_process_zero:
            logger.info(
                "stage %s: %d steps in %s",
                self.name, state.global_step - self._first,
                duration(time.monotonic() - self._started),
            )  # fmt: skip


def duration(seconds: float) -> str:
    """Write a duration for people.

    >>> duration(59), duration(3661)
    ('59 s', '1 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
