"""A model of a few thousand random parameters with every part of mini, and its processor."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from parfocal.dialects import get_dialect
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import tiny
from parfocal.models.processing import (
    ParfocalProcessor,
    PromptTemplate,
    build_processor,
    token_ids_of,
)
from parfocal.models.tokenizers import END, train_tokenizer
from parfocal.predict.predictor import Predictor

TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>", end=END)


def build_tiny(seed: int = 0) -> tuple[ParfocalForConditionalGeneration, ParfocalProcessor]:
    """Build the tiny model with seeded weights."""
    tokenizer = train_tokenizer(
        ["Where is the red apple?", "What do you see?"] * 3,
        get_dialect("region_tokens"),
        TEMPLATE,
        num_regions=6,
        vocab_size=320,
    )
    config = tiny(len(tokenizer))
    config.token_ids = token_ids_of(tokenizer)
    torch.manual_seed(seed)
    model = ParfocalForConditionalGeneration(config).eval()
    return model, build_processor(tokenizer, config, TEMPLATE, model.num_image_tokens)


@pytest.fixture(scope="session")
def tiny_pair() -> tuple[ParfocalForConditionalGeneration, ParfocalProcessor]:
    """The tiny model and its processor; tests must not change them."""
    return build_tiny()


@pytest.fixture(scope="session")
def tiny_predictor(
    tiny_pair: tuple[ParfocalForConditionalGeneration, ParfocalProcessor],
) -> Predictor:
    """The tiny model as a predictor."""
    return Predictor(*tiny_pair, "tiny")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Pictures of different shapes with a bright block in different places."""
    found = []
    for index, size in enumerate(((96, 96), (128, 64), (50, 111), (96, 70))):
        picture = Image.new("RGB", size, (40 * index, 90, 200 - 30 * index))
        picture.paste((250, 240, 10 * index), (5 + 7 * index, 10, 30 + 5 * index, 45))
        found.append(picture)
    return found


@pytest.fixture(scope="session")
def make_tiny():
    """The function that builds a fresh tiny model, for tests that change one."""
    return build_tiny
