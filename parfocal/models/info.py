"""What a model is made of: parameters, work of a prefill, tokens a picture, memory; by part.

Models are built on the meta device, so no weights are needed and a preset of 34 billion parameters
answers in seconds.

What is counted as work: multiplications and additions (a multiply-add is 2) of convolutions, matrix
products and attention, of one picture and one prompt up to the first token of the answer. Attention
counts all pairs, also those that the causal mask hides. Not counted: norms, activations, softmax,
resizing, RoIAlign and the sampling of deformable attention, which are small beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForZeroShotObjectDetection,
    PreTrainedConfig,
    PreTrainedModel,
)

from parfocal.errors import CheckpointError
from parfocal.hub import first_line, load_errors
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import PRESETS, get_preset
from parfocal.models.proposer import Regions

TEXT_TOKENS = 64
"""Of the prompt's words, a question with its template."""

# What the papers say, in billions; only where a paper gives a number.
# Source: MG-LLaVA (arXiv:2406.17770), tables 1 and 2.
REPORTED: Mapping[str, float] = {
    "mg_llava_phi3_3_8b": 4.2,
    "mg_llava_vicuna_7b": 7.4,
    "mg_llava_llama3_8b": 8.4,
    "mg_llava_vicuna_13b": 13.6,
    "mg_llava_yi1_5_34b": 34.4,
}

# bytes of a weight of a linear layer, of any other weight, and of a number in the cache
# int8 and int4 are bitsandbytes' kinds: linear layers but the head, of our models those of `text`
# only; int4 has a float32 scale for 64
BYTES: Mapping[str, tuple[float, float, float]] = {
    "float32": (4, 4, 4),
    "bfloat16": (2, 2, 2),
    "int8": (1, 2, 2),
    "int4": (0.5 + 4 / 64, 2, 2),
}


@dataclass(frozen=True)
class PartInfo:
    """One part of a model.

    Attributes:
        name: of the part.
        kind: which one it is.
        parameters: number of them.
        flops: of a prefill, see the module; None where it is not known.
    """

    name: str
    kind: str
    parameters: int
    flops: int | None


@dataclass(frozen=True)
class ModelInfo:
    """What `parfocal info MODEL` says.

    Attributes:
        name: as it was asked for.
        model_type: of the config.
        parts: in the order in which a picture meets them.
        image_tokens: that a picture takes in the text; 0 where it is not known.
        region_slots: boxes that fit beside it.
        region_tokens: that all of them take in the text.
        text_tokens: of the prompt's words.
        linear_parameters: of linear layers that quantisation makes small: the language model's, or
            all of another family's model, the head left out.
        cache_numbers: that the cache holds for one token.
        reported: parameters as the paper writes them, in billions.
    """

    name: str
    model_type: str
    parts: tuple[PartInfo, ...]
    image_tokens: int = 0
    region_slots: int = 0
    region_tokens: int = 0
    text_tokens: int = TEXT_TOKENS
    linear_parameters: int = 0
    cache_numbers: int = 0
    reported: float | None = None

    @property
    def parameters(self) -> int:
        """Of all parts; a table that two parts share counts once."""
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> int | None:
        """Of a prefill; None where it is not known."""
        known = [part.flops for part in self.parts if part.flops is not None]
        return sum(known) if known else None

    @property
    def prompt_tokens(self) -> int:
        """Of one picture, all region slots and the words."""
        return self.image_tokens + self.region_tokens + self.text_tokens

    def memory(self) -> dict[str, dict[str, int]]:
        """Bytes by type of number: of the weights, of the cache of one prompt, and of both.

        Activations come on top: they depend on the attention kernel and on the batch.
        """
        other, found = self.parameters - self.linear_parameters, {}
        for dtype, (linear, rest, cached) in BYTES.items():
            weights = round(self.linear_parameters * linear + other * rest)
            cache = round(self.cache_numbers * self.prompt_tokens * cached)
            found[dtype] = {"weights": weights, "cache": cache, "total": weights + cache}
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "schema": "parfocal.info/1",
            "model": self.name,
            "model_type": self.model_type,
            "parameters": self.parameters,
            "parameters_reported": self.reported and round(self.reported * 1e9),
            "flops": self.flops,
            "parts": [vars(part) for part in self.parts],
            "tokens": {
                "image": self.image_tokens,
                "region_slots": self.region_slots,
                "regions": self.region_tokens,
                "text": self.text_tokens,
                "prompt": self.prompt_tokens,
            },
            "memory": self.memory(),
        }


