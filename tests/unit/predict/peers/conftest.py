"""Tiny models of the real classes of every peer, saved with their processors as a hub folder is.

Tokenizers spell bytes, so that any text is read and written as it is; marks of a family are one
token each. Transformers is imported by the functions that need it only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

if TYPE_CHECKING:
    from parfocal.predict.peers.verbs import PeerPredictor

SIZE = {"height": 28, "width": 28}
HEADS = {"num_attention_heads": 2, "num_hidden_layers": 1}
TEXT = {
    **HEADS,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
}
CHAT_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_MARKS = (
    *CHAT_MARKS,
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)
# As the published templates lay out pictures, words and turns.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and SYSTEM %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def template(image: str, system: bool) -> str:
    return TEMPLATE.replace("IMAGE", image).replace("SYSTEM", str(system).lower())


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


def save(folder: Path, model: Any, processor: Any, **generation: Any) -> None:
    """Write a folder; every weight is a seeded number that is large enough to matter."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weights in sorted(model.named_parameters()):
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.3)
    for name, value in {"max_new_tokens": 6, **generation}.items() if model.can_generate() else ():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def rope(sections: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, **more}


def qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def qwen_tokenizer() -> Any:
    return byte_tokenizer(QWEN_MARKS, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def qwen_processor(kind: Any, tokenizer: Any, video: Any, patch: int, system: bool) -> Any:
    from transformers import Qwen2VLImageProcessor

    # Areas: small enough that a picture of the tests is made smaller.
    size = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 12 * (2 * patch) ** 2}
    settings = {"size": size, "patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    return kind(
        image_processor=Qwen2VLImageProcessor(**settings),
        tokenizer=tokenizer,
        video_processor=video(**settings),
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>", system),
    )


def build_qwen2_vl(folder: Path) -> None:
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = qwen_tokenizer()
    config = Qwen2VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": rope([1, 1, 2]),
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": 1,
            "embed_dim": 16,
            "num_heads": 2,
            "hidden_size": 16,
            "mlp_ratio": 1,
        },
        **qwen_ids(tokenizer),
    )
    processor = qwen_processor(Qwen2VLProcessor, tokenizer, Qwen2VLVideoProcessor, 14, True)
    save(folder, Qwen2VLForConditionalGeneration(config), processor)


def build_qwen2_5_vl(folder: Path) -> None:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = qwen_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": rope([1, 1, 2]),
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "window_size": 56,
            "fullatt_block_indexes": [0],
        },
        **qwen_ids(tokenizer),
    )
    processor = qwen_processor(Qwen2_5_VLProcessor, tokenizer, Qwen2VLVideoProcessor, 14, True)
    # Published checkpoints sample and punish repetition; a predictor must not.
    chance = {"do_sample": True, "temperature": 0.1, "repetition_penalty": 1.05}
    save(folder, Qwen2_5_VLForConditionalGeneration(config), processor, **chance)


