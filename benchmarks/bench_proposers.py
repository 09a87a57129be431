"""Proposal recall per CPU minute: deformable DETR and dense proposer at mini's size.

Both train mini's perception stage with the same tower, pictures, losses beside the proposer's own,
optimiser (AdamW) and seed, one after the other in one process with one thread; the clock is process
time and leaves evaluation out. Run as

    python benchmarks/bench_proposers.py --minutes 6 --out OUT.json

and read `curves`: one row a measurement. The validation split is scored without injected truth.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from parfocal.data.readers.scenes import SceneReader
from parfocal.data.scenes.catalogue import KINDS
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import mini, vary
from parfocal.recipes import get_recipe, parts_of
from parfocal.train.context import StageContext
from parfocal.train.data import ObjectCollator, SceneDataset
from parfocal.train.detection import DetectionObjective
from parfocal.train.trainer import run_stage
from parfocal.train.validate import proposal_recall

DETR = {
    "kind": "deformable_detr", "hidden_size": 96, "encoder_layers": 2, "decoder_layers": 2,
    "heads": 4, "ffn_size": 256, "points": 4, "queries": 50, "dropout": 0.0,
    "score_heads": ["object"], "score_exponents": [1.0], "refine": False,
}  # fmt: skip
PROPOSERS: dict[str, dict[str, Any]] = {"dense": {"refine": False}, "deformable_detr": DETR}


class Clock(TrainerCallback):
    """Scores the model at equal steps of training time and stops at the budget."""

    def __init__(
        self,
        model: ParfocalForConditionalGeneration,
        reader: SceneReader,
        budget: float,
        points: int,
    ) -> None:
        self.model, self.reader, self.budget, self.every = model, reader, budget, budget / points
        self.processor = parts_of(get_recipe("mini"))[1]
        self.rows: list[dict[str, float]] = []
        self.spent, self.mark = 0.0, time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count training time; evaluate off the clock."""
        self.spent += time.process_time() - self.mark
        if self.spent >= self.every * (len(self.rows) + 1):
            scores = proposal_recall(self.model, self.processor, self.reader)
            self.rows.append(
                {
                    "cpu_seconds": round(self.spent, 1),
                    "pictures": state.global_step * args.train_batch_size,
                    **scores,
                }
            )
            control.should_training_stop = self.spent >= self.budget
        self.mark = time.process_time()


def curve(kind: str, minutes: float, points: int, eval_samples: int) -> list[dict[str, float]]:
    """Train one proposer for `minutes` of CPU time; returns its measurements."""
    recipe = get_recipe("mini")
    torch.manual_seed(recipe.seed)
    model = ParfocalForConditionalGeneration(vary(mini(), {"proposer": PROPOSERS[kind]}))
    model.vision.to(memory_format=torch.channels_last)
    clock = Clock(model, SceneReader("validation", eval_samples, (256,)), 60 * minutes, points)
    budget = round(
        60 * minutes / 0.035
    )  # pictures that the dense proposer would see: both get its schedule
    first = recipe.stages[0]
    trainable = tuple(part for part in first.trainable if part != "refiner")
    optim = dataclasses.replace(first.optim, muon=())  # it names parts of one proposer
    stage = dataclasses.replace(
        first, trainable=trainable, samples=budget, batch_size=16, optim=optim
    )
    dataset = SceneDataset(SceneReader("train", 4 * budget, recipe.sides))
    with tempfile.TemporaryDirectory() as folder:
        run_stage(
            DetectionObjective(model, len(KINDS)),
            StageContext(recipe, stage),
            dataset,
            ObjectCollator(clock.processor),
            Path(folder),
            [clock],
        )
    return clock.rows


def main() -> None:
    """Measure both and write one JSON file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6.0, help="CPU minutes a proposer")
    parser.add_argument("--points", type=int, default=4, help="measurements a curve")
    parser.add_argument("--eval-samples", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    curves = {
        kind: curve(kind, arguments.minutes, arguments.points, arguments.eval_samples)
        for kind in PROPOSERS
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    report = {
        "benchmark": "proposers",
        "minutes": arguments.minutes,
        "settings": PROPOSERS,
        "curves": curves,
        "versions": {**versions, "python": platform.python_version()},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "threads": 1},
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
