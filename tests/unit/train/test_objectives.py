"""Objectives: what is learned from what, and that it can be learned at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from parfocal.data.scenes.catalogue import KINDS
from parfocal.errors import ConfigError, DataError
from parfocal.models.config import TokenIds
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import vary
from parfocal.models.proposer import Regions
from parfocal.models.text_batch import IGNORED, TextBatch
from parfocal.train.data import (
    ConversationCollator,
    DetectionCollator,
    ObjectCollator,
    score_heads_of,
)
from parfocal.train.detection import DetectionObjective, _likeness_loss
from parfocal.train.detection_losses import DetectionTarget, set_prediction_loss
from parfocal.train.language import TextAnchors
from parfocal.train.slots import resolve_boxes, scatter_slots
from parfocal.train.stages import build_language_objective
from tests.unit.train.drawn import drawn_sample

IDS = TokenIds(image=1, region=2, region_feature=3, ground_box=4, first_region=100)
LEFT, RIGHT = [0.2, 0.5, 0.2, 0.2], [0.8, 0.5, 0.2, 0.2]
NOWHERE = [0.5, 0.1, 0.1, 0.1]


def slots(*boxes: list[float], live: int | None = None) -> Regions:
    """One row of region slots."""
    values = torch.tensor([list(boxes)])
    mask = torch.arange(len(boxes))[None] < (len(boxes) if live is None else live)
    return Regions(values, mask.float(), mask)


def row(
    ids: list[int], learned: list[int], turn: list[int], ground: list[list[float]]
) -> TextBatch:
    """One packed row; `learned` holds the positions of the answer's tokens."""
    labels = [token if place in learned else IGNORED for place, token in enumerate(ids)]
    boxes = torch.tensor([ground]).view(1, len(ground), 4)
    empty = torch.zeros(1, 0, 4)
    return TextBatch(
        torch.tensor([ids]), torch.ones(1, len(ids)), empty, empty[..., 0].bool(),
        torch.tensor([labels]), torch.tensor([turn]), boxes, torch.ones(1, len(ground)).bool(),
    )  # fmt: skip


# resolve_boxes


def test_placeholders_become_the_names_of_the_slots_that_hold_their_boxes():
    text = row([9, 4, 7, 4, 8], [1, 2, 3, 4], [0, 1, 1, 1, 1], [RIGHT, LEFT])
    ids, labels = resolve_boxes(text, slots(NOWHERE, LEFT, RIGHT), IDS, 0.5)
    assert ids.tolist() == [[9, 102, 7, 101, 8]]
    assert labels.tolist() == [[IGNORED, 102, 7, 101, 8]]
    assert text.input_ids.tolist() == [[9, 4, 7, 4, 8]]  # new tensors


def test_a_box_of_the_question_is_named_but_not_learned():
    text = row([4, 6, 4, 8], [2, 3], [1, 1, 1, 1], [LEFT, RIGHT])
    ids, labels = resolve_boxes(text, slots(LEFT, RIGHT), IDS, 0.5)
    assert ids.tolist() == [[100, 6, 101, 8]]
    assert labels.tolist() == [[IGNORED, IGNORED, 101, 8]]


def test_a_turn_with_an_unmatched_box_is_not_learned_and_others_are():
    text = row([4, 7, 4, 8, 4, 9], [0, 1, 2, 3, 4, 5], [1, 1, 2, 2, 3, 3], [LEFT, RIGHT, LEFT])
    ids, labels = resolve_boxes(text, slots(LEFT, NOWHERE), IDS, 0.5)
    assert labels.tolist() == [[100, 7, IGNORED, IGNORED, 100, 9]]
    assert IDS.ground_box not in ids


def test_a_dead_slot_matches_nothing():
    text = row([4, 7], [0, 1], [1, 1], [RIGHT])
    _, labels = resolve_boxes(text, slots(LEFT, RIGHT, live=1), IDS, 0.5)
    assert labels.tolist() == [[IGNORED, IGNORED]]


def test_without_a_floor_the_nearest_live_slot_names_every_box():
    """As Groma's training does: the best overlap however small, the first live slot without any."""
    beside, far = [0.3, 0.5, 0.2, 0.2], [0.9, 0.1, 0.01, 0.01]  # IoU 1/3 with LEFT; none with any
    text = row([4, 7, 4, 8], [0, 1, 2, 3], [1, 1, 2, 2], [beside, far])
    dead_first = slots(far, NOWHERE, LEFT)
    dead_first.mask[0, 0] = False
    ids, labels = resolve_boxes(text, dead_first, IDS, 0.0)
    assert ids.tolist() == labels.tolist() == [[102, 7, 101, 8]]
    _, floored = resolve_boxes(text, dead_first, IDS, 0.3)
    assert floored.tolist() == [[102, 7, IGNORED, IGNORED]]


