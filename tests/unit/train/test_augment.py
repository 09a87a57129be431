"""Augmentation: boxes stay on what they enclose, whatever is drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.errors import ConfigError, FrameError
from parfocal.images import image_frame
from parfocal.train.augment import AUGMENTS, DetectionAugment, augment, learnable, visible

SMALL = DetectionAugment(short_sides=(30, 45, 60), long_side=150, crop_sides=(24, 70))
STILL = DetectionAugment(short_sides=(40,), crop_sides=(100, 100), flip_share=0.0)
PAPER = DetectionAugment()


def painted(size_wh: tuple[int, int], *boxes: tuple[int, int, int, int]) -> tuple:
    """A black picture with white rectangles, and their boxes."""
    image = Image.new("RGB", size_wh)
    for box in boxes:
        image.paste((255, 255, 255), box)
    return image, Boxes(list(boxes), image_frame(image))


@st.composite
def pictures(draw, low: int = 12, high: int = 110) -> tuple:
    """A picture with one rectangle of 6 pixels or more a side."""
    spans = []
    for _ in range(2):
        side = draw(st.integers(low, high))
        length = draw(st.integers(6, side))
        first = draw(st.integers(0, side - length))
        spans.append((side, first, first + length))
    (width, x1, x2), (height, y1, y2) = spans
    return painted((width, height), (x1, y1, x2, y2))


SEEDS = st.integers(0, 2**32 - 1)


def seeded(picture, seed: int, how: DetectionAugment):
    return augment(*picture, np.random.default_rng(seed), how)


def white(image: Image.Image) -> list[int] | None:
    """The box x1, y1, x2, y2 around everything bright; None if there is nothing."""
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 127)
    if not len(rows):
        return None
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@settings(max_examples=120)
@given(pictures(), SEEDS)
def test_a_box_is_where_its_rectangle_is(picture, seed) -> None:
    image, boxes = seeded(picture, seed, SMALL)
    assert boxes.frame == image_frame(image)
    assert len(boxes) == 1  # a crop without it is not taken
    seen, (x1, y1, x2, y2) = white(image), boxes.xyxy[0].tolist()
    if seen is None:
        assert min(x2 - x1, y2 - y1) < 2  # a sliver at the edge of the crop
        return
    inside = (seen[0] - x1, seen[1] - y1, x2 - seen[2], y2 - seen[3])
    assert min(inside) > -1
    if min(x2 - x1, y2 - y1) >= 2:
        assert max(inside) < 1


@settings(max_examples=60)
@given(pictures(), SEEDS)
def test_boxes_stay_inside_and_sizes_are_those_of_the_settings(picture, seed) -> None:
    image, boxes = seeded(picture, seed, SMALL)
    assert (boxes.xyxy >= 0).all()
    assert (boxes.xyxy[:, 2:] <= image.size).all()
    assert (boxes.area > 0).all()
    whole = sizes(picture[0].size, SMALL)
    assert max(image.size) <= 70 or image.size in whole
    assert min(image.size) >= min(24, *map(min, whole))


def sizes(size_wh: tuple[int, int], how: DetectionAugment) -> list[tuple[int, int]]:
    """What a picture may be resized to."""
    found = []
    for short in how.short_sides:
        factor = min(short / min(size_wh), how.long_side / max(size_wh))
        found.append(tuple(max(1, int(side * factor + 0.5)) for side in size_wh))
    return found


@settings(max_examples=30)
@given(pictures(), SEEDS)
def test_the_same_seed_gives_the_same_and_the_input_is_left_alone(picture, seed) -> None:
    image, boxes = picture
    before = image.tobytes()
    one, other = seeded(picture, seed, SMALL), seeded(picture, seed, SMALL)
    assert one[0].tobytes() == other[0].tobytes()
    assert one[1] == other[1]
    assert image.tobytes() == before
    assert boxes.frame == image_frame(image)


def test_other_seeds_give_other_pictures() -> None:
    picture = painted((90, 60), (20, 10, 60, 50))
    made = [seeded(picture, seed, SMALL) for seed in range(12)]
    assert len({image.tobytes() for image, _ in made}) > 8
    assert len({image.size for image, _ in made}) > 6


def test_the_papers_sizes_are_drawn_with_both_ends() -> None:
    picture = painted((60, 40), (0, 0, 60, 40))
    how = dataclasses.replace(PAPER, short_sides=(40, 60), crop_sides=(50, 52))
    seen = {seeded(picture, seed, how)[0].size for seed in range(60)}
    # as it is, 40 high: cropped to 50, 51 or 52 across; enlarged to 90 x 60: cropped both ways
    assert {size for size in seen if size[1] == 40} == {(50, 40), (51, 40), (52, 40)}
    large = {size for size in seen if size[1] != 40}
    assert {width for width, _ in large} == {height for _, height in large} == {50, 51, 52}


def test_the_long_side_has_the_last_word() -> None:
    picture = painted((3, 2000), (0, 100, 3, 1900))
    image, _ = seeded(picture, 0, dataclasses.replace(PAPER, crop_tries=0))
    assert image.size == (6, 4200)


@pytest.mark.parametrize("seed", range(6))
def test_a_picture_smaller_than_the_crop_is_whole(seed) -> None:
    picture = painted((9, 6), (2, 1, 7, 5))
    how = dataclasses.replace(SMALL, short_sides=(6,), flip_share=0.0)
    image, boxes = seeded(picture, seed, how)
    assert image.tobytes() == picture[0].tobytes()
    assert boxes == picture[1]


@pytest.mark.parametrize("seed", range(3))
def test_the_paper_enlarges_small_pictures_first(seed) -> None:
    picture = painted((30, 20), (3, 4, 27, 18))
    image, boxes = seeded(picture, seed, AUGMENTS["groma_detection"])
    assert 400 <= image.height <= 600
    assert 448 <= image.width <= 896
    assert white(image) == pytest.approx(boxes.xyxy[0].tolist(), abs=1)


def test_a_flip_mirrors_both_exactly() -> None:
    picture = painted((50, 40), (5, 3, 20, 30), (10, 8, 50, 12))
    image, boxes = seeded(picture, 0, dataclasses.replace(STILL, flip_share=1.0))
    assert image.tobytes() == picture[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert boxes.to_json() == [[30, 3, 45, 30], [0, 8, 40, 12]]


def test_what_is_cut_off_goes_with_its_label_and_the_rest_stays_in_order() -> None:
    corners = [(0, 0, 8, 8), (92, 0, 100, 8), (0, 92, 8, 100), (92, 92, 100, 100)]
    image, boxes = painted((100, 100), *corners)
    boxes = boxes.replace(labels=list("abcd"), scores=[0, 1, 2, 3])
    how = DetectionAugment(short_sides=(100,), crop_sides=(60, 99), flip_share=0.0)
    counts = set()
    for seed in range(20):
        _, found = seeded((image, boxes), seed, how)
        names = "".join(found.labels)
        counts.add(len(names))
        assert list(names) == sorted(names)
        assert found.scores.tolist() == ["abcd".index(name) for name in names]
    assert counts >= {1, 2}


def test_a_crop_always_holds_a_part_of_a_box() -> None:
    picture = painted((100, 100), (0, 0, 30, 30))
    how = DetectionAugment(short_sides=(100,), crop_sides=(30, 40), crop_tries=200)
    for seed in range(20):
        image, boxes = seeded(picture, seed, how)
        assert max(image.size) <= 40
        assert len(boxes) == 1


def test_where_no_crop_holds_a_box_there_is_none() -> None:
    picture = painted((100, 100), (99, 99, 100, 100))
    how = DetectionAugment(short_sides=(100,), crop_sides=(30, 30), crop_tries=3, flip_share=0.0)
    image, boxes = seeded(picture, 1, how)
    assert image.tobytes() == picture[0].tobytes()
    assert boxes == picture[1]


def test_boxes_outside_the_picture_are_not_invented() -> None:
    image = Image.new("RGB", (50, 40))
    boxes = Boxes([[60, 10, 70, 20], [10, -9, 20, -1], [-5, 10, 5, 20]], image_frame(image))
    assert seeded((image, boxes), 0, STILL)[1].to_json() == [[0, 10, 5, 20]]
    _, none = seeded((image, boxes[:2]), 0, STILL)
    assert len(none) == 0
    assert len(seeded((image, Boxes.empty(image_frame(image))), 0, SMALL)[1]) == 0


def test_boxes_of_another_picture_are_refused() -> None:
    image = Image.new("RGB", (50, 40))
    with pytest.raises(FrameError, match="50x40"):
        seeded((image, Boxes([[0, 0, 5, 5]], Frame("image", 51, 40))), 0, SMALL)


def test_visible_cuts_and_drops() -> None:
    frame = Frame("image", 10, 10)
    boxes = Boxes([[-2, 4, 6, 14], [3, 3, 3, 9], [11, 0, 12, 5]], frame, labels=["a", "b", "c"])
    assert visible(boxes) == Boxes([[0, 4, 6, 10]], frame, labels=["a"])


@pytest.mark.parametrize(
    ("width", "height", "other", "sa1b"),
    [
        (2, 100, False, True), (2.1, 2.1, True, False), (100, 2, False, True),
        (14, 14, True, False), (14, 14.1, True, True), (400, 400, True, False),
        (400, 399, True, True), (448, 448, True, False),
    ],
)  # fmt: skip
def test_which_boxes_are_learned(width, height, other, sa1b) -> None:
    boxes = Boxes([[0, 0, width, height]], Frame("input", 448, 448))
    assert learnable(boxes, PAPER, sa1b=False).tolist() == [other]
    assert learnable(boxes, PAPER, sa1b=True).tolist() == [sa1b]


@pytest.mark.parametrize(
    "wrong", [{"short_sides": ()}, {"short_sides": (0,)}, {"crop_sides": (9, 8)}, {"long_side": 0}]
)
def test_impossible_sides_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DetectionAugment(**wrong)
