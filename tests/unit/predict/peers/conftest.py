"""Tiny models of the real classes of every peer, saved with their processors as a hub folder is.

Tokenizers spell bytes, so that any text is read and written as it is; marks of a family are one
token each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.unit import tiny_folders
from tests.unit.tiny_folders import ENDS, HEADS, PLACES, byte_tokenizer

if TYPE_CHECKING:
    from parfocal.predict.peers.verbs import PeerPredictor

SIZE = {"height": 28, "width": 28}
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
QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
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


def save(folder: Path, model: Any, processor: Any, **generation: Any) -> None:
    """Write a folder; answers are short unless `generation` says otherwise."""
    for name, value in {"max_new_tokens": 6, **generation}.items() if model.can_generate() else ():
        setattr(model.generation_config, name, value)
    tiny_folders.save(folder, tiny_folders.fill(model), processor)


def rope(sections: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, **more}


def build_qwen(
    folder: Path,
    names: tuple[str, str],
    patch: int,
    system: bool,
    text: dict[str, Any],
    vision: dict[str, Any],
    **generation: Any,
) -> None:
    """One generation of Qwen-VL.

    Args:
        folder: where to.
        names: what the generation's classes start with, and what its video processor's does.
        patch: its side, pixels.
        system: the template has a system prompt of its own.
        text: fields of the text config that differ.
        vision: likewise.
        generation: of the checkpoint.
    """
    import transformers
    from transformers import Qwen2VLImageProcessor

    kind, video = names
    tokenizer = byte_tokenizer(QWEN_MARKS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    config = getattr(transformers, f"{kind}Config")(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            **text,
        },
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, **vision},
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in QWEN_IDS.items()},
    )
    # Areas: small enough that a picture of the tests is made smaller.
    size = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 12 * (2 * patch) ** 2}
    settings = {"size": size, "patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    processor = getattr(transformers, f"{kind}Processor")(
        image_processor=Qwen2VLImageProcessor(**settings),
        tokenizer=tokenizer,
        video_processor=getattr(transformers, f"{video}VideoProcessor")(**settings),
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>", system),
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    save(folder, model, processor, **generation)


def build_qwen2_vl(folder: Path) -> None:
    text, vision = {"rope_parameters": rope([1, 1, 2])}, {"embed_dim": 16, "mlp_ratio": 1}
    build_qwen(folder, ("Qwen2VL", "Qwen2VL"), 14, True, text, vision)


def build_qwen2_5_vl(folder: Path) -> None:
    vision = {
        "intermediate_size": 16,
        "out_hidden_size": 16,
        "window_size": 56,
        "fullatt_block_indexes": [0],
    }
    # Published checkpoints sample and punish repetition; a predictor must not.
    chance = {"do_sample": True, "temperature": 0.1, "repetition_penalty": 1.05}
    text = {"rope_parameters": rope([1, 1, 2])}
    build_qwen(folder, ("Qwen2_5_VL", "Qwen2VL"), 14, True, text, vision, **chance)


def build_qwen3_vl(folder: Path) -> None:
    text = {"head_dim": 8, "rope_parameters": rope([2, 1, 1], mrope_interleaved=True)}
    vision = {
        "intermediate_size": 16,
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    build_qwen(folder, ("Qwen3VL", "Qwen3VL"), 16, False, text, vision)


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

    tokenizer = byte_tokenizer((), tuple(ENDS.values()), **ENDS)
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
    tokenizer = byte_tokenizer(
        PLACES, tuple(ENDS.values()), extra_special_tokens={"image_token": "<image>"}, **ENDS
    )
    save(folder, *tiny_folders.tiny_florence2(tokenizer, forced_bos_token_id=0))


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


def build_grounding_dino(folder: Path) -> None:
    save(folder, *tiny_folders.tiny_grounding_dino())


def build_owlv2(folder: Path) -> None:
    save(folder, *tiny_folders.tiny_owlv2())


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
