from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data.paint import HIDDEN, fill, place_labels, rgb, stroke, widen_labels


def overlap(*corners_and_sizes):
    corner_a, size_a, corner_b, size_b = map(np.asarray, corners_and_sizes)
    low = np.maximum(corner_a, corner_b)
    high = np.minimum(corner_a + size_a, corner_b + size_b)
    return float(np.prod(np.clip(high - low, 0, None)))


def test_a_stroke_of_whole_pixels_is_exact():
    pixels = np.zeros((40, 60, 3), np.uint8)
    stroke(pixels, np.array([10.0, 10.0, 50.0, 30.0]), 0.0, 2.0, "#FF8000")
    wanted = np.zeros((40, 60), bool)
    wanted[9:31, 9:51] = True
    wanted[11:29, 11:49] = False
    corners = np.zeros((40, 60), bool)  # the distance to a corner rounds it: partly covered
    corners[[9, 9, 30, 30], [9, 50, 9, 50]] = True
    painted = (pixels == [255, 128, 0]).all(axis=2)
    assert (painted | corners).tolist() == (wanted | corners).tolist()
    assert not pixels[~(wanted | corners)].any()


def test_a_stroke_in_bands_equals_a_stroke_in_one_piece():
    """The bands around a large box paint what a plain evaluation over all pixels would."""
    box, radius, width = np.array([13.3, 8.1, 180.7, 120.2]), 6.0, 3.0
    pixels = np.zeros((140, 200, 3), np.uint8)
    stroke(pixels, box, radius, width, "#FFFFFF")
    ys, xs = np.mgrid[:140, :200] + 0.5
    half, centre = (box[2:] - box[:2]) / 2, (box[2:] + box[:2]) / 2
    qx, qy = abs(xs - centre[0]) - half[0] + radius, abs(ys - centre[1]) - half[1] + radius
    away = np.hypot(qx.clip(0), qy.clip(0)) + np.maximum(qx, qy).clip(None, 0) - radius
    expected = np.rint(255 * np.clip(width / 2 + 0.5 - abs(away), 0, 1))
    assert np.abs(pixels[..., 0] - expected).max() <= 1
    assert expected.max() == 255


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([-50, -50, -20, -20], id="outside"),
        pytest.param([-50, -50, 500, 500], id="around"),
        pytest.param([5, 5, 5, 5], id="a point"),
        pytest.param([-5, 3, 8, 500], id="across two edges"),
    ],
)
def test_boxes_beyond_the_picture_are_cut(box):
    pixels = np.full((20, 30, 3), 7, np.uint8)
    stroke(pixels, np.array(box, float), 3.0, 2.0, "#000000")
    fill(pixels, np.array(box, float), 3.0, "#000000", 0.5)
    assert pixels.shape == (20, 30, 3)


def test_fill_blends_by_alpha():
    pixels = np.full((20, 20, 3), 100, np.uint8)
    fill(pixels, np.array([4.0, 4.0, 16.0, 16.0]), 0.0, "#C8C8C8", 0.5)
    assert pixels[10, 10].tolist() == [150, 150, 150]
    assert pixels[2, 2].tolist() == [100, 100, 100]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(0, 900) for _ in range(2)], *[st.floats(1, 400) for _ in range(2)]),
        min_size=1,
        max_size=12,
    )
)
def test_labels_stay_inside_and_apart(rows):
    xywh = np.array(rows)
    boxes = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])
    sizes = np.tile([90.0, 24.0], (len(boxes), 1))
    corners = place_labels(sizes, boxes, (1000.0, 800.0))
    assert (corners >= 0).all()
    assert (corners + sizes <= [1000.0, 800.0]).all()
    pairs = [(a, b) for a in range(len(corners)) for b in range(a)]
    assert all(overlap(corners[a], sizes[a], corners[b], sizes[b]) < 1e-6 for a, b in pairs)


def test_a_lone_label_sits_on_its_box():
    corners = place_labels(np.array([[80.0, 20.0]]), np.array([[50.0, 60, 300, 200]]), (400, 300))
    assert corners.tolist() == [[50.0, 40.0]]


