"""Public parts: what their folders lack or hold too much of is told by name."""

from __future__ import annotations

import pytest

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.public_parts import tower_state
from tests.unit.models.builders import build_groma


def test_a_tower_whose_files_do_not_fit_is_refused_with_the_reason(tmp_path):
    model = build_groma()[0]
    (tmp_path / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{tmp_path} could not be loaded: 'weight_map'"):
        tower_state(0, model.config.vision.towers[0], tmp_path, model.state_dict())
