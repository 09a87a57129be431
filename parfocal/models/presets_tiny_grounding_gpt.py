"""Presets of TinyGroundingGPT: two towers on one padded picture, object images, Qwen2.5.

The paper has no official code, data or weights: what it leaves open is decided here and marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parfocal.models.config import ParfocalConfig
from parfocal.models.config_vision import IMAGENET_MEAN, IMAGENET_STD
from parfocal.models.presets_mg_llava import CLIP_MEAN, CLIP_STD


def tiny_grounding_gpt_1_5b(vocab_size: int = 151936) -> ParfocalConfig:
    """TinyGroundingGPT on Qwen2.5-1.5B-Instruct: 2.16 billion parameters with both towers."""
    return tiny_grounding_gpt(_qwen(vocab_size, 1536, 8960, 28, 12, 2))


def tiny_grounding_gpt_3b(vocab_size: int = 151936) -> ParfocalConfig:
    """TinyGroundingGPT on Qwen2.5-3B-Instruct: 3.70 billion parameters with both towers."""
    return tiny_grounding_gpt(_qwen(vocab_size, 2048, 11008, 36, 16, 2))


def tiny_grounding_gpt_7b(vocab_size: int = 152064) -> ParfocalConfig:
    """TinyGroundingGPT on Qwen2.5-7B-Instruct: 8.24 billion parameters with both towers."""
    return tiny_grounding_gpt(_qwen(vocab_size, 3584, 18944, 28, 28, 4, tied=False))


def tiny_grounding_gpt_qwen2_1_5b(vocab_size: int = 151936) -> ParfocalConfig:
    """The ablation on Qwen2-1.5B-Instruct (Table 11), which has the shape of its successor."""
    return tiny_grounding_gpt_1_5b(vocab_size)


def tiny_grounding_gpt(text_config: Mapping[str, Any], merge_crops: int = 4) -> ParfocalConfig:
    """TinyGroundingGPT on any language model.

    The placeholders are ids beyond the token table: the paper adds no token to the vocabulary.

    Args:
        text_config: of the language model, with `model_type`.
        merge_crops: side of the square of an object's tokens that become one; 1 as in the paper.

    Source: TinyGroundingGPT, section 3.3 and A.5: CLIP ViT-L/14, its last layer but one, beside
        DINOv2-L/14, its last layer after the final norm, channels joined; pictures are padded.
    Deviates: where the paper is silent, both towers see 336 px, so that their grids match (DINOv2's
        positions are stretched); the projector has two layers; 36 tokens an object, not 576.
    """
    clip = {
        "backbone": {
            "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336,
            "patch_size": 14,
        },
        "image_size": 336, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "token_layer": -2,
    }  # fmt: skip
    dino = {
        "backbone": {
            "model_type": "dinov2", "hidden_size": 1024, "num_hidden_layers": 24,
            "num_attention_heads": 16, "mlp_ratio": 4, "patch_size": 14, "image_size": 518,
        },
        "image_size": 336, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
        "token_layer": None,
    }  # fmt: skip
    beyond = text_config["vocab_size"]
    return ParfocalConfig(
        vision={"towers": [clip, dino], "resize": "pad"},
        fusion={"kind": "concat"},
        projector={"depth": 2},
        regions={"kind": "crop", "merge_crops": merge_crops},
        token_ids={"image": beyond, "object": beyond + 1},
        text_config=dict(text_config),
        dialect="coordinates",
    )


def _qwen(
    vocab_size: int,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    tied: bool = True,
) -> dict[str, Any]:
    """Return a Qwen2 or Qwen2.5 of the given sizes, with the special ids of the instruct models."""
    ids = {"bos_token_id": 151643, "eos_token_id": 151645, "pad_token_id": 151643}
    return {
        "model_type": "qwen2", "vocab_size": vocab_size, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": tied,
        **{name: value if value < vocab_size else None for name, value in ids.items()},
    }  # fmt: skip