def test_every_row_finds_its_own_slots():
    one = row([4, 7], [0, 1], [1, 1], [LEFT])
    both = TextBatch(*(
        torch.cat((value, value)) for value in (
            one.input_ids, one.attention_mask, one.user_boxes, one.user_mask, one.labels, one.turn,
            one.ground_boxes, one.ground_mask,
        )
    ))  # fmt: skip
    here, there = slots(LEFT, RIGHT), slots(RIGHT, LEFT)
    regions = Regions(*(
        torch.cat(pair) for pair in (
            (here.boxes, there.boxes), (here.scores, there.scores), (here.mask, there.mask)
        )
    ))  # fmt: skip
    assert resolve_boxes(both, regions, IDS, 0.5)[0].tolist() == [[100, 7], [101, 7]]


# scatter_slots


def numbered(rows: int, count: int, live: int) -> Regions:
    boxes = torch.arange(rows * count * 4, dtype=torch.float32).view(rows, count, 4)
    mask = (torch.arange(count) < live).expand(rows, -1)
    return Regions(boxes, boxes[..., 0] * mask, mask)


def test_shuffling_keeps_user_slots_and_loses_nothing():
    before = numbered(3, 8, live=5)
    num_user = torch.tensor([0, 2, 5])
    after = scatter_slots(before, num_user, torch.Generator().manual_seed(1))
    for index, first in enumerate(num_user.tolist()):
        assert torch.equal(after.boxes[index, :first], before.boxes[index, :first])
        assert after.mask[index, :first].all()
        order = after.boxes[index, :, 0].argsort()
        assert torch.equal(after.boxes[index][order], before.boxes[index])
        assert torch.equal(after.mask[index][order], before.mask[index])
        assert torch.equal(after.scores[index][order], before.scores[index])
    assert not torch.equal(after.boxes, before.boxes)


def test_every_slot_behind_the_users_gets_its_turn_and_the_generator_decides():
    before, num_user = numbered(1, 4, live=2), torch.tensor([1])
    generator = torch.Generator().manual_seed(0)
    places = {
        scatter_slots(before, num_user, generator).boxes[0, :, 0].tolist().index(4.0)
        for _ in range(60)
    }
    assert places == {1, 2, 3}
    one, other = (
        scatter_slots(before, num_user, torch.Generator().manual_seed(3)).boxes for _ in range(2)
    )
    assert torch.equal(one, other)


def test_scattering_may_keep_the_order_and_leaves_every_second_row_as_it_is():
    before, num_user = numbered(4, 8, live=4), torch.tensor([0, 0, 1, 1])
    generator = torch.Generator().manual_seed(0)
    after = scatter_slots(before, num_user, generator, keep_order=True)
    for row in range(4):
        live = after.boxes[row, after.mask[row], 0]
        assert torch.equal(live, before.boxes[row, before.mask[row], 0])
        moved = not torch.equal(after.boxes[row], before.boxes[row])
        assert moved == (row % 2 == 1)


# likeness


def test_likeness_is_low_for_the_truth_and_ignores_the_diagonal():
    kinds = torch.tensor([3, 3, 5, 6])
    truth = torch.where(kinds[:, None] == kinds[None], 9.0, -9.0)
    assert _likeness_loss(truth, kinds) < 1e-3
    assert _likeness_loss(-truth, kinds) > 17
    assert _likeness_loss(truth.fill_diagonal_(-50), kinds) < 1e-3


def test_alike_and_different_pairs_weigh_the_same():
    kinds = torch.tensor([0, 0, *range(1, 9)])
    same = kinds[:, None] == kinds[None]
    wrong_alike, wrong_different = torch.full((10, 10), -4.0), torch.full((10, 10), 4.0)
    one, other = _likeness_loss(wrong_alike, kinds), _likeness_loss(wrong_different, kinds)
    assert same.sum() == 12  # ten and one pair: without balance the two would differ by far
    assert one == pytest.approx(float(other), rel=1e-4)


# learning


