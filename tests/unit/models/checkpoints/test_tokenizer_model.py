"""Tokenizers of folders that hold a `tokenizer.model` and, beside it, tokens that were added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.official_groma import groma_tokenizer, groma_tokens
from parfocal.models.checkpoints.official_mg_llava import template_name
from parfocal.models.checkpoints.tokenizer_model import read_tokenizer
from tests.unit.models.test_convert_official import write_sentencepiece

SIZE = 60
MARKS = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>")  # as Phi-3 has them, and more


def write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def flags(content: str, **more: bool) -> dict[str, Any]:
    """A token as the files write it."""
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content, **plain, **more}


def phi3_folder(folder: Path) -> Path:
    """Llama's pieces, marks of turns beside them, and another end than Llama's."""
    write_sentencepiece(folder / "tokenizer.model", SIZE)
    added = {str(SIZE + index): flags(mark, rstrip=True) for index, mark in enumerate(MARKS)}
    roles = {"bos_token": "<s>", "eos_token": MARKS[0], "pad_token": MARKS[0], "legacy": False}
    write(folder / "tokenizer_config.json", {"added_tokens_decoder": added, **roles})
    return folder


def both_files(folder: Path) -> Path:
    """The same with the `tokenizer.json` that newer folders have as well."""
    read_tokenizer(phi3_folder(folder)).backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("folder", [phi3_folder, both_files])
def test_added_tokens_keep_their_ids_and_roles(folder, tmp_path):
    tokenizer = read_tokenizer(folder(tmp_path))
    assert tokenizer.convert_tokens_to_ids(list(MARKS)) == [60, 61, 62, 63]
    assert (tokenizer.bos_token, tokenizer.unk_token) == ("<s>", "<unk>")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (60, 60)
    assert template_name(tokenizer) == "phi3_chat"
    ids = tokenizer.encode("<|user|>\na<|end|>", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|user|>", "a", "<|end|>"]
    tokenizer.save_pretrained(tmp_path / "saved")
    again = read_tokenizer(tmp_path / "saved")
    assert again.encode("<|user|>\na<|end|>", add_special_tokens=False) == ids
    assert (again.eos_token_id, again.pad_token_id) == (60, 60)


def test_a_piece_may_be_what_the_config_calls_a_token(tmp_path):
    """Yi has its marks among the pieces, and roles of other names than Llama's."""
    write_sentencepiece(tmp_path / "tokenizer.model", SIZE)
    content = (tmp_path / "tokenizer.model").read_bytes()
    content = content.replace(b"<s>", b"<a>").replace(b"</s>", b"</a>")
    (tmp_path / "tokenizer.model").write_bytes(content)
    assert read_tokenizer(tmp_path).bos_token is None
    added = {"1": flags("<a>"), "2": flags("</a>")}
    roles = {"bos_token": flags("<a>"), "eos_token": "</a>"}
    write(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": added, **roles})
    tokenizer = read_tokenizer(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (1, 2, SIZE)
    assert tokenizer.encode("a</a>", add_special_tokens=False)[-1] == 2


def test_pieces_that_a_user_defined_are_whole(tmp_path):
    write_sentencepiece(tmp_path / "tokenizer.model", SIZE)
    content = (tmp_path / "tokenizer.model").read_bytes()
    at = content.index(b"\x03<s>")
    kind = content.index(b"\x18\x03", at) + 1
    (tmp_path / "tokenizer.model").write_bytes(content[:kind] + b"\x04" + content[kind + 1 :])
    write(tmp_path / "special_tokens_map.json", {"bos_token": "</s>"})  # the older file is read too
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.bos_token == "</s>"
    assert 1 in tokenizer.encode("a<s>b", add_special_tokens=False)


@pytest.mark.parametrize("legacy", [True, False])
def test_groma_has_the_same_ids_with_its_list_of_added_tokens_and_without(legacy, tmp_path):
    """The official folders hold the list; a language model's folder does not."""
    write_sentencepiece(tmp_path / "tokenizer.model", SIZE)
    write(tmp_path / "tokenizer_config.json", {"legacy": legacy})
    bare = groma_tokenizer(tmp_path, 100)
    ids = {name: SIZE + index for index, name in enumerate(groma_tokens())}
    write(tmp_path / "added_tokens.json", ids)
    write(tmp_path / "special_tokens_map.json", {"bos_token": flags("<s>"), "pad_token": "[PAD]"})
    listed = groma_tokenizer(tmp_path, 100)
    assert listed.get_vocab() == bare.get_vocab()
    text = "see <p> a dog </p> <roi><r3></roi> and.</s>"
    assert listed.encode(text) == bare.encode(text)
    assert (listed.pad_token, listed.pad_token_id) == ("[PAD]", SIZE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{}", "added_tokens"), ("null", "NoneType"), ('{"added_tokens": [], "model": 3}', "variant")],
    ids=["empty", "null", "no model"],
)
def test_a_damaged_tokenizer_is_refused_in_a_sentence(content, reason, tmp_path):
    """Transformers, and the library under it, raise whatever these files lead to."""
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(CheckpointError, match=rf"no tokenizer.*{reason}.*Copy the") as caught:
        read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({str(SIZE + 1): flags("<|end|>")}, r"'<\|end\|>' was added as token 61.* it is 60"),
        ({"5": flags("<s>")}, "'<s>' was added as token 5.* it is 1"),
        ({"x": flags("<|end|>")}, "cannot be read"),
        ({"60": {"lstrip": True}}, "cannot be read"),
    ],
)
def test_added_tokens_that_do_not_fit_are_refused(values, message, tmp_path):
    write_sentencepiece(tmp_path / "tokenizer.model", SIZE)
    write(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": values})
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer(tmp_path)
