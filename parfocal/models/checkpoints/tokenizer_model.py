"""Tokenizers of the Llama family from their `tokenizer.model`, without the library that wrote it.

Official folders of that family hold no `tokenizer.json`. The file is a small protocol buffer: its
pieces with their scores are all that byte-pair encoding needs. What a family added to them, such as
the marks of its turns, and which token ends a text, stand in JSON files beside it.

Source: sentencepiece_model.proto of SentencePiece; Transformers 4.32 for what it does with added
tokens and with the blank at the start.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from parfocal.errors import CheckpointError
from parfocal.models.tokenizers import load_tokenizer

FILE_NAME = "tokenizer.model"
BLANK = "\u2581"  # how a piece writes a blank
# enumerations of the file: kinds of a piece, kind of the model
_NORMAL, _USER_DEFINED, _BPE = 1, 4, 2
# what Llama's own class takes where no file says it
_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None}

Start = Literal["always", "first", "never"]
"""Which pieces of text get a blank before them: each, the first of a string, or none."""


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; `kind` is 1 for ordinary ones."""

    text: str
    score: float
    kind: int


def has_tokenizer(folder: Path) -> bool:
    """Say whether a folder holds files that `read_tokenizer` can read."""
    return any((folder / name).is_file() for name in (FILE_NAME, "tokenizer.json"))


def is_legacy(folder: Path) -> bool:
    """Say whether the folder's tokenizer puts a blank before every piece of text.

    Where its config says nothing, as newer versions leave it, `tokenizer.json` tells. Without
    either it does: that is the default of the version that wrote official folders.
    """
    said = _json_of(folder / "tokenizer_config.json").get("legacy")
    if said is not None or (folder / FILE_NAME).is_file():
        return bool(said is None or said)
    steps = _json_of(folder / "tokenizer.json").get("pre_tokenizer")
    return not isinstance(steps, dict) or steps.get("prepend_scheme") != "first"


def _json_of(path: Path) -> dict[str, Any]:
    """The values of a file; none where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError as err:
        raise CheckpointError(f"{path} is not JSON; copy the folder again.") from err
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no names and values; copy the folder again.")
    return values


def read_tokenizer(
    folder: Path, start: Start | None = None, added: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder.

    Args:
        folder: with `tokenizer.json` or `tokenizer.model`. Where it has both, ids and blanks are
            those of the latter, so that a folder means the same with and without the former.
        start: where blanks are put; None: as the folder says. A tokenizer that writes blanks
            otherwise than the Llama family is left as it is.
        added: tokens to add, see `add_tokens`.

    Raises:
        CheckpointError: if there is no tokenizer, or it cannot be read.
    """
    path = folder / FILE_NAME
    if path.is_file():
        start = start or ("always" if is_legacy(folder) else "first")
        tokenizer: PreTrainedTokenizerBase = _build(folder, read_pieces(path), start)
    else:
        tokenizer = load_tokenizer(folder)
        if start is not None:
            tokenizer = _with_blanks(tokenizer, start)
    add_tokens(tokenizer, added)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> None:
    """Add tokens that swallow the blanks around them, in this order; `[PAD]` becomes the padding.

    Tokens that are there already are left as they are.
    """
    known = tokenizer.get_vocab()
    tokenizer.add_tokens(
        [
            AddedToken(name, lstrip=True, rstrip=True, normalized=False)
            for name in names
            if name not in known
        ]
    )
    if "[PAD]" in names:
        tokenizer.pad_token = "[PAD]"


