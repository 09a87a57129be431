"""A model of a few thousand random parameters with every part of mini, and its processor.

Torch is imported by the fixtures that need it only: tests of the NumPy rooms stay quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

if TYPE_CHECKING:
    from parfocal.models.modeling import ParfocalForConditionalGeneration
    from parfocal.models.processing import ParfocalProcessor
    from parfocal.predict.predictor import Predictor

    Pair = tuple[ParfocalForConditionalGeneration, ParfocalProcessor]

SENTENCES = ("Where is the red apple?", "What do you see?") * 3


def build_tiny(
    seed: int = 0,
    difference: Mapping[str, Any] | None = None,
    template: Mapping[str, Any] | None = None,
    dialect: str = "region_tokens",
) -> Pair:
    """Build the tiny model with seeded weights.

    Args:
        seed: of the weights.
        difference: what `vary` changes in the tiny preset.
        template: fields of the prompt template that differ.
        dialect: what the model speaks.
    """
    import torch

    from parfocal.dialects import get_dialect
    from parfocal.models.building import build_processor, token_ids_of
    from parfocal.models.modeling import ParfocalForConditionalGeneration
    from parfocal.models.presets import tiny, vary
    from parfocal.models.settings import PromptTemplate
    from parfocal.models.tokenizers import END, train_tokenizer

    words = {"user": "<user>", "assistant": "<answer>", "end": END, **(template or {})}
    prompt = PromptTemplate(**words)
    tokenizer = train_tokenizer(SENTENCES, get_dialect(dialect), prompt, 6, 320)
    config = vary(tiny(len(tokenizer)), {**(difference or {}), "dialect": dialect})
    config.token_ids = token_ids_of(tokenizer)
    torch.manual_seed(seed)
    model = ParfocalForConditionalGeneration(config).eval()
    return model, build_processor(tokenizer, config, prompt, model.num_image_tokens)


@pytest.fixture(scope="session")
def tiny_pair() -> Pair:
    """The tiny model and its processor; tests must not change them."""
    return build_tiny()


@pytest.fixture(scope="session")
def tiny_predictor(tiny_pair: Pair) -> Predictor:
    """The tiny model as a predictor."""
    from parfocal.predict.predictor import Predictor

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
def make_tiny() -> Callable[..., Pair]:
    """The function that builds a fresh tiny model, for tests that change one."""
    return build_tiny
