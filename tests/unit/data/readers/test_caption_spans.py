"""Phrases by character offsets: equal offsets are one phrase, the longest of several wins."""

from __future__ import annotations

import pytest

from parfocal.boxes import Frame, Warp
from parfocal.data.readers.base import Reader
from parfocal.data.readers.caption_spans import SpanBox, ground_caption
from parfocal.data.readers.pictures import Placed
from parfocal.data.sample import ImageRef
from parfocal.dialects.grounded import Phrase, Text


class EmptyReader(Reader):
    source, licence, files = "empty", "", ()

    def samples(self):
        return iter(())


@pytest.fixture
def reader() -> EmptyReader:
    return EmptyReader([])


@pytest.fixture
def placed() -> Placed:
    upright = Warp.exif(Frame("stored", 100, 60), 1, "image")
    return Placed(ImageRef("a.jpg", 100, 60), upright)


BOX = [0.0, 0.0, 10.0, 10.0]


def words(text) -> list[str]:
    return [phrase.text for phrase in text.phrases]


def test_boxes_with_equal_offsets_are_one_phrase_in_their_order(reader, placed):
    other = [20.0, 0.0, 30.0, 10.0]
    rows = [SpanBox(10, 15, other, 0.5), SpanBox(0, 5, BOX, 0.9), SpanBox(10, 15, BOX, 0.7)]
    text = ground_caption(reader, "a dog and a cat.", rows, placed)
    assert [type(span) for span in text.spans] == [Phrase, Text, Phrase, Text]
    assert text.plain == "a dog and a cat."
    assert text.phrases[1].boxes.to_json() == [other, BOX]
    assert text.phrases[1].boxes.scores.tolist() == [0.5, 0.7]
    assert reader.skipped == {}


def test_scores_are_kept_only_if_every_box_has_one(reader, placed):
    text = ground_caption(reader, "dog", [SpanBox(0, 3, BOX, 0.9), SpanBox(0, 3, BOX)], placed)
    assert len(text.phrases[0].boxes) == 2
    assert text.phrases[0].boxes.scores is None


@pytest.mark.parametrize(
    ("offsets", "kept"),
    [
        ([(3, 8), (0, 5)], ["ab cd"]),  # equally long: the first of the caption
        ([(3, 5), (0, 8)], ["ab cd ef"]),  # inside
        ([(0, 2), (1, 5), (6, 8)], ["b cd", "ef"]),  # the longer of two, and what is apart
        ([(0, 5), (3, 8), (6, 8)], ["ab cd", "ef"]),  # only what is kept stands in the way
        ([(0, 3), (3, 5)], ["ab", "cd"]),  # side by side
    ],
)
def test_the_longest_of_overlapping_phrases_is_kept(reader, placed, offsets, kept):
    for order in (offsets, offsets[::-1]):
        reader.skipped.clear()
        rows = [SpanBox(start, end, BOX) for start, end in order]
        text = ground_caption(reader, "ab cd ef", rows, placed)
        assert words(text) == kept
        assert text.plain == "ab cd ef"
        lost = len(offsets) - len(kept)
        assert reader.skipped == ({"phrases that overlap a longer one": lost} if lost else {})


def test_a_phrase_without_a_box_in_the_picture_does_not_stand_in_the_way(reader, placed):
    rows = [SpanBox(0, 8, [200, 0, 210, 10]), SpanBox(0, 2, BOX)]
    assert words(ground_caption(reader, "ab cd ef", rows, placed)) == ["ab"]
    assert reader.skipped == {"boxes without area inside their picture": 1}


def test_offsets_outside_the_caption_are_counted(reader, placed):
    rows = [SpanBox(*span, BOX) for span in ((0, 9), (-2, 2), (3, 3), (5, 3), (2, 3))]
    text = ground_caption(reader, "ab cd ef", rows, placed)
    assert text.spans == (Text("ab cd ef"),)
    assert reader.skipped == {"boxes of phrases outside their caption": 5}


def test_outer_blanks_are_not_part_of_a_phrase(reader, placed):
    rows = [SpanBox(2, 6, BOX), SpanBox(3, 5, BOX)]
    text = ground_caption(reader, "ab cd ef", rows, placed)
    assert words(text) == ["cd"]
    assert len(text.phrases[0].boxes) == 2
    assert text.plain == "ab cd ef"
