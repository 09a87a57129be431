"""Training data as the trainer wants it: indexed examples, and collators around the processor.

Shapes: B pictures, S input side, N annotated objects (padded). Boxes are cxcywh in the unit frame
of the model's square input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from parfocal.boxes import Boxes, Warp
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import Sample
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.expressions import COMPARISONS
from parfocal.data.scenes.turns import clear_expressions, hidden_names, with_turns
from parfocal.dialects import Dialect
from parfocal.dialects.grounded import GroundedText, ObjectRef
from parfocal.errors import DataError
from parfocal.models.processing import ParfocalProcessor

KIND_INDEX = {kind.name: index for index, kind in enumerate(KINDS)}


class SceneDataset(Dataset[Sample]):
    """Seeded scenes as a map-style dataset: item `i` is scene `first + i`, whoever asks.

    A sampler that hands out each index once an epoch therefore gives every scene to exactly one
    process.

    Args:
        reader: paints the scenes.
        first: index of the first scene, so that stages need not see the same ones.
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
        """Return the keyword arguments of the detection objective."""
        pixel_values, warps = self.processor.pixel_values(
            [sample.open_image() for sample in samples]
        )
        boxes, mask = self.processor.unit_boxes([sample.regions for sample in samples], warps)
        labels = kinds_of([sample.regions for sample in samples], mask)
        return {"pixel_values": pixel_values, "boxes": boxes, "mask": mask, "labels": labels}


class ConversationDataset(Dataset[Sample]):
    """Seeded scenes with questions and answers; item `i` asks the same things in every process.

    Args:
        reader: paints the scenes.
        dialect: whose canonical questions are mixed in.
        seed: of the questions.
        first: index of the first scene, so that stages need not see the same ones.
    """

    def __init__(self, reader: SceneReader, dialect: Dialect, seed: int, first: int = 0) -> None:
        self.reader, self.dialect, self.seed, self.first = reader, dialect, seed, first

    def __len__(self) -> int:
        return len(self.reader) - self.first

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng((self.seed, self.first + index))
        return with_turns(self.reader[self.first + index], self.dialect, generator)


@dataclass
class AnswerCollator:
    """Samples of any mixture -> packed rows and pictures for the language objective.

    Args:
        processor: of the model.
        max_length: text tokens of a row, see `Stage`.
    """

    processor: ParfocalProcessor
    max_length: int = 0

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the keyword arguments of the language objective.

        Raises:
            DataError: for a Sample with several pictures that its questions do not show.
        """
        objects, warps = [], []
        for sample in samples:
            shown = max(_shown(turn.text) for turn in sample.turns) if sample.turns else 0
            if len(sample.images) > 1 + shown:
                raise DataError(
                    f"sample {sample.id!r} has {len(sample.images)} pictures; training reads one, "
                    "and further ones as the object images that questions show."
                )
            objects.append(sample.open_images()[1:] if shown else [])
        seen = [sample.open_image() for sample in samples if sample.images]
        pixel_values, own = self.processor.pixel_values(seen) if seen else ([], [])
        left = iter(own)
        warps = [
            next(left) if sample.images else Warp.identity(sample.regions.frame)
            for sample in samples
        ]
        text = self.processor.pack(samples, warps, objects, self.max_length)
        return {
            "pixel_values": pixel_values,
            "text": text,
            "pictures": [min(1, len(sample.images)) for sample in samples],
            "seeds": [crc32(sample.id.encode()) for sample in samples],
        }


def _shown(text: GroundedText) -> int:
    """The number of the last object image that a text shows; 0 for none."""
    return max((span.image for span in text.spans if isinstance(span, ObjectRef)), default=0)


@dataclass
class ConversationCollator:
    """Samples with turns -> packed rows, pictures and objects for the language objective."""

    processor: ParfocalProcessor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the keyword arguments of the language objective."""
        pixel_values, warps = self.processor.pixel_values(
            [sample.open_image() for sample in samples]
        )
        text = self.processor.pack(samples, warps)
        objects = [_objects(sample) for sample in samples]
        boxes, mask = self.processor.unit_boxes(objects, warps)
        scene = {
            "boxes": boxes, "mask": mask, "labels": kinds_of(objects, mask),
            "compared": compared_objects(samples, mask),
        }  # fmt: skip
        return {"pixel_values": pixel_values, "text": text, **scene}


def _objects(sample: Sample) -> Boxes:
    """Read `meta["objects"]` back into labelled boxes."""
    rows: Any = sample.meta["objects"]
    frame = sample.regions.frame
    if not rows:
        return Boxes.empty(frame)
    return Boxes([row["xyxy"] for row in rows], frame, labels=[row["name"] for row in rows])


def kinds_of(objects: Sequence[Boxes], mask: Tensor) -> Tensor:
    """Return the kind of every labelled box.

    Args:
        objects: labelled boxes of each row.
        mask: bool[B, N], whose shape the result takes.

    Returns:
        int[B, N], index in `KINDS`; 0 in padding.
    """
    labels = torch.zeros(mask.shape, dtype=torch.long)
    for row, found in enumerate(objects):
        for column, name in enumerate(found.labels or ()):
            labels[row, column] = KIND_INDEX[name]
    return labels


def compared_objects(samples: Sequence[Sample], mask: Tensor) -> Tensor:
    """Return which object of several of one name every comparison picks.

    Args:
        samples: from `with_turns`.
        mask: bool[B, N], whose shape the result takes.

    Returns:
        float[B, N, C], over `COMPARISONS`: 1 the one picked ("the largest dog"), 0 another of its
        name, -1 where nothing is to compare or the margin is too small to tell.
    """
    picked = torch.full((*mask.shape, len(COMPARISONS)), -1.0)
    for row, sample in enumerate(samples):
        objects = _objects(sample)
        names = list(objects.labels or ())
        for item in clear_expressions(names, objects, hidden_names(sample)):
            if item.twin and item.relation in COMPARISONS:
                relation = COMPARISONS.index(item.relation)
                twins = [at for at, name in enumerate(names) if name == names[item.target]]
                picked[row, twins, relation] = 0.0
                picked[row, item.target, relation] = 1.0
    return picked
