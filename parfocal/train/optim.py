"""How weights change in a stage: an optimiser with its schedule, and low-rank adapters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from parfocal.errors import ConfigError

Quantize = Literal["none", "nf4"]


def is_part(name: str, part: str) -> bool:
    """Whether a parameter's name has these words, between dots, in it.

    >>> is_part("model.text.lm_head.weight", "text.lm_head"), is_part("context.weight", "text")
    (True, False)
    """
    return f".{part}." in f".{name}."


@dataclass(frozen=True)
class Optim:
    """AdamW, or Muon in parts, with linear warm-up and a cosine to `final_lr_ratio` of the peak.

    Attributes:
        lr: peak learning rate.
        betas: decay of the two moments.
        weight_decay: on matrices; on all parameters with `decay_all`.
        decay_all: decay biases, norms and other vectors as well.
        warmup_steps: steps of linear warm-up; 0: as many as `warmup_ratio` says.
        warmup_ratio: the same as a share of the stage's steps, rounded up.
        final_lr_ratio: last learning rate, as a fraction of the peak.
        max_grad_norm: gradients are clipped to this norm; 0 leaves them.
        lr_factors: parts of parameter names, whole words between dots -> what the learning rate is
            multiplied by there, such as {"vision": 0.1} or {"text.lm_head": 0.5}; the factors of
            all parts that fit are multiplied.
        muon: parts of parameter names, whole words between dots, such as "text.model.layers", whose
            matrices and kernels are trained by Muon (momentum 0.95) in place of AdamW; `betas` are
            AdamW's.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    decay_all: bool = False
    warmup_steps: int = 0
    warmup_ratio: float = 0.03
    final_lr_ratio: float = 0.01
    max_grad_norm: float = 5.0
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    muon: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.lr > 0, f"lr is {self.lr}, must be above 0.")
        for name in ("weight_decay", "warmup_steps", "max_grad_norm"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}, must be 0 or more.")
        require(
            all(0 <= beta < 1 for beta in self.betas),
            f"betas are {self.betas}, must be from 0 to below 1.",
        )
        for part, factor in self.lr_factors.items():
            require(factor >= 0, f"lr_factors[{part!r}] is {factor}, must be 0 or more.")
        require(
            0 <= self.warmup_ratio < 1,
            f"warmup_ratio is {self.warmup_ratio}, must be from 0 to below 1.",
        )
        require(
            0 <= self.final_lr_ratio <= 1,
            f"final_lr_ratio is {self.final_lr_ratio}, must be from 0 to 1.",
        )

    def warmup(self, steps: int) -> int:
        """Number of warm-up steps of a stage of so many steps."""
        return self.warmup_steps or math.ceil(self.warmup_ratio * steps)

    def factor(self, name: str) -> float:
        """What the learning rate of a parameter of this name is multiplied by."""
        return math.prod(factor for part, factor in self.lr_factors.items() if is_part(name, part))


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters that train instead of the weights they are added to.

    They are merged into the weights at the end of the stage, so the model stays what it is.

    Attributes:
        rank: of each adapter.
        alpha: an adapter's product is multiplied by alpha / rank.
        dropout: of an adapter's input, in training.
        targets: names of the linear layers that get adapters; all but the head when empty.
        quantize: how the frozen linear layers of the language model, all but the head, are held:
            as they are, or in 4 bits (`nf4`, QLoRA; see `parfocal.train.quantize`).

    Source: Hu et al., 2022 (arXiv:2106.09685), section 4; of `quantize`, Dettmers et al., 2023
        (arXiv:2305.14314), section 3.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ()
    quantize: Quantize = "none"

    def __post_init__(self) -> None:
        require(self.rank > 0, f"lora.rank is {self.rank}, must be above 0.")
        require(0 <= self.dropout < 1, f"lora.dropout is {self.dropout}, must be 0 to below 1.")
        require(
            self.quantize in get_args(Quantize),
            f"lora.quantize is {self.quantize!r}; choose one of {list(get_args(Quantize))}.",
        )

    @property
    def quantized(self) -> bool:
        """Whether the language model is held in fewer bits while adapters train."""
        return self.quantize != "none"


def require(holds: bool, otherwise: str) -> None:
    """Raise a ConfigError that says `otherwise` unless something holds."""
    if not holds:
        raise ConfigError(otherwise)
