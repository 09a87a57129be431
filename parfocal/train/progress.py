"""How far a stage is: a bar with the time that is left on a terminal, lines in a log elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

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

logger = logging.getLogger(__name__)


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
        """Leave the finished bar where it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """Write a duration for people.

    >>> duration(59), duration(3661)
    ('59 s', '1 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
