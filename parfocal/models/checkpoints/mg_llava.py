"""Official MG-LLaVA weights to ours.

A released file holds the language model, both projectors and the fusion; the two frozen encoders
come from their own files. `official_mg_llava` lays all of them side by side under the official
model's names, which is also what a full official state dict looks like; `MG_LLAVA` maps that to
ours.

Source: official mg_llava/module/fuse_model.py (state_dict), open_clip and Transformers 4.41 for the
encoders.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.convert import Conversion, Drop, KeyMap, Rename, convert

_LOW, _HIGH = "vision.towers.0.backbone", "vision.towers.1.backbone"
_ELSEWHERE = "of the encoder's text side or head, which MG-LLaVA does not use"

MG_LLAVA = KeyMap(
    "mg_llava",
    (
        Drop("**.rotary_emb.inv_freq", "computed from the config"),
        Rename("llm.**", "text.**"),
        Rename("projector.model.**", "projector.layers.**"),
        Rename("bbox_projector.model.**", "regions.project.**"),
        Rename("fuse_module.slow_conv.*", "fusion.convs.high.0.*"),
        Rename("fuse_module.slow_proj.*", "fusion.convs.high.2.*"),
        Rename("fuse_module.fast_conv.*", "fusion.convs.low.0.*"),
        Rename("fuse_module.fast_proj.*", "fusion.convs.low.2.*"),
        Rename("fuse_module.gate.**", "fusion.gate.**"),
        Drop("multi_level_linear.**", "of an option that no released model uses"),
        # CLIP ViT, a whole CLIP model or its vision side alone
        Drop("visual_encoder.vision_model.embeddings.position_ids", "counts from 0"),
        Rename("visual_encoder.vision_model.**", f"{_LOW}.**"),
        Drop("visual_encoder.**", _ELSEWHERE),
        # CLIP ConvNeXt, as the official tower, then as open_clip names it
        *(
            rule
            for stem, stages in (
                ("visual_encoder_aux.vision_stem", "visual_encoder_aux.vision_stages"),
                ("visual_encoder_aux.visual.trunk.stem", "visual_encoder_aux.visual.trunk.stages"),
            )
            for rule in (
                Rename(f"{stem}.0.*", f"{_HIGH}.embeddings.patch_embeddings.*"),
                Rename(f"{stem}.1.*", f"{_HIGH}.embeddings.layernorm.*"),
                Rename(
                    f"{stages}.*.downsample.*.*", f"{_HIGH}.encoder.stages.*.downsampling_layer.*.*"
                ),
                Rename(
                    f"{stages}.*.blocks.*.conv_dw.*", f"{_HIGH}.encoder.stages.*.layers.*.dwconv.*"
                ),
                Rename(
                    f"{stages}.*.blocks.*.norm.*", f"{_HIGH}.encoder.stages.*.layers.*.layernorm.*"
                ),
                Rename(
                    f"{stages}.*.blocks.*.mlp.fc1.*", f"{_HIGH}.encoder.stages.*.layers.*.pwconv1.*"
                ),
                Rename(
                    f"{stages}.*.blocks.*.mlp.fc2.*", f"{_HIGH}.encoder.stages.*.layers.*.pwconv2.*"
                ),
                Rename(
                    f"{stages}.*.blocks.*.gamma",
                    f"{_HIGH}.encoder.stages.*.layers.*.layer_scale_parameter",
                ),
            )
        ),
        Drop("visual_encoder_aux.**", _ELSEWHERE),
    ),
)


# shape of the token table -> preset: a released file comes without a config
PRESET_OF_TABLE: dict[tuple[int, ...], str] = {
    (32064, 3072): "mg_llava_phi3_3_8b",
    (32000, 4096): "mg_llava_vicuna_7b",
    (128256, 4096): "mg_llava_llama3_8b",
    (32000, 5120): "mg_llava_vicuna_13b",
    (64000, 7168): "mg_llava_yi1_5_34b",
}


def preset_of(names: Mapping[str, Tensor]) -> str:
    """Return the preset that a released file, or the language model beside it, belongs to.

    Args:
        names: official name -> tensor, with or without `llm.` before the language model's.

    Raises:
        CheckpointError: if there is no token table, or none of the five language models has it.
    """
    for name in ("llm.model.embed_tokens.weight", "model.embed_tokens.weight"):
        if name in names:
            shape = tuple(names[name].shape)
            if shape in PRESET_OF_TABLE:
                return PRESET_OF_TABLE[shape]
            raise CheckpointError(
                f"{name} has the shape {shape}; the language models of MG-LLaVA have "
                f"{sorted(PRESET_OF_TABLE)}. Adapters (LoRA) have to be merged first."
            )
    raise CheckpointError(
        "the file holds no language model (llm.model.embed_tokens.weight): it is of stage 1. Give "
        "the language model's folder as well."
    )


def convert_mg_llava(source: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Conversion:
    """Convert a state dict under the official model's names.

    Args:
        source: official name -> tensor.
        targets: the state dict of a model of the preset, on any device, meta included.

    Raises:
        CheckpointError: listing everything that does not fit.
    """
    return convert(source, MG_LLAVA, targets)
