"""Detection losses: numbers worked by hand, and the official detector's losses and gradients."""

from __future__ import annotations

import itertools
import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from parfocal.errors import ConfigError, DataError, ShapeError
from parfocal.models.deformable_detr import ProposerOutput
from parfocal.train.detection_losses import (
    BOX_CELL_THRESHOLD,
    DetectionTarget,
    SetWeights,
    cxcywh_to_xyxy,
    dense_box_loss,
    dense_targets,
    gaussian_heatmap,
    hungarian_match,
    ltrb_to_xyxy,
    matching_cost,
    object_gaussians,
    paired_giou,
    penalty_reduced_focal,
    set_prediction_loss,
    sigmoid_focal_loss,
)

FIXTURE = Path(__file__).parents[2] / "fixtures" / "groma"
OFFICIAL = runpy.run_path(str(FIXTURE / "official_detector.py"))


def boxes_of(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def all_live(boxes: Tensor) -> Tensor:
    return torch.ones(boxes.shape[:2], dtype=torch.bool)


class TestPairedGiou:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),  # the same box
            ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7 - 2 / 9),  # overlap 1, union 7, hull 9
            ((0, 0, 1, 1), (2, 0, 3, 1), -1 / 3),  # apart: union 2, hull 3
            ((0, 0, 2, 2), (0, 0, 1, 1), 0.25),  # inside: the hull is the union
            ((0, 0, 1, 1), (0.5, 0.5, 0.5, 0.5), 0.0),  # a point inside a box
            ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), 0.0),  # the same point twice
            ((0, 0, 0, 0), (1, 1, 1, 1), -1.0),  # two points apart
        ],
    )
    def test_by_hand(self, a, b, expected):
        first, second = boxes_of(a), boxes_of(b)
        assert paired_giou(first, second).item() == pytest.approx(expected, abs=1e-6)
        assert paired_giou(second, first).item() == pytest.approx(expected, abs=1e-6)

    def test_degenerate_boxes_have_finite_gradients(self):
        point = boxes_of((0.5, 0.5, 0.5, 0.5)).requires_grad_()
        paired_giou(point, boxes_of((0.5, 0.5, 0.5, 0.5))).sum().backward()
        assert point.grad.isfinite().all()


class TestGaussians:
    def test_one_object_by_hand(self):
        # Cell centres at 0.125, 0.375, 0.625, 0.875; sigma 0.15 * 0.5 = 0.075 across, 0.15 down.
        boxes = torch.tensor([[[0.375, 0.625, 0.5, 1.0]]])
        heat = gaussian_heatmap(boxes, all_live(boxes), (4, 4))[0]
        assert heat[2, 1] == 1
        assert heat[2, 2].item() == pytest.approx(math.exp(-0.5 * (0.25 / 0.075) ** 2), rel=1e-4)
        assert heat[1, 1].item() == pytest.approx(math.exp(-0.5 * (0.25 / 0.15) ** 2), rel=1e-4)
        corner = math.exp(-0.5 * ((0.25 / 0.075) ** 2 + (0.25 / 0.15) ** 2))
        assert heat[1, 2].item() == pytest.approx(corner, rel=1e-4)

    def test_the_centre_cell_is_one_even_off_its_middle(self):
        boxes = torch.tensor([[[0.49, 0.26, 0.5, 0.5]]])
        heat = gaussian_heatmap(boxes, all_live(boxes), (4, 4))[0]
        assert torch.nonzero(heat == 1).tolist() == [[1, 1]]

    @pytest.mark.parametrize(
        ("box", "cell"),
        [
            ((0.3, 0.3, 0.0, 0.0), (1, 1)),  # a point
            ((0.3, 0.3, 0.0, 0.4), (1, 1)),  # a line
            ((1.0, 1.0, 0.0, 0.0), (3, 3)),  # on the far edge
            ((1.5, -0.5, 0.0, 0.0), (0, 3)),  # outside: the nearest cell
        ],
    )
    def test_degenerate_boxes_light_their_cell(self, box, cell):
        boxes = boxes_of(box)[None]
        heat = gaussian_heatmap(boxes, all_live(boxes), (4, 4))[0]
        assert heat.isfinite().all()
        assert heat[cell] == 1
        assert (heat == 1).sum() == 1

    def test_padding_rows_change_nothing(self):
        boxes = torch.tensor([[[0.4, 0.4, 0.3, 0.3], [math.nan] * 4], [[0.1, 0.9, 0.2, 0.1]] * 2])
        mask = torch.tensor([[True, False], [False, False]])
        heat = object_gaussians(boxes, mask, (4, 6))
        assert heat.shape == (2, 2, 4, 6)
        assert torch.equal(heat[0, 0], object_gaussians(boxes[:1, :1], mask[:1, :1], (4, 6))[0, 0])
        assert heat[0, 1].abs().sum() == heat[1].abs().sum() == 0

    def test_shapes_are_checked(self):
        with pytest.raises(ShapeError, match=r"mask \(1, 3\)"):
            object_gaussians(torch.zeros(1, 2, 4), torch.ones(1, 3, dtype=torch.bool), (4, 4))


