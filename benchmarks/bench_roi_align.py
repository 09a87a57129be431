"""RoIAlign on a CPU: products of matrices against torchvision's loop over samples.

One process, one thread, process time; the boxes of one training step of mini's perception in two
processes. The two take turns, and the smallest time of each counts. Run as

    python benchmarks/bench_roi_align.py

which prints milliseconds of both ways together, and how many times faster the products are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import ops

from parfocal.models.roi_align import align_boxes

IMAGES, BOXES, CHANNELS, SIDE = 16, 8, 96, 24
ROUNDS = 20


def spent(pool: Callable[[], Tensor], level: Tensor) -> float:
    """Process time in ms, forward and back."""
    level.grad, start = None, time.process_time()
    pool().sum().backward()
    return 1e3 * (time.process_time() - start)


def compare(bins: int) -> tuple[float, float]:
    """The least ms of the products and of torchvision."""
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, CHANNELS, SIDE, SIDE)
    level = torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
    level.requires_grad_()
    middle = torch.rand(IMAGES, BOXES, 2, generator=generator) * SIDE
    half = torch.rand(IMAGES, BOXES, 2, generator=generator) * SIDE / 6 + 2
    boxes = torch.cat((middle - half, middle + half), dim=-1)
    ways = (
        lambda: align_boxes(level, boxes, bins),
        lambda: ops.roi_align(level, list(boxes), bins, sampling_ratio=2, aligned=True),
    )
    times = [[spent(way, level) for way in ways] for _ in range(ROUNDS)]
    own, other = map(min, zip(*times, strict=True))
    return own, other


def main() -> None:
    """Compare the grids of mini's regions and of its refiner."""
    torch.set_num_threads(1)
    for bins in (5, 7):
        own, other = compare(bins)
        row = f"{bins} x {bins}: products {own:.1f}, torchvision {other:.1f}, x {other / own:.1f}"
        sys.stdout.write(row + "\n")


if __name__ == "__main__":
    main()
