"""A model that starts from public parts: towers and a language model with weights, the rest new.

The preset gives the design; its language model is replaced by the given one, whatever its size.
Tokens of the dialect become new rows of the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerBase

from parfocal.dialects.region_tokens import region_token
from parfocal.errors import CheckpointError
from parfocal.hub import first_line, load_errors
from parfocal.models.building import token_ids_of
from parfocal.models.checkpoints.convert import (
    Conversion,
    Drop,
    Keep,
    KeyMap,
    Rename,
    Rule,
)
from parfocal.models.checkpoints.convert import convert as apply_map
from parfocal.models.checkpoints.mg_llava import MG_LLAVA
from parfocal.models.checkpoints.official_groma import (
    config_values,
    groma_template,
    groma_tokenizer,
)
from parfocal.models.checkpoints.sources import Tensors, joined, open_tensors
from parfocal.models.checkpoints.tokenizer_model import read_tokenizer
from parfocal.models.config import ParfocalConfig, TokenIds
from parfocal.models.config_vision import TowerConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import get_preset, vary
from parfocal.models.processing import FILE_NAME as OURS
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import PromptTemplate
from parfocal.models.vision import Tower, backbone_config

# of a config.json, what does not describe the model
NO_SETTINGS = (
    "_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version",
    "use_cache",
)  # fmt: skip
NEW = "not in the public parts: initialised anew"
UNUSED = "of the part's other side, which this model does not use"
TOWER_RULES: tuple[Rule, ...] = (
    *MG_LLAVA.rules,
    Rename("vision.**", "vision.**"),
    Drop("**", UNUSED),
)


def read_text_config(folder: Path) -> dict[str, Any]:
    """Read the config of a language model's folder, or of the one inside a model of ours.

    Raises:
        CheckpointError: if it has none, or one that Transformers cannot read.
    """
    values = config_values(folder)
    if values.get("model_type") == ParfocalConfig.model_type:
        values = values["text_config"]
    if "model_type" not in values:
        raise CheckpointError(
            f"{folder} holds no config.json with a model_type; give the folder of a language model."
        )
    found = {key: value for key, value in values.items() if key not in NO_SETTINGS}
    try:
        AutoConfig.for_model(**found)
    except load_errors() as err:
        raise CheckpointError(
            f"{folder}: Transformers cannot read the config of this language model, a "
            f"{found['model_type']!r} ({first_line(err)})."
        ) from err
    return found


@dataclass(frozen=True)
class Words:
    """A language model's words in a model.

    Attributes:
        config: of the model, with the language model's own config and the ids of placeholders.
        tokenizer: with the tokens of the dialect.
        template: the prompt; None: by the tokenizer's family.
    """

    config: ParfocalConfig
    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate | None


@dataclass(frozen=True)
class Start:
    """What a new model starts from.

    Attributes:
        words: of the language model, and the config.
        tensors: of the towers.
        key_map: of the towers' names.
        text: of the language model.
    """

    words: Words
    tensors: Tensors
    key_map: KeyMap
    text: Tensors

    def fill(self, targets: Mapping[str, Tensor]) -> Conversion:
        """Return what the parts fill of `targets`; the rest is in the report as kept."""
        words = extended_text(self.text, self.words.config, targets)
        others = {name: value for name, value in targets.items() if name not in words.state}
        done = apply_map(self.tensors, self.key_map, others)
        done.state.update(words.state)
        done.report.used.update(words.report.used)
        done.report.dropped.update(words.report.dropped)
        return done


def start_from_parts(preset: str, towers: Sequence[Path], words: Path) -> Start:
    """Put public parts into a preset.

    Args:
        preset: key of `PRESETS`.
        towers: folders of the vision towers, in their order; towers without one start anew.
        words: folder of the language model, or of a model of ours, whose words are taken.
    """
    config = get_preset(preset)
    if len(towers) > len(config.vision.towers):
        raise CheckpointError(
            f"preset {preset!r} has {len(config.vision.towers)} vision tower(s), "
            f"{len(towers)} were given."
        )
    put, text = open_words(config, words)
    config = put.config
    opened = [
        _tower(index, config.vision.towers[index], folder) for index, folder in enumerate(towers)
    ]
    rules: list[Rule] = list(TOWER_RULES)
    filled = [f"vision.towers.{index}." for index in range(len(towers))]
    with torch.device("meta"):
        names = ParfocalForConditionalGeneration(config).state_dict()
    rules += [Keep(name, NEW) for name in names if not name.startswith(tuple(filled))]
    tensors = joined(opened) if opened else Tensors({}, "nothing")
    return Start(put, tensors, KeyMap(preset, tuple(rules)), text)


def open_words(config: ParfocalConfig, folder: Path) -> tuple[Words, Tensors]:
    """Put the language model of a folder into a model, and open its weights.

    Args:
        config: of the model, such as a preset's.
        folder: of the language model, or of a model of ours, whose words are taken.
    """
    text, table = open_tensors(folder), "model.embed_tokens.weight"
    if (folder / OURS).is_file():
        text = text.under("text.")
    return put_words(config, folder, text[table].shape[0] if table in text else 0), text


def put_words(config: ParfocalConfig, folder: Path, rows: int = 0) -> Words:
    """Replace a model's language model by the one in a folder, whatever its size.

    Args:
        config: of the model, such as a preset's.
        folder: of the language model, or of a model of ours, whose words are taken.
        rows: of the folder's token table; 0: as its config says.
    """
    template, values = None, read_text_config(folder)
    rows = rows or values.get("vocab_size", 0)
    if (folder / OURS).is_file():
        tokenizer, template, ids = _own_words(folder, config)
    elif config.dialect == "region_tokens":
        tokenizer = groma_tokenizer(folder, config.proposer.max_regions)
        template, rows = groma_template(folder), max(rows, len(tokenizer))
        values["pad_token_id"] = tokenizer.pad_token_id
        ids = token_ids_of(tokenizer)
    else:
        tokenizer = read_tokenizer(folder)
        rows = max(rows, len(tokenizer))  # the placeholders are no token's ids
        second = "object" if config.regions.kind == "crop" else "region"
        ids = TokenIds(**{"image": rows, second: rows + 1})
    config = vary(config, {"text_config": {**values, "vocab_size": rows}})
    config.token_ids = ids
    return Words(config, tokenizer, template)


def _own_words(
    folder: Path, config: ParfocalConfig
) -> tuple[PreTrainedTokenizerBase, PromptTemplate, TokenIds]:
    """Take the words of a model of ours as they are; they must be those of the same dialect."""
    processor, slots = ParfocalProcessor.from_pretrained(folder), config.proposer.max_regions
    settings, known = processor.settings, processor.tokenizer.get_vocab()
    if settings.dialect != config.dialect:
        raise CheckpointError(
            f"{folder} speaks the dialect {settings.dialect!r}, the preset {config.dialect!r}; "
            "give a plain language model."
        )
    if config.dialect == "region_tokens" and region_token(slots - 1) not in known:
        raise CheckpointError(
            f"{folder} has names for fewer than the {slots} regions of the preset; give a plain "
            "language model."
        )
    return processor.tokenizer, settings.template, settings.token_ids


def tower_state(
    index: int, tower: TowerConfig, folder: Path, targets: Mapping[str, Tensor]
) -> Conversion:
    """Return what the folder of a backbone fills of vision tower `index`, which is all of it.

    Args:
        index: of the tower, from 0.
        tower: its config.
        folder: of the backbone, in any of the forms that it is published in.
        targets: the state dict of the whole model.
    """
    prefix = f"vision.towers.{index}."
    wanted = {name: value for name, value in targets.items() if name.startswith(prefix)}
    return apply_map(_tower(index, tower, folder), KeyMap("vision tower", TOWER_RULES), wanted)


def _tower(index: int, tower: TowerConfig, folder: Path) -> Tensors:
    """Open a tower under names that `TOWER_RULES` know."""
    kind = tower.backbone["model_type"]
    if (index, kind) == (0, "clip_vision_model"):
        tensors = open_tensors(folder)
        inner = "vision_model." if "embeddings.class_embedding" in tensors else ""
        return tensors.renamed(f"visual_encoder.{inner}")
    if (index, kind) == (1, "convnext"):
        tensors = open_tensors(folder)
        if not any("patch_embeddings" in name for name in tensors):  # not as Transformers names it
            trunk = "" if any(name.startswith("visual.") for name in tensors) else "visual.trunk."
            return tensors.renamed(f"visual_encoder_aux.{trunk}")
    with torch.device("meta"):
        backbone = type(Tower(tower).backbone)
    try:
        model, report = backbone.from_pretrained(
            folder,
            config=backbone_config(tower),
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
        )
    except load_errors() as err:
        raise CheckpointError(f"{folder} could not be loaded: {first_line(err)}") from err
    reshaped = {name for name, *_ in report["mismatched_keys"]}
    misfits = [f"misshapen {name}" for name in sorted(reshaped)]
    misfits += [f"missing {name}" for name in sorted(set(report["missing_keys"]) - reshaped)]
    if misfits:
        raise CheckpointError(
            f"{folder} does not fit vision tower {index + 1}, a {kind!r} ({len(misfits)} "
            f"misfits): {', '.join(misfits)}."
        )
    state = model.state_dict()
    if kind == "convnext":  # its last norm is of the pooled output, see `Tower`
        state = {name: state[name] for name in state if not name.startswith("layernorm.")}
    readers = {name: _given(value) for name, value in state.items()}
    return Tensors(readers, str(folder)).renamed(f"vision.towers.{index}.backbone.")


def _given(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value


def extended_text(
    source: Tensors, config: ParfocalConfig, targets: Mapping[str, Tensor]
) -> Conversion:
    """Put a language model's tensors in place; its tables get rows for new tokens.

    A new row of the token table is the mean of the old ones, one of the head is random, as in
    Groma's official code.

    Args:
        source: as a causal language model's folder names them.
        config: of the whole model; its vocabulary may be larger than the source's.
        targets: the state dict of the whole model.
    """
    rows, head = config.text_config.vocab_size, "text.lm_head.weight"
    tied = config.tie_word_embeddings
    rules = (
        Drop("**.rotary_emb.inv_freq", "computed from the config"),
        *([Drop("lm_head.weight", "it is the token table")] if tied else []),
        Rename("model.embed_tokens.weight", "text.model.embed_tokens.weight", _with_means(rows)),
        Rename("lm_head.weight", head, _with_noise(rows)),
        Rename("**", "text.**"),
    )
    wanted = {name: value for name, value in targets.items() if name.startswith("text.")}
    if tied:
        wanted.pop(head, None)
    done = apply_map(source, KeyMap("language model", rules), wanted)
    if tied and head in targets:
        done.state[head] = done.state["text.model.embed_tokens.weight"]
    return done


def _with_means(rows: int) -> Callable[[Tensor], Tensor]:
    def extend(table: Tensor) -> Tensor:
        extra = max(0, rows - table.shape[0])
        mean = table.float().mean(0, keepdim=True).to(table.dtype)
        return torch.cat((table, mean.expand(extra, -1))) if extra else table

    return extend


def _with_noise(rows: int) -> Callable[[Tensor], Tensor]:
    def extend(table: Tensor) -> Tensor:
        extra, width = max(0, rows - table.shape[0]), table.shape[1]
        noise = torch.rand(extra, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return torch.cat((table, (noise * width**-0.5).to(table))) if extra else table

    return extend


def initial_values(
    config: ParfocalConfig, names: Iterable[str], seed: int = 0
) -> dict[str, Tensor]:
    """Return what a new model holds under some names.

    Args:
        config: of the model; its language model is built in full only if `names` hold some of it.
        names: of the state dict.
        seed: of the random numbers.
    """
    wanted = list(names)
    if not wanted:
        return {}
    text = {
        "model_type": "llama", "vocab_size": 8, "hidden_size": config.text_config.hidden_size,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
    }  # fmt: skip
    whole = any(name.startswith("text.") for name in wanted)
    small = config if whole else vary(config, {"text_config": text})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = ParfocalForConditionalGeneration(small).state_dict()
    return {name: state[name] for name in wanted}
