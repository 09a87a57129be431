from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.data import drawing
from parfocal.data.drawing import (
    PALETTE,
    colour_slots,
    draw_answer,
    draw_boxes,
    ink_on,
    slot_colour,
    span_caption,
)
from parfocal.data.paint import rgb
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef
from parfocal.errors import FrameError, ShapeError

FRAME = Frame("image", 800, 600)


@pytest.fixture
def picture():
    ramp = np.linspace(40, 200, 800 * 600 * 3).reshape(600, 800, 3)
    return Image.fromarray(ramp.astype(np.uint8))


def boxes(*rows, **more):
    return Boxes(list(rows), FRAME, **more)


def changed(before, after):
    return (np.asarray(before) != np.asarray(after)).any(axis=2)


def has_colour(image, colour):
    return bool((np.asarray(image) == rgb(colour)).all(axis=2).any())


def test_only_the_line_changes(picture):
    before = picture.copy()
    mask = changed(picture, draw_boxes(picture, boxes([100, 150, 400, 450])))
    assert mask[150, 200:300].all()
    assert mask[200:300, 100].all()
    assert not mask[165:435, 115:385].any(), "inside"
    mask[135:465, 85:415] = False
    assert not mask.any(), "outside"
    assert picture == before, "the given picture must not change"


def test_same_input_same_pixels(picture):
    many = boxes([10, 10, 200, 300], [100, 150, 400, 450], labels=["a", "b"], scores=[0.5, 0.25])
    assert draw_boxes(picture, many).tobytes() == draw_boxes(picture, many).tobytes()


def test_no_boxes_no_change(picture):
    assert draw_boxes(picture, Boxes.empty(FRAME)) == picture


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((800, 600), (800, 600)),
        ((640, 10), (640, 10)),
        ((320, 200), (640, 400)),
        ((300, 639), (600, 1278)),
        ((1, 1), (640, 640)),
    ],
)
def test_small_pictures_are_enlarged_by_a_whole_factor(size, wanted):
    frame = Frame("image", *size)
    drawn = draw_boxes(Image.new("RGB", size), Boxes([[0, 0, *size]], frame, labels=["all of it"]))
    assert drawn.size == wanted


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_any_mode_becomes_rgb(mode):
    assert draw_boxes(Image.new(mode, (700, 700)), Boxes.empty(Frame("i", 700, 700))).mode == "RGB"


def test_a_box_around_the_whole_picture_can_be_seen(picture):
    mask = changed(picture, draw_boxes(picture, boxes([-30, 0, 900, 600])))
    assert mask[1, 9:-9].all()
    assert mask[9:-9, -2].all()


def test_equal_labels_share_a_colour_and_others_do_not(picture):
    rows = [[20, 100, 120, 200], [220, 100, 320, 200], [420, 100, 520, 200]]
    drawn = draw_boxes(picture, boxes(*rows, labels=["a dog", "A  Dog", "a cat"]))
    first, second, third = (np.asarray(drawn)[200, x] for x in (70, 270, 470))
    assert first.tolist() == second.tolist() != third.tolist()


def test_labels_default_to_name_and_score(picture, monkeypatch):
    seen = []
    place = drawing.place_labels
    monkeypatch.setattr(
        drawing, "place_labels", lambda sizes, *rest: seen.append(sizes) or place(sizes, *rest)
    )
    one = [20, 100, 120, 200]
    draw_boxes(picture, boxes(one, labels=["dog"], scores=[0.871]))
    draw_boxes(picture, boxes(one), labels=["dog 0.87"])
    draw_boxes(picture, boxes(one, scores=[0.871]))
    draw_boxes(picture, boxes(one))
    assert seen[0].tolist() == seen[1].tolist()
    assert 0 < seen[2][0, 0] < seen[0][0, 0]
    assert seen[3].tolist() == [[0, 0]]


def test_boxes_of_another_frame_are_refused(picture):
    unit = Boxes([[0.1, 0.1, 0.5, 0.5]], Frame("unit", 1, 1))
    with pytest.raises(FrameError, match=r"'unit' \(1x1\), the picture is 800x600"):
        draw_boxes(picture, unit)
    with pytest.raises(FrameError, match="Warp"):
        draw_answer(picture, GroundedText.of(Phrase("a", unit)))