def build_qwen3_vl(folder: Path) -> None:
    from transformers import (
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = qwen_tokenizer()
    config = Qwen3VLConfig(
        text_config={
            **TEXT,
            "head_dim": 8,
            "vocab_size": len(tokenizer),
            "rope_parameters": rope([2, 1, 1], mrope_interleaved=True),
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        **qwen_ids(tokenizer),
    )
    processor = qwen_processor(Qwen3VLProcessor, tokenizer, Qwen3VLVideoProcessor, 16, False)
    save(folder, Qwen3VLForConditionalGeneration(config), processor)


def build_internvl(folder: Path) -> None:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokens = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_tokenizer(
        (*CHAT_MARKS, "<ref>", "</ref>", "<box>", "</box>"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=tokens,
    )
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **TEXT, "vocab_size": len(tokenizer)},
        vision_config={**HEADS, "hidden_size": 16, "intermediate_size": 16, "image_size": [28, 28]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SIZE, min_patches=1, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=SIZE),
        image_seq_length=1,
        chat_template=template("<IMG_CONTEXT>\n", False),
    )
    save(folder, InternVLForConditionalGeneration(config), processor)


def build_kosmos2(folder: Path) -> None:
    from transformers import (
        CLIPImageProcessor,
        Kosmos2Config,
        Kosmos2ForConditionalGeneration,
        Kosmos2Processor,
    )

    first = ("<s>", "<pad>", "</s>", "<unk>")
    tokenizer = byte_tokenizer(
        (), first, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    images = CLIPImageProcessor(size=SIZE, crop_size=SIZE)
    processor = Kosmos2Processor(images, tokenizer)
    config = Kosmos2Config(
        text_config={
            "vocab_size": len(tokenizer),
            "embed_dim": 16,
            "layers": 1,
            "ffn_dim": 16,
            "attention_heads": 2,
            "max_position_embeddings": 512,
        },
        vision_config={**HEADS, "hidden_size": 16, "intermediate_size": 16, "image_size": 28},
        latent_query_num=64,
    )
    save(folder, Kosmos2ForConditionalGeneration(config), processor)


def build_florence2(folder: Path) -> None:
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    places = tuple(f"<loc_{index}>" for index in range(1000))
    tokenizer = byte_tokenizer(
        places,
        ("<s>", "<pad>", "</s>", "<unk>"),
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
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
            "forced_bos_token_id": 0,
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
    save(folder, Florence2ForConditionalGeneration(config), processor)


def build_paligemma(folder: Path) -> None:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tokenizer = byte_tokenizer(
        (),
        ("<pad>", "<eos>", "<bos>", "<unk>"),
        bos_token="<bos>",
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    images = SiglipImageProcessor(size=SIZE)
    images.image_seq_length = 4
    processor = PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
    config = PaliGemmaConfig(
        text_config={
            "model_type": "gemma2",
            **TEXT,
            "head_dim": 8,
            "vocab_size": len(tokenizer),
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            **HEADS,
            "hidden_size": 16,
            "intermediate_size": 16,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        projection_dim=16,
        image_token_index=processor.image_token_id,
    )
    save(folder, PaliGemmaForConditionalGeneration(config), processor)


WORDS = ("a", "cat", "dog", "red", "car")


def build_grounding_dino(folder: Path) -> None:
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    # The ids of its special tokens are constants in its code.
    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: "."}
    fixed |= {1029: "?"} | {1030 + index: word for index, word in enumerate(WORDS)}
    size = max(fixed) + 1
    vocabulary = {fixed.get(index, f"[unused{index}]"): index for index in range(size)}
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
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,  # with one, there is nothing to tie its heads to
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        num_queries=6,
        max_text_len=16,
    )
    processor = GroundingDinoProcessor(
        image_processor=GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}),
        tokenizer=BertTokenizerFast(vocab=vocabulary),
    )
    save(folder, GroundingDinoForObjectDetection(config), processor)


def build_owlv2(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
        PreTrainedTokenizerFast,
    )

    ends = ("<start>", "<end>")  # the end has the highest id, which is how OWLv2 finds it
    vocabulary = {word: index for index, word in enumerate(("!", "?", *WORDS, *ends))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(end, vocabulary[end]) for end in ends]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="?", pad_token="!", eos_token=ends[1]
    )
    layers = {**HEADS, "hidden_size": 16, "intermediate_size": 16}
    config = Owlv2Config(
        text_config={
            **layers,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 8,
            "pad_token_id": 0,
            "bos_token_id": vocabulary[ends[0]],
            "eos_token_id": vocabulary[ends[1]],
        },
        vision_config={**layers, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    processor = Owlv2Processor(
        image_processor=Owlv2ImageProcessor(size={"height": 64, "width": 64}), tokenizer=tokenizer
    )
    save(folder, Owlv2ForObjectDetection(config), processor)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "qwen2_vl": build_qwen2_vl,
    "qwen2_5_vl": build_qwen2_5_vl,
    "qwen3_vl": build_qwen3_vl,
    "internvl": build_internvl,
    "kosmos-2": build_kosmos2,
    "florence2": build_florence2,
    "paligemma": build_paligemma,
    "grounding-dino": build_grounding_dino,
    "owlv2": build_owlv2,
}


@pytest.fixture(scope="session")
def peer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of a family, made on first use; tests must not change it."""
    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            BUILDERS[family](made[family])
        return made[family]

    return folder_of


@pytest.fixture(scope="session")
def peer(peer_folder: Callable[[str], Path]) -> Callable[[str], PeerPredictor]:
    """The loaded tiny model of a family; tests must not change it."""
    loaded: dict[str, PeerPredictor] = {}

    def peer_of(family: str) -> PeerPredictor:
        from parfocal.predict.loading import load

        if family not in loaded:
            loaded[family] = load(peer_folder(family), device="cpu")
        return loaded[family]

    return peer_of


@pytest.fixture(scope="session")
def street() -> Image.Image:
    """A picture that is not square, whose sides no family divides evenly."""
    picture = Image.new("RGB", (150, 90), (90, 120, 40))
    picture.paste((250, 40, 30), (30, 20, 80, 60))
    return picture
