"""Groma's official folders: which stage they are of, their tokenizer and their prompt.

Source: FoundationVision/Groma; the prompt is its conversation templates "llava" (instructions) and
"default" (alignment), the tokens those of its constants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from parfocal.dialects import get_dialect
from parfocal.dialects.region_tokens import region_token
from parfocal.errors import CheckpointError
from parfocal.models.building import build_processor
from parfocal.models.checkpoints.groma import OfficialConstants, groma_config
from parfocal.models.checkpoints.tokenizer_model import add_tokens, is_legacy, read_tokenizer
from parfocal.models.config import ParfocalConfig
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import PromptTemplate

STAGES = ("auto", "finetune", "pretrain", "detector")

# arguments of the next stage's script, which the detector's own config does not hold
DETECTOR_SETTINGS: Mapping[str, Any] = {
    "num_new_token": 114, "nms_thres": 0.6, "box_score_thres": 0.15, "max_region_num": 100,
}  # fmt: skip
# a language model for a detector that is asked for boxes only
DUMMY_TEXT: Mapping[str, Any] = {
    "vocab_size": 3, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 1,
}  # fmt: skip

_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
_THANKS = ". ASSISTANT: Thank you for the image! How can I assist you with it?"
GROMA_CHAT = PromptTemplate(
    bos="once",
    opening=f"{_SYSTEM} USER: Here is an image with region crops from it. Image:",
    between=". Regions:",
    ready=f"{_THANKS}</s>",
    user="USER: ",
    assistant=" ASSISTANT:",
    end="</s>",
    packing="sequence",
)


def config_values(folder: Path) -> dict[str, Any]:
    """Read config.json; empty where there is none.

    Raises:
        CheckpointError: if it is not JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as err:
        raise CheckpointError(f"{file} is not JSON ({err}); copy the folder again.") from err
    return values if isinstance(values, dict) else {}


def is_groma(values: Mapping[str, Any]) -> bool:
    """Say whether a config.json is of an official folder, the detector's included."""
    return values.get("model_type") in ("groma", "ddetr")


def is_detector(values: Mapping[str, Any]) -> bool:
    """Say whether a config.json is of the detector of the first training stage."""
    return values.get("model_type") == "ddetr"


def official_config(
    values: Mapping[str, Any],
    text: Mapping[str, Any] | None = None,
    constants: OfficialConstants | None = None,
) -> ParfocalConfig:
    """Translate an official config; the detector's is put into one with a language model.

    Args:
        values: of config.json.
        text: sizes of the Llama that a detector is put before; None: Vicuna-7B's.
        constants: of models made with other numbers in the code than the published ones.
    """
    if is_detector(values):
        values = {"llm_cfg": dict(text or {}), "perceiver_cfg": dict(values), **DETECTOR_SETTINGS}
    return groma_config(values, constants)


def groma_tokens(slots: int = 100) -> tuple[str, ...]:
    """Return the tokens that Groma adds to its language model's, in the order of their ids."""
    markup = get_dialect("region_tokens").special_tokens
    return ("[PAD]", *markup, *(region_token(index) for index in range(slots)))


def groma_tokenizer(folder: Path, slots: int) -> PreTrainedTokenizerBase:
    """Read a language model's tokenizer and add Groma's tokens.

    One that is not legacy puts a blank before a string, but not before every piece after a token.
    Here pieces are tokenised on their own, so it puts none, and the prompt holds that blank. An
    answer is such a piece: in training the token <sep> stood before it, swallowed the blank of
    "ASSISTANT: " and was taken out again. tests/parity/test_groma_prompts.py pins all of it.
    """
    start = "always" if is_legacy(folder) else "never"
    return read_tokenizer(folder, start, groma_tokens(slots))


def groma_template(folder: Path, stage: str = "finetune") -> PromptTemplate:
    """Return the prompt for the tokenizer of `folder`.

    Args:
        folder: of the tokenizer, see `groma_tokenizer`.
        stage: `pretrain` never learned a mark at the end of answers.
    """
    values, legacy = GROMA_CHAT.to_dict(), is_legacy(folder)
    if stage == "pretrain":
        # no token stands before the first question, but <sep> stood before every later one
        values.update(ready=_THANKS, end="", first=None if legacy else " USER: ")
    if not legacy:
        values["opening"] = " " + values["opening"]
    return PromptTemplate.from_dict(values)


def groma_processor(
    config: ParfocalConfig, folder: Path, image_tokens: int, stage: str
) -> ParfocalProcessor:
    """Build the processor of a converted model.

    Args:
        config: of the model.
        folder: of the tokenizer.
        image_tokens: that a picture takes.
        stage: as in `groma_template`.

    Raises:
        CheckpointError: if the tokenizer gives other ids than the weights have.
    """
    slots = config.text_config.vocab_size - config.token_ids.first_region
    tokenizer, ids = groma_tokenizer(folder, slots), config.token_ids
    wanted = {
        "<image>": ids.image, "<region>": ids.region, "<refer_feat>": ids.region_feature,
        "<ground_box>": ids.ground_box, region_token(0): ids.first_region,
    }  # fmt: skip
    found = {token: tokenizer.convert_tokens_to_ids(token) for token in wanted}
    if found != wanted:
        raise CheckpointError(
            f"the tokenizer of {folder} gives the ids {found}, the weights have {wanted}; they are "
            "not of the same checkpoint."
        )
    return build_processor(tokenizer, config, groma_template(folder, stage), image_tokens)


def detector_processor(config: ParfocalConfig, image_tokens: int) -> ParfocalProcessor:
    """Build the processor of a detector without a language model: it prepares pictures."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>")
        ),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )
    add_tokens(tokenizer, groma_tokens())
    return build_processor(tokenizer, config, GROMA_CHAT, image_tokens)
