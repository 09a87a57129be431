"""Groma's official checkpoints: their config and their names, as data.

Source: FoundationVision/Groma (arXiv:2404.13013), the folders groma-7b-finetune, groma-7b-pretrain
and groma-det-pretrain; all were written with Transformers 4.32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from parfocal.dialects import get_dialect
from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.convert import (
    Conversion,
    Drop,
    Join,
    Keep,
    KeyMap,
    Rename,
    Rule,
    convert,
)
from parfocal.models.config import ParfocalConfig, TokenIds

# What a key that is absent from an official config stands for: the sub-configs are written as
# differences from the class defaults of Transformers 4.32, which are not today's.
DINOV2_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "mlp_ratio": 4,
    "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 224, "patch_size": 14,
    "num_channels": 3, "qkv_bias": True, "layerscale_value": 1.0, "use_swiglu_ffn": False,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0,
}  # fmt: skip
DETR_DEFAULTS: Mapping[str, Any] = {
    "d_model": 256, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
    "decoder_attention_heads": 8, "encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024,
    "encoder_n_points": 4, "decoder_n_points": 4, "num_feature_levels": 4, "num_queries": 300,
    "two_stage": False, "two_stage_num_proposals": 300, "with_box_refine": False,
    "dropout": 0.1, "activation_function": "relu", "position_embedding_type": "sine",
}  # fmt: skip
LLAMA_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.02,
}  # fmt: skip
LLAMA_FIXED: Mapping[str, Any] = {
    "model_type": "llama", "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False,
    "tie_word_embeddings": False,
}  # fmt: skip
"""Settings of a language model that no official model has otherwise; not all files write them."""

NEEDED: Mapping[str, Any] = {
    "two_stage": True, "with_box_refine": True, "activation_function": "relu",
    "position_embedding_type": "sine",
}  # fmt: skip
"""Detector settings that the official code itself needs or that ours fixes."""


@dataclass(frozen=True)
class OfficialConstants:
    """Numbers that are written in the official code and stand in no config.

    Attributes:
        image_size: side of the input in pixels.
        roi_canvas: side in pixels that boxes are scaled to before RoIAlign.
        roi_strides: told to RoIAlign, a level; copied from a design with four levels, so half of
            the true ones.
        roi_size: side of the RoIAlign grid.
        level_scales: what each level is resized to, as multiples of its own grid.
        fuse_rounds: rounds of cross-level convolution.
        norm_groups: of the norm after each.
        region_size: width of a region's feature before it is lifted.
        position_size: inner width of the box's position embedding.
        box_head_size: inner width of the detector's box heads.
        score_heads: names of its score heads.
        score_exponents: powers with which their scores are multiplied into one.
    """

    image_size: int = 448
    roi_canvas: int = 448
    roi_strides: tuple[float, ...] = (14 / 8, 14 / 4, 14 / 2)
    roi_size: int = 14
    level_scales: tuple[int, ...] = (4, 2, 1)
    fuse_rounds: int = 5
    norm_groups: int = 64
    region_size: int = 1024
    position_size: int = 256
    box_head_size: int = 256
    score_heads: tuple[str, ...] = ("coco", "sa1b")
    score_exponents: tuple[float, ...] = (0.4, 0.6)


def groma_config(
    official: Mapping[str, Any], constants: OfficialConstants | None = None
) -> ParfocalConfig:
    """Translate an official config.json.

    Args:
        official: its content.
        constants: for models made with other numbers in the code than the published ones.

    Raises:
        CheckpointError: if a key is missing or names something that no official model has.
    """
    constants = constants or OfficialConstants()
    for key in ("llm_cfg", "perceiver_cfg", "nms_thres", "box_score_thres", "max_region_num"):
        if key not in official:
            raise CheckpointError(
                f"this is no Groma config: it has no {key!r}. Use the config.json of the same "
                "folder as the weights."
            )
    perceiver = official["perceiver_cfg"]
    text, fixed = (
        _known(defaults, official["llm_cfg"]) for defaults in (LLAMA_DEFAULTS, LLAMA_FIXED)
    )
    if fixed != LLAMA_FIXED:
        wrong = {key: value for key, value in fixed.items() if value != LLAMA_FIXED[key]}
        raise CheckpointError(
            f"llm_cfg has {wrong}; official Groma models have {dict(LLAMA_FIXED)}."
        )
    if text["num_key_value_heads"] is None:
        text["num_key_value_heads"] = text["num_attention_heads"]
    base = text["vocab_size"]
    text["vocab_size"] = base + official.get("num_new_token", 114)
    tower = {
        "backbone": {
            "model_type": "dinov2",
            **_known(DINOV2_DEFAULTS, perceiver["vis_encoder_cfg"]),
        },
        "image_size": constants.image_size,
        "token_layer": perceiver.get("vis_output_layer", -1),
        "level_layers": (-3, -2, -1),
        "proposer_layers": (-4, -3, -2, -1),
        "position_interpolation": "scale_offset",
    }
    return ParfocalConfig(
        vision={"towers": [tower], "resize": "squash"},
        projector={"depth": 2, "merge": 2},
        proposer=_proposer(official, constants),
        regions=_regions(constants),
        token_ids=groma_token_ids(base),
        text_config={
            "model_type": "llama",
            "pad_token_id": base,
            "tie_word_embeddings": False,
            **text,
        },
        dialect="region_tokens",
    )


def _known(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given.get(key, value) for key, value in defaults.items()}


def _proposer(official: Mapping[str, Any], constants: OfficialConstants) -> dict[str, Any]:
    detr = _known(DETR_DEFAULTS, official["perceiver_cfg"]["ddetr_cfg"])
    wrong = {key: detr[key] for key, value in NEEDED.items() if detr[key] != value}
    if wrong:
        raise CheckpointError(f"ddetr_cfg has {wrong}; official models have {dict(NEEDED)}.")
    if detr["num_queries"] != detr["two_stage_num_proposals"]:
        raise CheckpointError(
            f"ddetr_cfg has num_queries {detr['num_queries']} and two_stage_num_proposals "
            f"{detr['two_stage_num_proposals']}; they have to be equal."
        )
    return {
        "kind": "deformable_detr",
        "score_threshold": official["box_score_thres"],
        "nms_threshold": official["nms_thres"],
        "max_regions": official["max_region_num"],
        "keep_best": True,
        "match_threshold": 0.0,
        "hidden_size": detr["d_model"],
        "encoder_layers": detr["encoder_layers"],
        "decoder_layers": detr["decoder_layers"],
        "heads": detr["encoder_attention_heads"],
        "ffn_size": detr["encoder_ffn_dim"],
        "points": detr["encoder_n_points"],
        **_decoder(detr),
        "box_head_size": constants.box_head_size,
        "score_heads": constants.score_heads,
        "score_exponents": constants.score_exponents,
        "pyramid_levels": detr["num_feature_levels"],
        "queries": detr["num_queries"],
        "dropout": detr["dropout"],
    }


def _decoder(detr: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decoder's sizes where they are not the encoder's."""
    names = {
        "decoder_heads": "attention_heads", "decoder_ffn_size": "ffn_dim",
        "decoder_points": "n_points",
    }  # fmt: skip
    return {
        ours: detr[f"decoder_{name}"]
        for ours, name in names.items()
        if detr[f"decoder_{name}"] != detr[f"encoder_{name}"]
    }


