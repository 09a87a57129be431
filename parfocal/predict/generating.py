"""Answers token by token, and how sure the model was of every region that it named.

Shapes: B rows, P pictures of all rows, L tokens of the questions, N new tokens, R region slots.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, LogitsProcessorList

from parfocal.dialects.base import Parsed
from parfocal.models.decoding import LiveRegions
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.outputs import ImageFeatures
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.proposer import Regions, of_first
from parfocal.models.splicing import rows_of
from parfocal.models.text_batch import TextBatch
from parfocal.predict.asking import cut_short, one_answer
from parfocal.predict.seeing import cast

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 192
_OWN_CACHE = ("use_cache", "cache_implementation", "past_key_values", "generation_config")


def generate(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    text: TextBatch,
    features: ImageFeatures,
    regions: Regions | None,
    *,
    counts: Sequence[int],
    unique: bool,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Generate the answers.

    Args:
        model: on the device of `text`.
        processor: of the model.
        text: the questions, left-padded.
        features: of each of the P pictures.
        regions: likewise, or None for a model without them.
        counts: number of pictures of each row.
        unique: name no region twice.
        options: of Transformers' `generate`, and `seed` and `streamer`. What they leave open, the
            model's own generation settings say, save that an answer has `MAX_NEW_TOKENS` at most,
            is not sampled, and where it is streamed or sampled takes no beams.

    Returns:
        New tokens int[B, N] and, with regions, how sure the model was of each slot that it named,
        float[B, R].
    """
    chosen = _search_options(options, model.config.text_config)
    beams = chosen.get("num_beams") or model.generation_config.num_beams or 1
    prompt = _prompt(model, text, features, regions, counts)
    if beams > 1 and _may_read_ahead(model, chosen) and _ends_in_words(model, text.input_ids):
        prompt = _read(model, prompt, beams)
    length, first = text.input_ids.shape[1], model.config.token_ids.first_region
    processors = LogitsProcessorList()
    if regions is not None:
        named = of_first(regions, counts)
        processors.append(LiveRegions(first, named.mask, length, unique))
    output = model.generate(
        logits_processor=processors,
        return_dict_in_generate=True,
        output_scores=True,
        pad_token_id=processor.tokenizer.pad_token_id,
        eos_token_id=processor.stop_ids,
        **{"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False, **prompt, **chosen},
    )
    tokens = output.sequences[:, length:]
    if regions is None or first < 0:
        return tokens, None  # a family that names no regions
    return tokens, _confidence(first, tokens, output, named)


def note_cut(parsed: Parsed, tokens: Tensor, processor: ParfocalProcessor) -> Parsed:
    """Add the problem that nothing in an answer, int[N], ends it, where that is so."""
    whole = processor.tokenizer.decode(
        tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    if processor.text(tokens) != whole:
        return parsed
    return replace(parsed, problems=(*parsed.problems, cut_short(len(tokens))))


def _search_options(options: Mapping[str, Any], config: object) -> dict[str, Any]:
    """Set the seed, and keep beams that nobody asked for from streams and samples.

    Raises:
        ConfigError: as `one_answer` does.
    """
    chosen = one_answer(options, config)
    seed = chosen.pop("seed", None)
    if seed is not None:
        torch.manual_seed(seed)
    if chosen.get("streamer") is not None or chosen.get("do_sample"):
        chosen.setdefault("num_beams", 1)  # a token that beams may yet take back cannot be streamed
    return chosen


def _prompt(
    model: ParfocalForConditionalGeneration,
    text: TextBatch,
    features: ImageFeatures,
    regions: Regions | None,
    counts: Sequence[int],
) -> dict[str, Any]:
    """What `generate` starts with: tokens, which of them live, and the features among them."""
    input_ids, attention_mask = text.input_ids, text.attention_mask
    image = rows_of(model.image_tokens(features, regions), counts)
    seen: dict[str, Any] = {"image_features": image}
    if regions is not None:
        alive = rows_of(regions.mask, counts)
        attention_mask = model.live_mask(input_ids, attention_mask, alive)
        if regions.features is not None:
            seen["region_features"] = rows_of(regions.features, counts)
    if text.object_pixels is not None:
        pixels = [cast(value, model) for value in text.object_pixels]
        seen["object_features"] = model.encode_objects(pixels, text.object_mask)
    _check_room(model, attention_mask)
    return {"input_ids": input_ids, "attention_mask": attention_mask, **seen}


def _may_read_ahead(model: ParfocalForConditionalGeneration, chosen: Mapping[str, Any]) -> bool:
    """Return True if nobody has a say in whether there is a cache, or which."""
    own = model.generation_config
    usual = own.use_cache is not False and own.cache_implementation is None
    return usual and not any(name in chosen for name in _OWN_CACHE)


def _ends_in_words(model: ParfocalForConditionalGeneration, input_ids: Tensor) -> bool:
    """Return True if no question int[B, L] ends with what a feature replaces."""
    ids = model.config.token_ids
    replaced = input_ids.new_tensor((ids.image, ids.region, ids.region_feature, ids.object))
    return not bool(torch.isin(input_ids[:, -1], replaced).any())


def _read(
    model: ParfocalForConditionalGeneration, prompt: Mapping[str, Any], beams: int
) -> dict[str, Any]:
    """Read questions but for their last token, once for all beams; `generate` reads once a beam.

    Args:
        model: reads.
        prompt: of `_prompt`.
        beams: of a question.

    Returns:
        A prompt with a cache of B * beams rows, those of a question next to each other, in place of
        features.
    """
    seen = dict(prompt)
    input_ids, attention_mask = seen.pop("input_ids"), seen.pop("attention_mask")
    output = model(
        input_ids[:, :-1], attention_mask[:, :-1], use_cache=True, logits_to_keep=1, **seen
    )
    cache: Cache = output.past_key_values
    rows = torch.arange(len(input_ids), device=input_ids.device)
    cache.reorder_cache(rows.repeat_interleave(beams))  # the one copy that layers of any kind have
    return {"input_ids": input_ids, "attention_mask": attention_mask, "past_key_values": cache}


def _check_room(model: ParfocalForConditionalGeneration, attention_mask: Tensor) -> None:
    """Warn where a question is longer than what the language model was made for."""
    room = getattr(model.config.text_config, "max_position_embeddings", None)
    longest = int(attention_mask.sum(dim=1).max())
    if room is not None and longest > room:
        logger.warning(
            "a question takes %d tokens, of which pictures take most, and the language model "
            "was made for %d; expect worse answers, or give fewer frames.",
            longest,
            room,
        )


def _confidence(first: int, tokens: Tensor, output: Any, regions: Regions) -> Tensor:
    """Weigh the slots' scores by the probability of their names where they were first named.

    Args:
        first: id of the first slot's name.
        tokens: int[B, N], the new tokens.
        output: of `generate`, with scores.
        regions: of each row.

    Returns:
        float[B, R]; slots that were not named keep their scores.
    """
    slots, scores = regions.mask.shape[1], regions.scores.clone()
    beams = getattr(output, "beam_indices", None)
    for step in reversed(range(tokens.shape[1])):  # backwards, so that the first mention stays
        named = tokens[:, step] - first
        for row in torch.nonzero((named >= 0) & (named < slots))[:, 0].tolist():
            source = row if beams is None else int(beams[row, step])
            probability = output.scores[step][source].float().softmax(-1)[tokens[row, step]]
            scores[row, named[row]] = regions.scores[row, named[row]] * probability
    return scores
