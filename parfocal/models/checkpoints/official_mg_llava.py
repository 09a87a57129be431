"""MG-LLaVA's official files: where its parts lie, and the config that fits them.

A released file holds the language model, both projectors and the fusion. The frozen encoders, the
tokenizer and every config come from elsewhere: from folders beside it, or from the public models
that it was trained on.

Layouts: one `.pth` of mmengine; a folder with such a file, beside the files of the language model
(Yi) or in folders named after the parts; a folder with a whole state dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, PreTrainedTokenizerBase

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.mg_llava import preset_of
from parfocal.models.checkpoints.official_groma import config_values
from parfocal.models.checkpoints.public_parts import read_text_config
from parfocal.models.checkpoints.sources import (
    FILES,
    INDEXES,
    Tensors,
    joined,
    local_folder,
    open_tensors,
    weight_files,
)
from parfocal.models.checkpoints.tokenizer_model import has_tokenizer
from parfocal.models.config import ParfocalConfig
from parfocal.models.presets import vary
from parfocal.models.presets_mg_llava import mg_llava

TRAINED = ("projector", "bbox_projector", "fuse_module")
PARTS = ("llm", *TRAINED, "visual_encoder", "visual_encoder_aux")
LOW, HIGH = "visual_encoder.", "visual_encoder_aux."
CONVNEXT_STRIDE = 32  # pixels a cell of its last stage

# The public models of the papers' settings, looked for in the local cache.
ENCODERS = (
    "openai/clip-vit-large-patch14-336",
    "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
)
LANGUAGE_MODELS: Mapping[str, str] = {
    "mg_llava_phi3_3_8b": "microsoft/Phi-3-mini-4k-instruct",
    "mg_llava_vicuna_7b": "lmsys/vicuna-7b-v1.5",
    "mg_llava_llama3_8b": "meta-llama/Meta-Llama-3-8B-Instruct",
    "mg_llava_vicuna_13b": "lmsys/vicuna-13b-v1.5",
    "mg_llava_yi1_5_34b": "01-ai/Yi-1.5-34B-Chat",
}
# token that only one family has -> its template; Vicuna's has none
TEMPLATE_MARKS = (
    ("<|eot_id|>", "llama3_chat"),
    ("<|im_end|>", "qwen_chat"),
    ("<|end|>", "phi3_chat"),
)


@dataclass(frozen=True)
class Layout:
    """The parts of one model.

    Attributes:
        tensors: of all parts, under the names of a whole official state dict.
        text: config of the language model.
        words: folder of its tokenizer.
        clip: config of the low-resolution encoder; None: the released one's.
    """

    tensors: Tensors
    text: dict[str, Any]
    words: Path
    clip: dict[str, Any] | None


def is_mg_llava(folder: Path) -> bool:
    """Say whether a folder may hold an official model: a `.pth`, or folders named as its parts.

    DeepSpeed's shards lie in a folder that is itself called `.pth`.
    """
    parts = all((folder / name).is_dir() for name in TRAINED)
    return parts or folder.suffix == ".pth" or any(folder.glob("*.pth"))


def lay_out(
    path: Path, vision: Sequence[str | Path] = (), text: str | Path | None = None
) -> Layout:
    """Find all parts of a model.

    Args:
        path: an official folder or file.
        vision: folders of the encoders, in any order; those that are not given and not in `path`
            are the released ones, from the local cache.
        text: folder of the language model: of its config and tokenizer, and of its weights where
            `path` has none. None: `path` itself, or the public one of that size.

    Raises:
        CheckpointError: if a part is nowhere.
    """
    own = _own_tensors(path)
    if not any(name.startswith(("projector.", "fuse_module.")) for name in own):
        raise CheckpointError(
            f"{path} holds no projector and no fusion, so it is no MG-LLaVA (it has "
            f"{len(own)} tensors, such as {next(iter(own), None)!r}). The official converter "
            "to the Hugging Face format keeps the language model only; give the `.pth` itself."
        )
    parts = [own]
    words = _words_folder(path, own, text)
    if not any(name.startswith("llm.") for name in own):
        parts.append(open_tensors(words).renamed("llm."))
    encoders, clip = _encoders(path, own, vision)
    return Layout(joined([*parts, *encoders]), read_text_config(words), words, clip)


def _own_tensors(path: Path) -> Tensors:
    """Open what lies at `path` itself, under official names."""
    if path.is_file():
        return _official_names(open_tensors(path))
    found = [
        open_tensors(path / name).renamed(f"{name}.") for name in PARTS if _is_part(path, name)
    ]
    listed = any((path / name).is_file() for name in (*INDEXES, *FILES))
    if listed:
        found.append(_official_names(open_tensors(path)))
    found += [
        _official_names(open_tensors(file)) for file in weight_files(path) if file.suffix == ".pth"
    ]
    return joined(found) if found else open_tensors(path)


def _is_part(path: Path, name: str) -> bool:
    folder = path / name
    return folder.is_dir() and bool(weight_files(folder))


def _official_names(tensors: Tensors) -> Tensors:
    """Put `llm.` before the names of a language model that is saved on its own."""
    bare = [name for name in tensors if name.startswith(("model.", "lm_head."))]
    return tensors.renamed("llm.") if bare and len(bare) == len(tensors) else tensors


def _words_folder(path: Path, own: Tensors, text: str | Path | None) -> Path:
    """Return the folder of the language model's config and tokenizer."""
    if text is not None:
        return local_folder(text)
    if path.is_dir():
        for folder in (path, path / "llm"):
            if has_tokenizer(folder) and (folder / "config.json").is_file():
                return folder
    public = LANGUAGE_MODELS[preset_of(own)]
    try:
        return local_folder(public)
    except CheckpointError as err:
        raise CheckpointError(
            f"{path} holds no config and tokenizer of its language model. Give its folder with "
            f"--text, or run `hf download {public}`."
        ) from err


