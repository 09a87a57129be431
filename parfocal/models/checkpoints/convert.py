"""Strict conversion of a state dict: every source tensor is used or dropped by name.

A `KeyMap` is a list of rules; the first rule whose pattern fits a source name decides. In a
pattern `*` stands for one dotted component or a part of one, `**` for any number of components; the
target repeats them in the same order. The engine reads names first and tensors one at a time, so a
lazy mapping of a large checkpoint works, and so do meta tensors.

Example:
    >>> import torch
    >>> rules = KeyMap("demo", (Rename("old.**", "new.**"), Drop("steps", "a counter")))
    >>> source = {"old.a.weight": torch.ones(2), "steps": torch.zeros(1)}
    >>> converted = convert(source, rules, {"new.a.weight": torch.empty(2)})
    >>> list(converted.state), converted.report.dropped
    (['new.a.weight'], {'steps': 'a counter'})
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from parfocal.errors import CheckpointError


@dataclass(frozen=True)
class Rename:
    """One source tensor becomes one target tensor; `apply` may change its shape."""

    source: str
    target: str
    apply: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Join:
    """Several source tensors become one, in the order of `sources` along `dim`."""

    sources: tuple[str, ...]
    target: str
    dim: int = 0


@dataclass(frozen=True)
class Drop:
    """A source tensor that our model does not need, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Keep:
    """A target that the source does not hold and that keeps its initial value, and why."""

    target: str
    reason: str


Rule = Rename | Join | Drop | Keep


@dataclass(frozen=True)
class KeyMap:
    """All rules of one checkpoint family.

    Attributes:
        family: named in errors and reports.
        rules: tried in this order.
    """

    family: str
    rules: tuple[Rule, ...]


@dataclass
class Report:
    """What a conversion did, by name.

    Attributes:
        family: of the key map.
        used: source name -> the target names it went to.
        dropped: source name -> reason.
        kept: target name -> reason.
        aliases: source names that repeated a tensor already converted.
        parameters: numbers in the converted state dict.
    """

    family: str
    used: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    parameters: int = 0

    def __str__(self) -> str:
        targets = {name for names in self.used.values() for name in names}
        return (
            f"{self.family}: {len(self.used)} source tensors filled {len(targets)} targets "
            f"({self.parameters:,} numbers); {len(self.aliases)} were repetitions, "
            f"{len(self.dropped)} dropped, {len(self.kept)} targets kept their initial values."
        )


@dataclass(frozen=True)
class Conversion:
    """A state dict in our names, and the report on it."""

    state: dict[str, Tensor]
    report: Report


def convert(
    source: Mapping[str, Tensor], key_map: KeyMap, targets: Mapping[str, Tensor]
) -> Conversion:
    """Convert `source` so that it fills `targets` exactly.

    Args:
        source: name -> tensor; tensors are asked for once each, in order.
        key_map: the family's rules.
        targets: name -> tensor of the right shape, such as `model.state_dict()` of a model on the
            meta device.

    Returns:
        The new state dict and the report; types of numbers are left as they are.

    Raises:
        CheckpointError: listing every source tensor without a rule, every target that stays empty,
            every wrong shape and every pair of sources that disagree about one target.
    """
    work = _Work(key_map, Report(key_map.family))
    for name in source:
        work.take(name, source[name])
    work.finish(targets)
    if work.misfits:
        listed = "\n".join(f"  {misfit}" for misfit in work.misfits)
        raise CheckpointError(
            f"the checkpoint does not fit the {key_map.family} model "
            f"({len(work.misfits)} misfits):\n{listed}\n"
            "Check that it is the right family and size, and that the copy is complete."
        )
    work.report.parameters = sum(tensor.numel() for tensor in work.state.values())
    return Conversion(work.state, work.report)


