"""Tiny networks of the real Transformers classes with seeded weights, and toy tokenizers for them.

Torch is imported by the fixtures that need it only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

if TYPE_CHECKING:
    from parfocal.detectors.florence2 import Florence2Tagger
    from parfocal.detectors.grounding_dino import GroundingDinoDetector
    from parfocal.detectors.owlv2 import Owlv2Detector
    from parfocal.detectors.ram_plus import RamPlusTagger

WORDS = ("a", "photo", "of", "cat", "dog", "red", "blue", "car", "bus", "st", "bernard", "tree")


def randomise(model: Any, seed: int, spread: float = 0.3) -> Any:
    """Give every parameter a seeded value that is large enough for outputs to differ."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model.eval()


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
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
        PreTrainedTokenizerFast,
    )

    from parfocal.detectors.owlv2 import Owlv2Detector

    ends = ("<start>", "<end>")  # the end has the highest id, which is how OWLv2 finds it
    vocabulary = {word: index for index, word in enumerate(("!", "?", *WORDS, *ends))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(end, vocabulary[end]) for end in ends]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="?", pad_token="!", model_max_length=8
    )
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = Owlv2Config(
        text_config={
            **layers,
            "num_attention_heads": 2,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 8,
            "pad_token_id": 0,
            "bos_token_id": vocabulary[ends[0]],
            "eos_token_id": vocabulary[ends[1]],
        },
        vision_config={**layers, "num_attention_heads": 2, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    model = randomise(Owlv2ForObjectDetection(config), 1)
    images = Owlv2ImageProcessor(size={"height": 64, "width": 64})
    processor = Owlv2Processor(image_processor=images, tokenizer=tokenizer)
    return Owlv2Detector(model, processor, threshold=0.235, batch_size=3)


@pytest.fixture(scope="session")
def grounding_dino(tmp_path_factory: pytest.TempPathFactory) -> GroundingDinoDetector:
    """A tiny Grounding DINO; special tokens have the ids that its code takes for granted."""
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    from parfocal.detectors.grounding_dino import GroundingDinoDetector

    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    fixed |= {1012: ".", 1029: "?"} | {2000 + index: word for index, word in enumerate(WORDS)}
    size = max(fixed) + 1
    vocabulary = {fixed.get(index, f"[unused{index}]"): index for index in range(size)}
    tokenizer = BertTokenizerFast(vocab=vocabulary)
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "embed_dim": 8,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "window_size": 2,
            "out_indices": [2, 3, 4],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": size,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        },
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=12,
        max_text_len=16,
    )
    model = randomise(GroundingDinoForObjectDetection(config), 2)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    processor = GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer)
    return GroundingDinoDetector(model, processor, threshold=0.69, batch_size=3)


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
    model = randomise(RamPlus(config), 3)
    with torch.no_grad():
        model.label_embed.mul_(10.0)
        model.fc.weight.mul_(10.0)
    return RamPlusTagger(
        model, ("Cat", "dog", "red car", "bus", "tree"), (0.0195,) * 5, batch_size=3
    )


@pytest.fixture(scope="session")
def florence2() -> Florence2Tagger:
    """A tiny Florence-2."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        PreTrainedTokenizerFast,
    )

    from parfocal.detectors.florence2 import Florence2Tagger

    places = tuple(f"<loc_{index}>" for index in range(1000))
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<image>")
    vocabulary = {word: index for index, word in enumerate((*specials, *WORDS, *places))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    tokenizer.add_tokens(list(places))
    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(vocabulary),
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
        vision_config={
            "embed_dim": [8, 8, 8, 16],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 1, 2],
            "num_groups": [1, 1, 1, 2],
            "window_size": 4,
            "projection_dim": 16,
        },
        image_token_id=vocabulary["<image>"],
    )
    model = randomise(Florence2ForConditionalGeneration(config), 4)
    images = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    processor = Florence2Processor(image_processor=images, tokenizer=tokenizer)
    return Florence2Tagger(model, processor, num_beams=1, max_new_tokens=12, batch_size=3)


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Save a detector or tagger of Transformers to a folder, and give the folder."""

    def save(part: Any) -> Path:
        part.model.save_pretrained(tmp_path / "model")
        part.processor.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return save
