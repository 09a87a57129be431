"""Proposals: the dense head's peaks, the selection rule, and the deformable DETR in its place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from parfocal.models.config_regions import ProposerConfig
from parfocal.models.proposer import (
    Candidates,
    DenseProposer,
    build_proposer,
    offer_ground_boxes,
    select_regions,
)
from parfocal.models.refine import build_refiner
from parfocal.predict import load
from parfocal.predict.predictor import Predictor

DETR = {
    "kind": "deformable_detr",
    "hidden_size": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "heads": 2,
    "ffn_size": 32,
    "queries": 8,
    "dropout": 0.0,
    "score_heads": ("object",),
    "score_exponents": (1.0,),
}


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.fixture
def reading_head() -> DenseProposer:
    """A dense head that reads its map: channel 0 is the logit, 1 to 4 the log sides (ltrb)."""
    head = DenseProposer(ProposerConfig("dense", hidden_size=8, candidates=3), (8,))
    head.stem = nn.Identity()
    with torch.no_grad():
        for conv, channels in ((head.score, (0,)), (head.sides, (1, 2, 3, 4))):
            conv.weight.zero_()
            conv.bias.zero_()
            for row, channel in enumerate(channels):
                conv.weight[row, channel] = 1.0
    return head


def synthetic(peaks: dict[tuple[int, int], tuple[float, tuple[float, ...]]]) -> torch.Tensor:
    """A map float[1, 8, 8, 8] with a logit and sides (unit frame) at each (row, column)."""
    level = torch.zeros(1, 8, 8, 8)
    level[:, 0] = -6.0
    for (row, column), (logit, sides) in peaks.items():
        level[0, 0, row, column] = logit
        for index, side in enumerate(sides):
            level[0, 1 + index, row, column] = math.log(side / DenseProposer.typical_side)
    return level


@torch.no_grad()
def test_peaks_become_boxes_around_their_cells(reading_head):
    level = synthetic(
        {
            (2, 1): (3.0, (0.1, 0.2, 0.3, 0.1)),
            (2, 2): (2.0, (0.1, 0.1, 0.1, 0.1)),  # beside a better cell: not a peak
            (5, 6): (1.0, (0.1, 0.1, 0.1, 0.1)),
            (7, 2): (0.0, (0.1, 0.1, 0.1, 0.2)),  # reaches beyond the lower edge
        }
    )
    found = reading_head([level])
    assert found.scores[0].tolist() == pytest.approx([sigmoid(3), sigmoid(1), sigmoid(0)])
    # the centre of cell (2, 1) is x 1.5 / 8 = 0.1875, y 2.5 / 8 = 0.3125
    first = [0.1875 - 0.1, 0.3125 - 0.2, 0.1875 + 0.3, 0.3125 + 0.1]
    second = [0.8125 - 0.1, 0.6875 - 0.1, 0.8125 + 0.1, 0.6875 + 0.1]
    third = [0.3125 - 0.1, 0.9375 - 0.1, 0.3125 + 0.1, 1.0]
    for box, (x1, y1, x2, y2) in zip(found.boxes[0], (first, second, third), strict=True):
        expected = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        assert box.tolist() == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_pictures_of_a_batch_have_their_own_peaks(reading_head):
    sides = (0.1, 0.1, 0.1, 0.1)
    levels = [torch.cat([synthetic({(r, r): (2.0, sides)}) for r in (1, 6)])]
    found = reading_head(levels)
    assert found.boxes[:, 0, 0].tolist() == pytest.approx([1.5 / 8, 6.5 / 8])
    assert found.training.logits.shape == (2, 8, 8)


@torch.no_grad()
def test_more_candidates_than_cells_are_all_cells():
    head = DenseProposer(ProposerConfig("dense", hidden_size=8, candidates=50), (4,))
    assert head([torch.randn(1, 4, 3, 3)]).boxes.shape == (1, 9, 4)


def test_no_proposer_without_a_kind():
    assert build_proposer(ProposerConfig(), (8,)) is None


@torch.no_grad()
def test_a_refiner_moves_boxes_in_a_mask_as_among_all():
    refiner = build_refiner(ProposerConfig("dense", hidden_size=8, refine=True), (4,))
    torch.nn.init.normal_(refiner.shift.weight, std=0.5)
    levels, boxes = [torch.randn(2, 4, 6, 6)], 0.2 + 0.3 * torch.rand(2, 3, 4)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    whole = refiner.refine(levels, boxes)
    assert not torch.allclose(whole, boxes)
    torch.testing.assert_close(refiner.refine(levels, boxes, mask), whole[mask])
    nothing = torch.zeros_like(mask)
    assert refiner.refine(levels, boxes, nothing).shape == (0, 4)


@torch.no_grad()
def test_a_refiner_moves_only_what_can_be_chosen():
    config = ProposerConfig("dense", hidden_size=8, refine=True, score_threshold=0.15)
    refiner = build_refiner(config, (4,))
    torch.nn.init.normal_(refiner.shift.weight, std=0.5)
    boxes = torch.rand(2, 3, 4) * 0.3 + 0.3
    scores = torch.tensor([[0.9, 0.15, 0.2], [0.05, 0.1, 0.0]])
    found = refiner([torch.randn(2, 4, 6, 6)], Candidates(boxes, scores, None))
    moved = (found.boxes != boxes).any(-1)
    # nothing of the second picture passes, but its best can be kept all the same
    assert moved.tolist() == [[True, False, True], [False, True, False]]


@torch.no_grad()
def test_an_untrained_refiner_leaves_boxes_in_the_picture_where_they_are():
    assert build_refiner(ProposerConfig("dense"), (4,)) is None
    refiner = build_refiner(ProposerConfig("dense", hidden_size=8, refine=True), (4,))
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1]]])
    found = refiner([torch.randn(1, 4, 6, 6)], Candidates(boxes, torch.ones(1, 2), None))
    assert torch.allclose(found.boxes, boxes, atol=1e-6)


# Selection

NO_BOXES, NO_MASK = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool)


def spread(count: int) -> torch.Tensor:
    """Boxes that do not touch, float[1, count, 4]."""
    centres = (torch.arange(count) + 0.5) / count
    rows = [[float(x), 0.5, 0.5 / count, 0.1] for x in centres]
    return torch.tensor([rows])


def settings(**changes) -> ProposerConfig:
    values = {"kind": "dense", "score_threshold": 0.25, "nms_threshold": 0.5, "max_regions": 4}
    return ProposerConfig(**{**values, **changes})


def test_a_score_must_be_above_the_threshold():
    scores = torch.tensor([[0.25, 0.25 + 2**-20, 0.24]])
    regions = select_regions(Candidates(spread(3), scores, None), NO_BOXES, NO_MASK, settings())
    assert regions.mask[0].tolist() == [True, False, False, False]
    assert torch.equal(regions.boxes[0, 0], spread(3)[0, 1])


def test_proposals_come_by_score_and_the_cap_drops_the_weakest():
    scores = torch.tensor([[0.3, 0.9, 0.5, 0.7, 0.4, 0.8]])
    regions = select_regions(Candidates(spread(6), scores, None), NO_BOXES, NO_MASK, settings())
    assert regions.scores[0].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5])
    assert torch.equal(regions.boxes[0], spread(6)[0, [1, 5, 3, 2]])


def test_the_best_proposals_may_stand_from_left_to_right_behind_the_users_boxes():
    scores = torch.tensor([[0.3, 0.9, 0.5, 0.7, 0.4, 0.8]])
    user = torch.tensor([[[0.9, 0.1, 0.1, 0.1]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    ordered = settings(order="left_to_right")
    regions = select_regions(Candidates(spread(6), scores, None), user, mask, ordered)
    assert regions.scores[0].tolist() == pytest.approx([1, 0.9, 0.7, 0.8])
    assert torch.equal(regions.boxes[0, 1:], spread(6)[0, [1, 3, 5]])


def test_user_boxes_take_slots_from_proposals():
    scores = torch.tensor([[0.3, 0.9, 0.5, 0.7]])
    user = torch.tensor([[[0.5, 0.1, 0.1, 0.1], [0.5, 0.9, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    regions = select_regions(Candidates(spread(4), scores, None), user, mask, settings())
    assert torch.equal(regions.boxes[0, :2], user[0, :2])
    assert regions.scores[0].tolist() == pytest.approx([1, 1, 0.9, 0.7])


@pytest.mark.parametrize(("width", "kept"), [(0.5, 2), (0.5625, 1)], ids=["IoU 0.5", "IoU 0.5625"])
def test_overlap_must_be_above_the_threshold_to_suppress(width, kept):
    # both start at the left edge; the second is `width` as wide, which is the IoU
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [width / 2, 0.5, width, 1.0]]])
    candidates = Candidates(boxes, torch.tensor([[0.9, 0.8]]), None)
    assert int(select_regions(candidates, NO_BOXES, NO_MASK, settings()).mask.sum()) == kept


class TestKeepBest:
    scores = torch.tensor([[0.1, 0.2, 0.15]])

    def test_when_nothing_is_left_the_best_stays(self):
        candidates = Candidates(spread(3), self.scores, None)
        regions = select_regions(candidates, NO_BOXES, NO_MASK, settings(keep_best=True))
        assert regions.mask[0].tolist() == [True, False, False, False]
        assert torch.equal(regions.boxes[0, 0], spread(3)[0, 1])
        assert regions.scores[0, 0] == pytest.approx(0.2)

    def test_not_when_the_user_brings_a_box(self):
        user = torch.tensor([[[0.5, 0.1, 0.1, 0.1]]])
        mask = torch.ones(1, 1, dtype=torch.bool)
        candidates = Candidates(spread(3), self.scores, None)
        regions = select_regions(candidates, user, mask, settings(keep_best=True))
        assert regions.mask.sum() == 1
        assert torch.equal(regions.boxes[0, 0], user[0, 0])


class TestGroundBoxes:
    def test_they_join_the_proposals_with_their_score(self):
        missed = torch.tensor([[[0.5, 0.1, 0.1, 0.1], [0.5, 0.9, 0.1, 0.1]]])
        mask = torch.tensor([[True, False]])
        candidates = Candidates(spread(3), torch.tensor([[0.9, 0.3, 0.5]]), "raw")
        offered = offer_ground_boxes(candidates, missed, mask, 0.4)
        assert offered.training == "raw"
        regions = select_regions(offered, NO_BOXES, NO_MASK, settings())
        assert regions.scores[0].tolist() == pytest.approx([0.9, 0.5, 0.4, 0.3])
        assert torch.equal(regions.boxes[0, 2], missed[0, 0])

    def test_a_proposal_of_the_same_place_takes_their_stead(self):
        same = spread(3)[:, :1]
        candidates = Candidates(spread(3), torch.tensor([[0.9, 0.3, 0.5]]), None)
        offered = offer_ground_boxes(candidates, same, torch.ones(1, 1, dtype=torch.bool), 0.4)
        regions = select_regions(offered, NO_BOXES, NO_MASK, settings())
        assert regions.scores[0].tolist() == pytest.approx([0.9, 0.5, 0.3, 0.0])

    def test_padding_never_stays_even_where_nothing_does(self):
        candidates = Candidates(spread(2), torch.tensor([[0.01, 0.02]]), None)
        padding = torch.zeros(1, 1, 4)
        offered = offer_ground_boxes(candidates, padding, torch.zeros(1, 1, dtype=torch.bool), 0.9)
        config = settings(keep_best=True, score_threshold=0.5)
        regions = select_regions(offered, NO_BOXES, NO_MASK, config)
        assert torch.equal(regions.boxes[0, 0], spread(2)[0, 1])


def test_a_detr_may_make_its_levels_and_its_decoder_may_differ():
    config = ProposerConfig(**{
        **DETR, "pyramid_levels": 2, "box_head_size": 12, "decoder_heads": 4,
        "decoder_ffn_size": 24, "decoder_points": 3,
    })  # fmt: skip
    proposer = build_proposer(config, (6,))
    detr = proposer.detr
    assert detr.boxes[0][0].out_features == 12
    assert detr.decoder[0].cross_attention.grid == (4, 2, 3)
    assert detr.decoder[0].self_attention.heads == 4
    assert detr.decoder[0].ffn.up.out_features == 24
    assert detr.encoder[0].attention.grid == (2, 2, 4)
    assert detr.encoder[0].ffn.up.out_features == 32
    found = proposer([torch.randn(1, 6, 4, 4)])
    assert found.boxes.shape == (1, 8, 4)
    assert found.training.token_boxes.shape == (1, 16 + 4, 4)


def test_pictures_are_selected_alone():
    boxes = spread(3).expand(2, 3, 4)
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.1, 0.6, 0.2]])
    no_boxes, no_mask = NO_BOXES.expand(2, 0, 4), NO_MASK.expand(2, 0)
    regions = select_regions(Candidates(boxes, scores, None), no_boxes, no_mask, settings())
    assert regions.mask.sum(1).tolist() == [3, 1]
    assert torch.equal(regions.boxes[1, 0], boxes[1, 1])
    assert not regions.boxes[~regions.mask].any()
    assert not regions.scores[~regions.mask].any()


def test_without_a_proposer_there_are_the_users_boxes_only():
    user = torch.tensor([[[0.5, 0.5, 0.1, 0.1]]])
    regions = select_regions(None, user, torch.ones(1, 1, dtype=torch.bool), settings())
    assert regions.mask[0].tolist() == [True, False, False, False]


# Groma's proposer in the tiny model


def test_the_detr_variant_proposes_saves_reloads_and_answers(make_tiny, pictures, tmp_path):
    model, processor = make_tiny(difference={"proposer": DETR})
    features = model.encode(processor.pixel_values(pictures)[0])
    assert features.candidates.boxes.shape == (4, 8, 4)
    assert not features.candidates.boxes.requires_grad
    assert features.candidates.training.layer_boxes.requires_grad
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    first, second = Predictor(model, processor, "detr"), load(tmp_path, device="cpu")
    assert second.model.config.proposer == model.config.proposer
    for picture in pictures[:2]:
        one, other = (p.ask(picture, "Where is it?", max_new_tokens=6) for p in (first, second))
        assert len(one.proposals) > 0
        assert str(one) == str(other)
        assert one.proposals == other.proposals
