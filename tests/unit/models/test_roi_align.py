"""RoIAlign by products of matrices: torchvision's numbers, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torchvision import ops

from parfocal.models.roi_align import align_boxes


def expected(level: torch.Tensor, boxes: torch.Tensor, bins: int) -> torch.Tensor:
    return ops.roi_align(level, list(boxes), bins, sampling_ratio=2, aligned=True)


def some(count: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """A map of 5 x 8 cells of two images, and boxes in it, across its border and beyond."""
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(2, 3, 5, 8, generator=generator)
    corners = torch.rand(2, count, 4, generator=generator) * 16 - 4
    low, high = corners[..., :2], corners[..., :2] + corners[..., 2:].abs()
    return level.requires_grad_(), torch.cat((low, high), dim=-1)


@pytest.mark.parametrize("bins", [1, 2, 7])
def test_numbers_and_gradients_are_torchvisions(bins):
    level, boxes = some()
    found, wanted = align_boxes(level, boxes, bins), expected(level, boxes, bins)
    assert wanted.ne(0).any()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    slope = torch.randn_like(wanted)
    (own,) = torch.autograd.grad(found, level, slope)
    (other,) = torch.autograd.grad(wanted, level, slope)
    torch.testing.assert_close(own, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "box",
    [
        [6.0, 4.0, 1.0, 1.0],  # read backwards
        [2.0, 2.0, 2.0, 2.0],  # a point
        [-0.5, -0.5, 8.5, 5.5],  # samples on the very border of what counts
        [20.0, 20.0, 30.0, 30.0],  # nothing of it is on the map
    ],
)
def test_odd_boxes_too(box):
    level, boxes = some()[0], torch.tensor([[box], [box]])
    wanted = expected(level, boxes, 4)
    torch.testing.assert_close(align_boxes(level, boxes, 4), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("live", [[[1, 0, 1], [0, 0, 1]], [[0, 0, 0], [1, 0, 0]], [[0] * 3] * 2])
def test_a_mask_leaves_out_boxes(live):
    (level, boxes), mask = some(3), torch.tensor(live).bool()
    wanted = align_boxes(level, boxes, 2)[mask.flatten()]
    torch.testing.assert_close(align_boxes(level, boxes, 2, mask), wanted, rtol=0, atol=1e-6)


def test_autocast_does_not_make_it_coarse():
    level, boxes = some()
    with torch.autocast("cpu", torch.bfloat16):
        found = align_boxes(level.bfloat16(), boxes, 2)
    assert found.dtype == torch.float32
    wanted = expected(level.bfloat16().float(), boxes, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
