"""Box refinement: a second look at every candidate box, from features pooled over the box itself.

Shapes: B images, K candidate boxes, C channels of the finest level. Boxes are cxcywh in the unit
frame of the model's square input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, roi_align

from parfocal.models.config_regions import ProposerConfig
from parfocal.models.proposer import Candidates


class BoxRefiner(nn.Module):
    """Predicts how each side of a box should move, once, for every candidate.

    The box is widened by `MARGIN` before RoIAlign, so that a side that cuts off its object sees
    the rest of it. The result is the mean of the first and the second look,
    which err in different ways. Source: the box branch of Faster R-CNN (arXiv:1506.01497) and its
    parametrisation of shifts. Deviates: class-agnostic, one level, one linear layer over the grid.
    """

    GRID = 7
    MARGIN = 1.25

    def __init__(self, config: ProposerConfig, channels: int) -> None:
        super().__init__()
        width = 2 * config.hidden_size
        self.hidden = nn.Linear(channels * self.GRID**2, width)
        self.shift = nn.Linear(width, 4)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, levels: Sequence[Tensor], candidates: Candidates) -> Candidates:
        """Return the same candidates with better boxes; gradients stop at the result."""
        with torch.no_grad():
            second = self.refine(levels, candidates.boxes)
            mean = (candidates.boxes.float() + second) / 2
            corners = box_convert(mean, "cxcywh", "xyxy").clamp(0, 1)
            boxes = box_convert(corners, "xyxy", "cxcywh")
        return Candidates(boxes, candidates.scores, candidates.training)

    def refine(self, levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Move boxes float[B, K, 4]; returns float32 of the same shape, not clipped."""
        boxes = boxes.float()
        batch, count = boxes.shape[:2]
        wide = box_convert(
            torch.cat((boxes[..., :2], boxes[..., 2:] * self.MARGIN), -1), "cxcywh", "xyxy"
        )
        index = torch.arange(batch, device=boxes.device).float().repeat_interleave(count)[:, None]
        rois = torch.cat((index, wide.flatten(0, 1) * levels[0].shape[-1]), dim=1)
        cells = roi_align(levels[0].float(), rois, self.GRID, sampling_ratio=2, aligned=True)
        hidden = torch.relu(self.hidden(cells.flatten(1).to(self.hidden.weight.dtype)))
        shift = self.shift(hidden).float().view(batch, count, 4)
        centre = boxes[..., :2] + shift[..., :2] * boxes[..., 2:]
        return torch.cat((centre, boxes[..., 2:] * shift[..., 2:].clamp(-1, 1).exp()), dim=-1)


def build_refiner(config: ProposerConfig, channels: Sequence[int]) -> BoxRefiner | None:
    """Build the refiner if `config.refine` asks for one."""
    return BoxRefiner(config, channels[0]) if config.refine else None
