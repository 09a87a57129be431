"""Training data as the trainer wants it: indexed examples, and collators around the processor.

Shapes: B pictures, S input side, N annotated objects (padded). Boxes are cxcywh in the unit frame
of the model's square input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from parfocal.boxes import Boxes, Warp
from parfocal.data.readers.groma_detection import GromaDetectionReader
from parfocal.data.readers.sa1b import Sa1bReader
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import Sample
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.expressions import COMPARISONS
from parfocal.data.scenes.object_turns import show_objects
from parfocal.data.scenes.turns import clear_expressions, hidden_names, with_turns
from parfocal.dialects import Dialect
from parfocal.errors import DataError
from parfocal.models.outputs import Perception
from parfocal.models.pictures import num_pictures, open_pictures, shows_video
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.text_batch import UnwritableError
from parfocal.train.augment import DetectionAugment, augment, learnable
from parfocal.train.feature_cache import FeatureCache, picture_keys
from parfocal.train.samples import (
    UnreadableError,
    check_pictures,
    check_regions,
    check_turns,
    opening,
    shown,
)

KIND_INDEX = {kind.name: index for index, kind in enumerate(KINDS)}

OBJECT_QUESTIONS = 2  # of a scene, for models that read object images

ANY = ""
GROMA_HEADS: Mapping[str, str] = {Sa1bReader.source: "sa1b", ANY: "coco"}
"""Dataset -> score head that its boxes train; `ANY` stands for all others.

Source: Groma (arXiv:2404.13013), official groma/data/datasets/det_data.py. Deviates: no.
"""


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


@dataclass
class DetectionCollator:
    """Samples of any mixture whose regions are objects -> pictures and boxes, without kinds.

    Args:
        processor: of the model.
        heads: dataset of a Sample's boxes (see `dataset_of`) -> score head that they train; the one
            of `ANY` where the dataset is not named. See `score_heads_of`.
        augment: how pictures and boxes are changed; None: not at all.
        seed: of the run. With the Sample's id, and how often it was seen, it decides how a picture
            is changed, so that neither the order of Samples nor the number of processes matters.
    """

    processor: ParfocalProcessor
    heads: Mapping[str, str]
    augment: DetectionAugment | None = None
    seed: int = 0

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the keyword arguments of the detection objective.

        Raises:
            UnreadableError: for a Sample whose picture cannot be opened.
            DataError: for a Sample without a picture or regions, or of a dataset that no head is
                named for.
        """
        seen = [self._seen(sample) for sample in samples]
        pixel_values, warps = self.processor.pixel_values([image for image, _ in seen])
        rows = [
            self._learned(sample, boxes, warp)
            for sample, (_, boxes), warp in zip(samples, seen, warps, strict=True)
        ]
        boxes, mask = self.processor.unit_boxes(rows, warps)
        heads = [self._head(sample) for sample in samples]
        return {"pixel_values": pixel_values, "boxes": boxes, "mask": mask, "heads": heads}

    def _seen(self, sample: Sample) -> tuple[Image, Boxes]:
        """Return the picture and its boxes as the processor is to have them."""
        if not sample.images or not len(sample.regions):
            raise DataError(
                f"sample {sample.id!r} has {len(sample.images)} pictures and "
                f"{len(sample.regions)} regions; detection learns from a picture with the boxes of "
                "its objects. The view 'detect' leaves out Samples without them."
            )
        with opening(sample):
            image = sample.open_image()
        if self.augment is None:
            return image, sample.regions
        generator = np.random.default_rng(seed_of(sample, self.seed))
        return augment(image, sample.regions, generator, self.augment)

    def _learned(self, sample: Sample, boxes: Boxes, warp: Warp) -> Boxes:
        """Return the boxes that are not too small or large once the picture is the model's input.

        Args:
            sample: says which dataset they are of.
            boxes: in the picture that the processor had.
            warp: from there to the unit frame.
        """
        if self.augment is None:
            return boxes
        side = self.processor.settings.vision.level_tower.image_size
        to_input = warp.then(Warp.resize(warp.target, side, side, "input"))
        is_sa1b = dataset_of(sample) == Sa1bReader.source
        return boxes[learnable(to_input.apply(boxes), self.augment, is_sa1b)]

    def _head(self, sample: Sample) -> str:
        dataset = dataset_of(sample)
        head = self.heads.get(dataset, self.heads.get(ANY))
        if head is None:
            raise DataError(
                f"sample {sample.id!r} is of the dataset {dataset!r}, and heads names a score head "
                f"for {sorted(self.heads)} only. Name one for it, or for {ANY!r}, any other."
            )
        return head


def score_heads_of(names: Sequence[str]) -> Mapping[str, str]:
    """Return which score head each dataset trains: the only one, or as in Groma.

    Args:
        names: of the proposer's score heads.
    """
    return {ANY: names[0]} if len(names) == 1 else GROMA_HEADS


