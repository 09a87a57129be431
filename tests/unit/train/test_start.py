"""What a run starts from: weights that are here, and nothing random that another stage trains."""

from __future__ import annotations

import dataclasses

import pytest

from parfocal.train.costs import meta_model
from parfocal.train.recipe import Lora, Recipe, Stage
from parfocal.train.start import start_problems

FIND = Stage("find", "detection", ("vision", "proposer"), samples=4, batch_size=2)
TALK = Stage("talk", "language", ("projector",), samples=4, batch_size=2, lora=Lora())
LAST = Stage("last", "language", ("text",), samples=4, batch_size=2)


@pytest.fixture
def problems(tiny_parts, tmp_path):
    """What is missing where some stages train now; every source is a folder with weights."""
    (tmp_path / "model.safetensors").touch()

    def find(left: str, done: str = "", weights: tuple[str, ...] = ()) -> list[str]:
        given = dict.fromkeys(weights, str(tmp_path))
        recipe = Recipe("demo", "tiny", (FIND, TALK, LAST), weights=given)
        stages = [stage for stage in recipe.stages if stage.name in left.split()]
        return start_problems(meta_model(tiny_parts[0]), recipe, stages, done.split())

    return find


@pytest.mark.parametrize(
    ("left", "done", "weights", "parts"),
    [
        ("find talk last", "", (), None),
        ("find", "", (), None),
        ("talk", "find", (), None),
        ("talk", "", (), ["vision", "proposer"]),
        ("last", "", (), ["vision", "proposer", "projector", "text"]),
        ("find last", "", (), ["projector", "text"]),
        ("last", "find", (), ["projector", "text"]),
        ("last", "talk", (), None),  # find's folder was removed: talk's weights hold it
        ("talk", "", ("model",), None),
        ("talk", "", ("vision",), ["proposer"]),
        ("talk", "", ("vision.towers", "proposer"), ["vision"]),  # its pyramid is another part
        ("talk", "", ("vision", "proposer"), None),
        ("", "find talk last", (), None),
    ],
)  # fmt: skip
def test_what_a_stage_that_is_left_out_trains_has_to_be_given(problems, left, done, weights, parts):
    found = problems(left, done, weights)
    if parts is None:
        assert found == []
        return
    (problem,) = found
    assert f" are given for what they would train: {parts}. Train them first, " in problem
    assert "--set weights.model=FOLDER" in problem


def test_weights_are_asked_for_where_nothing_is_done(tiny_parts):
    model = meta_model(tiny_parts[0])
    recipe = Recipe("demo", "tiny", (FIND,), weights={"model": "nowhere/x", "txet": "mini"})
    gone, unknown = start_problems(model, recipe, [FIND], ())
    assert "'nowhere/x' is neither a folder here nor a hub id in the local cache" in gone
    assert "no part 'txet'" in unknown
    recipe = dataclasses.replace(recipe, stages=(FIND, LAST))
    assert start_problems(model, recipe, [LAST], ("find",)) == []
