"""Groma's Flickr30k Entities: phrases by offsets, boxes [x, y, width, height]."""

from __future__ import annotations

import json

import pytest

from parfocal.data.readers.groma_flickr import GromaFlickrReader
from parfocal.errors import DataError

FILE = "groma/flickr_entities_train.json"


def test_every_caption_with_its_boxes(datasets, read_all):
    reader = GromaFlickrReader([datasets / FILE], split="train")
    samples = read_all(reader)
    # x, y, x + width, y + height, worked by hand
    expected = [
        [
            ("A dog", [[20, 30, 80, 75]]),
            ("a cat", [[90, 40, 120, 70]]),
            ("the red car", [[100, 60, 140, 100], [5, 60, 45, 110]]),
        ],
        [
            ("A red square", [[10, 20, 40, 40]]),
            ("a blue block", [[60, 5, 90, 55], [10, 20, 40, 40]]),
        ],
        [("Un gar\xe7on", [[9, 9, 20, 20]]), ("une \xe9charpe", [[9, 9, 20, 20]])],
        [],
        [("two men", [[1, 1, 11, 11]]), ("a man in the yard", [[2, 2, 12, 12]])],
        [],  # offsets outside the caption
        [],  # a box outside the picture
        [("a cat", [[10, 20, 25.5, 50.25]]), ("a dog", [[50, 90, 60, 100]])],  # clipped
        [("a caption", [[0, 0, 60, 100]])],
        [("dog", [[6, 7, 14, 16]])],  # offsets count characters, not bytes
    ]
    assert len(samples) == len(expected)
    for sample, truth in zip(samples, expected, strict=True):
        (turn,) = sample.turns
        assert turn.role == "assistant"
        assert [phrase.text for phrase in turn.text.phrases] == [text for text, _ in truth]
        for phrase, (_, rows) in zip(turn.text.phrases, truth, strict=True):
            for box, row in zip(phrase.boxes.to_json(), rows, strict=True):
                assert box == pytest.approx(row, abs=1e-6), phrase.text
    assert samples[0].turns[0].text.plain == "A dog and a cat run past the red car."
    assert samples[6].turns[0].text.plain == "Out of the picture."
    assert samples[0].id == "groma_flickr:train:flickr_entities_train:0"
    assert samples[0].meta == {"image_key": "flickr:36979"}
    assert reader.skipped == {
        "captions without words": 1,
        "phrases that overlap a longer one": 2,
        "boxes of phrases outside their caption": 2,
        "boxes without area inside their picture": 1,
    }


def test_pictures_in_their_folder(datasets, make_pictures):
    root = make_pictures({"flickr30k-images/36979.jpg": (500, 375)})
    reader = GromaFlickrReader([datasets / FILE], images=root)
    assert {s.images[0].path for s in reader} == {"flickr30k-images/36979.jpg"}
    assert reader.skipped["pictures that are not in the folder"] == 4


@pytest.mark.parametrize("spans", [[[0]], [["0", 5]], [0, 5], [[0.0, 5.0]], [[True, 5]]])
def test_offsets_of_another_form_are_refused(tmp_path, spans):
    entry = {"id": 7, "file_name": "1.jpg", "width": 100, "height": 60, "caption": "a dog"}
    row = {"id": 5, "image_id": 7, "bbox": [1, 2, 3, 4], "tokens_positive": spans}
    (tmp_path / "a.json").write_text(json.dumps({"images": [entry], "annotations": [row]}))
    with pytest.raises(DataError, match="entry 7 of `images`: tokens_positive is"):
        list(GromaFlickrReader([tmp_path / "a.json"]))
