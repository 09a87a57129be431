"""Presets: functions that return the config of a named model; a variant is one and a difference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig


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
            "kind": "dense", "hidden_size": 96, "score_threshold": 0.2, "nms_threshold": 0.6,
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


PRESETS: dict[str, Callable[..., ParfocalConfig]] = {"mini": mini, "tiny": tiny}


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