def dataset_of(sample: Sample) -> str:
    """Return the dataset that the boxes of a Sample are of.

    It is the Sample's source; of Groma's own files, which join the boxes of five datasets, it is
    the one that the picture is of.
    """
    if sample.source != GromaDetectionReader.source:
        return sample.source
    return str(sample.meta.get("image_key", "")).partition(":")[0]


class ConversationDataset(Dataset[Sample]):
    """Seeded scenes with questions and answers; item `i` asks the same things in every process.

    Args:
        reader: paints the scenes.
        dialect: whose canonical questions are mixed in.
        seed: of the questions.
        first: index of the first scene, so that stages need not see the same ones.
        objects: how many of a scene's questions show object images instead.
    """

    def __init__(
        self, reader: SceneReader, dialect: Dialect, seed: int, first: int = 0, objects: int = 0
    ) -> None:
        self.reader, self.dialect, self.seed, self.first = reader, dialect, seed, first
        self.objects = objects

    def __len__(self) -> int:
        return len(self.reader) - self.first

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng((self.seed, self.first + index))
        sample = with_turns(
            self.reader[self.first + index], self.dialect, generator, kinds=self.reader.bank.kinds
        )
        return show_objects(sample, generator, self.objects) if self.objects else sample


def conversations(
    reader: SceneReader, processor: ParfocalProcessor, seed: int, first: int = 0
) -> ConversationDataset:
    """Ask about scenes what a model can read: object images as well, where it reads them."""
    objects = OBJECT_QUESTIONS if processor.settings.num_object_tokens else 0
    return ConversationDataset(reader, processor.dialect, seed, first, objects)


@dataclass
class AnswerCollator:
    """Samples of any mixture -> packed rows and pictures for the language objective.

    Args:
        processor: of the model.
        max_length: text tokens of a row, see `Stage`.
        cache: where the features of pictures are, so that these are not opened; None opens them.
        seed: of the run; with what a Sample is, it decides which slots its regions get.
        row_length: tokens up to which Samples share a row, see `Stage`.
        slots: regions that a picture may have; 0: any number, as the model reads none.
    """

    processor: ParfocalProcessor
    max_length: int = 0
    cache: FeatureCache | None = None
    seed: int = 0
    row_length: int = 0
    slots: int = 0

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the keyword arguments of the language objective.

        Raises:
            UnreadableError: for a Sample whose pictures cannot be opened, or are not in the cache,
                or whose words the dialect cannot write.
            DataError: for a Sample without turns, with several pictures that are neither frames of
                a video nor shown by its questions, with object images beside a video, or with more
                regions than there are slots.
            ConfigError: for a video, if the model reads none.
        """
        objects, warps = [], []
        for sample in samples:
            check_turns(sample)
            crops = max(shown(turn.text) for turn in sample.turns)
            check_pictures(sample, crops)
            with opening(sample):
                objects.append(sample.open_images()[1:] if crops else [])
            frames, video = sample.frames[: num_pictures(sample)], shows_video(sample)
            warps += [self.processor.warp(frame, video) for frame in frames]
        try:
            text = self.processor.pack(samples, warps, objects, self.max_length, self.row_length)
        except UnwritableError as err:
            raise UnreadableError(str(err), err.sample) from err
        if self.slots:
            check_regions(samples, text.user_mask.sum(1).tolist(), self.slots)
        return {
            "pixel_values": self._pictures(samples),
            "text": text,
            "pictures": [num_pictures(sample) for sample in samples],
            "seeds": [seed_of(sample, self.seed) for sample in samples],
        }

    def _pictures(self, samples: Sequence[Sample]) -> list[torch.Tensor] | Perception:
        """What the model sees of the pictures of all rows; an empty list where there are none."""
        if not any(sample.images for sample in samples):
            return []
        if self.cache is not None:
            return self.cache.read([key for row in samples for key in self._keys(row, self.cache)])
        opened = []
        for row in samples:
            with opening(row):
                opened += [(image, shows_video(row)) for image in open_pictures(row)]
        images, frames = zip(*opened, strict=True)
        return self.processor.pixel_values(images, frames)[0]

    def _keys(self, sample: Sample, cache: FeatureCache) -> list[str]:
        """What the cache has of a Sample."""
        with opening(sample):
            keys = picture_keys(sample, self.processor.settings.vision)
            cache.check(keys)
        return keys


def seed_of(sample: Sample, seed: int) -> int:
    """A seed for what is drawn for a Sample, another each time it comes, whatever is beside it."""
    again = f" {sample.seen}" if sample.seen else ""
    return crc32(f"{seed} {sample.source} {sample.id}{again}".encode())


@dataclass
class ConversationCollator:
    """Samples with turns -> packed rows, pictures and objects for the language objective.

    Args:
        processor: of the model.
        row_length: tokens up to which Samples share a row, see `Stage`.
    """

    processor: ParfocalProcessor
    row_length: int = 0

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the keyword arguments of the language objective."""
        pixel_values, warps = self.processor.pixel_values(
            [sample.open_image() for sample in samples]
        )
        text = self.processor.pack(samples, warps, row_length=self.row_length)
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
