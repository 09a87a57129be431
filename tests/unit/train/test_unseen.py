"""Batches without pictures reach all that trains, where processes wait for each other's parts."""

from __future__ import annotations

import pytest
import torch

from parfocal.data.sample import Sample
from parfocal.train import stages
from parfocal.train.data import AnswerCollator
from parfocal.train.language import LanguageObjective
from parfocal.train.unseen import blank_picture
from tests.unit.models.builders import (
    build_dense,
    build_groma,
    build_mg_llava,
    build_tiny_grounding_gpt,
)
from tests.unit.train.test_videos import talk

BUILDERS = {
    "dense": build_dense,
    "groma": build_groma,
    "conv_gate": build_mg_llava,
    "crop": build_tiny_grounding_gpt,
}
CHOICES = ("proposer", "refiner", "score_")  # boxes are chosen, and choices have no gradient


def batch_of_words(processor) -> dict:
    return AnswerCollator(processor)([Sample("words", (), talk("what is it?", "it is"))])


def gradients(objective: LanguageObjective, batch: dict) -> dict[str, torch.Tensor]:
    objective.zero_grad()
    objective(**batch).loss.backward()
    named = objective.named_parameters()
    return {name: value.grad.clone() for name, value in named if value.grad is not None}


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_blank_picture_is_looked_at_and_nothing_is_learned_of_it(kind):
    model, processor = BUILDERS[kind]()
    objective, batch = LanguageObjective(model).train(), batch_of_words(processor)
    loss, alone = objective(**batch).loss, gradients(objective, batch)
    objective.blank = blank_picture(model.config)
    assert torch.equal(objective(**batch).loss, loss)
    shown = gradients(objective, batch)
    assert alone.keys() < shown.keys()
    for name, value in shown.items():
        assert torch.equal(value, alone.get(name, torch.zeros_like(value))), name
    reached = {name.split(".")[1] for name in shown}
    wanted = {"vision", "projector", *(["regions"] if model.regions is not None else [])}
    assert wanted <= reached


def test_object_images_that_a_batch_lacks_are_looked_at(tmp_path, monkeypatch):
    model, processor = build_tiny_grounding_gpt()
    objective, seen = LanguageObjective(model).train(), []
    encode = model.encode_objects
    monkeypatch.setattr(
        model, "encode_objects", lambda pixels, mask: seen.append(mask) or encode(pixels, mask)
    )
    objective.blank = blank_picture(model.config)
    objective(**batch_of_words(processor))
    assert [mask.tolist() for mask in seen] == [[[True]]]


def test_where_features_are_kept_the_blank_is_kept_as_well():
    model, processor = build_groma()
    objective, batch = LanguageObjective(model).train(), batch_of_words(processor)
    objective.blank = stages._blank(model, seen=True)
    reached = {name.split(".")[1] for name in gradients(objective, batch)}
    assert {"projector", "regions", "text"} <= reached
    assert "vision" not in reached


def test_words_alone_can_be_stepped_over_where_none_of_their_readers_trains():
    model, processor = build_groma()
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    found = gradients(LanguageObjective(model).train(), batch_of_words(processor))
    assert found
    assert not any(value.any() for value in found.values())