class TestDenseTargets:
    def test_cells_go_to_the_larger_gaussian(self):
        left, right = (0.25, 0.5, 0.4, 0.8), (0.75, 0.5, 0.4, 0.8)
        boxes = boxes_of(left, right)[None]
        owned = dense_targets(boxes, all_live(boxes), (8, 8)).boxes[0]
        expected = cxcywh_to_xyxy(boxes_of(left, right))
        torch.testing.assert_close(owned[:, :4], expected[0].expand(8, 4, 4))
        torch.testing.assert_close(owned[:, 4:], expected[1].expand(8, 4, 4))

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_ties_go_to_the_smaller_area(self, order):
        # All three centres lie in the same cell, where every Gaussian is 1.
        rows = [(0.5, 0.5, 0.8, 0.8), (0.5, 0.5, 0.1, 0.4), (0.5, 0.5, 0.3, 0.3)]
        boxes = boxes_of(*[rows[i] for i in order])[None]
        targets = dense_targets(boxes, all_live(boxes), (8, 8))
        smallest = cxcywh_to_xyxy(boxes_of(rows[1]))[0]
        torch.testing.assert_close(targets.boxes[0, 4, 4], smallest)

    def test_a_far_cell_still_goes_to_the_wider_object(self):
        boxes = boxes_of((0.5, 0.5, 0.1, 0.1), (0.5, 0.5, 0.8, 0.8))[None]
        targets = dense_targets(boxes, all_live(boxes), (8, 8))
        torch.testing.assert_close(targets.boxes[0, 4, 6], boxes_of((0.1, 0.1, 0.9, 0.9))[0])

    def test_weights_are_the_heatmap_above_the_threshold(self):
        boxes = boxes_of((0.4, 0.6, 0.7, 0.5))[None]
        targets = dense_targets(boxes, all_live(boxes), (8, 8))
        above = targets.heatmap > BOX_CELL_THRESHOLD
        assert 1 < above.sum() < 64
        assert torch.equal(targets.weights[above], targets.heatmap[above])
        assert targets.weights[~above].sum() == 0

    @pytest.mark.parametrize("padding", [0, 2])
    def test_no_objects(self, padding):
        mask = torch.zeros(2, padding, dtype=torch.bool)
        targets = dense_targets(torch.zeros(2, padding, 4), mask, (3, 5))
        assert targets.heatmap.shape == targets.weights.shape == (2, 3, 5)
        assert targets.boxes.shape == (2, 3, 5, 4)
        for values in (targets.heatmap, targets.weights, targets.boxes):
            assert values.abs().sum() == 0

    def test_batch_equals_singles(self):
        generator = torch.Generator().manual_seed(3)
        boxes = torch.rand(4, 6, 4, generator=generator)
        mask = torch.rand(4, 6, generator=generator) > 0.4
        together = dense_targets(boxes, mask, (8, 8))
        for row in range(4):
            alone = dense_targets(boxes[row, mask[row]][None], mask[row, mask[row]][None], (8, 8))
            assert torch.equal(alone.heatmap[0], together.heatmap[row])
            assert torch.equal(alone.boxes[0], together.boxes[row])