def _encoders(
    path: Path, own: Tensors, vision: Sequence[str | Path]
) -> tuple[list[Tensors], dict[str, Any] | None]:
    """Return the tensors of the encoders that `own` lacks, and CLIP's config."""
    lacking = [prefix for prefix in (LOW, HIGH) if not any(n.startswith(prefix) for n in own)]
    folder = path / "visual_encoder"
    clip = _clip_config(folder) if folder.is_dir() else None
    given: dict[str, Tensors] = {}
    for name in vision:
        place = local_folder(name)
        prefix, tensors = _encoder(open_tensors(place), place)
        if prefix in given or prefix not in lacking:
            raise CheckpointError(
                f"{place} is the {_side(prefix)} encoder, which is there already; give the CLIP "
                "ViT and the CLIP ConvNeXt once each."
            )
        given[prefix] = tensors
        if prefix == LOW and place.is_dir():
            clip = _clip_config(place)
    for prefix, public in zip((LOW, HIGH), ENCODERS, strict=True):
        if prefix in lacking and prefix not in given:
            try:
                given[prefix] = _encoder(open_tensors(local_folder(public)), Path(public))[1]
            except CheckpointError as err:
                raise CheckpointError(
                    f"{path} does not hold the {_side(prefix)} encoder, which was never trained. "
                    f"Give its folder with --vision, or run `hf download {public}`."
                ) from err
    return list(given.values()), clip


def _side(prefix: str) -> str:
    return "low-resolution (CLIP ViT)" if prefix == LOW else "high-resolution (CLIP ConvNeXt)"


def _encoder(tensors: Tensors, place: Path) -> tuple[str, Tensors]:
    """Tell which encoder this is by its names, and bring them to those of the official model."""
    names = set(tensors)
    if any(name.startswith("vision_model.") for name in names):
        return LOW, tensors.renamed(LOW)
    if any(name.startswith("embeddings.class_embedding") for name in names):
        return LOW, tensors.renamed(f"{LOW}vision_model.")
    if any(name.startswith(("visual.trunk.", "vision_stem.")) for name in names):
        return HIGH, tensors.renamed(HIGH)
    if any(name.startswith("stem.0.") for name in names):
        return HIGH, tensors.renamed(f"{HIGH}visual.trunk.")
    raise CheckpointError(
        f"{place} is neither a CLIP ViT (vision_model.*) nor a CLIP ConvNeXt (visual.trunk.*, "
        f"vision_stem.* or stem.*): it has names such as {min(names, default='none')!r}."
    )


def _clip_config(folder: Path) -> dict[str, Any] | None:
    values = config_values(folder)
    values = values.get("vision_config") or values
    if not values:
        return None
    known = CLIPVisionConfig()
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "image_size", "patch_size", "hidden_act", "layer_norm_eps",
    )  # fmt: skip
    return {name: values.get(name, getattr(known, name)) for name in names}


def mg_llava_config(layout: Layout) -> ParfocalConfig:
    """Return the released config, with the sizes of these encoders where they are others."""
    base = mg_llava(layout.text)
    low, high = (tower.to_dict() for tower in base.vision.towers)
    if layout.clip is not None:
        low["backbone"] = {"model_type": "clip_vision_model", **layout.clip}
        low["image_size"] = layout.clip["image_size"]
        # the two grids are equal: so many cells of 32 pixels as there are patches
        grid = layout.clip["image_size"] // layout.clip["patch_size"]
        high["image_size"] = grid * CONVNEXT_STRIDE
    high["backbone"] = {"model_type": "convnext", **convnext_sizes(layout.tensors)}
    return vary(base, {"vision": {"towers": [low, high]}})


_GAMMA = re.compile(
    r"visual_encoder_aux\.(?:vision_stages|visual\.trunk\.stages)\.(\d+)\.blocks\.(\d+)\.gamma"
)


def convnext_sizes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Read channels and depth of every stage from names and shapes."""
    widths: dict[int, int] = {}
    depths: dict[int, int] = {}
    for name in tensors:
        if found := _GAMMA.fullmatch(name):
            stage = int(found[1])
            widths[stage] = tensors[name].numel()
            depths[stage] = max(depths.get(stage, 0), int(found[2]) + 1)
    order = sorted(widths)
    return {
        "hidden_sizes": [widths[stage] for stage in order],
        "depths": [depths[stage] for stage in order],
    }


def template_name(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template of the tokenizer's family, by a token that only it has."""
    known = tokenizer.get_vocab()
    return next((name for mark, name in TEMPLATE_MARKS if mark in known), "vicuna")