def preset_info(name: str) -> ModelInfo:
    """Describe a preset of `PRESETS`."""
    return config_info(get_preset(name), name)


def folder_info(folder: str | Path, name: str = "") -> ModelInfo:
    """Describe the model of a folder from its config.json; weights are not read.

    Args:
        folder: of this package's model, of an official checkpoint, or of another family that
            Transformers knows.
        name: for the report; the folder when empty.

    Raises:
        CheckpointError: if there is no config, or it is of a model that Transformers does not know.
    """
    from parfocal.models.checkpoints import official

    folder, name = Path(folder), name or str(folder)
    if (config := official.groma_folder_config(folder)) is not None:
        return config_info(config, name)
    try:
        found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except load_errors() as err:
        raise CheckpointError(
            f"{folder} holds no config.json that Transformers can read ({first_line(err)}). Give a "
            f"preset ({', '.join(PRESETS)}), a model folder, or a hub id."
        ) from err
    return config_info(found, name)


def config_info(config: PreTrainedConfig, name: str) -> ModelInfo:
    """Describe the model of a config.

    Args:
        config: ours, or of another family that Transformers knows.
        name: for the report.
    """
    if isinstance(config, ParfocalConfig):
        return _our_info(config, name)
    model = _meta_model(config)
    inner = model.model if isinstance(getattr(model, "model", None), PreTrainedModel) else model
    modules = {**dict(inner.named_children()), **dict(model.named_children())}
    modules = {key: part for key, part in modules.items() if part is not inner}
    return ModelInfo(
        name=name,
        model_type=config.model_type,
        parts=tuple(_parts(modules, {}, {})),
        linear_parameters=_linear_parameters(model),
        cache_numbers=_cache_numbers(config.get_text_config()),
    )


def _meta_model(config: PreTrainedConfig) -> PreTrainedModel:
    for auto in (
        AutoModelForImageTextToText,
        AutoModelForZeroShotObjectDetection,
        AutoModelForCausalLM,
        AutoModel,
    ):
        if type(config) in auto._model_mapping:
            with torch.device("meta"):
                return auto.from_config(config)
    raise CheckpointError(f"there is no model for configs of model_type {config.model_type!r}.")


def _our_info(config: ParfocalConfig, name: str) -> ModelInfo:
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(config).eval().requires_grad_(False)
    slots = model.num_slots if config.regions.in_text else 0
    region_tokens = slots * (2 if config.regions.layout == "interleaved" else 1)
    modules = part_modules(model)
    work = prefill_flops(model, model.num_image_tokens + region_tokens + TEXT_TOKENS)
    return ModelInfo(
        name=name,
        model_type=config.model_type,
        parts=tuple(_parts(modules, _kinds(config), work)),
        image_tokens=model.num_image_tokens,
        region_slots=model.num_slots,
        region_tokens=region_tokens,
        linear_parameters=_linear_parameters(model.text),
        cache_numbers=_cache_numbers(config.text_config),
        reported=REPORTED.get(name),
    )


def part_modules(model: ParfocalForConditionalGeneration) -> dict[str, nn.Module]:
    """Return the parts by name: each tower, the pyramid, then the model's other children."""
    parts: dict[str, nn.Module] = {
        f"vision {index + 1}": tower for index, tower in enumerate(model.vision.towers)
    }
    if model.vision.pyramid is not None:
        parts["pyramid"] = model.vision.pyramid
    children = {name: child for name, child in model.named_children() if name != "vision"}
    return {**parts, **children}


