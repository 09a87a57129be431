"""The weights a run starts from: published towers and language models, part by part.

Shapes: V rows of a token table, D its width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from parfocal.errors import CheckpointError, ConfigError


def load_parts(model: nn.Module, weights: Mapping[str, str]) -> None:
    """Fill parts of a model with the weights of folders or hub ids.

    Of a token table that has grown, the new rows start as the mean of the old ones.

    Args:
        model: changed in place.
        weights: part -> source: "text", or the backbone of a tower, "vision.towers.0.backbone".

    Raises:
        ConfigError: if the model has no such part.
        CheckpointError: if a source lacks a weight of the part, or has it in another shape.
    """
    for part, source in weights.items():
        try:
            target = model.get_submodule(part)
        except AttributeError as err:
            names = [name for name, _ in model.named_modules() if name.count(".") < 3 and name]
            raise ConfigError(
                f"weights: the model has no part {part!r}; parts are {names[:12]} and so on."
            ) from err
        loader = AutoModelForCausalLM if part == "text" else AutoModel
        loaded = loader.from_pretrained(source, dtype=torch.float32)
        found = getattr(loaded, "vision_model", loaded).state_dict()
        _fill(target, found, part, source)


def _fill(target: nn.Module, found: Mapping[str, Tensor], part: str, source: str) -> None:
    """Copy every weight of `target` by its name."""
    for name, value in target.state_dict().items():
        if name not in found:
            raise CheckpointError(f"{source} has no weight {name!r}, which {part!r} needs.")
        given = found[name]
        grown = len(given) < len(value) and given.shape[1:] == value.shape[1:] and given.ndim == 2
        if given.shape != value.shape and not (grown and part == "text"):
            raise CheckpointError(
                f"{source}: {name!r} is {tuple(given.shape)}, {part!r} needs {tuple(value.shape)}; "
                "choose weights of the model's size, or change the model."
            )
        with torch.no_grad():
            if grown:
                value[: len(given)] = given
                value[len(given) :] = given.mean(0)
            else:
                value.copy_(given)
