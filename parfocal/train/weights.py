"""The weights a run starts from: published towers and language models, or parts of models of ours.

A part is named as in the model: `text`, `vision.towers.0.backbone`, `proposer`; `model` is all of
it. Its source is a folder, a bundled model such as `mini`, or a hub id that is in the local cache.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from parfocal.errors import CheckpointError, ConfigError
from parfocal.hub import first_line, load_errors, refuse_gaps
from parfocal.models.checkpoints.convert import KeyMap, Rename, convert
from parfocal.models.checkpoints.official_groma import config_values
from parfocal.models.checkpoints.public_parts import extended_text, tower_state
from parfocal.models.checkpoints.sources import Tensors, local_folder, open_tensors
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.train.parameters import under

logger = logging.getLogger(__name__)

WHOLE = "model"
_TOWER = re.compile(r"vision\.towers\.(\d+)\.backbone")


def load_parts(model: ParfocalForConditionalGeneration, weights: Mapping[str, str]) -> None:
    """Fill parts of a model, in the order given; every weight of a part is filled.

    A language model whose table has fewer rows than the model's gets rows for the new tokens: the
    mean of its own in the token table, a linear layer's usual start in the head.

    Args:
        model: changed in place.
        weights: part -> source. "text" and the backbones of towers may be as they are published:
            a causal language model; a CLIP, a ConvNeXt of open_clip, timm or Transformers, or any
            other backbone of Transformers. Whatever part it is may be taken from a model of ours:
            from the folder of a finished one, or of a stage.

    Raises:
        ConfigError: if the model has no such part.
        CheckpointError: if a source is not here, lacks a weight of the part, has it in another
            shape, or holds weights that the part does not have.

    Source: of the new rows, Groma (arXiv:2404.13013), official code at d3a95b6.
    Deviates: no.
    """
    own = model.state_dict()
    for part, source in weights.items():
        if not any(belongs(name, part) for name in own):
            parts = [WHOLE, *dict.fromkeys(name.split(".")[0] for name in own)]
            parts += [
                f"vision.towers.{index}.backbone" for index in range(len(model.vision.towers))
            ]
            raise ConfigError(f"weights: the model has no part {part!r}; choose one of {parts}.")
        try:
            found = _read(model.config, part, local_folder(source), own)
        except CheckpointError as err:
            raise CheckpointError(f"weights of {part!r} from {source}: {err}") from err
        with torch.no_grad():
            for name, value in found.items():
                own[name].copy_(value)
        logger.info("%s: %d tensors from %s", part, len(found), source)


def _read(
    config: ParfocalConfig, part: str, folder: Path, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return all weights of a part, under the model's names.

    Args:
        config: of the model.
        part: one that it has.
        folder: the source.
        own: the model's state dict.
    """
    tensors = _open(folder)
    readers = {name: partial(tensors.__getitem__, name) for name in tensors if belongs(name, part)}
    is_ours = any(name in own for name in readers)
    if part == "text":
        text = tensors
        if is_ours:
            text = _with_table(tensors.under("text."), config.tie_word_embeddings)
        return extended_text(text, config, own).state
    if is_ours:
        found = Tensors(readers, tensors.origin)
        rules = KeyMap("parfocal", (Rename("**", "**"),))
        return convert(found, rules, _untied(own, part, found)).state
    tower = _TOWER.fullmatch(part)
    if tower is None:
        raise CheckpointError(
            f"{folder} holds nothing of {part!r}. It has to be the folder of a model of ours, a "
            "finished one or a stage's."
        )
    index = int(tower[1])
    return tower_state(index, config.vision.towers[index], folder, own).state


def belongs(name: str, part: str) -> bool:
    """Whether a tensor is of a part, which may be the tensor itself."""
    return part == WHOLE or under(name, part)


def _open(folder: Path) -> Tensors:
    """Open a source; a finished model of ours under the model's names, which its files change."""
    if config_values(folder).get("model_type") != ParfocalConfig.model_type:
        return open_tensors(folder)
    try:
        loaded, report = ParfocalForConditionalGeneration.from_pretrained(
            folder,
            dtype="auto",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except load_errors() as err:
        raise CheckpointError(f"{folder} could not be loaded: {first_line(err)}") from err
    refuse_gaps(folder, report)
    state = loaded.state_dict()
    return Tensors({name: partial(state.__getitem__, name) for name in state}, str(folder))


def _with_table(text: Tensors, tied: bool) -> Tensors:
    """Give a language model its token table, which files of a stage hold as the tied head alone."""
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    if not tied or table in text or head not in text:
        return text
    readers = {name: partial(text.__getitem__, name) for name in text}
    return Tensors({**readers, table: readers[head]}, text.origin)


def _untied(own: Mapping[str, Tensor], part: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what has to be filled: of a tensor under two names, files may hold one alone."""
    wanted = {name: value for name, value in own.items() if belongs(name, part)}
    filled = {value.data_ptr() for name, value in wanted.items() if name in found}
    return {
        name: value
        for name, value in wanted.items()
        if name in found or value.data_ptr() not in filled
    }
