"""Presets: functions that return the config of a named model; a variant is one and a difference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.presets_mg_llava import (
    mg_llava_llama3_8b,
    mg_llava_phi3_3_8b,
    mg_llava_vicuna_7b,
    mg_llava_vicuna_13b,
    mg_llava_yi1_5_34b,
)
from parfocal.models.presets_tiny_grounding_gpt import (
    tiny_grounding_gpt_1_5b,
    tiny_grounding_gpt_3b,
    tiny_grounding_gpt_7b,
    tiny_grounding_gpt_qwen2_1_5b,
)


def mini(vocab_size: int = 1024) -> ParfocalConfig:
    """The bundled model: a ResNet with a pyramid, dense proposals, RoI features and a small Qwen2.

    Groma's plan (proposals become region tokens, the language model answers with their names) at a
    size that trains on a CPU. 192 px input, 36 image tokens, 20 region slots.
    """
    tower = {
        "backbone": {
            "model_type": "resnet", "embedding_size": 48, "hidden_sizes": [48, 96, 192, 256],
            "depths": [1, 2, 2, 1], "layer_type": "basic",
        },
        "image_size": 192, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.25, 0.25, 0.25),
        "token_layer": 3, "level_layers": (2, 3, 4),
    }  # fmt: skip
    return ParfocalConfig(
        vision={"towers": [tower], "resize": "pad", "pyramid": "fpn", "pyramid_channels": 96},
        projector={"depth": 2, "merge": 2, "norm": True},
        proposer={
            "kind": "dense", "hidden_size": 96, "score_threshold": 0.15, "nms_threshold": 0.6,
            "max_regions": 20, "order": "left_to_right", "candidates": 64, "refine": True,
        },
        regions={
            "kind": "multilevel_roi", "roi_size": 5, "hidden_size": 256, "fuse_rounds": 0,
            "level_scales": (1,), "coordinate_channels": False, "context": "rank",
            "layout": "summed", "norm": True,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": vocab_size, "hidden_size": 256,
            "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 4, "max_position_embeddings": 1024,
            "tie_word_embeddings": True, "initializer_range": 0.0625,
        },
        dialect="region_tokens",
    )  # fmt: skip


def tiny(vocab_size: int = 300) -> ParfocalConfig:
    """A model of a few thousand parameters with every part of mini, for tests."""
    return vary(
        mini(vocab_size),
        {
            "vision": {
                "towers": [{
                    "backbone": {
                        "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16],
                        "depths": [1, 1, 1], "layer_type": "basic",
                    },
                    "image_size": 96, "token_layer": 3, "level_layers": (2, 3),
                }],
                "pyramid": "fpn", "pyramid_channels": 16,
            },
            "proposer": {
                "kind": "dense", "hidden_size": 16, "max_regions": 6, "candidates": 16,
                "score_threshold": 0.0,
            },
            "regions": {
                "kind": "multilevel_roi", "roi_size": 3, "hidden_size": 32, "fuse_rounds": 0,
                "level_scales": (1,), "coordinate_channels": False, "context": "rank",
                "layout": "summed", "norm": True,
            },
            "text_config": {
                "model_type": "qwen2", "vocab_size": vocab_size, "hidden_size": 32,
                "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 2, "max_position_embeddings": 512,
                "tie_word_embeddings": True,
            },
        },
    )  # fmt: skip


def groma_7b(vocab_size: int = 32_114) -> ParfocalConfig:
    """Groma-7B: DINOv2-L at 448 px, a class-agnostic deformable DETR, region tokens, Vicuna-7B.

    256 image tokens, 100 region slots. The fields of `regions` that start with `roi_` and the
    tower's `position_interpolation` reproduce what the released weights were trained with.

    Source: Groma (arXiv:2404.13013), sections 3.1 to 3.3, and the official training scripts.

    Args:
        vocab_size: of the language model, the 114 tokens of the dialect and the region names last.
    """
    tower = {
        "backbone": {
            "model_type": "dinov2", "hidden_size": 1024, "num_hidden_layers": 24,
            "num_attention_heads": 16, "mlp_ratio": 4, "patch_size": 14, "image_size": 518,
        },
        "image_size": 448, "token_layer": -1, "level_layers": (-3, -2, -1),
        "proposer_layers": (-4, -3, -2, -1), "position_interpolation": "scale_offset",
    }  # fmt: skip
    first = vocab_size - 114  # [PAD], the dialect's 13 tokens, then <r0> to <r99>
    return ParfocalConfig(
        vision={"towers": [tower], "resize": "squash"},
        projector={"depth": 2, "merge": 2},
        proposer={
            "kind": "deformable_detr", "hidden_size": 256, "encoder_layers": 6,
            "decoder_layers": 6, "heads": 8, "ffn_size": 1024, "points": 4, "box_head_size": 256,
            "pyramid_levels": 1, "queries": 300, "dropout": 0.1, "score_heads": ("coco", "sa1b"),
            "score_exponents": (0.4, 0.6), "score_threshold": 0.15, "nms_threshold": 0.6,
            "max_regions": 100, "keep_best": True, "match_threshold": 0.0,
        },
        regions={
            "kind": "multilevel_roi", "roi_size": 14, "roi_boxes": "official_cxcywh",
            "roi_canvas": 448, "roi_strides": (14 / 8, 14 / 4, 14 / 2), "hidden_size": 1024,
            "position_size": 256, "fuse_rounds": 5, "norm_groups": 64,
        },
        token_ids={
            "image": first + 8, "region": first + 9, "ground_box": first + 11,
            "region_feature": first + 12, "first_region": first + 14,
        },
        text_config={
            "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 4096,
            "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
            "pad_token_id": first, "bos_token_id": 1, "eos_token_id": 2,
        },
        dialect="region_tokens",
    )  # fmt: skip


PRESETS: dict[str, Callable[..., ParfocalConfig]] = {
    "mini": mini,
    "tiny": tiny,
    "groma_7b": groma_7b,
    "mg_llava_phi3_3_8b": mg_llava_phi3_3_8b,
    "mg_llava_vicuna_7b": mg_llava_vicuna_7b,
    "mg_llava_llama3_8b": mg_llava_llama3_8b,
    "mg_llava_vicuna_13b": mg_llava_vicuna_13b,
    "mg_llava_yi1_5_34b": mg_llava_yi1_5_34b,
    "tiny_grounding_gpt_1_5b": tiny_grounding_gpt_1_5b,
    "tiny_grounding_gpt_3b": tiny_grounding_gpt_3b,
    "tiny_grounding_gpt_7b": tiny_grounding_gpt_7b,
    "tiny_grounding_gpt_qwen2_1_5b": tiny_grounding_gpt_qwen2_1_5b,
}


def get_preset(name: str, **values: Any) -> ParfocalConfig:
    """Build preset `name`; ConfigError lists the names.

    Args:
        name: key of `PRESETS`.
        values: arguments of the preset, such as `vocab_size`.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; choose one of {sorted(PRESETS)}.")
    return PRESETS[name](**values)


def vary(config: ParfocalConfig, difference: Mapping[str, Any]) -> ParfocalConfig:
    """Return a config that differs from `config` in the given fields.

    Args:
        config: the starting point; it is not changed.
        difference: for each part, the fields that change; a mapping with a `model_type`, such as
            `text_config`, replaces the part whole.

    Example:
        >>> vary(mini(), {"proposer": {"kind": "deformable_detr", "queries": 50}}).proposer.queries
        50
    """
    values = copy.deepcopy(config.to_dict())
    for name, change in difference.items():
        part = values.get(name)
        merges = isinstance(part, dict) and "model_type" not in change
        values[name] = {**part, **change} if merges else change
    return ParfocalConfig.from_dict(values)
