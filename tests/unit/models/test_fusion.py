"""Fusions: which channels come first, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from parfocal.errors import ConfigError
from parfocal.models.config import FusionConfig
from parfocal.models.fusion import build_fusion


def test_none_is_the_only_tower_as_it_is():
    fusion = build_fusion(FusionConfig(), (3,), (4,))
    tokens = torch.arange(96.0).view(2, 3, 4, 4)
    assert (fusion.out_channels, fusion.out_grid) == (3, 4)
    assert torch.equal(fusion([tokens]), tokens)


def test_concat_puts_the_first_tower_first():
    fusion = build_fusion(FusionConfig("concat"), (3, 2), (4, 4))
    first, second = torch.full((1, 3, 4, 4), 1.0), torch.full((1, 2, 4, 4), 2.0)
    fused = fusion([first, second])
    assert (fusion.out_channels, fusion.out_grid) == (5, 4)
    assert fused[0, :, 2, 3].tolist() == [1, 1, 1, 2, 2]


def test_concat_of_different_grids_is_refused():
    with pytest.raises(ConfigError, match=r"equal grids, the towers have \[4, 6\]"):
        build_fusion(FusionConfig("concat"), (3, 2), (4, 6))
