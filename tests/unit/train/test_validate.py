"""Proposal recall, with a proposer whose boxes are known."""

from __future__ import annotations

import pytest
import torch

from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import ImageRef, Sample
from parfocal.errors import DataError
from parfocal.models.proposer import Regions
from parfocal.train import validate
from parfocal.train.recipe import SCORES
from parfocal.train.validate import proposal_recall


@pytest.fixture(scope="module")
def reader(toy_bank) -> SceneReader:
    return SceneReader("validation", 3, (64,), toy_bank)


def stand_in(make_model, processor, reader, monkeypatch, move: float, share: float):
    """A model that proposes the first `share` of the objects, moved by a part of their size."""
    model = make_model()
    queue = [reader[index] for index in range(len(reader))]

    def propose(features):
        rows = [queue.pop(0) for _ in range(features.image.shape[0])]
        _, warps = processor.pixel_values([sample.open_image() for sample in rows])
        boxes, mask = processor.unit_boxes([sample.regions for sample in rows], warps)
        boxes[..., 0] += move * boxes[..., 2]
        for row in mask:
            row[int(share * int(row.sum())) :] = False
        return Regions(boxes, mask.float(), mask)

    monkeypatch.setattr(model, "propose", propose)
    return model


@pytest.mark.parametrize(
    ("move", "at_50", "at_75"),
    [(0.0, 100.0, 100.0), (0.2, 100.0, 0.0), (0.6, 0.0, 0.0)],
    ids=["exact", "IoU 0.67", "IoU 0.25"],
)
def test_recall_at_two_thresholds(make_model, processor, reader, monkeypatch, move, at_50, at_75):
    model = stand_in(make_model, processor, reader, monkeypatch, move, 1.0)
    scores = proposal_recall(model, processor, reader)
    # a moved box may still cover a neighbour now and then
    assert scores["proposal_recall_50"] == pytest.approx(at_50, abs=8)
    assert scores["proposal_recall_75"] == pytest.approx(at_75, abs=8)
    counts = [len(reader[index].regions) for index in range(3)]
    assert scores["proposals_per_image"] == pytest.approx(sum(counts) / 3)
    assert scores["eval_samples"] == 3
    assert set(SCORES["detection"]) <= set(scores)


def test_recall_is_over_objects_not_pictures(make_model, processor, reader, monkeypatch):
    model = stand_in(make_model, processor, reader, monkeypatch, 0.0, 0.5)
    counts = [len(reader[index].regions) for index in range(3)]
    found = sum(int(0.5 * count) for count in counts)
    scores = proposal_recall(model, processor, reader, thresholds=(0.9,))
    assert scores["proposal_recall_90"] == pytest.approx(100 * found / sum(counts))
    assert set(scores) == {
        "proposal_recall_90", "proposals_per_image", "eval_samples", "eval_cpu_seconds",
    }  # fmt: skip


def test_batches_do_not_matter_and_the_model_is_left_as_it_was(
    make_model, processor, reader, monkeypatch
):
    model = make_model()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = proposal_recall(model, processor, reader)
    monkeypatch.setattr(validate, "BATCH", 2)
    parts = proposal_recall(model, processor, reader)
    assert {**whole, "eval_cpu_seconds": 0} == {**parts, "eval_cpu_seconds": 0}
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.eval()
    proposal_recall(model, processor, reader)
    assert not model.training


def test_any_samples_with_regions_are_scored(make_model, processor, reader):
    model = make_model()
    listed = [reader[index] for index in range(len(reader))]
    scores = [proposal_recall(model, processor, samples) for samples in (reader, listed)]
    assert {**scores[0], "eval_cpu_seconds": 0} == {**scores[1], "eval_cpu_seconds": 0}


def test_samples_without_objects_cannot_be_scored(make_model, processor, reader):
    picture = reader[0].open_image()
    empty = Sample("bare", (ImageRef(None, *picture.size, pixels=picture),), ())
    for samples in ([empty], []):
        with pytest.raises(DataError, match=f"the {len(samples)} Samples have no regions"):
            proposal_recall(make_model(), processor, samples)
