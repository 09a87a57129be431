"""Boxes: every constructor and its way back, what is refused, selection, immutability."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.boxes import Boxes, Frame
from parfocal.errors import ConfigError, FrameError, ShapeError

FRAME = Frame("image", 640, 400)
OTHER = Frame("crop", 640, 400)
ROWS = [[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 5.0, 9.0], [-3.0, 2.0, 700.0, 4.0]]
FULL = Boxes(ROWS, FRAME, scores=[0.1, 0.9, 0.5], labels=["a", "b", "c"])

number = st.floats(-2000, 2000, allow_nan=False)
corner_rows = st.lists(
    st.tuples(number, number, number, number).map(
        lambda r: [min(r[0], r[2]), min(r[1], r[3]), max(r[0], r[2]), max(r[1], r[3])]
    ),
    max_size=5,
)
quick = settings(max_examples=50, deadline=None)


@quick
@given(corner_rows)
def test_every_layout_comes_back(rows):
    boxes = Boxes(rows, FRAME)
    bins = boxes.unit * 1000
    for again in (
        Boxes.from_xywh(boxes.xywh, FRAME),
        Boxes.from_cxcywh(boxes.cxcywh, FRAME),
        Boxes.from_unit(boxes.unit, FRAME),
        Boxes.from_bins(bins, FRAME),
        Boxes(boxes.to_json(), FRAME),
    ):
        np.testing.assert_allclose(again.xyxy, boxes.xyxy, rtol=1e-9, atol=1e-9)


def test_layouts_by_hand():
    boxes = Boxes([[10, 20, 110, 70]], FRAME)
    assert boxes.xywh.tolist() == [[10, 20, 100, 50]]
    assert boxes.cxcywh.tolist() == [[60, 45, 100, 50]]
    assert boxes.unit.tolist() == [[10 / 640, 0.05, 110 / 640, 0.175]]
    assert boxes.area.tolist() == [5000]
    assert Boxes.from_bins([[0, 16, 32, 32]], FRAME, bins=32).to_json() == [[0, 200, 640, 400]]


@pytest.mark.parametrize(
    "build",
    [Boxes, Boxes.from_xywh, Boxes.from_cxcywh, Boxes.from_unit, Boxes.from_bins],
    ids=lambda build: build.__name__,
)
class TestEveryConstructor:
    def test_keeps_scores_and_labels(self, build):
        boxes = build([[0, 0, 1, 1]], FRAME, scores=[0.5], labels=["x"])
        assert boxes.scores.tolist() == [0.5]
        assert boxes.labels == ("x",)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
    def test_refuses_what_is_not_finite_and_names_the_row(self, build, bad):
        with pytest.raises(FrameError, match=r"box 1 of frame 'image' \(640x400\).*finite"):
            build([[0, 0, 1, 1], [0, 0, bad, 1]], FRAME)

    def test_refuses_to_go_without_a_frame(self, build):
        with pytest.raises(FrameError, match="need the frame they were measured in, got None"):
            build([[0, 0, 1, 1]], None)
        with pytest.raises(FrameError, match="got tuple instead of a Frame"):
            build([[0, 0, 1, 1]], (640, 400))

    @pytest.mark.parametrize(
        "rows",
        [
            [0, 0, 1, 1],
            [[0, 0, 1]],
            [[]],
            [[[0, 0, 1, 1]]],
            [[0, 0, 1, 1], [0, 0]],
            [["0", "0", "1", "1"]],
            [[None, 0, 1, 1]],
            [[True, False, True, True]],
            [[0, 0, 1j, 1]],
            7,
        ],
        ids=[
            "flat",
            "three",
            "no-columns",
            "3d",
            "ragged",
            "text",
            "none",
            "bool",
            "complex",
            "0d",
        ],
    )
    def test_refuses_what_is_not_rows_of_four_numbers(self, build, rows):
        with pytest.raises(ShapeError):
            build(rows, FRAME)

    @pytest.mark.parametrize("rows", [[], (), np.zeros((0, 4)), np.zeros(0)])
    def test_takes_no_boxes(self, build, rows):
        boxes = build(rows, FRAME, scores=[], labels=[])
        assert boxes.xyxy.shape == (0, 4)
        assert boxes.area.shape == (0,)
        assert list(boxes) == []


@pytest.mark.parametrize(("row", "side"), [([9, 0, 1, 5], "x2 < x1"), ([0, 9, 5, 1], "y2 < y1")])
def test_wrong_corners_hint_at_the_other_layouts(row, side):
    with pytest.raises(FrameError, match=rf"{side}.*Boxes.from_xywh.*Boxes.from_cxcywh"):
        Boxes([[0, 0, 1, 1], row], FRAME)


def test_message_counts_further_bad_rows():
    with pytest.raises(FrameError, match=r"box 0 .*\(and 2 more like it\)"):
        Boxes([[9, 0, 1, 5]] * 3, FRAME)


@pytest.mark.parametrize("build", [Boxes.from_xywh, Boxes.from_cxcywh])
@pytest.mark.parametrize("row", [[0, 0, -1, 1], [0, 0, 1, -1]])
def test_negative_extent_is_refused(build, row):
    with pytest.raises(FrameError, match=rf"{build.__name__}.*negative width or height"):
        build([row], FRAME)


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, None, "1000"])
def test_bins_must_be_a_positive_whole_number(bins):
    with pytest.raises(ConfigError, match="bins is"):
        Boxes.from_bins([[0, 0, 1, 1]], FRAME, bins=bins)


def test_boxes_without_area_are_boxes():
    boxes = Boxes([[3, 3, 3, 9], [4, 4, 4, 4]], FRAME)
    assert boxes.area.tolist() == [0, 0]
    assert boxes.cxcywh.tolist() == [[3, 6, 0, 6], [4, 4, 0, 0]]


@pytest.mark.parametrize(
    "scores", [[0.5], [[0.1], [0.2]], 0.5, [0.1, np.nan], [0.1, np.inf], ["a", "b"], [None, 1]]
)
def test_scores_are_one_finite_number_a_box(scores):
    with pytest.raises(ShapeError, match="score"):
        Boxes([[0, 0, 1, 1]] * 2, FRAME, scores=scores)


@pytest.mark.parametrize("labels", ["ab", ["a"], ["a", 3], ["a", None]])
def test_labels_are_one_string_a_box(labels):
    with pytest.raises(ShapeError, match="label"):
        Boxes([[0, 0, 1, 1]] * 2, FRAME, labels=labels)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (np.array(1), [1]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0, 0], [2, 0, 0]),
        ([], []),
        (np.array([], dtype=np.int64), []),
        (np.array([-1, 1]), [2, 1]),
        ([True, False, True], [0, 2]),
        (np.array([False] * 3), []),
    ],
    ids=repr,
)
def test_selection_carries_everything(index, rows):
    part = FULL[index]
    assert isinstance(part, Boxes)
    assert part.frame == FRAME
    assert part.to_json() == [ROWS[row] for row in rows]
    assert part.scores.tolist() == [[0.1, 0.9, 0.5][row] for row in rows]
    assert part.labels == tuple("abc"[row] for row in rows)


@pytest.mark.parametrize("index", [3, -4, [0, 3]])
def test_rows_out_of_range(index):
    with pytest.raises(IndexError, match="out of range for 3 boxes"):
        FULL[index]


@pytest.mark.parametrize(
    "index",
    [True, 1.0, "a", (0, 1), [0.5], [True], np.ones(4, dtype=bool), [[0, 1]], None],
    ids=repr,
)
def test_other_indices_are_refused(index):
    with pytest.raises(ShapeError):
        FULL[index]


def test_iteration_gives_single_boxes():
    assert [box.labels for box in FULL] == [("a",), ("b",), ("c",)]
    assert Boxes.concat(list(FULL)) == FULL


def test_concat_keeps_order_and_ignores_empty_parts():
    joined = Boxes.concat([Boxes.empty(FRAME), FULL[2], Boxes.empty(FRAME), FULL[:1]])
    assert joined == FULL[[2, 0]]
    assert Boxes.concat([Boxes.empty(FRAME)] * 2) == Boxes.empty(FRAME)


def test_concat_refuses_to_guess():
    with pytest.raises(FrameError, match="no frame to put the result in"):
        Boxes.concat([])
    with pytest.raises(FrameError, match=r"'image' \(640x400\).*'crop' \(640x400\)"):
        Boxes.concat([FULL, Boxes.empty(OTHER)])
    with pytest.raises(ShapeError, match=r"scores and parts without.*replace\(scores=None\)"):
        Boxes.concat([FULL, FULL.replace(scores=None)])
    with pytest.raises(ShapeError, match="labels and parts without"):
        Boxes.concat([FULL, FULL.replace(labels=None)])
    with pytest.raises(ShapeError, match="takes Boxes, got ndarray"):
        Boxes.concat([FULL, FULL.xyxy])


def test_clip_keeps_rows_scores_and_labels():
    boxes = Boxes([[-5, -5, 700, 500], [650, 0, 660, 9]], FRAME, scores=[1, 2], labels=["a", "b"])
    clipped = boxes.clip()
    assert clipped.to_json() == [[0, 0, 640, 400], [640, 0, 640, 9]]
    assert (clipped.scores.tolist(), clipped.labels) == ([1, 2], ("a", "b"))


def test_replace_leaves_out_what_stays_and_drops_on_none():
    assert FULL.replace() == FULL
    assert FULL.replace(scores=None) == Boxes(ROWS, FRAME, labels=["a", "b", "c"])
    assert FULL.replace(labels=["x"] * 3).labels == ("x",) * 3
    assert FULL.replace(labels=["x"] * 3).scores.tolist() == [0.1, 0.9, 0.5]
    with pytest.raises(ShapeError):
        FULL.replace(scores=[1.0])


@pytest.mark.parametrize(
    "other",
    [
        Boxes(ROWS, OTHER, FULL.scores, FULL.labels),
        Boxes(ROWS[:2], FRAME, [0.1, 0.9], ["a", "b"]),
        FULL.replace(scores=None),
        FULL.replace(scores=[0.1, 0.9, 0.6]),
        FULL.replace(labels=["a", "b", "d"]),
        FULL[[1, 0, 2]],
        "boxes",
    ],
    ids=["frame", "length", "no-scores", "scores", "labels", "order", "type"],
)
def test_inequality(other):
    assert other != FULL


def test_equality_and_hash_ignore_the_sign_of_zero():
    a, b = Boxes([[-0.0, 0, 1, 1]], FRAME), Boxes([[0.0, -0.0, 1, 1]], FRAME)
    assert a == b
    assert len({a, b, FULL, FULL[:]}) == 2


def test_boxes_do_not_change():
    source = np.array([[0.0, 0.0, 1.0, 1.0]])
    scores = np.array([0.5])
    boxes = Boxes(source, FRAME, scores)
    source[:], scores[:] = 7, 7
    assert boxes == Boxes([[0, 0, 1, 1]], FRAME, [0.5])
    with pytest.raises(ValueError, match="read-only"):
        boxes.xyxy[0, 0] = 3
    with pytest.raises(ValueError, match="read-only"):
        boxes.scores[0] = 3
    with pytest.raises(AttributeError, match="do not change"):
        boxes.frame = OTHER
    with pytest.raises(AttributeError, match="do not change"):
        boxes.scores = [1.0]


@pytest.mark.parametrize("duplicate", [lambda b: pickle.loads(pickle.dumps(b)), copy.deepcopy])
def test_copies_are_equal_and_still_read_only(duplicate):
    again = duplicate(FULL)
    assert again == FULL
    assert not again.xyxy.flags.writeable
    assert not again.scores.flags.writeable


def test_no_silent_conversion_to_an_array():
    with pytest.raises(TypeError, match=r"boxes\.xyxy"):
        np.asarray(FULL)
    with pytest.raises(ShapeError, match=r"boxes\.xyxy"):
        Boxes(FULL, FRAME)


def test_repr_names_the_frame_and_stays_short():
    assert repr(Boxes.empty(FRAME)) == "Boxes(0 in frame 'image' (640x400): [])"
    shown = repr(Boxes([[0, 0, 1, 1 / 3]] * 500, FRAME, [0.25] * 500, ["dot"] * 500))
    assert shown.startswith("Boxes(500 in frame 'image' (640x400): [[0.0, 0.0, 1.0, 0.333], ")
    assert shown.endswith("scores=[0.25, 0.25, 0.25, ...], labels=['dot', 'dot', 'dot', ...])")
