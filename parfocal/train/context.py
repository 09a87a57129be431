"""One stage of a recipe on one machine: what all that prepares, trains and scores it is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from parfocal.train.recipe import Recipe, Stage
from parfocal.train.runtime import Runtime


@dataclass(frozen=True)
class StageContext:
    """A stage, whose it is, and what it runs on.

    Attributes:
        recipe: whose stage it is: says the seed, the precision and what scenes look like.
        stage: one of the recipe's; with its `samples` where its data are open already.
        runtime: of the machine: says where the files are.
    """

    recipe: Recipe
    stage: Stage
    runtime: Runtime = field(default_factory=Runtime)