def _build(folder: Path, pieces: Sequence[Piece], start: Start) -> PreTrainedTokenizerFast:
    ids = {piece.text: index for index, piece in enumerate(pieces)}
    if len(ids) != len(pieces):
        raise CheckpointError(f"{FILE_NAME} names a piece twice; copy it again.")
    values = _json_of(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in values:  # before it, the other file had the last word
        values |= _json_of(folder / "special_tokens_map.json")
    default = {role: token if token in ids else None for role, token in _ROLES.items()}
    roles = {role: _content(values.get(role, token)) for role, token in default.items()}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=merges_of(pieces),
            unk_token=roles["unk_token"],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    whole = {
        index: AddedToken(piece.text, normalized=False)
        for index, piece in enumerate(pieces)
        if piece.kind == _USER_DEFINED
    }
    _put_tokens(tokenizer, whole | _stated_tokens(folder, values, set(roles.values())), folder)
    return _wrapped(tokenizer, start, **roles)


def _content(token: Any) -> str | None:
    """The text of a token, which the files write bare or with its settings."""
    return token["content"] if isinstance(token, dict) else token


def _stated_tokens(
    folder: Path, values: dict[str, Any], roles: set[str | None]
) -> dict[int, AddedToken]:
    """Read which tokens were added at which ids: from the config, or an older list.

    Those of the list swallow the blanks around them, but for the ones with a role: so did the
    versions that wrote it.
    """
    try:
        found = {
            int(index): AddedToken(
                name, lstrip=name not in roles, rstrip=name not in roles, normalized=False
            )
            for name, index in _json_of(folder / "added_tokens.json").items()
        }
        for index, token in values.get("added_tokens_decoder", {}).items():
            flags = {name: bool(token.get(name)) for name in ("lstrip", "rstrip", "special")}
            found[int(index)] = AddedToken(token["content"], normalized=False, **flags)
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise CheckpointError(
            f"{folder}: the added tokens of added_tokens.json or tokenizer_config.json cannot be "
            "read; copy the folder again."
        ) from err
    return found


def _put_tokens(tokenizer: Tokenizer, tokens: Mapping[int, AddedToken], folder: Path) -> None:
    tokenizer.add_tokens([token for _, token in sorted(tokens.items())])
    for index, token in tokens.items():
        if tokenizer.token_to_id(token.content) != index:
            raise CheckpointError(
                f"{folder}: {token.content!r} was added as token {index}, but with its {FILE_NAME} "
                f"it is {tokenizer.token_to_id(token.content)}; the files are not of the same "
                "tokenizer. Copy the folder again."
            )


def _with_blanks(tokenizer: PreTrainedTokenizerBase, start: Start) -> PreTrainedTokenizerBase:
    """Return the tokenizer with its blanks put elsewhere, if it is of the Llama family.

    It becomes one of the general class: Llama's own would put them back when it is read again.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None or BLANK not in f"{inner.normalizer!r} {inner.pre_tokenizer!r}":
        return tokenizer
    return _wrapped(inner, start, **{role: getattr(tokenizer, role) for role in _ROLES})


def _wrapped(tokenizer: Tokenizer, start: Start, **roles: str | None) -> PreTrainedTokenizerFast:
    """Put blanks where `start` says, and read pieces back as text."""
    blanks = normalizers.Replace(" ", BLANK)
    first = pre_tokenizers.Metaspace(BLANK, "first", split=False)
    always = normalizers.Sequence([normalizers.Prepend(BLANK), blanks])
    tokenizer.normalizer = {"first": None, "always": always, "never": blanks}[start]
    tokenizer.pre_tokenizer = first if start == "first" else None
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    # tokens that swallow blanks leave none between themselves and words
    steps += [decoders.Replace(Regex(r"(?<=[^\s(])<p>"), " <p>")]
    steps += [decoders.Replace(Regex(rf"{mark}(?=\w)"), f"{mark} ") for mark in ("</roi>", "</p>")]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **roles,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def merges_of(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Return every pair of pieces whose join is a piece, the best join first.

    Example:
        >>> merges_of([Piece("a", 0, 1), Piece("b", -1, 1), Piece("ab", -2, 1)])
        [('a', 'b')]
    """
    normal = {piece.text: index for index, piece in enumerate(pieces) if piece.kind == _NORMAL}
    found = []
    for text, index in normal.items():
        for cut in range(1, len(text)):
            pair = (text[:cut], text[cut:])
            if pair[0] in normal and pair[1] in normal:
                order = (-pieces[index].score, normal[pair[0]], normal[pair[1]])
                found.append((order, pair))
    return [pair for _, pair in sorted(found)]


def read_pieces(path: Path) -> list[Piece]:
    """Read the vocabulary of a `tokenizer.model`.

    Raises:
        CheckpointError: if it is no such file, or not of the byte-pair kind.
    """
    try:
        pieces, kind = _parse(path.read_bytes())
    except (IndexError, ValueError, struct.error, UnicodeDecodeError) as err:
        raise CheckpointError(f"{path} is no SentencePiece model; copy it again.") from err
    if kind != _BPE or not pieces:
        raise CheckpointError(f"{path} is no SentencePiece model of the byte-pair kind.")
    return pieces


def _parse(content: bytes) -> tuple[list[Piece], int]:
    pieces, kind = [], 1
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            inner = dict(_fields(value))
            text, score = inner[1], inner.get(2, b"\0\0\0\0")
            if not isinstance(text, bytes) or not isinstance(score, bytes):
                raise ValueError("a piece has fields of other types")
            pieces.append(
                Piece(text.decode(), struct.unpack("<f", score)[0], int(inner.get(3, _NORMAL)))
            )
        elif number == 2 and isinstance(value, bytes):  # how it was trained
            kind = int(dict(_fields(value)).get(3, kind))
    return pieces, kind


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message: number, and an integer or bytes."""
    place = 0
    while place < len(content):
        key, place = _integer(content, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _integer(content, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _integer(content, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(content):
            raise ValueError("the file is cut")
        yield number, content[place : place + size]
        place += size


def _integer(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