@dataclass
class _Work:
    """One conversion under way."""

    key_map: KeyMap
    report: Report
    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    joins: dict[str, tuple[Join, dict[int, Tensor]]] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)

    def take(self, name: str, tensor: Tensor) -> None:
        """Apply the first rule that fits `name`."""
        for rule in self.key_map.rules:
            if isinstance(rule, Rename) and (parts := match(rule.source, name)) is not None:
                changed = tensor if rule.apply is None else rule.apply(tensor)
                return self._place(name, fill(rule.target, parts), changed)
            if isinstance(rule, Join):
                for place, pattern in enumerate(rule.sources):
                    if (parts := match(pattern, name)) is not None:
                        return self._part(name, tensor, rule, place, parts)
            if isinstance(rule, Drop) and match(rule.source, name) is not None:
                self.report.dropped[name] = rule.reason
                return None
        self.misfits.append(f"unknown source tensor {name} {tuple(tensor.shape)}")
        return None

    def _place(self, name: str, target: str, tensor: Tensor) -> None:
        self.report.used[name] = (target,)
        if target not in self.state:
            self.state[target], self.origin[target] = tensor, name
            return
        self.report.aliases.append(name)
        if not _same(self.state[target], tensor):
            self.misfits.append(f"{name} and {self.origin[target]} are both {target} and differ")

    def _part(
        self, name: str, tensor: Tensor, rule: Join, place: int, parts: tuple[str, ...]
    ) -> None:
        target = fill(rule.target, parts)
        self.joins.setdefault(target, (rule, {}))[1][place] = tensor
        self.report.used[name] = (target,)

    def finish(self, targets: Mapping[str, Tensor]) -> None:
        """Join what waits for it, then hold the result against `targets`."""
        for target, (rule, pieces) in self.joins.items():
            lost = [item for place, item in enumerate(rule.sources) if place not in pieces]
            shapes = [tuple(pieces[place].shape) for place in sorted(pieces)]
            if lost:
                self.misfits.append(f"missing source tensor {lost} for {target}")
                self.state[target] = targets.get(target, torch.empty(0))
            elif len({shape[: rule.dim] + shape[rule.dim + 1 :] for shape in shapes}) != 1:
                self.misfits.append(f"misshapen parts {shapes} of {target} do not join")
                self.state[target] = targets.get(target, torch.empty(0))
            else:
                self.state[target] = torch.cat(
                    [pieces[place] for place in range(len(rule.sources))], rule.dim
                )
        self.joins.clear()
        keeps = [rule for rule in self.key_map.rules if isinstance(rule, Keep)]
        for name, wanted in targets.items():
            if name in self.state:
                found = self.state[name]
                if found.shape != wanted.shape:
                    self.misfits.append(
                        f"misshapen {name}: the source gives {tuple(found.shape)}, "
                        f"the model has {tuple(wanted.shape)}{self._from(name)}"
                    )
                continue
            reason = next(
                (rule.reason for rule in keeps if match(rule.target, name) is not None), ""
            )
            if reason:
                self.report.kept[name] = reason
            else:
                self.misfits.append(f"missing: nothing in the source fills {name}")
        for name in self.state:
            if name not in targets:
                self.misfits.append(f"the model has no {name}{self._from(name)}")

    def _from(self, target: str) -> str:
        return f" (from {self.origin[target]})" if target in self.origin else ""


def _same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    return first.is_meta or second.is_meta or torch.equal(first, second)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*|\*)", pattern)
    kinds = {"**": "(.+)", "*": r"([^.]+)"}
    return re.compile("".join(kinds.get(piece, re.escape(piece)) for piece in pieces))


def match(pattern: str, name: str) -> tuple[str, ...] | None:
    """Return what the wildcards of `pattern` stand for in `name`; None if it does not fit."""
    found = _compiled(pattern).fullmatch(name)
    return None if found is None else found.groups()


def fill(pattern: str, parts: Iterable[str]) -> str:
    """Put `parts` in the places of the wildcards of `pattern`, in order."""
    values = iter(parts)
    return re.sub(r"\*\*|\*", lambda _: next(values), pattern)
