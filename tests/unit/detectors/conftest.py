"""Tiny detectors and taggers, and pictures for them.

Torch is imported by the fixtures that need it only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.unit import tiny_folders
from tests.unit.tiny_folders import ENDS, PLACES, WORDS

if TYPE_CHECKING:
    from parfocal.detectors.florence2 import Florence2Tagger
    from parfocal.detectors.grounding_dino import GroundingDinoDetector
    from parfocal.detectors.owlv2 import Owlv2Detector
    from parfocal.detectors.ram_plus import RamPlusTagger


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Pictures of several shapes, two of the same."""
    found = []
    for index, size in enumerate(((64, 48), (40, 80), (64, 48), (33, 31))):
        photo = Image.new("RGB", size, (60 * index, 90, 200 - 50 * index))
        photo.paste((250, 240, 60 * index), (5 + 5 * index, 6, 20 + 4 * index, 30))
        found.append(photo)
    return found


@pytest.fixture(scope="session")
def owlv2() -> Owlv2Detector:
    """A tiny OWLv2 whose names may have up to eight tokens."""
    from parfocal.detectors.owlv2 import Owlv2Detector

    return Owlv2Detector(*tiny_folders.tiny_owlv2(), threshold=0.235, batch_size=3)


@pytest.fixture(scope="session")
def grounding_dino() -> GroundingDinoDetector:
    """A tiny Grounding DINO."""
    from parfocal.detectors.grounding_dino import GroundingDinoDetector

    return GroundingDinoDetector(*tiny_folders.tiny_grounding_dino(), threshold=0.69, batch_size=3)


@pytest.fixture(scope="session")
def ram_plus() -> RamPlusTagger:
    """A tiny RAM++; "red car" and "tree" fire on every picture."""
    import torch

    from parfocal.detectors.ram_plus import RamPlus, RamPlusConfig, RamPlusTagger

    config = RamPlusConfig(
        image_size=32,
        embed_dim=8,
        depths=(1, 2),
        num_heads=(1, 2),
        window_size=4,
        projection_size=12,
        num_tags=5,
        num_descriptions=3,
        decoder_size=16,
        decoder_heads=2,
        decoder_ffn_size=24,
    )
    model = tiny_folders.fill(RamPlus(config), 3)
    with torch.no_grad():
        model.label_embed.mul_(10.0)
        model.fc.weight.mul_(10.0)
    return RamPlusTagger(
        model, ("Cat", "dog", "red car", "bus", "tree"), (0.0195,) * 5, batch_size=3
    )


@pytest.fixture(scope="session")
def florence2() -> Florence2Tagger:
    """A tiny Florence-2 that writes words."""
    from parfocal.detectors.florence2 import Florence2Tagger

    tokenizer = tiny_folders.word_tokenizer(
        (*ENDS.values(), "<image>", *WORDS, *PLACES),
        extra_special_tokens={"image_token": "<image>"},
        **ENDS,
    )
    tokenizer.add_tokens(list(PLACES))
    parts = tiny_folders.tiny_florence2(tokenizer, forced_eos_token_id=2)
    return Florence2Tagger(*parts, num_beams=1, max_new_tokens=12, batch_size=3)


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Save a detector or tagger of Transformers to a folder, and give the folder."""
    return lambda part: tiny_folders.save(tmp_path / "model", part.model, part.processor)
