"""The tiny model's processor, for runs from data to answers; and patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from parfocal.data.scenes.catalogue import KINDS
from parfocal.dialects import get_dialect
from parfocal.models.building import build_processor, token_ids_of
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import tiny, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.tokenizers import train_tokenizer
from parfocal.recipes.mini import TEMPLATE


@pytest.fixture(scope="session")
def toy_processor() -> Callable[[ParfocalConfig], ParfocalProcessor]:
    """Builds the processor of the tiny model, with a tokenizer that knows the kinds' names."""

    def build(config: ParfocalConfig) -> ParfocalProcessor:
        dialect = get_dialect("region_tokens")
        words = [f"Where is the {kind.name}? {kind.plural}" for kind in KINDS] * 2
        tokenizer = train_tokenizer(words, dialect, TEMPLATE, 6, vocab_size=640)
        named = vary(config, {"token_ids": token_ids_of(tokenizer).to_dict()})
        count = ParfocalForConditionalGeneration(config).num_image_tokens
        return build_processor(tokenizer, named, TEMPLATE, count)

    return build


@pytest.fixture(scope="session")
def toy_parts(toy_processor) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """The tiny model's config and processor, which fit each other."""
    processor = toy_processor(tiny())
    ids = processor.settings.token_ids.to_dict()
    return vary(tiny(len(processor.tokenizer)), {"token_ids": ids}), processor


def wait_for(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `look` returns as soon as it is true; its last answer when the time is over."""
    end = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
