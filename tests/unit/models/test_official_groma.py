"""Groma's prompt with Llama tokenizers of every kind of folder: piece by piece is as good as whole.

The rule of the official code: a conversation is tokenised as one string, with `<sep>` around every
answer, and the `<sep>` are taken out of the ids.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.errors import CheckpointError
from parfocal.models.building import build_processor, token_ids_of
from parfocal.models.checkpoints.official_groma import (
    groma_template,
    groma_tokenizer,
    groma_tokens,
)
from parfocal.models.checkpoints.tokenizer_model import BLANK, is_legacy
from parfocal.models.presets import groma_7b
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.text_batch import IGNORED

FRAME = Frame("image", 160, 120)
SLOTS = 100  # of the preset
ROLES = ("user", "assistant")
SENTENCES = ["A dog runs.", "USER: What is it? ASSISTANT: The dog is red.", "Where is it?"] * 4
TURNS = [
    (GroundedText.of("What is it?"), GroundedText.of("A dog is red.")),
    (GroundedText.of("[grounding]Where is ", Phrase("the dog"), "?"), GroundedText.of("there.")),
    (
        GroundedText.of("Which is ", Phrase("a dog"), "?"),
        GroundedText.of(Phrase("The dog", Boxes([[1, 2, 30, 40]], FRAME)), " is it."),
    ),
]
# turns as the official code writes them
WRITTEN = (
    "USER: What is it? ASSISTANT: <sep>A dog is red.<sep></s>"
    "USER: [grounding]Where is <p>the dog</p>? ASSISTANT: <sep>there.<sep></s>"
    "USER: Which is <p>a dog</p>? "
    "ASSISTANT: <sep><p>The dog</p><roi><ground_box></roi> is it.<sep></s>"
)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    """A byte-pair tokenizer whose pieces write blanks as Llama's do."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, "always", split=False)
    tokenizer.decoder = decoders.Metaspace(BLANK)
    bytes_of = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *bytes_of], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def with_blanks(trained: Tokenizer, legacy: bool) -> Tokenizer:
    """The tokenizer as a version of Llama's: blanks before every piece, or before the first."""
    tokenizer = Tokenizer.from_str(trained.to_str())
    scheme = "always" if legacy else "first"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, scheme, split=False)
    return tokenizer


def write_folder(folder: Path, trained: Tokenizer, kind: str, legacy: bool) -> Path:
    """A folder as different versions of Transformers have written it."""
    tokenizer = with_blanks(trained, legacy)
    if kind == "Llama's class":
        values = json.loads(tokenizer.to_str())["model"]
        merges = [tuple(pair) for pair in values["merges"]]
        LlamaTokenizer(vocab=values["vocab"], merges=merges, legacy=legacy).save_pretrained(folder)
        return folder
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    if kind == "a config that says so":
        path = folder / "tokenizer_config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**values, "legacy": legacy}), encoding="utf-8")
    return folder


KINDS = ["Llama's class", "the general class", "a config that says so"]


@pytest.fixture(params=[(kind, legacy) for kind in KINDS for legacy in (True, False)], ids=str)
def case(request, trained, tmp_path) -> tuple[ParfocalProcessor, list[int], bool]:
    """A processor, the ids of the whole conversation by the official rule, and the version."""
    kind, legacy = request.param
    folder = write_folder(tmp_path, trained, kind, legacy)
    assert is_legacy(folder) is legacy
    tokenizer, config = groma_tokenizer(folder, SLOTS), groma_7b()
    config.token_ids = token_ids_of(tokenizer)
    processor = build_processor(tokenizer, config, groma_template(folder), 2)
    return processor, whole(trained, legacy), legacy


def whole(trained: Tokenizer, legacy: bool) -> list[int]:
    """The turns as the official rule tokenises them, behind a token that ends the opening."""
    tokenizer = with_blanks(trained, legacy)
    marks = [AddedToken("</s>", normalized=False, special=True)]
    marks += [
        AddedToken(name, lstrip=True, rstrip=True, normalized=False) for name in groma_tokens(SLOTS)
    ]
    tokenizer.add_tokens(marks)
    ids = tokenizer.encode("</s>" + WRITTEN, add_special_tokens=False).ids
    start = ids.index(tokenizer.token_to_id("</s>")) + 1  # a blank may stand before the first
    return [token for token in ids[start:] if token != tokenizer.token_to_id("<sep>")]


def packed(processor: ParfocalProcessor) -> tuple[list[int], list[int]]:
    """Ids and labels of the turns, without the prefix."""
    turns = [Turn(role, text) for pair in TURNS for role, text in zip(ROLES, pair, strict=True)]
    image = ImageRef("a.png", 160, 120)
    sample = Sample("x", (image,), tuple(turns), Boxes.empty(FRAME), "groma", "train", "", {})
    batch = processor.pack([sample], [Warp.to_unit(FRAME)])
    prefix = len(processor.prefix_ids())
    return batch.input_ids[0, prefix:].tolist(), batch.labels[0, prefix:].tolist()


def test_pieces_have_the_ids_of_the_whole(case):
    processor, expected, _ = case
    ids, labels = packed(processor)
    assert ids == expected
    assert {label for label in labels if label != IGNORED} <= set(ids)


def test_an_answer_starts_with_a_blank_in_legacy_tokenizers_only(case):
    processor, _, legacy = case
    ids, labels = packed(processor)
    first = next(k for k, label in enumerate(labels) if label != IGNORED)
    piece = processor.tokenizer.convert_ids_to_tokens(ids[first])
    assert piece.startswith(BLANK) is legacy
    assert processor.text(ids[first : labels.index(IGNORED, first)]) == "A dog is red."


def test_what_was_saved_tokenises_as_before(case, tmp_path):
    """Llama's own class would put the blanks back where its version has them."""
    processor, expected, _ = case
    processor.save_pretrained(tmp_path / "saved")
    assert packed(ParfocalProcessor.from_pretrained(tmp_path / "saved"))[0] == expected


def test_a_tokenizer_of_another_family_is_left_as_it_is(tiny_pair, tmp_path):
    tokenizer = tiny_pair[1].tokenizer
    tokenizer.save_pretrained(tmp_path)
    read = groma_tokenizer(tmp_path, 0)
    assert read.encode("Where is it?") == tokenizer.encode("Where is it?")


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_folder_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json .* copy the folder again"):
        is_legacy(tmp_path)
