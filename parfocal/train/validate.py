"""What a stage has learned: proposal recall on Samples whose regions are all their objects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from parfocal.boxes import Boxes, iou
from parfocal.data.sample import Sample
from parfocal.errors import DataError
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor

BATCH = 16


class Samples(Protocol):
    """What is scored: a list of Samples, a reader of scenes, or anything like them."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> Sample:
        """One of them."""


def proposal_recall(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    samples: Samples,
    thresholds: tuple[float, ...] = (0.5, 0.75),
) -> dict[str, float]:
    """Return recall in percent at each IoU threshold, proposals a picture, and the pictures scored.

    No ground truth reaches the proposer: this is what a user gets.

    Args:
        model: comes back in the mode, training or evaluation, that it was in.
        processor: of the model.
        samples: with regions, which are all objects of their first picture.
        thresholds: IoU from which an object counts as found.

    Raises:
        DataError: if there is no object at all.
    """
    was_training = model.training
    model.eval()
    found: dict[float, list[np.ndarray]] = {threshold: [] for threshold in thresholds}
    proposals = 0
    started = time.process_time()
    for start in range(0, len(samples), BATCH):
        batch = [samples[index] for index in range(start, min(start + BATCH, len(samples)))]
        for sample, boxes in zip(batch, _proposed(model, processor, batch), strict=True):
            proposals += len(boxes)
            best = iou(sample.regions, boxes).max(axis=1, initial=0.0)
            for threshold in thresholds:
                found[threshold].append(best >= threshold)
    model.train(was_training)
    if not sum(map(len, found[thresholds[0]])):
        raise DataError(
            f"the {len(samples)} Samples have no regions, so there is nothing to find. Give "
            "pictures with the boxes of their objects."
        )
    result = {
        f"proposal_recall_{round(100 * key)}": 100 * float(np.concatenate(hits).mean())
        for key, hits in found.items()
    }
    return {
        **result,
        "proposals_per_image": proposals / len(samples),
        "eval_samples": float(len(samples)),
        "eval_cpu_seconds": time.process_time() - started,
    }


def _proposed(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    samples: Sequence[Sample],
) -> list[Boxes]:
    """Return the proposals in each Sample's first picture, in its pixels."""
    pixel_values, warps = processor.pixel_values([sample.open_image() for sample in samples])
    with torch.inference_mode():
        inputs = [value.to(model.device) for value in pixel_values]
        regions = model.propose(model.encode(inputs))
    found = []
    for row, warp in enumerate(warps):
        live = regions.boxes[row][regions.mask[row]].double().cpu().numpy()
        found.append(warp.inverse().apply(Boxes.from_cxcywh(live, warp.target)))
    return found
