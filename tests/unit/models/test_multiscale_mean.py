"""Pooling without cells: the same numbers as RoIAlign, and the two cross-attentions."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_convert, roi_align

from parfocal.models.config_regions import RegionsConfig
from parfocal.models.fusion import join_levels
from parfocal.models.multiscale_mean import (
    MultiscaleMean,
    RegionsReadTokens,
    TokensReadRegions,
    build_merge,
)
from parfocal.models.proposer import Regions

SIDE = 96  # pixels; the finest level has 24 cells
BOXES = {
    "ordinary": [10, 20, 60, 50],
    "whole picture": [0, 0, 96, 96],
    "of no size": [0, 0, 0, 0],
    "of no size in the far corner": [96, 96, 96, 96],
    "thinner than a cell": [31, 10, 33, 80],
    "leaves the picture": [-20, 40, 40, 130],
    "outside the picture": [150, 150, 190, 190],
    "as many cells as bins": [12, 0, 40, 28],
    "twice as many cells as bins": [12, 12, 68, 68],
}


def encoder(size: int = 7, **values) -> MultiscaleMean:
    torch.manual_seed(0)
    config = RegionsConfig("multiscale_mean", roi_size=size, layout="bare", **values)
    return MultiscaleMean(config, (2, 3, 4), 8).eval()


def make_levels(batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, channels, grid, grid, generator=generator)
        for channels, grid in ((2, 24), (3, 12), (4, 6))
    ]


def unit(corners: list[list[float]]) -> torch.Tensor:
    return box_convert(torch.tensor(corners).float(), "xyxy", "cxcywh") / SIDE


@pytest.mark.parametrize("size", [1, 7, 56])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_it_is_the_mean_of_roi_align(box, size):
    levels = make_levels()
    boxes = torch.stack((unit([box]), unit([[5, 6, 7, 80]])))
    pooled = encoder(size).appearance(levels, boxes)
    corners = [torch.tensor([box]).float(), torch.tensor([[5.0, 6, 7, 80]])]
    cells = roi_align(join_levels(levels), corners, size, 24 / SIDE, -1, aligned=False)
    torch.testing.assert_close(pooled[:, 0], cells.mean(dim=(2, 3)), atol=1e-5, rtol=1e-5)


def test_slots_do_not_know_of_each_other_and_dead_ones_are_zero():
    model, levels = encoder(), make_levels(1)
    boxes = unit([[10, 20, 60, 50], [0, 0, 30, 30], [0, 0, 0, 0]])[None]
    mask = torch.tensor([[True, True, False]])
    together = model(levels, Regions(boxes, torch.ones(1, 3), mask))
    alone = model(levels, Regions(boxes[:, 1:2], torch.ones(1, 1), mask[:, 1:2]))
    assert together.shape == (1, 3, 8)
    torch.testing.assert_close(together[:, 1], alone[:, 0])
    assert not together[0, 2].any()


def test_gradient_reaches_every_level():
    levels = [level.requires_grad_() for level in make_levels(1)]
    encoder().appearance(levels, unit([[10, 20, 60, 50]])[None]).sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in levels)


def test_half_precision_levels_are_pooled_in_full_precision():
    levels = [level.bfloat16() for level in make_levels(1)]
    boxes = unit([[10, 20, 60, 50]])[None]
    half = encoder().appearance(levels, boxes)
    full = encoder().appearance([level.float() for level in levels], boxes)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.bfloat16())


def test_boxes_in_a_mask_are_averaged_as_among_all():
    levels = make_levels(2)
    boxes, mask = torch.rand(2, 3, 4), torch.tensor([[True, False, True], [False, True, False]])
    whole = encoder().appearance(levels, boxes)
    assert torch.equal(encoder().appearance(levels, boxes, mask), whole[mask])


def test_autocast_does_not_reach_the_pooling():
    levels, boxes = make_levels(1), unit([[10, 20, 60, 50]])[None]
    model = encoder()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = model.appearance(levels, boxes)
    assert torch.equal(pooled, model.appearance(levels, boxes))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_counts_the_layers_of_its_own_projector(depth):
    linear = [layer for layer in encoder(depth=depth).project if hasattr(layer, "weight")]
    assert len(linear) == depth


def test_no_projector_where_regions_do_not_enter_the_text():
    assert encoder(merge="f2b_attention").project is None


def test_regions_look_at_tokens_and_keep_what_they_were():
    merge = RegionsReadTokens(9, 5)
    appearance, tokens = torch.randn(2, 3, 9), torch.randn(2, 5, 4, 4)
    seen = merge(appearance, tokens)
    assert seen.shape == appearance.shape
    turned = merge(appearance, tokens.transpose(2, 3))  # where a token lies does not matter
    torch.testing.assert_close(seen, turned)
    torch.nn.init.zeros_(merge.attention.value[1].weight)
    torch.nn.init.zeros_(merge.attention.value[1].bias)
    assert torch.equal(merge(appearance, tokens), appearance)


def test_tokens_look_at_live_regions_only():
    merge = TokensReadRegions(9, 5)
    tokens, appearance = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 9)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    seen = merge(tokens, appearance, mask)
    other = merge(tokens, appearance.index_fill(1, torch.tensor(2), 5.0), mask)
    assert torch.equal(seen, other)
    assert not torch.equal(seen[0], tokens[0])
    assert torch.equal(seen[1], tokens[1])  # nothing to look at


def test_concat_needs_no_merge():
    assert build_merge(RegionsConfig("multiscale_mean"), 9, 5, 6) is None
