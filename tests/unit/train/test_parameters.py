"""Checkpoints of whole models: tables that share their weights, and strictness."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from parfocal.errors import CheckpointError
from parfocal.train.parameters import load_whole, tied_names


def test_a_checkpoint_may_hold_a_shared_table_once_or_twice(make_model, tmp_path):
    saved, path = make_model(seed=1), str(tmp_path / "model.safetensors")
    whole = {name: value.clone() for name, value in saved.state_dict().items()}
    (names,) = tied_names(saved)
    for left_out in ([], names[1:], names[:1]):
        save_file({name: value for name, value in whole.items() if name not in left_out}, path)
        model = make_model(seed=2)
        load_whole(model, path)
        assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())
    save_file({name: value for name, value in whole.items() if name not in names}, path)
    with pytest.raises(CheckpointError, match=r"lacks \['text.lm_head.weight'"):
        load_whole(make_model(), path)
    save_file({**whole, "more": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"\['more'\] on top"):
        load_whole(make_model(), path)
