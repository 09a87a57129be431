"""Projector: the order of merged tokens, the depth, the norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parfocal.errors import ConfigError
from parfocal.models.config_vision import ProjectorConfig
from parfocal.models.projector import Projector, merge_tokens


def test_merge_order_is_top_left_bottom_left_top_right_bottom_right():
    """Groma's order (specs: column by column within a square)."""
    square = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert merge_tokens(square, 2).tolist() == [[[1, 3, 2, 4]]]


def test_merged_tokens_run_row_by_row_and_keep_channels_together():
    # value = 100 * channel + 10 * row + column on a 4 x 4 grid of 2 channels
    row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    tokens = torch.stack([100 * channel + 10 * row + column for channel in range(2)])[None].float()
    merged = merge_tokens(tokens, 2)
    assert merged.shape == (1, 4, 8)
    assert merged[0, 0].tolist() == [0, 100, 10, 110, 1, 101, 11, 111]
    assert merged[0, :, 0].tolist() == [0, 2, 20, 22]


def test_merge_of_one_is_the_row_by_row_sequence():
    tokens = torch.arange(18.0).view(1, 2, 3, 3)
    assert torch.equal(merge_tokens(tokens, 1), tokens.flatten(2).transpose(1, 2))


def test_a_merge_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="merge 2 does not divide the 5 x 5"):
        Projector(ProjectorConfig(merge=2), 3, 5, 8)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_counts_linear_layers_with_gelu_between(depth):
    projector = Projector(ProjectorConfig(depth=depth), 3, 4, 8)
    kinds = [type(layer) for layer in projector.layers]
    assert kinds == [nn.Linear, nn.GELU] * (depth - 1) + [nn.Linear]


@pytest.mark.parametrize(("merge", "tokens"), [(1, 36), (2, 9)])
def test_shape(merge, tokens):
    projector = Projector(ProjectorConfig(merge=merge), 3, 6, 8)
    assert projector.num_tokens == tokens
    assert projector(torch.randn(2, 3, 6, 6)).shape == (2, tokens, 8)


def test_the_norm_starts_at_the_scale_of_token_embeddings():
    projector = Projector(ProjectorConfig(norm=True), 3, 4, 64)
    out = projector(100 * torch.randn(2, 3, 4, 4)).detach()
    assert out.pow(2).mean(-1).sqrt() == pytest.approx(64**-0.5, rel=1e-2)
    assert out.mean(-1).abs().max() < 1e-6