def test_one_colour_and_label_per_box(picture):
    with pytest.raises(ShapeError, match="labels has 2 entries for 1 boxes"):
        draw_boxes(picture, boxes([1, 2, 30, 40]), labels=["a", "b"])
    with pytest.raises(ShapeError, match="colours has 0 entries"):
        draw_boxes(picture, boxes([1, 2, 30, 40]), colours=[])


def test_slots_follow_words_and_skip_what_has_no_boxes():
    one = boxes([1, 2, 30, 40])
    phrases = [
        Phrase("a cat"),
        Phrase("A dog", one),
        Phrase("", one),
        Phrase("a  dog"),
        Phrase("", one),
        Phrase("a hat", one),
    ]
    assert colour_slots(phrases) == [None, 0, 1, 0, 2, 3]


def test_palette_repeats():
    assert slot_colour(len(PALETTE)) == PALETTE[0]
    assert len(set(PALETTE)) == len(PALETTE)


def test_ink_is_readable():
    assert ink_on("#000000") == "#FFFFFF"
    assert ink_on("#FFFFFF") != "#FFFFFF"


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (Phrase("a dog", boxes([1, 2, 3, 4])), "a dog"),
        (Phrase("", boxes([1.4, 2.6, 30, 40])), "[1, 3, 30, 40]"),
        (Phrase("", boxes([1, 2, 3, 4], [1, 2, 3, 4])), "2 boxes"),
        (Phrase(""), ""),
        (RegionRef(2), "[region 2]"),
        (Nothing("blue dog"), "no blue dog"),
    ],
)
def test_captions(span, words):
    assert span_caption(span) == words


def test_an_answer_adds_a_strip_in_the_colours_of_its_boxes(picture):
    dog = Phrase("a dog", boxes([100, 150, 400, 450], scores=[0.9]))
    text = GroundedText.of("There is ", dog, ". Nothing else, ", Nothing("cat"), ".")
    drawn = draw_answer(picture, text, question="What is there?")
    assert drawn.width == 800
    strip = drawn.crop((0, 600, *drawn.size))
    assert drawn.height > 600
    assert has_colour(strip, slot_colour(0))
    assert not has_colour(strip, slot_colour(1))
    above = drawn.crop((0, 0, 800, 600))
    assert above == draw_boxes(picture, dog.boxes, labels=["a dog 0.90"])


def test_long_texts_wrap_and_words_without_blanks_break(picture):
    short = draw_answer(picture, GroundedText.of("one line"))
    lines = draw_answer(picture, GroundedText.of("one\ntwo\nthree"))
    long = draw_answer(picture, GroundedText.of(Phrase("word " * 200, boxes([1, 2, 30, 40]))))
    solid = draw_answer(picture, GroundedText.of("x" * 500))
    assert short.height < lines.height < solid.height < long.height
    margin = np.asarray(solid.crop((780, 610, 800, solid.height)))
    assert (margin == margin[0, 0]).all(), "text must not run off the paper"


def test_a_word_that_is_too_wide_keeps_its_place():
    logo = Phrase("logo", boxes([1, 2, 30, 40]))
    text = GroundedText.of("See the ", logo, ":" + "a" * 90, " end")
    rows = list(drawing._wrap(drawing._pieces(text, [0], 16), 300))
    said = "".join(piece.text for row in rows for piece in row)
    assert said.replace(" ", "") == "Seethelogo:" + "a" * 90 + "end"


def test_narrow_pictures_get_paper_wide_enough_to_read():
    drawn = draw_answer(Image.new("RGB", (40, 900)), GroundedText.of("some words to read"))
    assert drawn.width >= 300


def test_the_paper_of_long_pictures_is_no_wider_than_they_are():
    drawn = draw_answer(Image.new("RGB", (400, 8000)), GroundedText.of("some words to read"))
    assert drawn.width == 400
    assert drawn.height < 8200


def test_regions_are_drawn_in_their_own_colour(picture):
    text = GroundedText.of("It is ", RegionRef(0))
    drawn = draw_answer(picture, text, regions=boxes([100, 150, 400, 450]))
    assert has_colour(drawn.crop((0, 0, 800, 600)), drawing.REGION_COLOUR)
    assert has_colour(drawn.crop((0, 600, *drawn.size)), drawing.REGION_COLOUR)


def test_an_empty_text_is_only_paper(picture):
    assert draw_answer(picture, GroundedText()).crop((0, 0, 800, 600)) == picture