def descend(objective, batch, steps: int, lr: float) -> list[dict[str, float]]:
    """Train on one batch; returns the loss and its terms at every step."""
    trained = [value for value in objective.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    seen = []
    objective.train()
    for _ in range(steps):
        torch.manual_seed(0)  # the same noise at every step
        output = objective(**batch)
        assert all(not term.requires_grad for term in output.terms.values())
        terms = {name: float(value) for name, value in output.terms.items()}
        seen.append({"loss": float(output.loss.detach()), **terms})
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    return seen


PARTS = {"proposer_score", "proposer_l1", "proposer_giou"}


@pytest.mark.parametrize(
    ("proposer", "own_terms"),
    [("dense", {"objectness", "boxes"}), ("deformable_detr", {"proposer"})],
)
def test_detection_learns_one_batch(make_model, processor, toy_samples, proposer, own_terms):
    objective = DetectionObjective(make_model(proposer), len(KINDS))
    batch = ObjectCollator(processor)(toy_samples)
    seen = descend(objective, batch, 15, 3e-3)
    shared = {"cell_kind", "region_kind", "likeness", "giou", "sides"}
    logged = PARTS if proposer == "deformable_detr" else set()  # they are in "proposer" already
    assert set(seen[0]) == {"loss"} | own_terms | shared | logged
    assert sum(seen[0][name] for name in own_terms | shared) == pytest.approx(seen[0]["loss"])
    assert seen[-1]["loss"] < 0.85 * seen[0]["loss"]
    for name in own_terms | {"region_kind", "cell_kind"}:
        assert seen[-1][name] < seen[0][name], name


@pytest.mark.parametrize("proposer", ["dense", "deformable_detr"])
def test_detection_reaches_every_part_it_should(make_model, processor, toy_samples, proposer):
    model = make_model(proposer)
    objective = DetectionObjective(model, len(KINDS)).train()
    objective(**ObjectCollator(processor)(toy_samples)).loss.backward()
    moved = {
        name.split(".")[0]
        for name, value in model.named_parameters()
        if value.grad is not None and value.grad.abs().max() > 0
    }
    assert moved == {"vision", "proposer", "refiner", "regions"}


def test_anchors_are_the_mean_of_their_tokens():
    table = torch.nn.Embedding.from_pretrained(torch.tensor([[9.0, 9], [1, 0], [0, 1], [-1, 0]]))
    anchors = TextAnchors([[1], [1, 2], [3, 3, 3]], scale=10.0)
    found = anchors(torch.tensor([[5.0, 0.0], [0.0, 0.1]]), table)
    half = 0.5**0.5
    assert torch.allclose(found, 10 * torch.tensor([[1, half, -1], [0, half, 0]]), atol=1e-5)


def test_language_and_alignment_are_learned_on_one_batch(make_model, processor, toy_talk):
    objective = build_language_objective(make_model(), processor)
    seen = descend(objective, ConversationCollator(processor)(toy_talk[:2]), 10, 3e-3)
    assert set(seen[0]) == {"loss", "answer", "names", "comparisons", "proposed"}
    aligned = seen[0]["names"] + seen[0]["comparisons"]
    assert seen[0]["loss"] == pytest.approx(seen[0]["answer"] + 0.5 * aligned)
    assert seen[-1]["answer"] < 0.9 * seen[0]["answer"]
    assert seen[-1]["names"] < seen[0]["names"]


def test_the_model_says_how_well_a_region_must_fit_to_name_a_box(make_model, processor, toy_talk):
    batch, logged = ConversationCollator(processor)(toy_talk[:2]), []

    def learned(threshold: float) -> int:
        model = make_model()
        model.config.proposer = replace(model.config.proposer, match_threshold=threshold)
        objective = build_language_objective(model, processor)
        seen = objective._see(batch["pixel_values"], batch["text"], (1, 1), None)
        logged.append(float(seen.terms["proposed"]))
        return int((seen.labels != IGNORED).sum())

    everything = int((batch["text"].labels != IGNORED).sum())
    assert learned(1.0) < learned(0.0) == everything
    assert logged[0] == logged[1]  # what counts as proposed is no matter of names


def test_names_of_regions_count_as_the_stage_says(make_model, processor):
    objective = build_language_objective(make_model(), processor, region_weight=3.0)
    first = objective.model.config.token_ids.first_region
    logits = torch.zeros(2, len(processor.tokenizer))
    logits[0, first] = 5.0
    targets = torch.tensor([first, first - 1])  # pointing is learned, the rest is not
    pointing, word = torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
    loss = objective._answer_loss(logits, targets, {})
    assert float(loss) == pytest.approx((3 * pointing + word) / 4)
    assert float(objective._answer_loss(logits[:0], targets[:0], {})) == 0


def alignment(objective, regions: Regions, batch) -> dict[str, torch.Tensor]:
    keys = ("boxes", "mask", "labels", "compared")
    return objective._alignment(regions, *(batch[key] for key in keys), {})


def test_alignment_alone_brings_regions_to_their_words(make_model, processor, toy_talk):
    """Regions that are the objects themselves: only the alignment can pull them to their words."""
    model = make_model()
    objective = build_language_objective(model, processor)
    batch = ConversationCollator(processor)(toy_talk)
    assert set(batch["compared"].unique().tolist()) == {-1.0, 0.0, 1.0}
    features = model.encode(batch["pixel_values"])
    scores = batch["mask"].float()
    regions = Regions(batch["boxes"], scores, batch["mask"])
    levels = [level.detach() for level in features.levels]
    optimizer = torch.optim.AdamW(model.regions.parameters(), lr=1e-2)
    seen = []
    for _ in range(30):
        vectors = model.regions(levels, regions)
        described = Regions(regions.boxes, scores, regions.mask, vectors)
        terms = alignment(objective, described, batch)
        seen.append({name: float(term.detach()) for name, term in terms.items()})
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert seen[-1]["names"] < 0.6 * seen[0]["names"]
    assert seen[-1]["comparisons"] < 0.6 * seen[0]["comparisons"]


def test_alignment_without_a_matched_region_is_zero_not_nan(make_model, processor, toy_talk):
    objective = build_language_objective(make_model(), processor)
    batch = ConversationCollator(processor)(toy_talk)
    boxes = torch.full((4, 6, 4), 0.001)
    regions = Regions(boxes, boxes[..., 0], boxes[..., 0] > 0, torch.randn(4, 6, 32))
    terms = alignment(objective, regions, batch)
    assert [float(term.detach()) for term in terms.values()] == [0.0, 0.0]


def test_frozen_towers_keep_their_statistics(make_model, processor, toy_talk):
    model = make_model()
    objective = build_language_objective(model, processor)
    batch = ConversationCollator(processor)(toy_talk)
    for part in (model.vision, model.proposer):
        part.requires_grad_(False)
    before = {name: value.clone() for name, value in model.vision.named_buffers()}
    assert any("running_mean" in name for name in before)
    objective.train()
    assert not model.vision.training
    assert not model.proposer.training
    assert model.text.training
    objective(**batch)
    for name, value in model.vision.named_buffers():
        assert torch.equal(value, before[name]), name
    model.vision.requires_grad_(True)
    objective.train()
    assert model.vision.training
    objective(**batch)
    changed = [n for n, v in model.vision.named_buffers() if not torch.equal(v, before[n])]
    assert any("running_mean" in name for name in changed)  # so the check above can fail


@pytest.mark.parametrize("proposer", ["dense", "deformable_detr"])
def test_pictures_without_objects_give_a_finite_loss(make_model, processor, toy_samples, proposer):
    objective = DetectionObjective(make_model(proposer), len(KINDS)).train()
    batch = ObjectCollator(processor)(toy_samples)
    batch["mask"] = torch.zeros_like(batch["mask"])
    output = objective(**batch)
    output.loss.backward()
    assert all(torch.isfinite(term) for term in output.terms.values())
    assert float(output.terms["region_kind"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proposer": {"score_heads": ["coco", "sa1b"], "score_exponents": [0.4, 0.6]}},
         "trains one score head"),
        ({"regions": {"kind": "multiscale_mean", "layout": "bare"}, "dialect": "coordinates"},
         "regions.kind is 'multiscale_mean'"),
    ],
    ids=["heads", "regions"],
)  # fmt: skip
def test_what_scenes_cannot_teach_is_refused(make_model, change, message):
    model = ParfocalForConditionalGeneration(vary(make_model("deformable_detr").config, change))
    with pytest.raises(ConfigError, match=message):
        DetectionObjective(model, len(KINDS))
    DetectionObjective(model, num_kinds=0)


