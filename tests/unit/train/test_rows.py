"""Rows of known tokens stay bit-identical while those of new ones learn."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from parfocal.errors import ConfigError
from parfocal.train.recipe import Optim, Stage
from parfocal.train.rows import held_rows
from tests.unit.models.builders import build_groma

STAGE = Stage(
    "words", "language", ("text",), samples=4, batch_size=2, first_row=9,
    optim=Optim(weight_decay=0.0),
)  # fmt: skip


def tables(model) -> list[torch.nn.Parameter]:
    return [model.get_input_embeddings().weight, model.get_output_embeddings().weight]


def step(model, first: int) -> list[torch.Tensor]:
    """Which rows of both tables a few steps change."""
    before = [table.detach().clone() for table in tables(model)]
    optimizer = torch.optim.AdamW(tables(model), lr=0.1, weight_decay=0.0)
    ids = torch.arange(12)[None]
    for _ in range(3):
        optimizer.zero_grad()
        with held_rows(model, first):
            model.text(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return [(new != old).any(1) for new, old in zip(tables(model), before, strict=True)]


def test_only_rows_from_the_first_on_move():
    model = build_groma()[0]
    table, head = step(model, 9)
    assert not table[:9].any()
    assert table[9:12].any()
    assert not head[:9].any()
    assert head[9:].all()


def test_afterwards_all_rows_learn_again():
    model = build_groma()[0]
    step(model, 9)
    table, head = step(model, 0)
    assert table[:9].any()
    assert head.all()


def test_rows_that_stay_must_not_decay():
    with pytest.raises(ConfigError, match=r"first_row 9 and weight_decay 0\.02"):
        dataclasses.replace(STAGE, optim=Optim())


def test_some_row_has_to_learn():
    model = build_groma()[0]
    rows = len(model.get_input_embeddings().weight)
    with pytest.raises(ConfigError, match=f"there are {rows} tokens"), held_rows(model, rows):
        pass
