"""Low-rank adapters (PEFT) on the language model while a stage trains; then they are merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from parfocal.errors import ConfigError
from parfocal.train.recipe import Lora

_MARK = "lora_"  # in the names of all parameters that PEFT adds
_BASE = "base_layer."  # in the names of those that it adds to


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return any(part.startswith(_MARK) for part in name.split("."))


def own_name(name: str) -> str:
    """The name that a parameter has in the model without adapters."""
    return name.replace(_BASE, "")


def add_adapters(text: nn.Module, settings: Lora) -> None:
    """Put adapters on linear layers, in place; their product starts as zero.

    Args:
        text: the language model.
        settings: which layers, and of which size.

    Raises:
        ConfigError: if PEFT is not installed, no layer has one of the names, or a layer is not
            linear or shares its weights with the token table.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as err:
        raise ConfigError("adapters need PEFT: pip install 'parfocal[train]'.") from err
    _check(text, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or "all-linear",
    )
    try:
        inject_adapter_in_model(config, text)
    except ValueError as err:
        layers = sorted(
            {name.split(".")[-1] for name, part in text.named_modules() if _is_linear(part)}
        )
        raise ConfigError(
            f"lora.targets {list(settings.targets)} name no layer; there are {layers}."
        ) from err


def _check(text: nn.Module, targets: Sequence[str]) -> None:
    """Refuse adapters that could not be merged into weights of their own."""
    table = text.get_input_embeddings().weight
    for name, part in text.named_modules():
        if not any(name == target or name.endswith(f".{target}") for target in targets):
            continue
        if not isinstance(part, nn.Linear) or part.weight is table:
            raise ConfigError(
                f"lora.targets name {name!r}, which is no linear layer with weights of its own; "
                "leave it out."
            )


def merged(
    weights: Mapping[str, Tensor], settings: Lora, start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Add every adapter's product to the weight it is on; returns weights by their own names.

    Args:
        weights: of the whole model, adapters included; what was quantised may be missing.
        settings: that the adapters were made with.
        start: by their own names, weights to take where `weights` have none.
    """
    own = {name: value for name, value in weights.items() if not is_adapter(name)}
    found = {**start, **{own_name(name): value for name, value in own.items()}}
    for name, down in weights.items():
        layer, is_first, _ = name.partition(".lora_A.default.weight")
        if is_first:
            up, value = weights[f"{layer}.lora_B.default.weight"], found[f"{layer}.weight"]
            product = settings.alpha / settings.rank * (up @ down)
            found[f"{layer}.weight"] = value + product.to(value)
    return found


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)
