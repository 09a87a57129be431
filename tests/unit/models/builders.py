"""Toy models of every kind, and the inputs that `forward` and `generate` take of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText
from parfocal.images import image_frame
from parfocal.models.building import build_processor
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import groma_7b, vary
from parfocal.models.presets_mg_llava import mg_llava
from parfocal.models.presets_tiny_grounding_gpt import tiny_grounding_gpt
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import PromptTemplate
from parfocal.models.splicing import rows_of
from parfocal.models.tokenizers import END, train_tokenizer
from tests.unit.conftest import build_tiny

Pair = tuple[ParfocalForConditionalGeneration, ParfocalProcessor]
Row = tuple[str, Sequence[tuple[Image.Image, list]]]

CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip
DINO = {
    "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    "mlp_ratio": 2, "patch_size": 14, "image_size": 42,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip

# MG-LLaVA's two towers
LOW = {"backbone": CLIP, "image_size": 28, "token_layer": -2, "input_from": 1}
HIGH = {
    "backbone": {"model_type": "convnext", "hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1]},
    "image_size": 64, "level_layers": (1, 2, 3, 4),
}  # fmt: skip
FUSIONS: dict[str, dict[str, Any]] = {
    "conv_gate": {},
    "concat": {"fusion": {"kind": "concat"}},
    "mining": {"fusion": {"kind": "patch_info_mining"}},
    "resampler": {"fusion": {"kind": "resampler", "heads": 2}, "projector": {"depth": 0}},
}
MERGES: dict[str, dict[str, Any]] = {
    "": {},
    " b2f": {"regions": {"merge": "b2f_attention"}},
    " f2b": {"regions": {"merge": "f2b_attention"}},
}
MG_LLAVA = {
    fusion + merge: {**FUSIONS[fusion], **MERGES[merge]} for fusion in FUSIONS for merge in MERGES
}
# TinyGroundingGPT's two towers, which see objects as well
CROP_TOWERS = [
    {
        "backbone": {**CLIP, "image_size": 56}, "image_size": 56, "token_layer": -2,
    },
    {
        "backbone": {
            "model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 2,
            "num_attention_heads": 2, "patch_size": 14, "image_size": 28,
        },
        "image_size": 56, "image_mean": (0.2, 0.4, 0.6), "token_layer": None,
    },
]  # fmt: skip
CROP_TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>", end=END)
CROP_SENTENCES = ["Which is the red apple? The answer is a.", "Output the coordinate of it"] * 3
TEMPLATE = PromptTemplate(opening="<user>", first=".", user="<user>", assistant="<answer>", end=END)


def build_mg_llava(variant: str = "conv_gate") -> Pair:
    """MG-LLaVA, one of `MG_LLAVA`."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["what is it?"] * 3, get_dialect("plain"), TEMPLATE, 0, 300)
    text = {
        **LLAMA, "vocab_size": len(tokenizer), "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    base = vary(mg_llava(text), {"vision": {"towers": [LOW, HIGH]}, "proposer": {"max_regions": 3}})
    model = ParfocalForConditionalGeneration(vary(base, MG_LLAVA[variant])).eval()
    stir(model)
    return model, build_processor(tokenizer, model.config, TEMPLATE, model.num_image_tokens)


def build_groma() -> Pair:
    """Groma with the quirks of its released weights: only sizes differ from the preset."""
    tower = {
        "backbone": DINO, "image_size": 56, "level_layers": (-3, -2, -1),
        "proposer_layers": (-4, -3, -2, -1), "position_interpolation": "scale_offset",
    }  # fmt: skip
    small = vary(
        groma_7b(),
        {
            "vision": {"towers": [tower]},
            "proposer": {
                "hidden_size": 16, "encoder_layers": 1, "decoder_layers": 2, "heads": 2,
                "ffn_size": 16, "points": 2, "box_head_size": 16, "queries": 10,
                "score_threshold": 0.0, "max_regions": 4,
            },
            "regions": {
                "roi_size": 3, "roi_canvas": 56, "hidden_size": 16, "position_size": 16,
                "fuse_rounds": 2, "norm_groups": 4,
            },
        },
    )  # fmt: skip
    model, processor = build_tiny(difference=_parts(small, {**LLAMA, "vocab_size": 320}))
    stir(model)
    return model, processor


def build_two_towers() -> Pair:
    """TinyGroundingGPT's plan: CLIP beside DINOv2, coordinates as words, no regions."""
    towers = [
        {"backbone": CLIP, "image_size": 28, "token_layer": -2},
        {"backbone": DINO, "image_size": 28, "token_layer": -1},
    ]
    difference = {
        "vision": {"towers": towers, "resize": "pad", "pyramid": "none"},
        "fusion": {"kind": "concat"}, "projector": {"merge": 1, "norm": False},
        "proposer": {"kind": "none", "refine": False}, "regions": {"kind": "none"},
    }  # fmt: skip
    return build_tiny(difference=difference, dialect="coordinates")


def build_tiny_grounding_gpt(merge: int = 2, packing: str = "sequence") -> Pair:
    """TinyGroundingGPT at a toy size: 16 image tokens, 4 an object; nothing is left at zero."""
    template = PromptTemplate.from_dict({**CROP_TEMPLATE.to_dict(), "packing": packing})
    tokenizer = train_tokenizer(CROP_SENTENCES, get_dialect("coordinates"), template, 0, 320)
    text = {
        "model_type": "qwen2", "vocab_size": len(tokenizer), "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "tie_word_embeddings": True, "initializer_range": 0.3,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config = vary(tiny_grounding_gpt(text, merge), {"vision": {"towers": CROP_TOWERS}})
    torch.manual_seed(0)
    model = ParfocalForConditionalGeneration(config).eval()
    stir(model)
    return model, build_processor(tokenizer, config, template, model.num_image_tokens)


def build_dense() -> Pair:
    """Mini's plan: dense proposals, a second look, region names and features summed, ranks."""
    model, processor = build_tiny()
    stir(model.refiner)
    return model, processor


KINDS: dict[str, Callable[[], Pair]] = {
    "dense": build_dense,
    "groma": build_groma,
    "two towers": build_two_towers,
    **{name: lambda variant=name: build_mg_llava(variant) for name in MG_LLAVA},
}
FAMILIES = ("dense", "groma", "two towers", "conv_gate")  # one of each way into the text


def stir(module: torch.nn.Module) -> None:
    """Give every matrix random values, so that parts which start at zero do something."""
    for value in module.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3)


def _parts(config: ParfocalConfig, text: dict[str, Any]) -> dict[str, Any]:
    names = ("vision", "fusion", "projector", "proposer", "regions")
    return {**{name: getattr(config, name).to_dict() for name in names}, "text_config": text}


def pictures() -> list[Image.Image]:
    """Three pictures of noise in different shapes."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((40, 30), (30, 44), (64, 64))
    return [
        Image.fromarray(torch.randint(0, 256, (h, w, 3), generator=generator).byte().numpy())
        for w, h in sizes
    ]


def inputs_of(
    model: ParfocalForConditionalGeneration, processor: ParfocalProcessor, rows: Sequence[Row]
) -> dict[str, torch.Tensor]:
    """Inputs of `forward` for rows of (question, [(picture, boxes)])."""
    shown = [pair for _, pictures in rows for pair in pictures]
    counts = [len(pictures) for _, pictures in rows]
    images = [image for image, _ in shown]
    values: dict = {}
    pixels, warps = processor.pixel_values(images) if images else ([], [])
    boxes = [
        Boxes(own, image_frame(image)) if own else Boxes.empty(image_frame(image))
        for image, own in shown
    ]
    asked = [GroundedText.of(question) for question, _ in rows]
    text = processor.ask(asked, boxes, warps, pictures=counts)
    mask = text.attention_mask
    if images:
        features = model.encode([value.to(model.dtype) for value in pixels])
        regions = None
        if model.num_slots:
            regions = model.propose(features, text.user_boxes, text.user_mask)
            mask = model.live_mask(text.input_ids, mask, rows_of(regions.mask, counts))
        values["image_features"] = rows_of(model.image_tokens(features, regions), counts)
        if regions is not None and regions.features is not None:
            values["region_features"] = rows_of(regions.features, counts)
    return {"input_ids": text.input_ids, "attention_mask": mask, **values}