class TestPenaltyReducedFocal:
    def test_by_hand(self):
        # p = 0.5, 0.8, 0.2 against a centre, a near cell (0.5) and background.
        logits = torch.tensor([[[0.0, math.log(4), -math.log(4)]]])
        heatmap = torch.tensor([[[1.0, 0.5, 0.0]]])
        centre = -(0.5**2) * math.log(0.5)
        near = -(0.5**4) * 0.8**2 * math.log(0.2)
        background = -(0.2**2) * math.log(0.8)
        loss = penalty_reduced_focal(logits, heatmap)
        assert loss.item() == pytest.approx(centre + near + background, rel=1e-5)

    def test_is_divided_by_the_number_of_centres(self):
        logits, heatmap = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
        expected = -(0.5**2) * math.log(0.5)
        assert penalty_reduced_focal(logits, heatmap).item() == pytest.approx(expected, rel=1e-5)

    def test_no_objects_pays_background_only(self):
        loss = penalty_reduced_focal(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3))
        assert loss.item() == pytest.approx(6 * 0.25 * math.log(2), rel=1e-5)

    def test_extreme_logits_stay_finite(self):
        logits = torch.tensor([[[-200.0, 200.0]]], requires_grad=True)
        loss = penalty_reduced_focal(logits, torch.tensor([[[1.0, 0.0]]]))
        loss.backward()
        assert loss.item() == pytest.approx(400)
        assert logits.grad.isfinite().all()

    def test_a_channel_axis_is_allowed_but_not_another_grid(self):
        assert penalty_reduced_focal(torch.zeros(2, 1, 3, 3), torch.zeros(2, 3, 3)) > 0
        with pytest.raises(ShapeError, match="grid of the logits"):
            penalty_reduced_focal(torch.zeros(1, 3, 3), torch.zeros(1, 3, 4))


class TestDenseBoxes:
    def test_sides_to_corners(self):
        ltrb = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(1, 2, 4, 4)
        found = ltrb_to_xyxy(ltrb)[0, 1, 2]  # cell centre (0.625, 0.75)
        torch.testing.assert_close(found, torch.tensor([0.525, 0.55, 0.925, 1.15]))

    def test_by_hand(self):
        # Cell 0 is exact, cell 1 has GIoU 0.25 and L1 0.5 + 0.5, cell 2 does not count.
        predicted = boxes_of((0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 0.1, 0.1)).reshape(1, 1, 3, 4)
        target = boxes_of((0, 0, 1, 1), (0, 0, 0.5, 0.5), (0, 0, 1, 1)).reshape(1, 1, 3, 4)
        loss = dense_box_loss(predicted, target, torch.tensor([[[1.0, 0.5, 0.0]]]))
        assert loss.item() == pytest.approx(0.5 * (2 * 0.75 + 1.0) / 1.5)

    def test_a_perfect_prediction_costs_nothing(self):
        boxes = boxes_of((0.4, 0.6, 0.5, 0.3), (0.7, 0.2, 0.2, 0.2))[None]
        targets = dense_targets(boxes, all_live(boxes), (8, 8))
        loss = dense_box_loss(targets.boxes, targets.boxes, targets.weights)
        assert loss.item() == pytest.approx(0, abs=1e-5)

    def test_no_objects(self):
        ltrb = torch.rand(1, 3, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        targets = dense_targets(torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool), (3, 3))
        loss = dense_box_loss(ltrb_to_xyxy(ltrb), targets.boxes, targets.weights)
        loss.backward()
        assert loss == 0
        assert ltrb.grad.abs().sum() == 0

    def test_shapes_are_checked(self):
        with pytest.raises(ShapeError, match="disagree"):
            dense_box_loss(torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 3))


class TestFocal:
    def test_by_hand(self):
        # p = 0.8: an object pays 0.25 * 0.2^2 * -ln 0.8, background 0.75 * 0.8^2 * -ln 0.2
        logits = torch.full((2,), math.log(4))
        loss = sigmoid_focal_loss(logits, torch.tensor([1.0, 0.0]))
        expected = 0.25 * 0.2**2 * -math.log(0.8) + 0.75 * 0.8**2 * -math.log(0.2)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


