"""Training data as the trainer wants it: indexed examples, and collators that run the model's own processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import Sample
from parfocal.data.scenes.catalogue import KINDS
from parfocal.models.processing import ParfocalProcessor

KIND_INDEX = {kind.name: index for index, kind in enumerate(KINDS)}


class SceneDataset(Dataset[Sample]):
    """Seeded scenes as a map-style dataset: item `i` is scene `i`, whichever process or worker asks.

    A sampler that hands out each index once an epoch therefore gives every scene to exactly one process.
    """

    def __init__(self, reader: SceneReader, first: int = 0) -> None:
        self.reader, self.first = reader, first

    def __len__(self) -> int:
        return len(self.reader) - self.first

    def __getitem__(self, index: int) -> Sample:
        return self.reader[self.first + index]


@dataclass
class ObjectCollator:
    """Samples with labelled regions -> pictures, boxes and kinds for the detection objective."""

    processor: ParfocalProcessor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        pixel_values, warps = self.processor.pixel_values([sample.open_image() for sample in samples])
        boxes, mask = self.processor.unit_boxes([sample.regions for sample in samples], warps)
        return {"pixel_values": pixel_values, "boxes": boxes, "mask": mask, "labels": kinds_of(samples, mask)}


def kinds_of(samples: Sequence[Sample], mask: Tensor) -> Tensor:
    """Return int[B, N], the kind of every labelled region; 0 in padding."""
    labels = torch.zeros(mask.shape, dtype=torch.long)
    for row, sample in enumerate(samples):
        for column, name in enumerate(sample.regions.labels or ()):
            labels[row, column] = KIND_INDEX[name]
    return labels
