"""The parameters of an objective: which of them train, and whether and how they can be divided."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from parfocal.errors import CheckpointError, ConfigError
from parfocal.train.adapters import is_adapter, own_name
from parfocal.train.quantize import num_weights, quantized_names
from parfocal.train.recipe import Stage
from parfocal.train.rows import held_weights

logger = logging.getLogger(__name__)


def freeze(objective: nn.Module, stage: Stage) -> None:
    """Let only the stage's parts (and the objective's own heads) train.

    Where the stage has adapters, they train, and of the language model's own weights only those of
    parts that the stage names, such as `text.lm_head`.

    Raises:
        ConfigError: if a prefix of `stage.trainable` names no parameter.
    """
    model = objective.model
    names = [own_name(name) for name, _ in model.named_parameters()]
    for prefix in stage.trainable:
        if not any(under(name, prefix) for name in names):
            parts = sorted({name.split(".")[0] for name in names})
            raise ConfigError(
                f"stage {stage.name!r} trains {prefix!r}, which names no parameter; "
                f"the parts are {parts}."
            )
    adapted = stage.lora is not None
    own = [prefix for prefix in stage.trainable if not (adapted and prefix == "text")]
    for name, value in model.named_parameters():
        chosen = any(under(own_name(name), prefix) for prefix in own)
        value.requires_grad_(chosen or (adapted and is_adapter(name)))


def trainable_counts(model: nn.Module, first_row: int = 0) -> tuple[int, int]:
    """How many parameters train and how many are frozen, however many bits each has.

    Args:
        model: or a part of it; the whole or the language model where `first_row` is given.
        first_row: of the stage: rows of tables before it are frozen.
    """
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    trained -= held_weights(model, first_row) if first_row else 0
    return trained, sum(map(num_weights, model.parameters())) - trained


def under(name: str, prefix: str) -> bool:
    """Whether a parameter is of the part that a prefix names, or is that part itself."""
    return name == prefix or name.startswith(prefix + ".")


def check_divisible(stage: Stage, objective: nn.Module | None = None) -> None:
    """Refuse what FSDP and DeepSpeed cannot do, before they fail half-way or do something else.

    Args:
        stage: that is to train so.
        objective: of the stage; None before it is built.

    Raises:
        ConfigError: if the stage is scored while it trains, holds rows of tables, quantises or
            trains by Muon, or the model has parameters that are single numbers.
    """
    reasons = {
        "it is scored while it trains (eval_every), which needs all weights in one process":
            stage.eval_every > 0,
        "some rows of its tables are held (first_row), which needs whole tables":
            stage.first_row > 0,
        "its language model is held in 4 bits (lora.quantize), which only whole layers are":
            stage.lora is not None and stage.lora.quantized,
        "matrices are trained by Muon (optim.muon), which needs whole ones":
            bool(stage.optim.muon),
        "parameters such as single numbers cannot be divided":
            objective is not None and any(value.ndim == 0 for value in objective.parameters()),
    }  # fmt: skip
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ConfigError(
            f"stage {stage.name!r} cannot train with FSDP or DeepSpeed: {'; '.join(found)}. Train "
            "it without, for example with --accelerate ddp."
        )


def load_divided(model: nn.Module, path: str) -> None:
    """Fill a model that FSDP has divided with the whole weights of a file.

    Tables that share their weights are in the file once.
    """
    options = StateDictOptions(full_state_dict=True, strict=False)
    missing, unknown = set_model_state_dict(model, load_file(path), options=options)
    _check_fit(model, path, set(missing), unknown)


def load_whole(model: nn.Module, path: str) -> None:
    """Fill a model with the weights of a checkpoint; quantised ones, which it lacks, stay.

    Tables that share their weights are in the file once, or twice where DeepSpeed gathered them.

    Raises:
        CheckpointError: if the file lacks anything else, or has more.
        RuntimeError: if a weight has another shape.
    """
    missing, unknown = model.load_state_dict(load_file(path), strict=False)
    _check_fit(model, path, set(missing) - quantized_names(model), unknown)


def _check_fit(model: nn.Module, path: str, missing: set[str], unknown: Sequence[str]) -> None:
    """Refuse a file that lacks, or has, more than tables that share their weights."""
    held = [names for names in tied_names(model) if set(names) - missing]
    lacking = missing - {name for names in held for name in names}
    if unknown or lacking:
        raise CheckpointError(
            f"{path} does not fit: it lacks {sorted(lacking)[:3]} and has {list(unknown)[:3]} on "
            "top."
        )


def tied_names(model: nn.Module) -> list[list[str]]:
    """Names of parameters that are one and the same, a list for each."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, value in model.named_parameters(remove_duplicate=False):
        names[id(value)].append(name)
    return [found for found in names.values() if len(found) > 1]
