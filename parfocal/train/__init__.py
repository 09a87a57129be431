"""Train: recipes and stages are values, a run is one folder, the loop is Hugging Face's Trainer."""

from __future__ import annotations

from parfocal.train.overrides import override
from parfocal.train.recipe import Lora, Optim, Recipe, Stage
from parfocal.train.runtime import Runtime

__all__ = ["Lora", "Optim", "Recipe", "Runtime", "Stage", "override"]