class TestMatching:
    def test_cost_by_hand(self):
        # p = 0.8; L1 in cxcywh; the target is a quarter of the prediction, so GIoU is 0.25.
        prediction, target = boxes_of((0.5, 0.5, 1, 1)), boxes_of((0.25, 0.25, 0.5, 0.5))
        l1 = 0.25 + 0.25 + 0.5 + 0.5
        score = 0.25 * 0.2**2 * -math.log(0.8) - 0.75 * 0.8**2 * -math.log(0.2)
        cost = matching_cost(torch.tensor([math.log(4)]), prediction, target, SetWeights())
        assert cost.item() == pytest.approx(2 * score + 5 * l1 - 2 * 0.25, rel=1e-5)

    def test_pairs_near_boxes(self):
        predictions = boxes_of((0.8, 0.8, 0.2, 0.2), (0.5, 0.5, 0.9, 0.9), (0.2, 0.2, 0.2, 0.2))
        targets = boxes_of((0.2, 0.2, 0.2, 0.2), (0.8, 0.8, 0.2, 0.2))
        queries, objects = hungarian_match(torch.zeros(3), predictions, targets)
        assert queries.tolist() == [0, 2]
        assert objects.tolist() == [1, 0]

    def test_the_sum_is_least_not_each_choice(self):
        # Query 0 is nearest to both objects; giving it the nearer one costs more in total.
        predictions = boxes_of((0.5, 0.5, 0.1, 0.1), (0.4, 0.5, 0.1, 0.1))
        targets = boxes_of((0.49, 0.5, 0.1, 0.1), (0.62, 0.5, 0.2, 0.1))
        only_l1 = SetWeights(score=0, l1=1, giou=0)
        # straight: 0.01 + 0.32 = 0.33; crossed: 0.22 + 0.09 = 0.31
        queries, objects = hungarian_match(torch.zeros(2), predictions, targets, only_l1)
        assert queries.tolist() == [0, 1]
        assert objects.tolist() == [1, 0]

    def test_higher_score_wins_between_equal_boxes(self):
        predictions = boxes_of((0.5, 0.5, 0.2, 0.2)).expand(3, 4)
        queries, _ = hungarian_match(torch.tensor([0.0, 3.0, 1.0]), predictions, predictions[:1])
        assert queries.tolist() == [1]

    def test_equals_exhaustive_search(self):
        generator = torch.Generator().manual_seed(5)
        logits = torch.randn(5, generator=generator)
        predictions = torch.rand(5, 4, generator=generator)
        targets = torch.rand(3, 4, generator=generator)
        cost = matching_cost(logits, predictions, targets, SetWeights())
        best = min(
            sum(cost[query, index].item() for index, query in enumerate(chosen))
            for chosen in itertools.permutations(range(5), 3)
        )
        queries, objects = hungarian_match(logits, predictions, targets)
        assert cost[queries, objects].sum().item() == pytest.approx(best, rel=1e-5)

    def test_more_objects_than_queries(self):
        targets = boxes_of((0.1, 0.1, 0.1, 0.1), (0.5, 0.5, 0.2, 0.2), (0.9, 0.9, 0.1, 0.1))
        queries, objects = hungarian_match(torch.zeros(1), boxes_of((0.5, 0.5, 0.2, 0.2)), targets)
        assert (queries.tolist(), objects.tolist()) == ([0], [1])

    def test_no_objects(self):
        queries, objects = hungarian_match(torch.zeros(3), torch.rand(3, 4), torch.zeros(0, 4))
        assert queries.dtype == objects.dtype == torch.int64
        assert len(queries) == len(objects) == 0

    def test_degenerate_boxes(self):
        points = boxes_of((0.2, 0.2, 0, 0), (0.8, 0.8, 0, 0))
        queries, objects = hungarian_match(torch.zeros(2), points, points.flip(0))
        assert (queries.tolist(), objects.tolist()) == ([0, 1], [1, 0])

    def test_not_finite(self):
        with pytest.raises(DataError, match="not finite"):
            hungarian_match(torch.zeros(1), torch.full((1, 4), math.nan), torch.rand(1, 4))

    def test_without_scipy(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "scipy.optimize", None)
        with pytest.raises(ConfigError, match=r"pip install 'parfocal\[train\]'"):
            hungarian_match(torch.zeros(1), torch.rand(1, 4), torch.rand(1, 4))


def output_of(logits: Tensor, boxes: Tensor) -> ProposerOutput:
    """One layer, one head, and encoder tokens that say the same."""
    return ProposerOutput(boxes, logits.sigmoid(), boxes[None], {"a": logits[None]}, boxes, logits)


