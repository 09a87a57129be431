"""What a training run is: frozen dataclasses, saved with the run, changed by typed overrides.

`parfocal.train.overrides` changes them from the command line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from parfocal.data.mixture import Mixture
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.compose import SceneStyle
from parfocal.train.optim import Lora, Optim, require
from parfocal.train.typed import build

Objective = Literal["detection", "language"]
Augment = Literal["none", "groma_detection"]
LossMean = Literal["process", "step"]

OF_MIXTURES = ("group_by_length", "max_length", "augment", "offer_ground_boxes", "eval_mixture")
"""Settings of a stage that seeded scenes know nothing of."""

OF_OBJECTIVES: Mapping[Objective, tuple[str, ...]] = {
    "detection": ("augment",),
    "language": (
        "max_length", "row_length", "first_row", "offer_ground_boxes", "gradient_checkpointing",
        "region_loss_weight",
    ),
}  # fmt: skip
"""Settings of a stage that other objectives know nothing of."""

SCORES: Mapping[Objective, tuple[str, ...]] = {
    "detection": ("proposal_recall_50", "proposal_recall_75"),
    "language": ("pointing_50",),
}
"""What a stage can be scored by, from `parfocal.train.validate`."""

RESERVED = frozenset({"start", "model", "eval"})  # folders of a run that are no stage's


@dataclass(frozen=True)
class Stage:
    """One stage: what trains, on how much, towards what.

    Attributes:
        name: folder and log name.
        objective: `detection` (find objects and tell them apart) or `language` (answer questions
            about them).
        trainable: parameter name prefixes that train; all others are frozen and stay bit-identical.
        samples: Samples seen; 0 for the whole mixture, `epochs` times. The last batch of an epoch
            may be short, and is a step all the same.
        batch_size: Samples a step, over all processes and all batches that are accumulated.
        mixture: what is read, paths relative to the data folder of the run; None for seeded scenes.
        epochs: how often the mixture is read, where `samples` is 0.
        optim: the optimiser and its schedule.
        max_length: text tokens of a row after which the rest is cut off; 0: no limit; of a mixture.
        row_length: tokens, those of pictures and slots as well, up to which the Samples of a batch
            share a row of the language model, none seeing another, so that little of it is padding;
            0: a row a Sample. It changes no loss, though dropout draws other numbers, and nothing
            at all where attention goes by turns and no padding is read.
        group_by_length: make batches of rows of similar length, see `MixtureLoader`; of a mixture.
            What shares a step then depends on how it is divided among processes and batches.
        augment: how pictures and boxes are changed before the detection objective sees them; of a
            mixture.
        first_row: where the token table and the head train, their rows before this one stay as they
            are, so that only those of new tokens learn; 0: all train.
        offer_ground_boxes: let the boxes of answers join the proposals, with the score that the
            model's `proposer.ground_score` says, so that answers can name what was not proposed; of
            a mixture.
        lora: adapters that train instead of the weights of the language model; parts of it that
            `trainable` names, such as `text.lm_head`, train beside them.
        gradient_checkpointing: compute the language model's activations twice, to keep few.
        eval_samples: validation Samples scored at the end of the stage: how many of the objects are
            proposed, or how many of the answers point right.
        eval_every: score them after every so many steps as well; 0: only at the end.
        eval_mixture: what a stage on a mixture is scored on, the first Samples of it; None for
            nothing. Stages on scenes are scored on validation scenes.
        best: the score, of `SCORES`, by which the stage leaves the best of its scored checkpoints;
            the last one when empty.
        region_loss_weight: how much the name of a region counts in the loss of an answer; any other
            token counts 1.
        alignment_weight: how much keeping the vectors of regions close to words counts beside
            answers, on seeded scenes; 0: not at all, as for models whose text holds no regions.
        start_share: share of the stage's first weights in those that it leaves. A mean of both ends
            of a fine-tuning often is better than either (Wortsman et al., 2022, "Robust fine-tuning
            of zero-shot models").
        keep: the last so many checkpoints stay on disk.
        save_every: a checkpoint is written after every so many steps; 0: ten times a stage, and
            every 1000 steps at the least. One is written after every scoring as well.
    """

    name: str
    objective: Objective
    trainable: tuple[str, ...]
    samples: int
    batch_size: int
    optim: Optim = field(default_factory=Optim)
    mixture: Mixture | None = None
    epochs: float = 1.0
    max_length: int = 0
    row_length: int = 0
    group_by_length: bool = False
    augment: Augment = "none"
    first_row: int = 0
    offer_ground_boxes: bool = False
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    eval_samples: int = 200
    eval_every: int = 0
    eval_mixture: Mixture | None = None
    best: str = ""
    region_loss_weight: float = 1.0
    alignment_weight: float = 0.5
    start_share: float = 0.0
    keep: int = 1
    save_every: int = 0

    def __post_init__(self) -> None:
        where = f"stage {self.name!r}"
        require(
            bool(self.name) and not set(self.name) & set("/\\") and self.name not in RESERVED,
            f"a stage cannot be named {self.name!r}: its folder in the run has this name, and "
            f"{sorted(RESERVED)} are others.",
        )
        for name, choices in (("objective", Objective), ("augment", Augment)):
            value, known = getattr(self, name), list(get_args(choices))
            require(value in known, f"{where} has the {name} {value!r}; choose one of {known}.")
        require(self.keep >= 1, f"{where} keeps {self.keep} checkpoints, must be 1 or more.")
        for name in (
            "samples",
            "max_length",
            "row_length",
            "save_every",
            "eval_samples",
            "eval_every",
        ):
            value = getattr(self, name)
            require(value >= 0, f"{where} has {name} {value}, must be 0 or more.")
        self._check_data(where)
        self._check_weights(where)
        self._check_scores(where)

    def _check_data(self, where: str) -> None:
        """Refuse what cannot be read, or not as it is said."""
        require(
            self.samples > 0 or self.mixture is not None,
            f"{where} has {self.samples} samples; seeded scenes have no end, so say how many.",
        )
        require(
            self.samples == 0 or self.samples >= self.batch_size,
            f"{where} has {self.samples} samples, fewer than one step takes ({self.batch_size}).",
        )
        require(self.batch_size > 0, f"{where} has batch_size {self.batch_size}, must be above 0.")
        require(self.epochs > 0, f"{where} has {self.epochs} epochs, must be above 0.")
        unread = self._changed(OF_MIXTURES)
        require(
            self.mixture is not None or not unread,
            f"{where} has {' and '.join(unread)} and no mixture: seeded scenes come as they are. "
            "Leave it out, or give the stage a mixture.",
        )
        for objective, names in OF_OBJECTIVES.items():
            unread = [] if objective == self.objective else self._changed(names)
            require(
                not unread,
                f"{where} has {' and '.join(unread)} and the objective {self.objective!r}, which "
                "knows nothing of it. Leave it out.",
            )

    def _changed(self, names: Sequence[str]) -> list[str]:
        """Those of the settings that are not what they are by default."""
        return [name for name in names if getattr(self, name) != getattr(Stage, name)]

    def _check_weights(self, where: str) -> None:
        """Refuse what cannot be learned, or not as it is said."""
        require(
            bool(self.trainable) or self.lora is not None,
            f"{where} trains nothing: name parts of the model in trainable.",
        )
        require(
            0 <= self.start_share < 1,
            f"{where} has start_share {self.start_share}, must be at least 0 and below 1: with 1 "
            "nothing would be learned.",
        )
        require(
            self.first_row == 0 or (self.first_row > 0 and self.optim.weight_decay == 0),
            f"{where} has first_row {self.first_row} and weight_decay {self.optim.weight_decay}: "
            "rows are counted from 0, and those that stay must not decay.",
        )
        inside = [prefix for prefix in self.trainable if prefix.startswith("text.")]
        require(
            self.lora is None or not self.lora.quantized or not (self.first_row or inside),
            f"{where} holds the language model in 4 bits (lora.quantize), so that only adapters "
            f"learn in it: first_row is {self.first_row} and must be 0, and trainable names "
            f"{inside} and may name 'text' as a whole or nothing of it.",
        )
        require(
            self.region_loss_weight > 0,
            f"{where} has region_loss_weight {self.region_loss_weight}, must be above 0.",
        )
        require(
            self.alignment_weight >= 0,
            f"{where} has alignment_weight {self.alignment_weight}, must be 0 or more.",
        )

    def _check_scores(self, where: str) -> None:
        """Refuse to score on nothing, and to choose by no score."""
        scores = SCORES[self.objective]
        require(
            not self.best or self.best in scores,
            f"{where} keeps the best by {self.best!r}; choose one of {list(scores)}.",
        )
        require(
            not self.eval_every
            or (self.eval_samples > 0 and (self.mixture is None or self.eval_mixture is not None)),
            f"{where} is to be scored every {self.eval_every} steps, but on nothing: set "
            "eval_samples, and for a stage on files eval_mixture.",
        )
        require(
            not self.best or self.eval_every > 0,
            f"{where} keeps the best by {self.best!r}: say with eval_every how often it is scored.",
        )

    def trains(self, part: str) -> bool:
        """Whether anything of a part of the model trains in this stage."""
        return any(f"{prefix}.".startswith(f"{part}.") for prefix in self.trainable)

    @property
    def steps(self) -> int:
        """Number of optimiser steps, of a stage whose `samples` are known."""
        return max(1, self.samples // self.batch_size)


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        name: the recipe's name in `parfocal.recipes.RECIPES`.
        model: name of the preset in `parfocal.models.presets.PRESETS`.
        stages: in order.
        model_overrides: differences from the preset, part by part, such as
            {"proposer": {"kind": "deformable_detr"}}. Stages must not name what is gone then: with
            this one, mini's `stages.perception.optim.muon` is set without `proposer.stem`.
        weights: part of the model -> folder, hub id or bundled name of what it starts from, such as
            {"text": "lmsys/vicuna-7b-v1.5"}; parts that are not named start from the seed.
        sides: longer sides of the rendered training pictures in pixels, used in turn.
        kinds: number of kinds of objects in rendered pictures, more than there are objects in one;
            0: all.
        num_objects: fewest and most objects in one.
        seed: of weights, order and augmentation; it is added to that of a stage's mixture.
        bf16: autocast to bfloat16.
        loss_mean: what losses are averaged over: the whole `step`, so that they do not depend on
            how it is divided among processes and batches, or the part of each `process`, whose
            means are then averaged, as most published code does.
        workers: processes that load data, for each that trains; when None, 8 beside a GPU and none
            beside a CPU. They change the speed, never the result.
        budget: which of the recipe's sizes this is, such as "full" or "smoke".
        generation: settings of Transformers' `generate` that the finished model answers with.
        benchmarks: run on the finished model, by name in `parfocal.eval.benchmarks.BENCHMARKS`.
        benchmark_limit: only their first so many pictures.
    """

    name: str
    model: str
    stages: tuple[Stage, ...]
    model_overrides: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    sides: tuple[int, ...] = (192, 256)
    kinds: int = 0
    num_objects: tuple[int, int] = SceneStyle.num_objects
    seed: int = 0
    bf16: bool = True
    loss_mean: LossMean = "step"
    workers: int | None = None
    budget: str = "full"
    generation: Mapping[str, Any] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    benchmark_limit: int | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        require(
            bool(names) and len(set(names)) == len(names),
            f"recipe {self.name!r} needs stages of different names, has {names}.",
        )
        require(
            0 <= self.seed < 2**32, f"seed is {self.seed}, must be 0 or more and less than 2**32."
        )
        self._check_scenes()
        choices = list(get_args(LossMean))
        require(
            self.loss_mean in choices,
            f"loss_mean is {self.loss_mean!r}; choose one of {choices}.",
        )

    def _check_scenes(self) -> None:
        """Pictures must have a size, and there be kinds that none shows, to be asked about."""
        require(
            bool(self.sides) and min(self.sides) > 0,
            f"recipe {self.name!r} has the sides {list(self.sides)}, must be one or more, in "
            "pixels.",
        )
        given, have = self.num_objects, self.kinds or len(KINDS)
        require(
            len(given) == 2 and 1 <= given[0] <= given[1] and given[1] >= 2,
            f"recipe {self.name!r} has num_objects {given}, must be the fewest and the most "
            "objects of a scene, the most 2 or more.",
        )
        require(
            given[1] < have <= len(KINDS),
            f"recipe {self.name!r} has kinds {self.kinds}, must be more than the {given[1]} "
            f"objects of a scene (num_objects) and no more than {len(KINDS)}, or 0 for all.",
        )

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads back to an equal recipe."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read a saved recipe; ConfigError for unknown keys and values of other types."""
        recipe: Recipe = build(cls, json.loads(text))
        return recipe