def _parts(
    modules: Mapping[str, nn.Module], kinds: Mapping[str, str], work: Mapping[str, int]
) -> list[PartInfo]:
    seen: set[int] = set()
    parts = []
    for name, module in modules.items():
        own = {id(value): value for value in module.parameters() if id(value) not in seen}
        seen.update(own)
        parameters = sum(value.numel() for value in own.values())
        flops = work.get(name, 0) if work else None
        if parameters or flops:
            parts.append(PartInfo(name, kinds.get(name, type(module).__name__), parameters, flops))
    return parts


def _kinds(config: ParfocalConfig) -> dict[str, str]:
    towers = {
        f"vision {index + 1}": f"{tower.backbone['model_type']}, {tower.image_size} px"
        for index, tower in enumerate(config.vision.towers)
    }
    merge = config.projector.merge
    return {
        **towers,
        "pyramid": config.vision.pyramid,
        "fusion": config.fusion.kind,
        "projector": f"{merge} x {merge} merge" if merge > 1 else "token by token",
        "proposer": config.proposer.kind,
        "regions": config.regions.kind,
        "merge": config.regions.merge,
        "text": config.text_config.model_type,
    }


def prefill_flops(model: ParfocalForConditionalGeneration, length: int) -> dict[str, int]:
    """Count the work of one picture with all region slots and a prompt, by part.

    Args:
        model: on the meta device, without gradients.
        length: tokens of the prompt, those of picture and regions included.

    Returns:
        Part name, as in `part_modules` -> FLOPs.
    """
    config, counts = model.config, dict.fromkeys(part_modules(model), 0)
    pixels = [
        torch.empty(1, 3, tower.image_size, tower.image_size, device="meta")
        for tower in config.vision.towers
    ]
    with torch.no_grad(), torch.device("meta"):
        with FlopCounterMode(display=False) as counter:
            hooks = _watch(part_modules(model), counter, counts)
            features = model.encode(pixels)
            for hook in hooks:
                hook.remove()
            # what no part did when it was called: levels are prepared for the region encoder
            counts["regions"] = int(counter.get_total_flops()) - sum(counts.values())
        if model.regions is not None:
            slots = config.proposer.max_regions
            regions = Regions(
                torch.empty(1, slots, 4), torch.empty(1, slots), torch.ones(1, slots).bool()
            )
            counts["regions"] += _count(lambda: model.describe_regions(features, regions))
            if config.regions.merge == "f2b_attention":
                counts["regions"] += _count(lambda: model.image_tokens(features, regions))
                counts["regions"] -= counts["projector"]
        counts["text"] = _count(lambda: _read(model, length))
    return counts


def _read(model: ParfocalForConditionalGeneration, length: int) -> None:
    """Run the language model over a prompt; the head reads the last position only."""
    width = model.config.text_config.hidden_size
    model.text(
        inputs_embeds=torch.empty(1, length, width),
        attention_mask=torch.empty(1, 1, length, length),  # a finished mask: none has to be made
        position_ids=torch.arange(length)[None],
        use_cache=False,
        logits_to_keep=1,
    )


def _count(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _watch(
    modules: Mapping[str, nn.Module], counter: FlopCounterMode, counts: dict[str, int]
) -> list[Any]:
    """Add to `counts` what each module does from now on."""
    hooks = []
    for name, module in modules.items():

        def before(module: nn.Module, inputs: Any, name: str = name) -> None:
            counts[name] -= int(counter.get_total_flops())

        def after(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            counts[name] += int(counter.get_total_flops())

        hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    return hooks


def _linear_parameters(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    weights: dict[int, Tensor] = {
        id(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return sum(weight.numel() for weight in weights.values())


def _cache_numbers(text: PreTrainedConfig) -> int:
    """Keys and values of one token in all layers; 0 for a model that does not write text."""
    heads = getattr(text, "num_attention_heads", None)
    width, layers = getattr(text, "hidden_size", None), getattr(text, "num_hidden_layers", None)
    if not (heads and width and layers):
        return 0
    shared = getattr(text, "num_key_value_heads", None) or heads
    return 2 * layers * shared * (getattr(text, "head_dim", None) or width // heads)
