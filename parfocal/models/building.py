"""The processor that belongs to a model, made of a tokenizer and the model's config."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from parfocal.dialects.region_tokens import region_token
from parfocal.errors import CheckpointError, ConfigError
from parfocal.models.config import ParfocalConfig, TokenIds
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.objects import object_tokens
from parfocal.models.processing import FILE_NAME, ParfocalProcessor
from parfocal.models.settings import ProcessorSettings, PromptTemplate


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    config: ParfocalConfig,
    template: PromptTemplate,
    num_image_tokens: int,
) -> ParfocalProcessor:
    """Make the processor that belongs to a model of this config.

    Args:
        tokenizer: already holds the dialect's tokens.
        config: of the model; its `token_ids` come from the same tokenizer (`token_ids_of`).
        template: the fixed words around pictures and turns.
        num_image_tokens: `ParfocalForConditionalGeneration.num_image_tokens`.

    Raises:
        ConfigError: if the config names no placeholder for image tokens or object images, or its
            layout of regions needs names that the tokenizer lacks.
    """
    if config.token_ids.image < 0:
        raise ConfigError(
            "the config's token_ids.image is not set; add '<image>' to the tokenizer and take the "
            "ids with token_ids_of(tokenizer)."
        )
    settings = settings_of(config, template, num_image_tokens)
    if settings.num_object_tokens and config.token_ids.object < 0:
        raise ConfigError(
            "regions.kind is 'crop' but the config's token_ids.object is not set; it may be any id "
            "beyond the tokenizer's."
        )
    if settings.num_slots and config.regions.layout != "bare":
        _require_names(tokenizer, config, settings.num_slots)
    return ParfocalProcessor(tokenizer, settings)


def settings_of(
    config: ParfocalConfig, template: PromptTemplate, num_image_tokens: int
) -> ProcessorSettings:
    """Settings of the processor that belongs to a model of this config; see `build_processor`."""
    return ProcessorSettings(
        vision=config.vision,
        dialect=config.dialect,
        template=template,
        num_image_tokens=num_image_tokens,
        num_slots=config.proposer.max_regions if config.regions.in_text else 0,
        layout=config.regions.layout,
        token_ids=config.token_ids,
        num_object_tokens=object_tokens(config.regions, num_image_tokens),
    )


def refuse_mismatch(
    folder: str | Path, model: ParfocalForConditionalGeneration, processor: ParfocalProcessor
) -> None:
    """Refuse a processor that is not the model's: boxes and words would be wrong, and nobody see.

    Args:
        folder: where both come from.
        model: says what the settings have to be.
        processor: whose settings are compared, but for the template, which no config holds.

    Raises:
        CheckpointError: naming the first field that differs, with both values.
    """
    template = processor.settings.template
    wanted = settings_of(model.config, template, model.num_image_tokens).to_dict()
    for name, value, right in _differences(processor.settings.to_dict(), wanted):
        raise CheckpointError(
            f"{folder}: the processor ({FILE_NAME}) has {name} {value!r}, the model (config.json) "
            f"needs {right!r}. Both must come from the same model; save or copy both again."
        )


def _differences(ours: Any, theirs: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: dotted name and both values, None for what is not there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            yield from _differences(ours.get(key), theirs.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(*pair, f"{name}[{index}]")
    elif ours != theirs:
        yield name, ours, theirs


def _require_names(tokenizer: PreTrainedTokenizerBase, config: ParfocalConfig, slots: int) -> None:
    """Refuse a layout that writes region names which are no tokens, or others than the config's."""
    first, last = config.token_ids.first_region, region_token(slots - 1)
    found = tokenizer.get_vocab().get(last)
    if first < 0 or found != first + slots - 1:
        raise ConfigError(
            f"regions.layout {config.regions.layout!r} writes the names of {slots} regions, from "
            f"token_ids.first_region {first} on, but {last!r} has the id {found} in the tokenizer. "
            "Use a tokenizer with as many names as proposer.max_regions, or regions.layout 'bare', "
            "which needs none."
        )


def token_ids_of(tokenizer: PreTrainedTokenizerBase) -> TokenIds:
    """Look up the placeholders' ids; a token that the tokenizer lacks gets -1.

    Object images have no token of their own: their placeholder lies beyond every tokenizer's ids
    (`<object>` is what Kosmos-2 writes before boxes).
    """
    known = tokenizer.get_vocab()
    names = {
        "image": "<image>",
        "region": "<region>",
        "region_feature": "<refer_feat>",
        "ground_box": "<ground_box>",
        "first_region": region_token(0),
    }
    return TokenIds(**{key: known.get(token, -1) for key, token in names.items()})