def _regions(constants: OfficialConstants) -> dict[str, Any]:
    return {
        "kind": "multilevel_roi",
        "roi_size": constants.roi_size,
        "roi_boxes": "official_cxcywh",
        "roi_canvas": constants.roi_canvas,
        "roi_strides": constants.roi_strides,
        "position_size": constants.position_size,
        "hidden_size": constants.region_size,
        "fuse_rounds": constants.fuse_rounds,
        "norm_groups": constants.norm_groups,
        "level_scales": constants.level_scales,
    }


def groma_token_ids(base: int) -> TokenIds:
    """Return the placeholders' ids over a vocabulary of `base` entries.

    The new tokens are the padding token, the dialect's, then the region names.
    """
    added = ("[PAD]", *get_dialect("region_tokens").special_tokens)
    place = {token: base + index for index, token in enumerate(added)}
    return TokenIds(
        image=place["<image>"],
        region=place["<region>"],
        region_feature=place["<refer_feat>"],
        ground_box=place["<ground_box>"],
        first_region=base + len(added),
    )


VISION_NAMES = (
    *(
        (
            f"vis_encoder.encoder.layer.*.attention.{old}.*",
            f"encoder.layer.*.attention.{new}.*",
        )
        for old, new in (
            ("attention.query", "q_proj"),
            ("attention.key", "k_proj"),
            ("attention.value", "v_proj"),
            ("output.dense", "o_proj"),
        )
    ),
    ("vis_encoder.**", "**"),
)
ENCODER_NAMES = (
    ("self_attn.sampling_offsets", "attention.offsets"),
    ("self_attn.attention_weights", "attention.weights"),
    ("self_attn.value_proj", "attention.value"),
    ("self_attn.output_proj", "attention.output"),
    ("self_attn_layer_norm", "attention_norm"),
    ("fc1", "ffn.up"),
    ("fc2", "ffn.down"),
    ("final_layer_norm", "ffn_norm"),
)
DECODER_NAMES = (
    ("self_attn.q_proj", "self_attention.query"),
    ("self_attn.k_proj", "self_attention.key"),
    ("self_attn.v_proj", "self_attention.value"),
    ("self_attn.out_proj", "self_attention.output"),
    ("self_attn_layer_norm", "self_norm"),
    ("encoder_attn.sampling_offsets", "cross_attention.offsets"),
    ("encoder_attn.attention_weights", "cross_attention.weights"),
    ("encoder_attn.value_proj", "cross_attention.value"),
    ("encoder_attn.output_proj", "cross_attention.output"),
    ("encoder_attn_layer_norm", "cross_norm"),
    ("fc1", "ffn.up"),
    ("fc2", "ffn.down"),
    ("final_layer_norm", "ffn_norm"),
)
DETR_NAMES = (
    ("level_embed", "level_embedding"),
    ("query_position_embeddings.weight", "query_content"),
    ("enc_output.*", "token_projection.*"),
    ("enc_output_norm.*", "token_norm.*"),
    ("pos_trans.*", "query_position.*"),
    ("pos_trans_norm.*", "query_position_norm.*"),
)
UPPER_NAMES = (
    ("img_txt_bridge.**", "projector.layers.**"),
    ("region_encoder.mlvl_fuse.input_conv.**", "regions.fuse.inputs.**"),
    ("region_encoder.mlvl_fuse.fuse_convs.*.conv.*", "regions.fuse.rounds.*.0.*"),
    ("region_encoder.mlvl_fuse.fuse_convs.*.gn.*", "regions.fuse.rounds.*.1.*"),
    ("region_encoder.roi_align.pconvs.**", "regions.pool.**"),
    ("region_encoder.roi_align.flatten_linear.*", "regions.flatten.*"),
    ("region_encoder.roi_align.pos_embedd.**", "regions.position.**"),
    ("region_encoder.roi_align.updims.*", "regions.lift.*"),
)
TEXT_RULES: tuple[Rule, ...] = (
    Drop("llm.**.rotary_emb.inv_freq", "computed from the config"),
    Join(
        ("llm.model.embed_tokens.weight", "new_input_embs.weight"),
        "text.model.embed_tokens.weight",
    ),
    Join(("llm.lm_head.weight", "extra_lm_head.weight"), "text.lm_head.weight"),
    Rename("llm.**", "text.**"),
)