class TestSetLoss:
    def test_by_hand(self):
        # Query 0 is the object up to its width (L1 0.1, GIoU 0.5); both scores are p = 0.5.
        boxes = boxes_of((0.5, 0.5, 0.1, 0.1), (0.9, 0.1, 0.1, 0.1))[None].requires_grad_()
        target = DetectionTarget(boxes_of((0.5, 0.5, 0.2, 0.1)), "a")
        terms = set_prediction_loss(output_of(torch.zeros(1, 2), boxes), [target])
        score = (0.25 * 0.25 + 0.75 * 0.25) * math.log(2)
        assert terms["score"].item() == pytest.approx(score, rel=1e-5)
        assert terms["l1"].item() == pytest.approx(0.1, rel=1e-5)
        assert terms["giou"].item() == pytest.approx(0.5, rel=1e-4)
        assert terms["tokens.l1"].item() == pytest.approx(0.1, rel=1e-5)
        assert terms["total"].item() == pytest.approx(2 * (2 * score + 5 * 0.1 + 2 * 0.5), rel=1e-4)
        terms["total"].backward()
        assert boxes.grad[0, 0].abs().sum() > 0
        assert boxes.grad[0, 1].abs().sum() == 0  # unmatched boxes are free

    def test_no_objects_anywhere(self):
        boxes = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        logits = torch.zeros(2, 3, requires_grad=True)
        targets = [DetectionTarget(torch.zeros(0, 4), "a")] * 2
        terms = set_prediction_loss(output_of(logits, boxes), targets)
        assert terms["l1"] == terms["giou"] == 0
        assert terms["score"].item() == pytest.approx(6 * 0.75 * 0.25 * math.log(2), rel=1e-5)
        terms["total"].backward()
        assert boxes.grad.abs().sum() == 0
        assert (logits.grad > 0).all()

    def test_degenerate_boxes_stay_finite(self):
        boxes = boxes_of((0.5, 0.5, 0, 0), (1, 1, 1, 1))[None].requires_grad_()
        targets = [DetectionTarget(boxes_of((0.5, 0.5, 0, 0), (0, 0, 0, 0)), "a")]
        total = set_prediction_loss(output_of(torch.zeros(1, 2), boxes), targets)["total"]
        total.backward()
        assert total.isfinite()
        assert boxes.grad.isfinite().all()

    def test_each_picture_trains_its_own_head(self):
        boxes = boxes_of((0.5, 0.5, 0.2, 0.2))[None].expand(2, 1, 4)
        logits = {name: torch.zeros(1, 2, 1, requires_grad=True) for name in ("a", "b")}
        output = ProposerOutput(
            boxes, torch.zeros(2, 1), boxes[None], logits, boxes, torch.zeros(2, 1)
        )
        targets = [DetectionTarget(boxes[0], "b"), DetectionTarget(boxes[1], "a")]
        set_prediction_loss(output, targets)["total"].backward()
        assert (logits["a"].grad[0, :, 0] != 0).tolist() == [False, True]
        assert (logits["b"].grad[0, :, 0] != 0).tolist() == [True, False]

    def test_weights_scale_the_total_only(self):
        boxes = boxes_of((0.5, 0.5, 0.1, 0.1))[None]
        target = [DetectionTarget(boxes_of((0.5, 0.5, 0.2, 0.1)), "a")]
        only_l1 = SetWeights(score=0, l1=3, giou=0)
        terms = set_prediction_loss(
            output_of(torch.zeros(1, 1), boxes), target, loss_weights=only_l1
        )
        assert terms["giou"] > 0
        assert terms["total"].item() == pytest.approx(3 * 2 * 0.1, rel=1e-5)

    def test_errors(self):
        output = output_of(torch.zeros(1, 1), boxes_of((0.5, 0.5, 0.1, 0.1))[None])
        with pytest.raises(ShapeError, match="0 targets for 1 pictures"):
            set_prediction_loss(output, [])
        with pytest.raises(DataError, match=r"'c', the proposer has \['a'\]"):
            set_prediction_loss(output, [DetectionTarget(torch.zeros(0, 4), "c")])


class TestOfficialLoss:
    """The official detector's loss terms and the gradient of every parameter, for both heads."""

    @pytest.mark.parametrize("head", ["coco", "sa1b"])
    def test_terms_and_gradients(self, head):
        proposer = OFFICIAL["load_official"]()
        case = load_file(FIXTURE / "detector_case.safetensors")
        expected = json.loads((FIXTURE / "detector_case.json").read_text())["det"][head]
        targets = [DetectionTarget(case[f"det.boxes.{row}"], head) for row in range(2)]
        terms = set_prediction_loss(proposer([case["features"]]), targets)
        for ours, official in (("", ""), ("layer0.", "_0"), ("tokens.", "_enc")):
            for name, key in (("score", "loss_ce"), ("l1", "loss_bbox"), ("giou", "loss_giou")):
                wanted = expected["loss_dict"][key + official]
                assert terms[ours + name].item() == pytest.approx(wanted, abs=1e-4), ours + name
        assert terms["total"].item() == pytest.approx(expected["loss"], rel=1e-5)
        assert expected["loss"] == pytest.approx(case[f"det.{head}.loss"].item())

        terms["total"].backward()
        parameters = dict(proposer.named_parameters())
        for official, norm in expected["grad_norms"].items():
            gradient = parameters.pop(OFFICIAL["our_name"](official)).grad
            assert gradient.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-4), official
        other = {"coco": "sa1b", "sa1b": "coco"}[head]
        assert all(name.startswith(f"scores.{other}.") for name in parameters), parameters.keys()
        assert all(not parameter.grad.any() for parameter in parameters.values())
