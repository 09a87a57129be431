"""QLoRA: the language model's frozen linear layers in 4 bits, while adapters on them train.

A weight is held as one of the 16 values of NF4 times a scale of its block of 64, and the scales are
8-bit numbers themselves, times a scale of their block of 256 (double quantisation). What is held is
a function of the weights that the stage began with, so no file has it: a checkpoint has all else,
and what the stage leaves are the weights it began with, to which the adapters are added.

Source: Dettmers et al., 2023 (arXiv:2305.14314), section 3; by bitsandbytes.
Deviates: adapters are added to the weights as they were before they were rounded, so that one
    ordinary file is left; the paper keeps them beside the rounded ones. No paged optimiser.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from parfocal.errors import ConfigError
from parfocal.train.adapters import is_adapter

BLOCK = 64
BITS = 4 + 8 / BLOCK + 32 / (BLOCK * 256)
"""Of a weight, its share of the scales among them. Source: section 3, "Double Quantization"."""


def check_installed() -> None:
    """Raise ConfigError if bitsandbytes is missing."""
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "lora.quantize is 'nf4', which needs bitsandbytes: pip install 'parfocal[qlora]'."
        )


def check_layers(text: nn.Module) -> None:
    """Refuse layers whose rows are not whole blocks: on some CPUs their scales would be mixed up.

    Raises:
        ConfigError: naming the first such layer of a language model.
    """
    for name, layer in linear_layers(text).items():
        if layer.in_features % BLOCK:
            raise ConfigError(
                f"lora.quantize: the layer {name!r} has {layer.in_features} inputs, which are not "
                f"a multiple of {BLOCK}, the weights that share a scale. Leave quantize out, or "
                "take a language model of other widths."
            )


def linear_layers(text: nn.Module) -> dict[str, nn.Linear]:
    """What can be held in 4 bits: all linear layers of a language model, by name, but its head.

    The head stays whole because the loss is computed on what it gives; adapters stay as they learn.
    """
    head = text.get_output_embeddings()
    return {
        name: part
        for name, part in text.named_modules()
        if isinstance(part, nn.Linear) and part is not head and not is_adapter(name)
    }


def quantize(text: nn.Module, compute: torch.dtype) -> None:
    """Replace the linear layers of a language model by layers that hold them in 4 bits, in place.

    Call it before adapters are added, which then are of the kind for such layers.

    Args:
        text: the language model, whose layers are rounded on the device they are on.
        compute: what products are computed in: bfloat16 or float32.

    Raises:
        ConfigError: if bitsandbytes is not installed, or the rows of a layer are not whole blocks.
    """
    check_installed()
    check_layers(text)
    for name, layer in linear_layers(text).items():
        text.set_submodule(name, _in_4_bits(layer, compute))
    text.is_loaded_in_4bit = True  # PEFT asks for it


def _in_4_bits(layer: nn.Linear, compute: torch.dtype) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    held: Any = Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, compute, device="meta"
    )
    weight = Params4bit(layer.weight.detach(), blocksize=BLOCK, quant_type="nf4", module=held)
    held.weight, held.bias = weight.to(layer.weight.device), layer.bias
    # In evaluation mode, a CPU that has these instructions would round the scales once more, and
    # keep it so: the layer would be another one after a score.
    held.support_avx512bf16_for_cpu = False
    return held


def quantized_names(model: nn.Module) -> set[str]:
    """Names, as in the state dict of a model, of all that layers in 4 bits consist of.

    Their biases are among them: such a layer brings them to the type that it computes in.
    """
    layers = {name for name, part in model.named_modules() if hasattr(part, "quant_state")}
    if not layers:
        return set()
    return {name for name in model.state_dict() if _layer_of(name) in layers}


def _layer_of(name: str) -> str:
    """The layer that an entry of a state dict belongs to; a weight's scales are behind its name."""
    layer, found, _ = name.rpartition(".weight")
    return layer if found else name.rpartition(".")[0]


def num_weights(value: Tensor) -> int:
    """How many numbers a parameter stands for: in 4 bits, two are held in a byte."""
    state = getattr(value, "quant_state", None)
    return value.numel() if state is None else int(state.shape.numel())
