"""What a training run is: frozen dataclasses, saved with the run, changed by typed overrides."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from parfocal.errors import ConfigError

Objective = Literal["detection", "language"]


@dataclass(frozen=True)
class Optim:
    """AdamW with linear warm-up and a cosine to `final_lr_ratio` of the peak.

    Attributes:
        lr: peak learning rate.
        betas: decay of the two moments.
        weight_decay: on matrices only.
        warmup_steps: steps of linear warm-up.
        final_lr_ratio: last learning rate, as a fraction of the peak.
        max_grad_norm: gradients are clipped to this norm.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    warmup_steps: int = 80
    final_lr_ratio: float = 0.01
    max_grad_norm: float = 5.0


@dataclass(frozen=True)
class Stage:
    """One stage: what trains, on how much, towards what.

    Attributes:
        name: folder and log name.
        objective: `detection` (find objects and tell them apart) or `language` (answer questions
            about them).
        trainable: parameter name prefixes that train; all others are frozen and stay bit-identical.
        samples: pictures seen.
        batch_size: pictures a step over all processes.
        optim: the optimiser and its schedule.
        eval_samples: validation pictures scored at the end of the stage.
        region_loss_weight: how much the name of a region counts in the loss of an answer; any other
            token counts 1.
        start_share: share of the stage's first weights in those that it leaves. A mean of both ends
            of a fine-tuning often is better than either (Wortsman et al., 2022, "Robust fine-tuning
            of zero-shot models").
        keep: the last so many checkpoints stay on disk.
    """

    name: str
    objective: Objective
    trainable: tuple[str, ...]
    samples: int
    batch_size: int
    optim: Optim = field(default_factory=Optim)
    eval_samples: int = 200
    region_loss_weight: float = 1.0
    start_share: float = 0.0
    keep: int = 1

    def __post_init__(self) -> None:
        choices = get_args(Objective)
        if self.objective not in choices:
            raise ConfigError(
                f"stage {self.name!r} has the objective {self.objective!r}; "
                f"choose one of {list(choices)}."
            )
        if not 0 <= self.start_share < 1:
            raise ConfigError(
                f"stage {self.name!r} has start_share {self.start_share}, must be at least 0 and "
                "below 1: with 1 nothing would be learned."
            )

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return max(1, self.samples // self.batch_size)


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        name: the recipe's name in `parfocal.recipes.RECIPES`.
        model: name of the preset in `parfocal.models.presets.PRESETS`.
        stages: in order.
        model_overrides: differences from the preset, part by part, such as
            {"proposer": {"kind": "deformable_detr"}}.
        sides: longer sides of the rendered training pictures in pixels, used in turn.
        seed: of weights, order and augmentation.
        bf16: autocast to bfloat16.
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
    sides: tuple[int, ...] = (192, 256)
    seed: int = 0
    bf16: bool = True
    workers: int | None = None
    budget: str = "full"
    generation: Mapping[str, Any] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    benchmark_limit: int | None = None

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads back to an equal recipe."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read a saved recipe; ConfigError for unknown keys."""
        values = json.loads(text)
        stages = tuple(
            _build(Stage, {**stage, "optim": _build(Optim, stage["optim"])})
            for stage in values.pop("stages")
        )
        recipe: Recipe = _build(cls, {**values, "stages": stages})
        return recipe


def _build(kind: type, values: Mapping[str, Any]) -> Any:
    known = {item.name for item in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"{kind.__name__} has no field {unknown[0]!r}; its fields are {sorted(known)}."
        )
    return kind(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Apply `path=value` assignments such as `stages.perception.optim.lr=1e-3`.

    Stages are named by their name or number. Values are typed by the field they replace.

    Raises:
        ConfigError: for an unknown path (listing its siblings) or a value of the wrong type.
    """
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigError(f"override {assignment!r} is not of the form path=value.")
        recipe = _assign(recipe, path.strip().split("."), value.strip(), path)
    return recipe


def _assign(owner: Any, path: list[str], value: str, whole: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(owner, tuple):
        index = _place(owner, head)
        if index is None or not rest:
            names = [getattr(item, "name", str(place)) for place, item in enumerate(owner)]
            raise ConfigError(
                f"override {whole!r}: {head!r} is not one of {names}, or names no field of it."
            )
        return (*owner[:index], _assign(owner[index], rest, value, whole), *owner[index + 1 :])
    if not dataclasses.is_dataclass(owner):
        raise ConfigError(f"override {whole!r} goes deeper than there are fields.")
    siblings = [item.name for item in dataclasses.fields(owner)]
    if head not in siblings:
        close = difflib.get_close_matches(head, siblings, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"override {whole!r}: {type(owner).__name__} has no field {head!r}.{hint} "
            f"Its fields are {siblings}."
        )
    current = getattr(owner, head)
    new = _assign(current, rest, value, whole) if rest else _typed(owner, head, value, whole)
    return dataclasses.replace(owner, **{head: new})  # type: ignore[type-var]


def _place(items: tuple[Any, ...], head: str) -> int | None:
    """Return the index of the item that `head` names, by its name or by its number."""
    names = [getattr(item, "name", str(index)) for index, item in enumerate(items)]
    if head in names:
        return names.index(head)
    return int(head) if head.isdigit() and int(head) < len(items) else None


def _typed(owner: Any, name: str, value: str, whole: str) -> Any:
    """Read `value` as the type of the field it replaces."""
    hint = get_type_hints(type(owner))[name]
    if hint is str:
        return value
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        parsed = value
    current = getattr(owner, name)
    if isinstance(current, tuple) and isinstance(parsed, list):
        kinds = get_args(hint)
        if kinds[1:] == (Ellipsis,):
            kinds = kinds[:1] * len(parsed)
        if len(kinds) != len(parsed):
            raise ConfigError(f"override {whole!r}: {value!r} needs {len(kinds)} values.")
        pairs = zip(kinds, parsed, strict=True)
        return tuple(_of_type(kind, item, value, whole) for kind, item in pairs)
    return _of_type(type(current), parsed, value, whole)


def _of_type(kind: type, parsed: Any, value: str, whole: str) -> Any:
    """Return `parsed` if it is a `kind`; integers become floats where floats are wanted."""
    if kind is float and isinstance(parsed, int) and not isinstance(parsed, bool):
        return float(parsed)
    if not isinstance(parsed, kind) or (isinstance(parsed, bool) and kind is not bool):
        raise ConfigError(f"override {whole!r}: {value!r} is not a {kind.__name__}.")
    return parsed
