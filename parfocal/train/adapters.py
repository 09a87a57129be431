"""Low-rank adapters (PEFT) on the language model while a stage trains; then they are merged."""

from __future__ import annotations

from torch import nn

from parfocal.errors import ConfigError
from parfocal.train.recipe import Lora

_MARK = "lora_"  # in the names of all parameters that PEFT adds


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return any(part.startswith(_MARK) for part in name.split("."))


def add_adapters(text: nn.Module, settings: Lora) -> None:
    """Put adapters on linear layers, in place; their product starts as zero.

    Args:
        text: the language model.
        settings: which layers, and of which size.

    Raises:
        ConfigError: if PEFT is not installed, or no layer has one of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as err:
        raise ConfigError("adapters need PEFT: pip install 'parfocal[train]'.") from err
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


def merge_adapters(text: nn.Module) -> None:
    """Add every adapter's product to the weights it is on, and take the adapters away."""
    from peft.tuners.lora import LoraLayer

    for name, part in list(text.named_modules()):
        if isinstance(part, LoraLayer):
            part.merge()
            owner, _, own = name.rpartition(".")
            setattr(text.get_submodule(owner), own, part.get_base_layer())
    if hasattr(text, "peft_config"):
        del text.peft_config


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)
