"""Metrics on numbers worked by hand: a perfect answer scores 1, garbage scores 0."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.errors import ConfigError, FrameError, ShapeError
from parfocal.eval.metrics import (
    CaptionCounts,
    Rate,
    bootstrap_interval,
    covered,
    first_box_ious,
    match_caption,
    names_equal,
    normalise_name,
    parse_count,
    proposal_recall,
    proposals_per_image,
    rate,
    rec_hits,
)

FRAME = Frame("image", 100, 100)


def boxes(*xyxy: tuple[float, float, float, float]) -> Boxes:
    return Boxes(list(xyxy), FRAME) if xyxy else Boxes.empty(FRAME)


TARGET = boxes((0, 0, 10, 10))


def test_metrics_load_neither_torch_nor_a_picture_library() -> None:
    code = (
        "import sys, parfocal.eval.metrics; "
        "assert not {'torch', 'PIL', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("answer", "overlap"),
    [
        pytest.param(boxes((0, 0, 10, 10)), 1.0, id="same box"),
        pytest.param(boxes((0, 0, 10, 5)), 0.5, id="half"),
        pytest.param(boxes((5, 0, 15, 10)), 1 / 3, id="shifted by half a side"),
        pytest.param(boxes((50, 50, 60, 60)), 0.0, id="elsewhere"),
        pytest.param(boxes(), 0.0, id="no box"),
        pytest.param(boxes((50, 50, 60, 60), (0, 0, 10, 10)), 0.0, id="only the first box counts"),
    ],
)
def test_first_box_iou(answer: Boxes, overlap: float) -> None:
    assert first_box_ious([answer], [TARGET]).tolist() == pytest.approx([overlap])


def test_rec_threshold_is_inclusive() -> None:
    half = boxes((0, 0, 10, 5))
    assert rec_hits([half], [TARGET], 0.5).tolist() == [True]
    assert rec_hits([half], [TARGET], 0.51).tolist() == [False]


def test_rec_refuses_what_does_not_pair_up() -> None:
    with pytest.raises(ShapeError, match="1 answers for 2 targets"):
        rec_hits([TARGET], [TARGET, TARGET])
    with pytest.raises(ShapeError, match="target 0 has 2 boxes"):
        rec_hits([TARGET], [boxes((0, 0, 1, 1), (0, 0, 2, 2))])
    with pytest.raises(FrameError):
        rec_hits([Boxes([[0, 0, 10, 10]], Frame("unit", 1, 1))], [TARGET])


def test_recall_counts_objects_not_proposals() -> None:
    objects = boxes((0, 0, 10, 10), (50, 50, 60, 60), (20, 20, 30, 30))
    proposals = boxes((0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 56))
    assert covered(proposals, objects, 0.5).tolist() == [True, True, False]
    assert covered(proposals, objects, 0.75).tolist() == [True, False, False]
    assert proposal_recall([proposals], [objects], 0.5) == pytest.approx(2 / 3)
    assert proposal_recall([objects], [objects], 1.0) == 1.0
    assert proposal_recall([boxes()], [objects]) == 0.0


def test_recall_is_over_objects_of_all_pictures() -> None:
    found = [boxes((0, 0, 10, 10)), boxes()]
    true = [boxes((0, 0, 10, 10)), boxes((0, 0, 10, 10), (0, 0, 20, 20), (5, 5, 50, 50))]
    assert proposal_recall(found, true) == 0.25
    assert proposals_per_image(found) == 0.5
    assert np.isnan(proposal_recall([], [])) and np.isnan(proposals_per_image([]))
    with pytest.raises(ShapeError, match="2 pictures cannot be compared with objects of 1"):
        proposal_recall(found, true[:1])


TWO = boxes((0, 0, 10, 10), (50, 50, 60, 60))


@pytest.mark.parametrize(
    ("names", "claimed", "counts"),
    [
        pytest.param(["a cat", "The dog."], TWO, (2, 2, 2), id="perfect"),
        pytest.param(["dog", "cat"], TWO, (0, 2, 2), id="names swapped"),
        pytest.param(["cat"], TWO[0], (1, 1, 2), id="one left out"),
        pytest.param(["cat", "cat"], boxes((0, 0, 10, 10), (0, 0, 10, 9)), (1, 2, 2), id="twice"),
        pytest.param(["cat"], boxes((0, 0, 10, 4)), (0, 1, 2), id="box too small"),
        pytest.param([], boxes(), (0, 0, 2), id="nothing said"),
        pytest.param([""], TWO[0], (0, 1, 2), id="box without a name"),
    ],
)
def test_caption_counts(names: list[str], claimed: Boxes, counts: tuple[int, int, int]) -> None:
    assert match_caption(names, claimed, ["cat", "dog"], TWO) == CaptionCounts(*counts)


def test_caption_matching_is_largest_not_greedy() -> None:
    # Both claims fit the middle object, and only the first fits the left one: a greedy pass by
    # overlap gives claim 0 the middle object and leaves claim 1 with nothing.
    true = boxes((0, 0, 10, 10), (3, 0, 13, 10))
    claimed = boxes((2, 0, 12, 10), (5, 0, 15, 10))
    assert match_caption(["x", "x"], claimed, ["x", "x"], true, threshold=0.6).matched == 2
    assert match_caption(["x", "x"], claimed[[1, 0]], ["x", "x"], true, threshold=0.6).matched == 2


def test_caption_rates() -> None:
    counts = CaptionCounts(3, 4, 6) + CaptionCounts(1, 1, 2)
    assert counts == CaptionCounts(4, 5, 8)
    assert (counts.precision, counts.recall) == (0.8, 0.5)
    assert counts.f1 == pytest.approx(2 * 0.8 * 0.5 / 1.3)
    assert (CaptionCounts(0, 0, 3).precision, CaptionCounts().f1) == (0.0, 0.0)


def test_caption_boxless_phrase_is_a_wrong_claim() -> None:
    assert match_caption([], boxes(), ["cat"], TARGET, boxless=2) == CaptionCounts(0, 2, 1)
    with pytest.raises(ShapeError, match="1 names for 2 claimed boxes"):
        match_caption(["cat"], TWO, ["cat"], TARGET)


@pytest.mark.parametrize(
    ("predicted", "expected", "same"),
    [
        ("apple", "apple", True),
        (" An  Apple. ", "apple", True),
        ("the red apple", "Red Apple", True),
        ("apples", "apple", False),
        ("red apple", "apple", False),
        ("apple..", "apple", False),
        ("theatre", "atre", False),
        ("", "apple", False),
        ("the ", "the", True),
        ("", "", False),
    ],
)
def test_names_equal(predicted: str, expected: str, same: bool) -> None:
    assert names_equal(predicted, expected) is same


def test_normalise_name_drops_one_article_only() -> None:
    assert normalise_name("The a-frame .") == "a-frame"
    assert normalise_name("the the") == "the"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("3", 3),
        ("There are Three apples.", 3),
        ("There is one apple, not two.", 1),
        ("none", 0),
        ("There are no apples.", 0),
        ("12 apples", 12),
        ("1.5", None),
        ("twenty-one", None),
        ("many", None),
        ("phone", None),
        ("", None),
    ],
)
def test_parse_count(text: str, count: int | None) -> None:
    assert parse_count(text) == count


def test_bootstrap_is_seeded_and_blind_to_order() -> None:
    rng = np.random.default_rng(3)
    hits = (rng.random(200) < 0.7).astype(np.float64)
    images = [f"{row // 4:03d}" for row in range(200)]
    ones = np.ones(200)
    interval = bootstrap_interval(hits, ones, images)
    order = rng.permutation(200)
    assert interval == bootstrap_interval(hits[order], ones, [images[row] for row in order])
    assert interval != bootstrap_interval(hits, ones, images, seed=1)
    low, high = interval
    assert low < hits.mean() < high


def test_bootstrap_matches_the_binomial_for_independent_items() -> None:
    hits = np.repeat([1.0, 0.0], 200)  # p = 0.5, n = 400: standard error 0.025
    low, high = bootstrap_interval(hits, np.ones(400), [str(row) for row in range(400)])
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_bootstrap_resamples_pictures_not_items() -> None:
    # Ten pictures of 40 items that agree: the picture is the unit, so the interval is as wide as
    # for ten items (standard error 0.158), not as for 400 (0.025).
    hits = np.repeat([1.0, 0.0] * 5, 40)
    low, high = bootstrap_interval(hits, np.ones(400), [str(row // 40) for row in range(400)])
    assert high - low > 0.5


def test_bootstrap_of_one_picture_has_no_width() -> None:
    assert bootstrap_interval(np.array([1.0, 0.0]), np.ones(2), ["a", "a"]) == (0.5, 0.5)


def test_bootstrap_leaves_out_draws_without_a_denominator() -> None:
    low, high = bootstrap_interval(np.array([1.0, 0.0]), np.array([1.0, 0.0]), ["a", "b"])
    assert (low, high) == (1.0, 1.0)


def test_bootstrap_refuses_what_has_no_ratio() -> None:
    with pytest.raises(ShapeError, match="2 numerators, 1 denominators"):
        bootstrap_interval(np.ones(2), np.ones(1), ["a", "b"])
    with pytest.raises(ConfigError, match="nothing below the line"):
        bootstrap_interval(np.zeros(1), np.zeros(1), ["a"])
    with pytest.raises(ConfigError, match="resamples=0"):
        bootstrap_interval(np.ones(1), np.ones(1), ["a"], resamples=0)


def test_rate_values_and_counts() -> None:
    assert rate([1, 1, 0, 0], ["a", "b", "c", "d"]).value == 50.0
    perfect = rate([2, 3], ["a", "b"], [2, 3])
    assert perfect == Rate(100.0, 5, 100.0, 100.0)
    assert rate([7, 5], ["a", "b"], scale=1.0).value == 6.0
    assert rate([2], ["a"], [4], n=1) == Rate(50.0, 1, 50.0, 50.0)


def test_rate_of_nothing_is_null_not_zero() -> None:
    assert rate([], []) == Rate(None, 0)
    assert rate([], []).to_flat("x") == {"x": None, "x_n": 0, "x_low": None, "x_high": None}


def test_rate_flat_keys_are_rounded() -> None:
    flat = Rate(100 / 3, 3, 0.0, 200 / 3).to_flat("rec_acc_50")
    assert flat == {
        "rec_acc_50": 33.33,
        "rec_acc_50_n": 3,
        "rec_acc_50_low": 0.0,
        "rec_acc_50_high": 66.67,
    }
