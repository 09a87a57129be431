"""Tiny networks of the real Transformers classes with seeded weights, toy tokenizers, and folders.

Several rooms load the same families: as detectors, as taggers, as predictors, from a command line.
Transformers is imported by the functions that need it only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = ("a", "photo", "of", "cat", "dog", "red", "blue", "car", "bus", "st", "bernard", "tree")
PLACES = tuple(f"<loc_{index}>" for index in range(1000))
ENDS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
HEADS = {"num_attention_heads": 2, "num_hidden_layers": 1}


def fill(model: Any, seed: int = 0, spread: float = 0.3) -> Any:
    """Give every parameter a seeded value that is large enough for outputs to differ."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model.eval()


def save(folder: Path, model: Any, processor: Any) -> Path:
    """Write a folder as a hub folder is, and give it."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def byte_tokenizer(marks: Sequence[str], first: Sequence[str] = (), **roles: Any) -> Any:
    """A tokenizer of bytes.

    Args:
        marks: one token each, behind the bytes.
        first: one token each, before the bytes.
        roles: `eos_token` and so on.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={token: k for k, token in enumerate((*first, *letters))}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    tokenizer.add_tokens(list(marks), special_tokens=False)
    return tokenizer


def word_tokenizer(words: Sequence[str], **roles: Any) -> Any:
    """A tokenizer of whole words, in this order; `roles` are as in `byte_tokenizer`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=roles["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def tiny_owlv2() -> tuple[Any, Any]:
    """A tiny OWLv2 whose names may have up to eight tokens, and its processor."""
    from tokenizers import processors
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
    )

    ends = ("<start>", "<end>")  # the end has the highest id, which is how OWLv2 finds it
    roles = {"unk_token": "?", "pad_token": "!", "model_max_length": 8}
    tokenizer = word_tokenizer(("!", "?", *WORDS, *ends), **roles)
    ids = {end: tokenizer.convert_tokens_to_ids(end) for end in ends}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=list(ids.items())
    )
    layers = {**HEADS, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = Owlv2Config(
        text_config={
            **layers,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 8,
            "pad_token_id": 0,
            "bos_token_id": ids[ends[0]],
            "eos_token_id": ids[ends[1]],
        },
        vision_config={**layers, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    images = Owlv2ImageProcessor(size={"height": 64, "width": 64})
    processor = Owlv2Processor(image_processor=images, tokenizer=tokenizer)
    return fill(Owlv2ForObjectDetection(config), 1), processor


def tiny_grounding_dino() -> tuple[Any, Any]:
    """A tiny Grounding DINO; special tokens have the ids that its code takes for granted."""
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

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
            **HEADS,
            "hidden_size": 16,
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
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    processor = GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer)
    return fill(GroundingDinoForObjectDetection(config), 2), processor


def tiny_florence2(tokenizer: Any, **text: Any) -> tuple[Any, Any]:
    """A tiny Florence-2, and its processor.

    Args:
        tokenizer: starts with the tokens of `ENDS`, and holds `PLACES` and an image token.
        text: fields of the text config that differ.
    """
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
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
            **text,
        },
        vision_config={
            "embed_dim": [8, 8, 8, 16],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 1, 2],
            "num_groups": [1, 1, 1, 2],
            "window_size": 4,
            "projection_dim": 16,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    processor = Florence2Processor(image_processor=images, tokenizer=tokenizer)
    return fill(Florence2ForConditionalGeneration(config), 4), processor
