"""Referring expressions against a brute-force reading of the same words (see conftest)."""

from __future__ import annotations

import numpy as np
import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.data.scenes.expressions import AREA_RATIO, MARGIN, referring_expressions

FRAME = Frame("image", 193, 151)  # 5 % of 193 is no multiple of half a pixel: no knife-edge layouts
WORDS = ("dog", "red car", "blue car", "top hat", "apple")


def layout(seed: int) -> tuple[list[str], Boxes]:
    """Between no and eight objects of few names, on a coarse grid so that ties are common."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 9))
    names = [WORDS[int(index)] for index in rng.integers(len(WORDS), size=count)]
    corners = rng.integers(0, 12, (count, 2)) * 9
    sides = rng.choice([17, 20, 23, 31, 40], (count, 2))
    xyxy = np.concatenate((corners, corners + sides), axis=1).reshape(-1, 4)
    return names, Boxes(xyxy, FRAME)


@pytest.mark.parametrize("start", range(0, 600, 150))
def test_finds_exactly_what_brute_force_finds(start, meanings):
    for seed in range(start, start + 150):
        names, boxes = layout(seed)
        found = referring_expressions(names, boxes)
        ours = {item.text: [item.target] for item in found}
        assert len(ours) == len(found), f"seed {seed}: a phrase appears twice"
        theirs = {text: hits for text, hits in meanings(names, boxes).items() if len(hits) == 1}
        assert ours == theirs, f"seed {seed}"


def test_random_layouts_meet_every_relation():
    seen = {item.relation for seed in range(120) for item in referring_expressions(*layout(seed))}
    assert seen == {
        "name", "leftmost", "rightmost", "topmost", "bottommost", "second from the left",
        "second from the right", "largest", "smallest", "left of", "right of", "above", "below",
    }  # fmt: skip


def test_twin_flag_and_relation_say_what_the_words_rely_on():
    for seed in range(200):
        names, boxes = layout(seed)
        for item in referring_expressions(names, boxes):
            assert item.twin == (names.count(names[item.target]) > 1), (seed, item)
            bare = item.text == names[item.target]
            assert bare == (item.relation == "name"), (seed, item)
            assert bare or item.relation in item.text


def side_by_side(gap: float, width: float = 20) -> Boxes:
    """Two boxes in one row whose centres are `gap` apart in a picture of 200 x 100."""
    frame = Frame("image", 200, 100)
    return Boxes([[10, 10, 30, 30], [10 + gap, 10, 10 + gap + width, 30]], frame)


@pytest.mark.parametrize(
    ("gap", "clear"),
    [(9, False), (11, True)],
    ids=["closer than 5 % of the longer side", "further than 5 % of the longer side"],
)
def test_places_need_a_margin(gap, clear):
    assert MARGIN == 0.05
    texts = {item.text for item in referring_expressions(["dog", "dog"], side_by_side(gap))}
    assert ({"leftmost dog", "rightmost dog"} <= texts) == clear
    assert clear or not texts
    texts = {item.text for item in referring_expressions(["dog", "car"], side_by_side(gap))}
    assert ("dog left of the car" in texts) == clear
    assert {"dog", "car"} <= texts


@pytest.mark.parametrize(
    ("width", "clear"), [(25, False), (27, True)], ids=["1.25 times as large", "1.35 times"]
)
def test_sizes_need_a_ratio(width, clear):
    assert AREA_RATIO == 1.3
    found = referring_expressions(["dog", "dog"], side_by_side(100, width))
    sizes = {item.text: item.target for item in found if item.relation in ("largest", "smallest")}
    assert sizes == ({"largest dog": 1, "smallest dog": 0} if clear else {})


def test_equal_objects_on_one_spot_get_no_expression():
    boxes = Boxes([[10, 10, 30, 30]] * 3, Frame("image", 100, 100))
    assert referring_expressions(["dog"] * 3, boxes) == []


def test_a_landmark_with_a_twin_is_no_landmark():
    boxes = Boxes([[0, 0, 10, 10], [40, 40, 50, 50], [80, 80, 90, 90]], Frame("image", 100, 100))
    texts = {item.text for item in referring_expressions(["dog", "car", "car"], boxes)}
    assert "dog" in texts
    assert not any(text.endswith("the car") for text in texts)
    assert "leftmost car" in texts


def test_one_twin_on_the_line_makes_a_relation_ambiguous():
    frame = Frame("image", 100, 100)
    line = [48, 0, 52, 10]
    clear = Boxes([[0, 0, 10, 10], [80, 0, 90, 10], line], frame)
    near = Boxes([[0, 0, 10, 10], [44, 0, 50, 10], line], frame)
    names = ["dog", "dog", "car"]
    assert "dog left of the car" in {item.text for item in referring_expressions(names, clear)}
    assert "dog left of the car" not in {item.text for item in referring_expressions(names, near)}


def test_second_place_needs_three():
    frame = Frame("image", 100, 100)
    row = [[0, 0, 10, 10], [40, 0, 50, 10], [80, 0, 90, 10]]
    three = {
        item.text: item.target for item in referring_expressions(["dog"] * 3, Boxes(row, frame))
    }
    assert three["dog second from the left"] == three["dog second from the right"] == 1
    two = referring_expressions(["dog"] * 2, Boxes(row[:2], frame))
    assert not any("second" in item.text for item in two)


def test_order_is_fixed_and_nothing_gives_nothing():
    names, boxes = layout(7)
    assert referring_expressions(names, boxes) == referring_expressions(tuple(names), boxes)
    assert referring_expressions([], Boxes.empty(FRAME)) == []
