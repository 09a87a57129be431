"""Fusions: which channels come first, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from parfocal.errors import ConfigError
from parfocal.models.config_vision import FusionConfig
from parfocal.models.fusion import CrossAttention, FusionInputs, build_fusion, join_levels


def test_none_is_the_only_tower_as_it_is():
    fusion = build_fusion(FusionConfig(), FusionInputs((3,), (4,)))
    tokens = torch.arange(96.0).view(2, 3, 4, 4)
    assert (fusion.out_channels, fusion.out_grid) == (3, 4)
    assert torch.equal(fusion([tokens]), tokens)


def test_concat_puts_the_first_tower_first():
    fusion = build_fusion(FusionConfig("concat"), FusionInputs((3, 2), (4, 4)))
    first, second = torch.full((1, 3, 4, 4), 1.0), torch.full((1, 2, 4, 4), 2.0)
    fused = fusion([first, second])
    assert (fusion.out_channels, fusion.out_grid) == (5, 4)
    assert fused[0, :, 2, 3].tolist() == [1, 1, 1, 2, 2]


def test_concat_of_different_grids_is_refused():
    with pytest.raises(ConfigError, match=r"equal grids, the towers have \[4, 6\]"):
        build_fusion(FusionConfig("concat"), FusionInputs((3, 2), (4, 6)))


SIZES = FusionInputs((4, 6), (3, 3), (2, 3), (12, 6), 8)


def make_maps() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def noise(channels: int, grid: int) -> torch.Tensor:
        return torch.randn(2, channels, grid, grid, generator=generator)

    return [noise(4, 3), noise(6, 3)], [noise(2, 12), noise(3, 6)]


@pytest.mark.parametrize(
    ("config", "channels"),
    [
        (FusionConfig("concat"), 10),
        (FusionConfig("conv_gate"), 4),
        (FusionConfig("conv_gate", join="channels"), 8),
        (FusionConfig("conv_gate", gated=False), 4),
        (FusionConfig("patch_info_mining"), 4),
        (FusionConfig("patch_info_mining", mined="tokens"), 4),
        (FusionConfig("resampler", heads=2), 8),
    ],
    ids=lambda value: value.kind if isinstance(value, FusionConfig) else "",
)
def test_every_fusion_gives_the_map_it_declares_and_learns(config, channels):
    fusion, (maps, levels) = build_fusion(config, SIZES), make_maps()
    for value in fusion.parameters():  # zeros at the start would hide what is not connected
        torch.nn.init.normal_(value, std=0.2)
    fused = fusion(maps, levels)
    assert (fusion.out_channels, fusion.out_grid) == (channels, 3)
    assert fused.shape == (2, channels, 3, 3)
    fused.square().sum().backward() if list(fusion.parameters()) else None
    unused = [name for name, value in fusion.named_parameters() if value.grad is None]
    assert not unused


def test_the_gate_is_one_number_a_picture():
    fusion, (maps, _) = build_fusion(FusionConfig("conv_gate"), SIZES), make_maps()
    torch.nn.init.normal_(fusion.convs.high[2].weight)
    torch.nn.init.constant_(fusion.gate[2].weight, 0.0)
    torch.nn.init.constant_(fusion.gate[2].bias, 0.3)
    low, high = fusion.convs(*maps)
    torch.testing.assert_close(fusion(maps), low + high * torch.tanh(torch.tensor(0.3)))


@pytest.mark.parametrize("mined", ["levels", "tokens"])
def test_a_token_mines_its_own_window_only(mined):
    fusion, (maps, levels) = (
        build_fusion(FusionConfig("patch_info_mining", mined=mined), SIZES),
        make_maps(),
    )
    before = fusion(maps, levels)
    if mined == "levels":
        levels[0][:, :, 4:8, 8:12] += 1.0  # the window of token (1, 2) on the finest level
    else:
        maps[1][:, :, 1, 2] += torch.linspace(-1, 1, 6)
    changed = (fusion(maps, levels) - before).abs().sum((0, 1)) > 0
    assert torch.nonzero(changed).tolist() == [[1, 2]]


def test_a_fine_grid_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="multiple of the coarse one, got 12 and 5"):
        build_fusion(FusionConfig("patch_info_mining"), FusionInputs((4, 6), (5, 3), (2,), (12,)))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="resampler of 3 heads does not fit"):
        build_fusion(FusionConfig("resampler", heads=3), SIZES)


def test_levels_are_stretched_to_the_finest():
    _, levels = make_maps()
    joined = join_levels(levels)
    assert joined.shape == (2, 5, 12, 12)
    assert torch.equal(joined[:, :2], levels[0])
    assert torch.equal(join_levels([level * 0 + 3 for level in levels]), torch.full_like(joined, 3))


def test_attention_with_nothing_to_see_gives_zero():
    attention = CrossAttention(4, 6)
    mask = torch.tensor([[True, False], [False, False]])
    found = attention(torch.randn(2, 3, 4), torch.randn(2, 2, 6), mask)
    assert found[0].any()
    assert not found[1].any()
