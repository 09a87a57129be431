"""IoU, GIoU and suppression: hand-worked numbers, bounds, symmetry, degenerate boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.boxes import Boxes, Frame, area, giou, iou, nms
from parfocal.errors import ConfigError, FrameError, ShapeError

FRAME = Frame("image", 100, 100)
quick = settings(max_examples=80, deadline=None)

# Few whole numbers make touching, nested, equal and empty boxes common; floats do the rest.
number = st.one_of(
    st.integers(0, 4).map(float),
    st.floats(-1e4, 1e4, allow_nan=False),
    st.sampled_from([1e-200, 1e99, -1e99]),
)
rows = st.tuples(number, number, number, number).map(
    lambda r: [min(r[0], r[2]), min(r[1], r[3]), max(r[0], r[2]), max(r[1], r[3])]
)
boxes_of_frame = st.lists(rows, max_size=6).map(lambda r: Boxes(r, FRAME))


@quick
@given(boxes_of_frame, boxes_of_frame)
def test_iou_is_symmetric_and_bounded(a, b):
    values = iou(a, b)
    assert values.shape == (len(a), len(b))
    assert values.dtype == np.float64
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_array_equal(values, iou(b, a).T)


@quick
@given(boxes_of_frame)
def test_a_box_with_area_overlaps_itself_fully(boxes):
    np.testing.assert_array_equal(np.diag(iou(boxes, boxes)), (boxes.area > 0).astype(float))


@quick
@given(boxes_of_frame, boxes_of_frame)
def test_giou_is_symmetric_and_between_minus_one_and_iou(a, b):
    values = giou(a, b)
    assert values.shape == (len(a), len(b))
    assert ((values >= -1) & (values <= iou(a, b))).all()
    np.testing.assert_array_equal(values, giou(b, a).T)


@pytest.mark.parametrize(
    ("a", "b", "expected_iou", "expected_giou"),
    [
        ([0, 0, 4, 4], [0, 0, 4, 4], 1, 1),
        ([0, 0, 4, 4], [0, 0, 4, 2], 0.5, 0.5),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
        ([0, 0, 1, 1], [1, 0, 2, 1], 0, 0),
        ([0, 0, 1, 1], [3, 0, 4, 1], 0, -0.5),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0, 0),
        ([0, 0, 0, 5], [0, 0, 0, 5], 0, 0),
        ([0, 0, 4, 4], [2, 0, 2, 4], 0, 0),
        ([0, 0, 0, 0], [4, 4, 4, 4], 0, -1),
    ],
    ids=[
        "same",
        "half",
        "corner",
        "touching",
        "apart",
        "points",
        "lines",
        "line-in-box",
        "points-apart",
    ],
)
def test_overlap_by_hand(a, b, expected_iou, expected_giou):
    one, two = Boxes([a], FRAME), Boxes([b], FRAME)
    assert iou(one, two).item() == pytest.approx(expected_iou)
    assert giou(one, two).item() == pytest.approx(expected_giou)


def test_area_of_several():
    assert area(Boxes([[0, 0, 4, 5], [1, 1, 1, 9]], FRAME)).tolist() == [20, 0]


@pytest.mark.parametrize("measure", [iou, giou])
def test_frames_must_agree(measure):
    one = Boxes([[0, 0, 1, 1]], FRAME)
    with pytest.raises(FrameError, match=r"'image' \(100x100\).*'unit' \(1x1\).*Warp\.apply"):
        measure(one, Boxes([[0, 0, 1, 1]], Frame("unit", 1, 1)))
    with pytest.raises(ShapeError, match="takes Boxes, got list"):
        measure(one, [[0, 0, 1, 1]])


@pytest.mark.parametrize("measure", [area, lambda boxes: nms(boxes, 0.5)])
def test_bare_arrays_are_refused(measure):
    with pytest.raises(ShapeError, match="takes Boxes, got ndarray"):
        measure(np.zeros((1, 4)))


@st.composite
def scored(draw):
    boxes = draw(boxes_of_frame)
    score = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    return boxes.replace(scores=[draw(score) for _ in range(len(boxes))])


@quick
@given(scored(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_nms_keeps_a_best_first_set_that_suppresses_the_rest(boxes, threshold):
    kept = nms(boxes, threshold)
    assert kept.dtype == np.int64
    assert (np.diff(boxes.scores[kept]) <= 0).all()
    overlap = iou(boxes, boxes)
    among = overlap[np.ix_(kept, kept)] - 2 * np.eye(len(kept))
    assert (among <= threshold).all()
    for row in set(range(len(boxes))) - set(kept.tolist()):
        suppressors = kept[boxes.scores[kept] >= boxes.scores[row]]
        assert (overlap[row, suppressors] > threshold).any()


@quick
@given(scored(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_nms_twice_is_nms_once(boxes, threshold):
    once = boxes[nms(boxes, threshold)]
    assert nms(once, threshold).tolist() == list(range(len(once)))


def test_nms_threshold_is_strict():
    boxes = Boxes([[0, 0, 4, 4], [0, 0, 4, 2]], FRAME, scores=[2, 1])  # IoU is exactly 0.5
    assert nms(boxes, 0.5).tolist() == [0, 1]
    assert nms(boxes, 0.49).tolist() == [0]


def test_nms_is_stable_and_a_suppressed_box_suppresses_nothing():
    chain = Boxes([[0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]], FRAME)  # neighbours: IoU 6/14
    assert nms(chain, 0.4, scores=[1, 1, 1]).tolist() == [0, 2]
    assert nms(chain, 0.4, scores=[1, 1, 2]).tolist() == [2, 0]
    assert nms(chain, 0.4, scores=[1, 2, 1]).tolist() == [1]
    apart = Boxes([[i, 0, i + 1, 1] for i in range(40)], FRAME)
    assert nms(apart, 0.5, scores=[0.5] * 40).tolist() == list(range(40))


def test_nms_scores_given_win_over_those_of_the_boxes():
    boxes = Boxes([[0, 0, 4, 4], [0, 0, 4, 4]], FRAME, scores=[1, 0])
    assert nms(boxes, 0.5).tolist() == [0]
    assert nms(boxes, 0.5, scores=[0, 1]).tolist() == [1]


def test_nms_without_boxes_needs_no_scores():
    assert nms(Boxes.empty(FRAME), 0.5).tolist() == []


def test_nms_refuses_missing_scores_and_impossible_thresholds():
    boxes = Boxes([[0, 0, 1, 1]], FRAME)
    with pytest.raises(ShapeError, match="needs a score a box"):
        nms(boxes, 0.5)
    with pytest.raises(ShapeError, match=r"shape \(1,\)"):
        nms(boxes, 0.5, scores=[0.1, 0.2])
    for threshold in (-0.1, 1.1, np.nan, "0.5"):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            nms(boxes, threshold, scores=[0.1])