def test_no_place_for_empty_or_too_large_labels():
    sizes = np.array([[0.0, 0.0], [500.0, 20.0], [50.0, 20.0]])
    corners = place_labels(sizes, np.tile([10.0, 10, 90, 90], (3, 1)), (100, 100))
    assert np.isnan(corners).all(axis=1).tolist() == [True, True, False]


def test_a_label_keeps_off_its_own_box_if_that_is_small():
    """At the upper edge there is no room above: beside a small box, but inside a large one."""
    sizes = np.array([[22.0, 21.0]])
    small = place_labels(sizes, np.array([[50.0, 0, 80, 30]]), (400, 300))[0]
    assert overlap(small, sizes[0], (50.0, 0.0), (30.0, 30.0)) <= HIDDEN * 30 * 30
    large = place_labels(sizes, np.array([[50.0, 0, 300, 200]]), (400, 300))[0]
    assert large.tolist() == [50.0, 0.0]


@pytest.mark.parametrize(
    ("x1", "span"),
    [
        pytest.param(50.0, (50.0, 150.0, False), id="to the right"),
        pytest.param(340.0, (300.0, 400.0, True), id="off the right edge"),
        pytest.param(300.0, (300.0, 400.0, False), id="just fits"),
    ],
)
def test_a_label_is_widened_to_where_there_is_room(x1, span):
    boxes, slim = np.array([[x1, 60, x1 + 50, 200]]), np.array([[22.0, 20.0]])
    corners = place_labels(slim, boxes, (400, 300))
    (found,) = widen_labels(corners, slim, [100.0], boxes, (400, 300))
    assert (found.left, found.right, found.leftward) == span
    assert found.wide and found.top == 40


def test_a_label_between_others_is_widened_less_or_not_at_all():
    boxes = np.array([[100.0, 60, 200, 200], [170, 60, 300, 201], [39, 60, 60, 202]])
    slim = np.tile([22.0, 20.0], (3, 1))
    corners = place_labels(slim, boxes, (400, 300))
    spans = widen_labels(corners, slim, [0.0, 0.0, 200.0], boxes, (400, 300))
    assert [span.wide for span in spans] == [False, False, False], "none is wanted, no room"
    spans = widen_labels(corners, slim, [200.0, 0.0, 0.0], boxes, (400, 300))
    assert (spans[0].left, spans[0].wide) == (100.0, True)
    assert 22 + 40 <= spans[0].right - 100 <= 70


def test_a_widened_label_hides_no_object():
    boxes = np.array([[100.0, 60, 200, 200], [130, 40, 150, 58]])
    slim = np.array([[22.0, 20.0], [0.0, 0.0]])
    corners = place_labels(slim, boxes, (400, 300))
    (span, none) = widen_labels(corners, slim, [120.0, 0.0], boxes, (400, 300))
    assert none is None
    hidden = overlap((span.left, span.top), (span.right - span.left, 20.0), boxes[1, :2], (20, 18))
    assert hidden <= HIDDEN * 20 * 18


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(0, 900) for _ in range(2)], *[st.floats(1, 400) for _ in range(3)]),
        min_size=1,
        max_size=12,
    )
)
def test_widened_labels_stay_inside_and_apart(rows):
    rows = np.array(rows)
    boxes = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]])
    slim = np.tile([30.0, 24.0], (len(boxes), 1))
    corners = place_labels(slim, boxes, (1000.0, 800.0))
    spans = widen_labels(corners, slim, rows[:, 4].tolist(), boxes, (1000.0, 800.0))
    for k, span in enumerate(spans):
        assert 0 <= span.left <= corners[k, 0] and corners[k, 0] + 30 <= span.right <= 1000
        for other in spans[:k]:
            sizes = [(s.right - s.left, 24.0) for s in (span, other)]
            ends = [(s.left, s.top) for s in (span, other)]
            assert overlap(ends[0], sizes[0], ends[1], sizes[1]) < 1e-6


def test_rgb():
    assert rgb("#0072b2") == (0, 114, 178)
