"""The small tokenizer: any text comes back, markup is one token each."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parfocal.dialects import get_dialect
from parfocal.models.settings import PromptTemplate
from parfocal.models.tokenizers import END, IMAGE, PAD, train_tokenizer

TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>", end=END)
SENTENCES = ["the red apple on the left", "what do you see?"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, get_dialect("region_tokens"), TEMPLATE, 7, 350)


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def decode(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@settings(max_examples=150)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(tokenizer, text):
    assume(not any(mark in text for mark in tokenizer.get_added_vocab()))
    assert decode(tokenizer, encode(tokenizer, text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "  two  blanks , and . marks ",
        "don't can't it's n't",
        "\u00e9\u4e2d\U0001f34e\n\ttab",
        "<p>a red apple</p><roi><r3><r0></roi> <roi><r1></roi><refer_feat>",
        "<user>[grounding]what<answer>no</p>" + END,
    ],
    ids=["blanks", "contractions", "other scripts", "markup", "a turn"],
)
def test_spacing_and_markup_come_back(tokenizer, text):
    assert decode(tokenizer, encode(tokenizer, text)) == text


def test_every_mark_is_one_token(tokenizer):
    marks = [PAD, END, "<user>", "<answer>", *get_dialect("region_tokens").special_tokens]
    for mark in marks:
        assert len(encode(tokenizer, f"{mark}")) == 1, mark
        assert len(encode(tokenizer, f"a{mark}b")) == 3, mark


@pytest.mark.parametrize("dialect", ["region_tokens", "coordinates", "plain"])
def test_every_dialect_has_a_place_for_pictures(dialect):
    small = train_tokenizer(SENTENCES, get_dialect(dialect), TEMPLATE, 2, 350)
    assert len(encode(small, "<image>")) == 1


def test_region_names_have_consecutive_ids_at_the_end(tokenizer):
    ids = [encode(tokenizer, f"<r{index}>") for index in range(7)]
    assert ids == [[len(tokenizer) - 7 + index] for index in range(7)]
    assert len(encode(tokenizer, "<r7>")) > 1


def test_trained_words_are_shorter_than_bytes_and_the_size_is_kept(tokenizer):
    assert len(tokenizer) <= 350
    assert len(encode(tokenizer, " apple")) < len(" apple")
    assert len(encode(tokenizer, "zzzz")) == 4


def test_padding_and_end(tokenizer):
    assert (tokenizer.pad_token, tokenizer.eos_token) == (PAD, END)
    assert tokenizer.padding_side == "left"


def test_training_twice_gives_the_same(tokenizer):
    again = train_tokenizer(SENTENCES, get_dialect("region_tokens"), TEMPLATE, 7, 350)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_a_template_without_marks_adds_none():
    plain = train_tokenizer(SENTENCES, get_dialect("plain"), PromptTemplate(), 0, 300)
    assert set(plain.get_added_vocab()) == {PAD, END, IMAGE}
