"""Boxes among words: fractions of the padded square or of the picture, and which of the two."""

from __future__ import annotations

import pytest

from parfocal.boxes import Frame, Warp
from parfocal.data.readers.pictures import Placed
from parfocal.data.readers.text_boxes import FLAT, MISFIT, FrameTest, TextBoxes
from parfocal.data.sample import ImageRef
from parfocal.dialects import GroundedText, Phrase, Text


def placed(width: int, height: int, orientation: int = 1) -> Placed:
    """A picture as stored, and how it is turned."""
    warp = Warp.exif(Frame("stored", width, height), orientation)
    return Placed(ImageRef("a", int(warp.target.width), int(warp.target.height)), warp)


def boxes_of(text: GroundedText | str) -> list[list[float]]:
    assert isinstance(text, GroundedText)
    return [row for phrase in text.phrases for row in phrase.boxes.to_json()]


@pytest.mark.parametrize(
    ("frame", "size_wh", "words", "expected"),
    [
        # side 640, 80 above: 0.25 * 640 - 80
        ("padded", (640, 480), "[0.1, 0.25, 0.5, 0.875]", [64, 80, 320, 480]),
        # side 640, (640 - 427) // 2 = 106 left
        ("padded", (427, 640), "[0.3, 0.1, 0.6, 0.55]", [86, 64, 278, 352]),
        ("padded", (50, 50), "[0.3, 0.1, 0.6, 0.55]", [15, 5, 30, 27.5]),
        ("image", (640, 480), "[0.1, 0.25, 0.5, 0.875]", [64, 120, 320, 420]),
        ("image", (427, 640), "[0, 0, 1, 1.0]", [0, 0, 427, 640]),
        # rounding to two decimals carries 0.125 to 0.13 and 0.12: the latter is cut at the edge
        ("padded", (640, 480), "[0.0, 0.12, 1.0, 0.5]", [0, 0, 640, 240]),
    ],
)
def test_numbers_become_pixels(frame, size_wh, words, expected):
    (found,) = boxes_of(TextBoxes(frame).read(words, placed(*size_wh)))
    assert found == pytest.approx(expected, abs=1e-6)


def test_words_around_boxes_stay():
    text = TextBoxes("image").read(
        "Region: [0.1, 0.2, 0.5, 0.6]\nIs it a dog [0.1,0.2,0.3,0.4]?", placed(100, 100)
    )
    assert isinstance(text, GroundedText)
    assert text.plain == "Region: \nIs it a dog?"
    assert [phrase.text for phrase in text.phrases] == ["", "a dog"]
    assert text.spans[0] == Text("Region: ")


def test_boxes_turn_with_the_picture():
    # stored 100x60, turned a quarter clockwise: (x, y) -> (60 - y, x)
    text = TextBoxes("padded").read("a dog [0.1, 0.4, 0.3, 0.5]", placed(100, 60, 6))
    (found,) = boxes_of(text)
    assert found == pytest.approx([60 - 30, 10, 60 - 20, 30], abs=1e-6)
    assert isinstance(text, GroundedText)
    assert text.phrases[0].boxes.frame == Frame("image", 60, 100)


@pytest.mark.parametrize("words", [
    "none", "No [box].", "[12, 40, 310, 255]", "[0.1, 0.2, 0.3]", "[0.1, 0.2, 0.3, 0.4, 0.5]",
    "a [0.1, 0.2, 0.3, 0.4] and a list [1, 2, 3, 4]", "cut [0.1, 0.2, 0.3, 0.",
])  # fmt: skip
def test_other_words_are_left_alone(words):
    assert TextBoxes("padded").read(words, placed(640, 480)) == GroundedText.of(words)


def test_text_is_left_alone_on_request():
    words = "[0.1, 0.25, 0.5, 0.875]"
    assert TextBoxes("text").read(words, placed(640, 480)) == GroundedText.of(words)


@pytest.mark.parametrize(
    ("frame", "words", "reason"),
    [
        pytest.param("padded", "[0.1, 0.11, 0.5, 0.6]", MISFIT, id="reaches into the padding"),
        pytest.param("padded", "[0.1, 0.0, 0.5, 0.1]", MISFIT, id="lies in the padding"),
        pytest.param("image", "[0.1, 0.0, 0.5, 1.02]", MISFIT, id="leaves the picture"),
        pytest.param("image", "[0.5, 0.2, 0.1, 0.4]", MISFIT, id="swapped corners"),
        pytest.param("image", "[0.5, 0.2, 0.5, 0.4]", FLAT, id="no width"),
        pytest.param("image", "[0.5, 0.2, 0.501, 0.202]", FLAT, id="less than a pixel"),
        pytest.param("padded", "[0.1, 0.121, 0.5, 0.124]", FLAT, id="nothing left inside"),
        pytest.param("image", "[0.1, 0.1, 0.5, 0.4] [0.5, 0.2, 0.5, 0.4]", FLAT, id="one of two"),
    ],
)
def test_boxes_that_cannot_be_right_are_named(frame, words, reason):
    assert TextBoxes(frame).read(words, placed(640, 480)) == reason


def test_the_frame_test_tells_the_frames_apart():
    unpadded = TextBoxes("padded")
    padded = TextBoxes("image")
    lows = [step / 200 for step in range(100)]
    unpadded.read(" ".join(f"[0.1, {y:.3f}, 0.6, {y + 0.4:.3f}]" for y in lows), placed(640, 480))
    # the same boxes after padding: y * 0.75 + 0.125
    squared = [(y * 0.75 + 0.125, y * 0.75 + 0.425) for y in lows]
    padded.read(" ".join(f"[0.1, {y:.3f}, 0.6, {z:.3f}]" for y, z in squared), placed(640, 480))
    assert (unpadded.test.tested, unpadded.test.padded) == (100, False)
    assert (padded.test.tested, padded.test.outside, padded.test.padded) == (100, 0, True)


def test_the_frame_test_looks_at_oblong_pictures_only():
    words = TextBoxes("padded")
    words.read("[0.1, 0.0, 0.5, 1.0]", placed(100, 100))
    words.read("[0.1, 0.0, 0.5, 1.0]", placed(100, 99))
    assert words.test == FrameTest(0, 0)
    words.read("[0.0, 0.1, 1.0, 0.5][0.3, 0.1, 0.7, 0.5]", placed(60, 100))
    assert words.test == FrameTest(2, 1)
    assert words.test.padded is None


def test_a_box_keeps_its_phrase():
    text = TextBoxes("image").read("The man in the hat [0.1, 0.2, 0.5, 0.6] waves.", placed(10, 10))
    assert isinstance(text, GroundedText)
    assert isinstance(text.spans[0], Phrase)
    assert text.spans[0].text == "The man in the hat"
