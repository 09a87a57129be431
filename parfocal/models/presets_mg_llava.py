"""Presets of MG-LLaVA (arXiv:2406.17770): one vision side, five language models, and its variants.

A picture is seen twice, at 336 px by a CLIP ViT and at 768 px by a CLIP ConvNeXt. Boxes come from a
detector beside the picture, in its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parfocal.models.config import ParfocalConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def mg_llava_phi3_3_8b(vocab_size: int = 32064) -> ParfocalConfig:
    """MG-LLaVA on Phi-3-mini-4k-instruct: 4.36 billion parameters (the paper writes 4.2)."""
    return mg_llava({
        "model_type": "phi3", "vocab_size": vocab_size, "hidden_size": 3072,
        "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "sliding_window": 2047, **_special_ids(vocab_size, bos=1, eos=32000, pad=32000),
    })  # fmt: skip


def mg_llava_vicuna_7b(vocab_size: int = 32000) -> ParfocalConfig:
    """MG-LLaVA on Vicuna-7B-v1.5: 7.29 billion parameters (the paper writes 7.4)."""
    return mg_llava(_llama(vocab_size, 4096, 11008, 32, 32))


def mg_llava_vicuna_13b(vocab_size: int = 32000) -> ParfocalConfig:
    """MG-LLaVA on Vicuna-13B-v1.5: 13.59 billion parameters (the paper writes 13.6)."""
    return mg_llava(_llama(vocab_size, 5120, 13824, 40, 40))


def mg_llava_llama3_8b(vocab_size: int = 128256) -> ParfocalConfig:
    """MG-LLaVA on Llama-3-8B-Instruct: 8.59 billion parameters (the paper writes 8.4)."""
    text = _llama(vocab_size, 4096, 14336, 32, 32)
    changes = {
        "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0,
        **_special_ids(vocab_size, bos=128000, eos=128009, pad=128001),
    }  # fmt: skip
    return mg_llava({**text, **changes})


def mg_llava_yi1_5_34b(vocab_size: int = 64000) -> ParfocalConfig:
    """MG-LLaVA on Yi-1.5-34B-Chat: 35.03 billion parameters (the paper writes 34.4)."""
    text = _llama(vocab_size, 7168, 20480, 60, 56)
    changes = {
        "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_theta": 5000000.0,
        **_special_ids(vocab_size, bos=1, eos=7, pad=0),
    }  # fmt: skip
    return mg_llava({**text, **changes})


def mg_llava(text_config: Mapping[str, Any]) -> ParfocalConfig:
    """MG-LLaVA on any language model.

    100 region slots are the paper's limit (section 3.2); more need another `max_regions`, which
    changes no weight. Stochastic depth of 0.1, which the official training left on in the frozen
    ConvNeXt by oversight, is off. The placeholders are ids beyond the token table, as no family of
    tokenizers has tokens for them. Frames of videos are cropped, as in the official video configs.

    Args:
        text_config: of the language model, with `model_type`.

    Source: MG-LLaVA, sections 3.1, 3.2 and 4.1; the sizes are those of
        openai/clip-vit-large-patch14-336 and laion/CLIP-convnext_large_d_320.
    """
    low = {
        "backbone": {
            "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336,
            "patch_size": 14,
        },
        "image_size": 336, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "token_layer": -2,
        "input_from": 1,
    }  # fmt: skip
    high = {
        "backbone": {
            "model_type": "convnext", "hidden_sizes": [192, 384, 768, 1536],
            "depths": [3, 3, 27, 3],
        },
        "image_size": 768, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "token_layer": -1,
        "level_layers": (1, 2, 3, 4),
    }  # fmt: skip
    return ParfocalConfig(
        vision={
            "towers": [low, high], "resize": "pad", "levels_from": 1, "pad_rounding": "down",
            "whole_pixel_boxes": True, "video": "crop",
        },
        fusion={"kind": "conv_gate"},
        projector={"depth": 2},
        proposer={"kind": "none", "max_regions": 100},
        regions={
            "kind": "multiscale_mean", "roi_size": 56, "depth": 2, "layout": "bare",
            "never_empty": True,
        },
        token_ids={"image": text_config["vocab_size"], "region": text_config["vocab_size"] + 1},
        text_config=dict(text_config),
        dialect="plain",
    )  # fmt: skip


def _llama(vocab_size: int, hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """Return a Llama 2 of the given sizes."""
    return {
        "model_type": "llama", "vocab_size": vocab_size, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, **_special_ids(vocab_size, bos=1, eos=2, pad=0),
    }  # fmt: skip


def _special_ids(vocab_size: int, bos: int, eos: int, pad: int) -> dict[str, int | None]:
    """Return the special ids; those that a smaller vocabulary does not hold are None."""
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    return {name: value if value < vocab_size else None for name, value in ids.items()}
