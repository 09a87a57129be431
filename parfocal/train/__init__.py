"""Train: recipes and stages are values, a run is one folder, the loop is Hugging Face's Trainer."""

from __future__ import annotations

from parfocal.train.recipe import Optim, Recipe, Stage, override

__all__ = ["Optim", "Recipe", "Stage", "override"]
