"""Train: recipes as values, stages as values, one run folder; the loop is the Hugging Face Trainer's."""

from __future__ import annotations

from parfocal.train.recipe import Optim, Recipe, Stage, override

__all__ = ["Optim", "Recipe", "Stage", "override"]
