"""Suppression within a label and the limits after it, on hand-worked boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from parfocal.boxes import Boxes, Frame
from parfocal.data.selection import BoxLimits, limit, official_limits, suppress
from parfocal.errors import ConfigError, ShapeError

FRAME = Frame("image", 640, 480)


def row_of_boxes(labels: list[str], scores: list[float] | None = None) -> Boxes:
    """Boxes that do not overlap, best first unless scores are given."""
    rows = [[10 * i, 0, 10 * i + 5, 5] for i in range(len(labels))]
    ranking = scores if scores is not None else list(np.linspace(0.9, 0.1, len(labels)))
    return Boxes(rows, FRAME, scores=ranking, labels=labels)


def test_a_box_goes_only_for_a_better_one_of_its_own_label() -> None:
    rows = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]]
    boxes = Boxes(rows, FRAME, scores=[0.5, 0.9, 0.7, 0.1], labels=["a", "a", "b", "a"])
    kept = suppress(boxes, 0.5)
    assert kept.labels == ("a", "b", "a")
    assert kept.scores.tolist() == [0.9, 0.7, 0.1]


def test_overlap_exactly_at_the_threshold_stays() -> None:
    rows = [[0, 0, 10, 10], [0, 0, 10, 5]]  # IoU 0.5
    boxes = Boxes(rows, FRAME, scores=[0.9, 0.8], labels=["a", "a"])
    assert len(suppress(boxes, 0.5)) == 2
    assert len(suppress(boxes, 0.49)) == 1


def test_equal_scores_stay_in_the_order_given() -> None:
    assert suppress(row_of_boxes(list("badc"), [0.5] * 4), 0.2).labels == ("b", "a", "d", "c")


def test_suppression_agrees_with_torchvision() -> None:
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 400, (200, 2))
    rows = np.hstack([low, low + generator.uniform(10, 80, (200, 2))])
    scores = generator.permutation(200) / 200
    labels = generator.integers(0, 4, 200)
    boxes = Boxes(rows, FRAME, scores=scores, labels=[str(label) for label in labels])
    kept = batched_nms(*(torch.tensor(v) for v in (rows, scores, labels)), 0.2)
    assert len(kept) < 200
    assert suppress(boxes, 0.2) == boxes[kept.numpy()]


def test_nothing_is_cut_up_to_the_total() -> None:
    boxes = row_of_boxes(["a"] * 4)
    assert limit(boxes, BoxLimits(total=4, per_label=1)) == boxes


def test_beyond_the_total_each_label_keeps_its_best_grouped_by_first_appearance() -> None:
    boxes = row_of_boxes(["b", "a", "b", "b", "a", "c"])
    cut = limit(boxes, BoxLimits(total=5, per_label=2))
    assert cut == boxes[[0, 2, 1, 4, 5]]


def test_many_labels_may_leave_more_than_the_total() -> None:
    assert len(limit(row_of_boxes(list("abcdef")), BoxLimits(total=3, per_label=2))) == 6


def test_the_most_are_the_best_of_what_is_left_in_its_order() -> None:
    boxes = row_of_boxes(list("bacba"))
    assert limit(boxes, BoxLimits(total=4, per_label=1, most=2)) == boxes[[0, 1]]
    assert limit(boxes, BoxLimits(total=4, per_label=2, most=4)) == boxes[[0, 3, 1, 2]]
    assert limit(boxes, BoxLimits(total=None, most=3)) == boxes[:3]


def test_a_crowded_text_leaves_one_a_label_however_few_there_are() -> None:
    boxes = row_of_boxes(["b", "a", "b"])
    assert limit(boxes, BoxLimits(), crowded=True) == boxes[[0, 1]]


def test_per_image_takes_the_best_whatever_their_labels() -> None:
    boxes = row_of_boxes(["b", "a", "b", "c"])
    limits = BoxLimits(total=3, mode="per_image", crowded_total=1)
    assert limit(boxes, limits) == boxes[:3]
    assert limit(boxes, limits, crowded=True) == boxes[:1]


def test_no_total_means_no_limit_at_all() -> None:
    boxes = row_of_boxes(["a"] * 30)
    assert limit(boxes, BoxLimits(total=None, per_label=1), crowded=True) == boxes


def test_official_limits_follow_the_one_number() -> None:
    assert official_limits(100) == BoxLimits(100, 20)
    assert official_limits(51).per_label == 20
    assert official_limits(49).per_label == 5
    with pytest.raises(ConfigError, match="limit_num is 50"):
        official_limits(50)


@pytest.mark.parametrize(
    "bad", [{"total": 0}, {"per_label": -1}, {"most": 0}, {"mode": "per_category"}]
)
def test_impossible_limits_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        BoxLimits(**bad)


def test_no_boxes_pass_and_boxes_without_scores_or_labels_do_not() -> None:
    empty = Boxes.empty(FRAME)
    assert limit(suppress(empty, 0.2), BoxLimits()) == empty
    with pytest.raises(ShapeError, match="no labels"):
        suppress(Boxes([[0, 0, 1, 1]], FRAME, scores=[0.5]), 0.2)
    with pytest.raises(ShapeError, match="no scores"):
        limit(Boxes([[0, 0, 1, 1]], FRAME, labels=["a"]), BoxLimits())
