"""Groma Instruct: markup becomes spans, placeholders take their boxes in order."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.groma_instruct import GromaInstructReader
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef, Text
from parfocal.errors import DataError

FILE = "groma/groma_instruct.json"
SQUARE, BLOCK = [10, 20, 40, 40], [60, 5, 90, 55]  # x, y, x + width, y + height


@pytest.fixture
def samples(datasets, read_all):
    reader = GromaInstructReader([datasets / FILE], split="train")
    found = {sample.id.rpartition(":")[2]: sample for sample in read_all(reader)}
    found["skipped"] = dict(reader.skipped)
    return found


def boxes(text: GroundedText) -> list[tuple[str, list[list[float]]]]:
    return [(phrase.text, phrase.boxes.to_json()) for phrase in text.phrases]


def test_phrases_take_the_boxes_of_their_placeholders(samples):
    question, answer = samples["0"].turns
    assert (question.role, answer.role) == ("user", "assistant")
    assert question.text == GroundedText.of("What is next to the red square?")
    assert answer.text.plain == "Next to the red square stands a blue block."
    assert boxes(answer.text) == [("the red square", [SQUARE]), ("a blue block", [BLOCK])]
    assert samples["0"].meta == {"image_key": "vg:1"}
    first, second = (turn.text for turn in samples["1"].turns if turn.role == "assistant")
    assert boxes(first) == [
        ("a dog", [[5, 5, 35, 35]]),
        ("two trees", [[20, 30, 80, 75], [100, 60, 140, 100]]),
    ]
    assert boxes(second) == [("the dog", [[5, 5, 35, 35]])]
    assert boxes(samples["9"].turns[1].text) == [
        ("one", [[0.5, 1.25, 11, 21.5]]),
        ("the same", [[0.5, 1.25, 11, 21.5]]),
    ]


def test_what_the_user_points_at_are_regions(samples):
    sample = samples["2"]
    assert sample.regions.to_json() == [BLOCK, SQUARE]  # in the order they are pointed at
    assert sample.turns[0].text == GroundedText.of(
        "What is ", RegionRef(0), ", and what is ", RegionRef(1), "?"
    )
    assert boxes(sample.turns[1].text) == [("A block", [BLOCK])]
    assert sample.turns[2].text == GroundedText.of("And ", RegionRef(0), "?")  # the same box again
    assert sample.turns[3].text == GroundedText.of("The block again.")


def test_bare_boxes_blanks_and_phrases_to_be_found(samples):
    assert boxes(samples["3"].turns[1].text) == [("", [BLOCK, SQUARE])]
    assert samples["4"].turns[0].text == GroundedText.of("D\xe9crivez l'image.")
    answer = samples["4"].turns[1].text
    assert boxes(answer) == [("un carr\xe9", [SQUARE])]
    assert answer.plain.strip() == "un carr\xe9 pr\xe8s du bord"
    assert samples["6"].turns[0].text == GroundedText.of("Is there ", Phrase("a cat"), "?")


def test_boxes_are_clipped_and_phrases_without_one_are_plain(samples):
    answer = samples["5"].turns[1].text
    assert boxes(answer) == [("the edge", [[0, 50, 20, 60]])]
    assert answer.spans[1] == Text(", the line")
    assert list(samples) == ["0", "1", "2", "3", "4", "5", "6", "9", "10", "skipped"]
    assert samples["skipped"] == {
        "boxes without area inside their picture": 2,
        "conversations with an empty turn": 1,
        "conversations about a region outside their picture": 1,
    }


def test_no_markup_is_left(samples):
    del samples["skipped"]
    for sample in samples.values():
        for turn in sample.turns:
            assert "<" not in turn.text.plain and "[grounding]" not in turn.text.plain


def test_pictures_in_their_folder(datasets, make_pictures):
    root = make_pictures({"VG_100K/1.jpg": (100, 60), "2370806.jpg": (500, 375)})
    reader = GromaInstructReader([datasets / FILE], images=root)
    assert {s.images[0].path for s in reader} == {"VG_100K/1.jpg", "2370806.jpg"}
    assert reader.skipped["pictures that are not in the folder"] == 1


def turn(value: str, *indices: int) -> dict:
    return {"value": value, "box_inds": list(indices)}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (turn("<p>a</p><roi><ground_box></roi>"), "1 box placeholders and 0 box_inds"),
        (turn("<p>a</p><roi><ground_box></roi>", 0, 0), "1 box placeholders and 2 box_inds"),
        ({"value": "none", "box_inds": 3}, "box_inds 3, must be a list"),
        (turn("none", 0), "0 box placeholders and 1 box_inds"),
        (turn("<roi><ground_box></roi>", 1), "box_inds has 1, the row has 1 boxes"),
        (turn("<roi><ground_box></roi>", -1), "box_inds has -1"),
        (turn("<roi><ground_box></roi>", True), "box_inds has True"),
        (turn("<p>a</p><roi></roi>"), "'<roi></roi>' holds no box"),
        (turn("<p>a<roi><ground_box></roi>", 0), "markup that cannot be read: '<p>'"),
        (turn("<ground_box>", 0), "markup that cannot be read"),
        (turn("<image> a dog"), "'<image>' stands alone"),
        (turn("<roi><r3></roi>"), "holds <r3>"),
        ({"text": "a dog"}, "lacks value; it has text"),
        ("a dog", "is 'a dog', must be an object"),
    ],
)
def test_rows_that_break_a_rule_are_named(tmp_path, answer, message):
    good = {"file_name": "1.jpg", "width": 100, "height": 60, "boxes": [[1, 2, 3, 4]]}
    rows = [
        good | {"conversation": [turn("What?"), turn("<roi><ground_box></roi>", 0)]},
        good | {"conversation": [turn("What?"), answer]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=rf"a\.json: row 1 \(from 0\), turn 1.*{message}"):
        list(GromaInstructReader([tmp_path / "a.json"]))


def test_bad_boxes_are_named(tmp_path):
    row = {"file_name": "1.jpg", "width": 100, "height": 60, "boxes": [[1, 2]], "conversation": []}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"row 0 \(from 0\): the box is \[1, 2\]"):
        list(GromaInstructReader([tmp_path / "a.json"]))