# detection without kinds


def drawn_batch(processor, *heads: str, count: int = 4) -> dict:
    collate = DetectionCollator(processor, score_heads_of(heads or ("object",)))
    return collate([drawn_sample(index) for index in range(count)])


@pytest.mark.parametrize(
    ("proposer", "own_terms"),
    [("dense", {"objectness", "boxes"}), ("deformable_detr", {"proposer"})],
)
def test_objects_without_kinds_are_learned(make_model, processor, proposer, own_terms):
    objective = DetectionObjective(make_model(proposer), num_kinds=0)
    assert not [name for name, _ in objective.named_parameters() if not name.startswith("model.")]
    seen = descend(objective, drawn_batch(processor), 9, 3e-3)
    look = {"giou", "sides"}
    assert set(seen[0]) - PARTS == {"loss"} | own_terms | look
    assert sum(seen[0][name] for name in own_terms | look) == pytest.approx(seen[0]["loss"])
    assert seen[-1]["loss"] < 0.85 * seen[0]["loss"]
    for name in own_terms:
        assert seen[-1][name] < seen[0][name], name


def test_the_logged_parts_are_those_of_the_last_layer(make_model, processor):
    objective = DetectionObjective(make_model("deformable_detr"), num_kinds=0).eval()
    batch = drawn_batch(processor)
    with torch.no_grad():
        terms = objective(**batch).terms
        output = objective.model.proposer(
            objective.model.vision(batch["pixel_values"]).proposer
        ).training
        targets = [
            DetectionTarget(row[live], "object")
            for row, live in zip(batch["boxes"], batch["mask"], strict=True)
        ]
        found = set_prediction_loss(output, targets)
    for name in ("score", "l1", "giou"):
        assert float(terms[f"proposer_{name}"]) == pytest.approx(float(found[name]), rel=1e-5)


