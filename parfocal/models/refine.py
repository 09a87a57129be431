"""Box refinement: a second look at every candidate box, from features pooled over the box itself.

Shapes: B images, K candidate boxes, C channels of the finest level. Boxes are cxcywh in the unit
frame of the model's square input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from parfocal.models.config_regions import ProposerConfig
from parfocal.models.proposer import Candidates
from parfocal.models.roi_align import align_boxes


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
        self.threshold = config.score_threshold
        width = 2 * config.hidden_size
        self.hidden = nn.Linear(channels * self.GRID**2, width)
        self.shift = nn.Linear(width, 4)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, levels: Sequence[Tensor], candidates: Candidates) -> Candidates:
        """Return the same candidates, those that can be chosen with better boxes.

        Gradients stop at the result.
        """
        with torch.no_grad():
            start = candidates.boxes.float()
            # of pictures that are not there nobody knows which: all
            live = None if start.is_meta else self._live(candidates.scores)
            known = start if live is None else start[live]
            mean = (known + self.refine(levels, start, live)) / 2
            corners = box_convert(mean, "cxcywh", "xyxy").clamp(0, 1)
            moved = box_convert(corners, "xyxy", "cxcywh")
            boxes = moved if live is None else start.index_put((live,), moved)
        return Candidates(boxes, candidates.scores, candidates.training)

    def _live(self, scores: Tensor) -> Tensor:
        """Which candidates can become regions: bool[B, K]; the best of each picture always can."""
        best = scores.argmax(dim=1, keepdim=True)
        return (scores > self.threshold).scatter(1, best, True)

    def refine(self, levels: Sequence[Tensor], boxes: Tensor, mask: Tensor | None = None) -> Tensor:
        """Move boxes.

        Args:
            levels: float[B, C_l, G_l, G_l] each, fine to coarse; the finest is read.
            boxes: float[B, K, 4], cxcywh, unit frame.
            mask: bool[B, K], which of them to move; all when None.

        Returns:
            float32[B, K, 4], not clipped, or float32[n, 4] of the n boxes in the mask.
        """
        boxes = boxes.float()
        start = boxes.flatten(0, 1) if mask is None else boxes[mask]
        wide = torch.cat((boxes[..., :2], boxes[..., 2:] * self.MARGIN), dim=-1)
        corners = box_convert(wide, "cxcywh", "xyxy") * levels[0].shape[-1]
        cells = align_boxes(levels[0], corners, self.GRID, mask)
        hidden = torch.relu(self.hidden(cells.flatten(1).to(self.hidden.weight.dtype)))
        shift = self.shift(hidden).float()
        centre = start[:, :2] + shift[:, :2] * start[:, 2:]
        moved = torch.cat((centre, start[:, 2:] * shift[:, 2:].clamp(-1, 1).exp()), dim=-1)
        return moved.view(boxes.shape) if mask is None else moved


def build_refiner(config: ProposerConfig, channels: Sequence[int]) -> BoxRefiner | None:
    """Build the refiner if `config.refine` asks for one."""
    return BoxRefiner(config, channels[0]) if config.refine else None
