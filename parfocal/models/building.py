"""The processor that belongs to a model, made of a tokenizer and the model's config."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from parfocal.dialects.region_tokens import region_token
from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig, TokenIds
from parfocal.models.objects import object_tokens
from parfocal.models.processing import ParfocalProcessor
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
        ConfigError: if the config names no placeholder for image tokens.
    """
    if config.token_ids.image < 0:
        raise ConfigError(
            "the config's token_ids.image is not set; add '<image>' to the tokenizer and take the "
            "ids with token_ids_of(tokenizer)."
        )
    objects = object_tokens(config.regions, num_image_tokens)
    if objects and config.token_ids.object < 0:
        raise ConfigError(
            "regions.kind is 'crop' but the config's token_ids.object is not set; it may be any id "
            "beyond the tokenizer's."
        )
    slots = config.proposer.max_regions if config.regions.in_text else 0
    settings = ProcessorSettings(
        vision=config.vision,
        dialect=config.dialect,
        template=template,
        num_image_tokens=num_image_tokens,
        num_slots=slots,
        layout=config.regions.layout,
        token_ids=config.token_ids,
        num_object_tokens=objects,
    )
    return ParfocalProcessor(tokenizer, settings)


def token_ids_of(tokenizer: PreTrainedTokenizerBase) -> TokenIds:
    """Look up the placeholders' ids; a token that the tokenizer lacks gets -1."""
    known = tokenizer.get_vocab()
    names = {
        "image": "<image>",
        "region": "<region>",
        "region_feature": "<refer_feat>",
        "ground_box": "<ground_box>",
        "first_region": region_token(0),
        "object": "<object>",
    }
    return TokenIds(**{key: known.get(token, -1) for key, token in names.items()})
