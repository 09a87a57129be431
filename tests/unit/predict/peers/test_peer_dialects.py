"""Checkpoints that speak another dialect than their family: asked and read in it where told so."""

from __future__ import annotations

import re

import numpy as np
import pytest

import parfocal
from parfocal.boxes import Boxes, Frame
from parfocal.dialects import DIALECTS, View
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.errors import ConfigError, DialectError
from parfocal.predict.peers.confidence import Said, score_boxes
from parfocal.predict.peers.forms import BOX_FORMS
from tests.unit.predict.peers.test_peers import ANSWER, BOX, WRITES, reads

REX = "<|object_ref_start|>red car<|object_ref_end|><|box_start|><200><300><599><899><|box_end|>"
REX_BOX = [200 / 999 * 150, 300 / 999 * 90, 599 / 999 * 150, 899 / 999 * 90]


@pytest.fixture(scope="module")
def rex(peer_folder):
    return parfocal.load(peer_folder("qwen2_5_vl"), device="cpu", dialect="rex_omni")


def test_a_named_dialect_is_asked_in_and_read(rex, street, monkeypatch):
    seen = reads(monkeypatch, rex, REX)
    answer = rex.locate(street, "red car")
    question = "Detect red car. Output the bounding box coordinates in [x0, y0, x1, y1] format."
    assert seen[0].endswith(question + ANSWER)
    assert [phrase.text for phrase in answer.phrases] == ["red car"]
    np.testing.assert_allclose(answer.boxes.xyxy, [REX_BOX])
    assert answer.problems == ()


def test_boxes_of_the_user_are_written_in_it(rex, street, monkeypatch):
    seen = reads(monkeypatch, rex, "a red car")
    rex.describe(street, [BOX])
    assert "Describe <|box_start|><199><299><599><899><|box_end|>." in seen[0]


def test_boxes_of_it_have_confidences(rex, street, monkeypatch):
    """As if every token had had the same probability."""
    ids = rex.processor.tokenizer(REX, add_special_tokens=False)["input_ids"]
    said = Said(REX, True, tuple(ids), (0.25,) * len(ids), rex._decode)
    monkeypatch.setattr(rex, "generate", lambda *_, **__: [said])
    np.testing.assert_allclose(rex.locate(street, "red car").boxes.scores, [0.25])


def test_no_output_decides_what_is_spoken(rex, peer, street, monkeypatch):
    """The family's own form is nothing to a checkpoint of another, and the other way round."""
    reads(monkeypatch, rex, WRITES["qwen2_5_vl"][0])
    assert len(rex.locate(street, "red car").boxes) == 0
    one = peer("qwen2_5_vl")
    reads(monkeypatch, one, REX)
    answer = one.locate(street, "red car")
    assert len(answer.boxes) == 0
    assert answer.problems


def test_numbers_of_the_preprocessor_s_frame_are_fractions_of_what_it_makes(
    peer_folder, street, monkeypatch
):
    one = parfocal.load(peer_folder("qwen2_5_vl"), device="cpu", dialect="coordinates")
    reads(monkeypatch, one, "a red car [0.200, 0.300, 0.600, 0.900]")
    np.testing.assert_allclose(one.locate(street, "a red car").boxes.xyxy, [BOX])


def test_words_alone_take_no_boxes(peer_folder, street):
    one = parfocal.load(peer_folder("qwen3_vl"), device="cpu", dialect="plain")
    with pytest.raises(ConfigError, match="which region is meant"):
        one.ask(street, "What is it?", [BOX])
    assert not one.ask(street, "What is it?", max_new_tokens=1).phrases


def test_the_family_s_own_dialect_may_be_named(peer_folder):
    one = parfocal.load(peer_folder("paligemma"), device="cpu", dialect="paligemma")
    assert one.dialect.name == "paligemma"


@pytest.mark.parametrize(
    ("family", "dialect", "error", "message"),
    [
        ("qwen2_5_vl", "rex", DialectError, r"'rex' is not known\. Dialects: .*rex_omni"),
        ("qwen2_5_vl", "region_tokens", ConfigError, r"beside the words.*rex_omni"),
        ("internvl", "glamm", ConfigError, "beside the words"),
        ("qwen3_vl", "qwen2_5_vl", ConfigError, "what the preprocessor makes of a picture"),
        ("florence2", "qwen3_vl", ConfigError, "Florence-2 is asked for its own tasks.*chat model"),
        ("kosmos-2", "qwen3_vl", ConfigError, "Kosmos-2 is asked for its own tasks"),
        ("owlv2", "qwen3_vl", ConfigError, "OWLv2 writes no text and has no dialect"),
    ],
)
def test_what_cannot_be_spoken_is_told_before_weights_are_read(
    family, dialect, error, message, peer_folder, monkeypatch
):
    def read(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr("parfocal.predict.peers.generation.load_parts", read)
    monkeypatch.setattr("parfocal.predict.peers.detectors.load_detector", read)
    with pytest.raises(error, match=message):
        parfocal.load(peer_folder(family), device="cpu", dialect=dialect)


def test_our_own_models_say_what_they_speak(tiny_pair, tmp_path):
    for part in tiny_pair:
        part.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"trained in the dialect 'region_tokens'.*'qwen3_vl'"):
        parfocal.load(tmp_path, device="cpu", dialect="qwen3_vl")
    loaded = parfocal.load(tmp_path, device="cpu", dialect="region_tokens")
    assert loaded.processor.dialect.name == "region_tokens"


# where boxes stand in an output


def test_every_dialect_that_writes_boxes_has_a_form():
    assert set(BOX_FORMS) == {name for name, one in DIALECTS.items() if one.writes_boxes}


@pytest.mark.parametrize("name", BOX_FORMS)
def test_every_box_is_as_sure_as_its_own_tokens(name):
    """An output a character a token; the second box is half as likely as the first."""
    dialect, frame = DIALECTS[name], Frame("image", 640, 480)
    view = View(frame, dialect.coordinate_frame(frame))
    rows = [[40, 60, 240, 300], [320, 120, 600, 360]]
    alone = [
        dialect.render(GroundedText.of(Phrase("a cat", Boxes([row], frame))), view) for row in rows
    ]
    text = GroundedText.of(Phrase("a cat", Boxes(rows, frame)))
    output = dialect.render(text, view)
    parsed = dialect.parse(output, view)
    assert not parsed.problems
    (found,) = parsed.text.phrases
    assert len(found.boxes) == 2
    second = output.rindex(_last_number(alone[1]))
    likely = tuple(0.5 if place < second else 0.25 for place in range(len(output)))
    tokens = tuple(map(ord, output))
    said = Said(output, False, tokens, likely, lambda ids: "".join(map(chr, ids)))
    (scored,) = score_boxes(parsed.text, said, dialect, view).phrases
    first, last = scored.boxes.scores
    assert first == pytest.approx(0.5)
    assert 0.25 < last < 0.5, "its last number alone is less likely"


def _last_number(output: str) -> str:
    """The run of digits that ends the box of an output."""
    return re.findall(r"\d+", output)[-1]
