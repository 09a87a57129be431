"""A tiny model whose tokenizer knows the names of the kinds, and scenes with and without turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import Sample
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.sprites import SpriteBank
from parfocal.data.scenes.turns import with_turns
from parfocal.dialects import get_dialect
from parfocal.models.building import build_processor, token_ids_of
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import tiny, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import PromptTemplate
from parfocal.models.tokenizers import END, train_tokenizer

Pair = tuple[ParfocalConfig, ParfocalProcessor]
TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>", end=END, independent_turns=True)
DETR = {
    "kind": "deformable_detr", "hidden_size": 16, "encoder_layers": 1, "decoder_layers": 2,
    "heads": 2, "ffn_size": 32, "points": 2, "queries": 12, "dropout": 0.0,
    "score_heads": ("object",), "score_exponents": (1.0,),
}  # fmt: skip
PROPOSERS: dict[str, dict[str, Any]] = {"dense": {}, "deformable_detr": {"proposer": DETR}}


@pytest.fixture(scope="session")
def tiny_parts() -> Pair:
    """The tiny preset and its processor; neither may be changed."""
    words = [f"{kind.name} {kind.plural}" for kind in KINDS] * 2
    tokenizer = train_tokenizer(words, get_dialect("region_tokens"), TEMPLATE, 6, vocab_size=640)
    config = tiny(len(tokenizer))
    config.token_ids = token_ids_of(tokenizer)
    num_image_tokens = ParfocalForConditionalGeneration(config).num_image_tokens
    return config, build_processor(tokenizer, config, TEMPLATE, num_image_tokens)


@pytest.fixture
def make_model(tiny_parts: Pair) -> Callable[..., ParfocalForConditionalGeneration]:
    """Build a fresh tiny model with the proposer named."""

    def make(proposer: str = "dense", seed: int = 0) -> ParfocalForConditionalGeneration:
        config = vary(tiny_parts[0], PROPOSERS[proposer])
        config.token_ids = tiny_parts[0].token_ids
        torch.manual_seed(seed)
        return ParfocalForConditionalGeneration(config)

    return make


@pytest.fixture
def processor(tiny_parts: Pair) -> ParfocalProcessor:
    """The processor of the tiny model."""
    return tiny_parts[1]


@pytest.fixture(scope="session")
def toy_samples(toy_bank: SpriteBank) -> list[Sample]:
    """Four small scenes without turns."""
    reader = SceneReader("train", 4, (96,), toy_bank)
    return [reader[index] for index in range(4)]


@pytest.fixture(scope="session")
def toy_talk(toy_samples: list[Sample]) -> list[Sample]:
    """The same scenes with questions and answers."""
    import numpy as np

    dialect = get_dialect("region_tokens")
    return [
        with_turns(sample, dialect, np.random.default_rng(index))
        for index, sample in enumerate(toy_samples)
    ]