def groma_key_map(decoder_layers: int, detector_only: bool = False) -> KeyMap:
    """Return the rules from official names to ours.

    Args:
        decoder_layers: of the detector; the box head after the last of them reads encoder tokens.
        detector_only: for the detection checkpoint, which has no `perceiver.` in its names; the
            parts that it lacks keep their initial values.
    """
    prefix, tower = "" if detector_only else "perceiver.", "vision.towers.0.backbone."
    rules: list[Rule] = [Rename(prefix + source, tower + target) for source, target in VISION_NAMES]
    rules += [Rename(prefix + "input_proj.**", "proposer.detr.inputs.**")]
    rules += [
        Rename(f"{prefix}ddetr_transformer.{source}", f"proposer.detr.{target}")
        for source, target in _detector_names(decoder_layers)
    ]
    if detector_only:
        lacks = "the detection checkpoint holds the detector only"
        rules += [Keep(part, lacks) for part in ("projector.**", "regions.**", "text.**")]
        return KeyMap("Groma detector", tuple(rules))
    rules += [Rename(source, target) for source, target in UPPER_NAMES]
    return KeyMap("Groma", (*rules, *TEXT_RULES))


def _detector_names(decoder_layers: int) -> list[tuple[str, str]]:
    names = list(DETR_NAMES)
    for stack, table in (("encoder", ENCODER_NAMES), ("decoder", DECODER_NAMES)):
        names += [(f"{stack}.layers.*.{old}.*", f"{stack}.*.{new}.*") for old, new in table]
    for owner in ("", "decoder."):  # the same heads under two names; a file may hold either or both
        names.append((f"{owner}class_embed_enc.*", "token_score.*"))
        for head in ("coco", "sa1b"):
            names.append((f"{owner}class_embed_{head}.*.*", f"scores.{head}.*.*"))
        for index in range(3):  # ours counts the activations between the linear layers
            old, new = f"layers.{index}.*", f"{2 * index}.*"
            names.append((f"{owner}bbox_embed.{decoder_layers}.{old}", f"token_box.{new}"))
            names.append((f"{owner}bbox_embed.*.{old}", f"boxes.*.{new}"))
    return names


def convert_groma(
    source: Mapping[str, Tensor], config: ParfocalConfig, targets: Mapping[str, Tensor]
) -> Conversion:
    """Convert an official state dict: Groma's, or the detector's of the first training stage.

    Embeddings and head of the new tokens are joined to the base tables.

    Args:
        source: official name -> tensor.
        config: from `groma_config`.
        targets: the state dict of a model of that config, on any device, meta included.

    Raises:
        CheckpointError: listing everything that does not fit.
    """
    detector_only = not any(name.startswith("perceiver.") for name in source)
    key_map = groma_key_map(config.proposer.decoder_layers, detector_only)
    return convert(source, key_map, targets)