def two_heads(make_model) -> ParfocalForConditionalGeneration:
    heads = {"score_heads": ["coco", "sa1b"], "score_exponents": [0.4, 0.6]}
    config = vary(make_model("deformable_detr").config, {"proposer": heads})
    torch.manual_seed(0)
    return ParfocalForConditionalGeneration(config)


def test_pictures_train_the_score_head_of_their_dataset(make_model, processor):
    model = two_heads(make_model)
    objective = DetectionObjective(model, num_kinds=0)
    batch = drawn_batch(processor, "coco", "sa1b")
    assert batch["heads"] == ["coco"] * 4

    def trained(heads: list[str] | None) -> set[str]:
        model.zero_grad()
        objective(**{**batch, "heads": heads}).loss.backward()
        heads_of = model.proposer.detr.scores
        return {
            name
            for name, layers in heads_of.items()
            if any(value.grad.abs().max() > 0 for value in layers.parameters())
        }

    assert trained(batch["heads"]) == {"coco"}
    assert trained(["sa1b"] * 4) == {"sa1b"}
    assert trained(["coco", "sa1b", "coco", "coco"]) == {"coco", "sa1b"}
    assert trained(None) == {"coco"}  # the first one
    with pytest.raises(DataError, match=r"score head 'object'.*\['coco', 'sa1b'\]"):
        objective(**drawn_batch(processor))


@pytest.mark.parametrize("proposer", ["dense", "deformable_detr"])
def test_without_any_box_the_background_is_learned(make_model, processor, proposer):
    objective = DetectionObjective(make_model(proposer), num_kinds=0).train()
    batch = drawn_batch(processor)
    batch |= {"boxes": batch["boxes"][:, :0], "mask": batch["mask"][:, :0]}
    output = objective(**batch, counts={"objects": 8.0})
    assert all(torch.isfinite(term) for term in output.terms.values())
    whole = float(objective(**batch).loss.detach())
    assert float(output.loss.detach()) == pytest.approx(whole / 8)
    assert whole > 0
    output.loss.backward()


@pytest.mark.parametrize("part", ["all", "all but the tower"])
def test_a_frozen_tower_keeps_its_statistics_in_detection(make_model, processor, part):
    model = make_model()
    model.vision.requires_grad_(part == "all")
    objective = DetectionObjective(model, num_kinds=0).train()
    before = {name: value.clone() for name, value in model.vision.named_buffers()}
    objective(**drawn_batch(processor))
    changed = [n for n, v in model.vision.named_buffers() if not torch.equal(v, before[n])]
    assert bool(changed) == (part == "all")
    assert model.proposer.training


def test_a_model_without_a_proposer_is_refused(make_model):
    config = vary(make_model().config, {"proposer": {"kind": "none", "refine": False}})
    with pytest.raises(ConfigError, match=r"proposer\.kind is 'none'"):
        DetectionObjective(ParfocalForConditionalGeneration(config), num_kinds=0)
