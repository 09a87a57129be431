"""Groma's GRIT: fractions of a size that only the pictures tell."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.groma_grit import GromaGritReader
from parfocal.errors import DataError

FILE = "groma/grit_filtered_10m.json"
SIZES = {
    "00000/000000001.jpg": (100, 60),
    "00000/000000002.jpg": (200, 150),
    "00000/000000003.jpg": (100, 100),
    "00001/000010000.jpg": (100, 60),
    "00001/000010001.jpg": (100, 60),
    "00001/000010002.jpg": (100, 60),
    "000010004.jpg": (100, 60),  # without its folder
    "00001/000010005.jpg": (80, 40),
    "00001/000010006.jpg": (100, 60),
}


def test_every_row_with_its_boxes(datasets, make_pictures, read_all):
    reader = GromaGritReader([datasets / FILE], images=make_pictures(SIZES))
    samples = read_all(reader)
    # fractions times width and height, worked by hand
    expected = {
        0: [("A red square", [[10, 15, 40, 45]]), ("a blue block", [[60, 7.5, 90, 54]])],
        1: [
            ("a dog", [[20, 30, 100, 90]]),
            ("a man", [[80, 15, 180, 142.5], [10, 75, 60, 135]]),
        ],
        2: [("a dog in a field of flowers", [[25, 25, 50, 75]])],
        3: [("Caf\xe9", [[0, 30, 50, 60]])],
        4: [],
        7: [("short", [[50, 30, 75, 45]])],
        8: [("a cup", [[10, 10, 30, 20]])],
        9: [("one score", [[0, 0, 50, 30], [50, 30, 100, 60]])],
    }
    assert [sample.id for sample in samples] == [f"groma_grit:{number}" for number in expected]
    for sample, truth in zip(samples, expected.values(), strict=True):
        phrases = sample.turns[0].text.phrases
        assert [phrase.text for phrase in phrases] == [text for text, _ in truth]
        for phrase, (_, rows) in zip(phrases, truth, strict=True):
            for box, row in zip(phrase.boxes.to_json(), rows, strict=True):
                assert box == pytest.approx(row, abs=1e-6), phrase.text
    scores = [phrase.boxes.scores for phrase in samples[1].turns[0].text.phrases]
    assert [score.tolist() for score in scores] == [[0.93], [0.88, 0.71]]
    assert samples[0].turns[0].text.phrases[0].boxes.scores is None  # the rows have none
    assert samples[7].turns[0].text.phrases[0].boxes.scores is None  # one row has none
    assert samples[0].meta == {"image_key": "grit:00000/000000001.jpg"}
    assert samples[5].images[0].path == "000010004.jpg"
    assert reader.skipped == {
        "rows without a caption": 1,
        "pictures that are not in the folder": 1,
        "phrases that overlap a longer one": 1,
        "boxes of phrases outside their caption": 2,
        "boxes without area inside their picture": 1,
    }


def test_pictures_are_needed(datasets):
    with pytest.raises(DataError, match="Give the folder of the pictures"):
        list(GromaGritReader([datasets / FILE]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"filename": "a.jpg", "caption": "a dog"}, r"row 0 \(from 0\) lacks ref_exps"),
        ({"filename": "a.jpg", "caption": 3, "ref_exps": []}, "caption is 3, must be str"),
        ("a dog", "is 'a dog', must be an object"),
        ({"filename": "a.jpg", "caption": "a dog", "ref_exps": [[0, 5]]}, "a phrase is"),
    ],
)
def test_bad_rows_are_named(tmp_path, make_pictures, row, message):
    (tmp_path / "a.json").write_text(json.dumps([row]))
    root = make_pictures({"a.jpg": (100, 60)})
    with pytest.raises(DataError, match=rf"a\.json: row 0.*{message}|{message}"):
        list(GromaGritReader([tmp_path / "a.json"], images=root))
