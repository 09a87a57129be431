"""T-C, I-C and T-I: texts, coordinates and object images of the same things."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image

from parfocal.boxes import Boxes, Frame, iou
from parfocal.data.views import ObjectRules, get_view
from parfocal.data.views.draw import Draw
from parfocal.data.views.image_coordinates import ImageCoordinates
from parfocal.data.views.objects import NO_CHOICE
from parfocal.data.views.text_coordinates import TextCoordinates
from parfocal.data.views.text_image import TextImage
from parfocal.dialects.grounded import GroundedText, ObjectRef, Phrase
from parfocal.errors import ConfigError

FRAME = Frame("image", 400, 300)
HAT, MAN, TREE, CAR = [0, 0, 50, 40], [60, 10, 140, 200], [150, 0, 250, 150], [260, 150, 390, 290]
REGIONS = [("hat", HAT), ("man", MAN), ("tree", TREE), ("car", CAR)]
BOXES = Boxes([HAT, MAN, TREE, CAR], FRAME)


def options_of(sample):
    """Letter -> crop of every option, and the letter answered."""
    question, answer = sample.turns[0].text, sample.turns[1].text
    letters = {}
    spans = question.spans
    for before, span in pairwise(spans):
        if isinstance(span, ObjectRef) and (at := re.search(r"(?:^|[ ;])([a-z])\. $", before.text)):
            letters[at[1]] = sample.images[span.image].crop
    chosen = re.fullmatch(r"The answer is ([a-z])\.", answer.plain)
    return letters, chosen[1]


def shows(crop, box):
    """Whether a crop is the box, up to a fifth larger and clipped, about the same centre."""
    scale = max((crop[2] - crop[0]) / (box[2] - box[0]), (crop[3] - crop[1]) / (box[3] - box[1]))
    inside = crop[0] <= box[0] + 1e-9 and crop[1] <= box[1] + 1e-9
    inside &= crop[2] >= box[2] - 1e-9 and crop[3] >= box[3] - 1e-9
    return inside and scale <= 1.2 + 1e-9


def test_texts_and_coordinates_both_ways(annotate, make, asked):
    made, skipped = make(annotate(REGIONS[:2]), TextCoordinates())
    assert [item.turns[1].text for item in made] == [
        GroundedText.of(Phrase("", BOXES[[0]])), GroundedText.of("hat"),
        GroundedText.of(Phrase("", BOXES[[1]])), GroundedText.of("man"),
    ]  # fmt: skip
    assert [item.regions.to_json() for item in made] == [[], [HAT], [], [MAN]]
    assert "hat" in asked(made[0])[0][0]
    assert "[region 0]" in asked(made[1])[0][0]
    assert not skipped


def test_what_is_not_unique_is_still_described(annotate, make):
    made, skipped = make(annotate([("hat", HAT), ("hat", CAR)]), TextCoordinates())
    assert [item.regions.to_json() for item in made] == [[HAT], [CAR]]
    assert skipped == {"phrases that are not unique in their picture": 2}
    assert make(annotate([("hat", HAT), ("hat", CAR)]), TextCoordinates(asks=["to_text"]))[1] == {}


def test_several_boxes_are_located_not_described(annotate, make):
    caption = GroundedText.of(Phrase("two things", BOXES[[0, 3]]))
    (made,), skipped = make(annotate(caption=caption), TextCoordinates())
    assert made.turns[1].text.phrases[0].boxes == BOXES[[0, 3]]
    assert skipped == {"phrases for several boxes, which describe no one region": 1}


def test_in_rounds_each_thing_is_asked_about_once(annotate, make):
    for view in (TextCoordinates(rounds=9), ImageCoordinates(rounds=9)):
        (made,), _ = make(annotate(REGIONS), view)
        assert len(made.turns) == 8


def test_object_images_are_located(annotate, make):
    made, skipped = make(annotate(REGIONS), ImageCoordinates(asks=["to_coordinates"]))
    assert [item.turns[1].text for item in made] == [
        GroundedText.of(Phrase("", BOXES[[row]])) for row in range(4)
    ]
    for item, box in zip(made, (HAT, MAN, TREE, CAR), strict=True):
        (image,) = item.images[1:]
        assert shows(image.crop, box)
        width, height = image.crop[2] - image.crop[0], image.crop[3] - image.crop[1]
        assert (image.width, image.height) == (round(width), round(height))
        assert len(item.regions) == 0
    assert not skipped


@pytest.mark.parametrize("options", [2, 3, 4, 9])
def test_the_truth_is_among_the_options_once_at_its_letter(annotate, make, options):
    letters_seen = Counter()
    for seed in range(8):
        view = ImageCoordinates(asks=["to_image"], options=options)
        made, _ = make(annotate(REGIONS), view, seed)
        assert len(made) == 4
        for item in made:
            letters, chosen = options_of(item)
            assert list(letters) == list("abcd")[: min(options, 4)]
            (box,) = item.regions.to_json()
            assert [letter for letter, crop in letters.items() if shows(crop, box)] == [chosen]
            crops = Boxes(list(letters.values()), FRAME)
            overlaps = iou(crops, crops)
            assert overlaps[overlaps < 0.999].max(initial=0) <= 0.3
            letters_seen[chosen] += 1
    assert set(letters_seen) == set("abcd"[: min(options, 4)])  # no letter is preferred


def test_too_small_too_large_and_too_close(annotate, make):
    whole, strip, dot = [0, 0, 400, 250], [0, 0, 400, 23], [0, 0, 25, 23.9]
    share = 400 * 250 / (400 * 300)
    assert share > 0.75
    made, skipped = make(
        annotate([("a1", whole), ("b1", strip), ("c1", dot), ("man", MAN)]), ImageCoordinates()
    )
    assert len(made) == 1  # the man is located, and has nobody beside him to choose from
    assert skipped == {"objects that are too small or too large to be shown": 3, NO_CHOICE: 1}
    # IoU 70 / 110 before and still more than 0.3 after scaling
    near = [("man", [100, 100, 190, 190]), ("coat", [120, 100, 210, 190])]
    _, skipped = make(annotate(near), ImageCoordinates(asks=["to_image"]))
    assert skipped == {NO_CHOICE: 2}


def test_limits_are_inclusive_and_of_the_box():
    rules = ObjectRules()
    rows = [[0, 0, 25, 24], [0, 0, 24.9, 24], [0, 0, 400, 225], [0, 0, 400, 225.1]]
    # 600 of 120,000 square pixels are 0.005; 225 of 300 pixels are 0.75
    assert rules.usable(Boxes(rows, FRAME)) == [0, 2]
    assert rules.usable(Boxes.empty(FRAME)) == []


def test_crops_are_scaled_about_their_centre_and_stay_inside():
    box = Boxes([[100, 100, 200, 150]], FRAME)
    scales = []
    for seed in range(500):
        crop = ObjectRules().crop(box, Draw(seed))
        assert crop.cxcywh[0, :2].tolist() == pytest.approx([150, 125])
        width, height = crop.cxcywh[0, 2:] / [100, 50]
        assert width == pytest.approx(height)
        scales.append(width)
    assert 1.0 <= min(scales) < 1.005 < 1.195 < max(scales) <= 1.2
    corner = ObjectRules(max_scale=3.0).crop(Boxes([[0, 0, 100, 100]], FRAME), Draw(1))
    assert corner.clip() == corner
    same = ObjectRules(max_scale=1.0).crop(box, Draw(0))
    assert same.to_json() == [pytest.approx([100, 100, 200, 150])]


def test_a_phrase_chooses_its_image(annotate, make):
    for seed in range(8):
        made, skipped = make(annotate(REGIONS), TextImage(asks=["which"], options=3), seed)
        assert not skipped
        for item, (label, box) in zip(made, REGIONS, strict=True):
            assert item.turns[0].text.phrases[0].text == label
            letters, chosen = options_of(item)
            assert [letter for letter, crop in letters.items() if shows(crop, box)] == [chosen]


def test_what_the_phrase_may_mean_too_is_no_wrong_option(annotate, make):
    regions = [("dog", HAT), ("brown dog", MAN), ("dog on a chair", TREE)]
    made, skipped = make(annotate(regions), TextImage(asks=["which"]))
    # "brown dog" and "dog on a chair" are told apart by their words; "dog" may be either
    assert [item.turns[0].text.phrases[0].text for item in made] == ["brown dog", "dog on a chair"]
    assert all(not shows(crop, HAT) for item in made for crop in options_of(item)[0].values())
    assert skipped == {NO_CHOICE: 1}


def test_an_object_image_is_named(annotate, make):
    made, _ = make(annotate(REGIONS), TextImage(asks=["name"]))
    assert [item.turns[1].text.plain for item in made] == ["hat", "man", "tree", "car"]
    assert all(
        shows(item.images[1].crop, box) for item, (_, box) in zip(made, REGIONS, strict=True)
    )


def test_relations_between_object_images(annotate, make):
    sample = annotate(REGIONS, relations=[[1, "washing", 3], [1, "near", 2]])
    made, _ = make(sample, TextImage(asks=["relation"]))
    assert [item.turns[1].text.plain for item in made] == ["washing", "near"]
    assert shows(made[0].images[1].crop, MAN)
    assert shows(made[0].images[2].crop, CAR)


def test_the_missing_object_is_chosen(annotate, make):
    relations = [[1, "washing", 3], [1, "washing", 0], [1, "near", 2]]
    for seed in range(8):
        made, skipped = make(
            annotate(REGIONS, relations=relations), TextImage(asks=["missing"]), seed
        )
        # trees may stand near without being annotated: that is not asked
        assert skipped == {"relations that what is not annotated may also be in": 1}
        for item, box in zip(made, (CAR, HAT), strict=True):
            assert shows(item.images[1].crop, MAN)
            letters, chosen = options_of(item)
            assert shows(letters[chosen], box)
            (wrong,) = [crop for letter, crop in letters.items() if letter != chosen]
            assert shows(wrong, TREE)  # never the other thing that the man washes, nor the man


def test_relations_that_cannot_be_shown(annotate, make):
    regions = [*REGIONS, ("dot", [0, 0, 5, 5]), ("coat", [60, 10, 140, 180])]
    relations = [[1, "washing", 4], [1, "wearing", 5]]
    _, skipped = make(annotate(regions, relations=relations), TextImage(asks=["relation"]))
    assert skipped == {
        "relations of what is too small or too large to be shown": 1,
        "relations of objects that overlap too much to be shown apart": 1,
    }


def test_object_images_open_from_their_picture(annotate, make):
    sample = annotate(REGIONS)
    picture = Image.new("RGB", (400, 300), "white")
    picture.paste((200, 0, 0), tuple(MAN))
    made, _ = make(sample, ImageCoordinates(asks=["to_coordinates"]))
    ref = replace(sample.images[0], pixels=picture)
    shown = replace(made[1], images=(ref, *made[1].images[1:])).open_image(1)
    assert shown.size == (made[1].images[1].width, made[1].images[1].height)
    assert shown.getpixel((shown.width // 2, shown.height // 2)) == (200, 0, 0)


@pytest.mark.parametrize(
    ("view", "options", "message"),
    [
        ("image_coordinates", {"options": 1}, "whole number from 2 to 26"),
        ("image_coordinates", {"options": 27}, "whole number from 2 to 26"),
        ("text_image", {"asks": ["what"]}, "which, name, missing, relation"),
        ("text_coordinates", {"asks": "to_text"}, "to_coordinates, to_text"),
    ],
)
def test_options_are_checked(view, options, message):
    with pytest.raises(ConfigError, match=message):
        get_view(view)(**options)


@pytest.mark.parametrize(
    "rules",
    [{"min_area": 0.8}, {"max_area": 1.5}, {"min_side": 0}, {"max_iou": 1}, {"max_scale": 0.9}],
)
def test_rules_are_checked(rules):
    with pytest.raises(ConfigError, match="must be"):
        ObjectRules(**rules)
