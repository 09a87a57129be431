"""What a stage has learned: proposal recall on the validation split of the seeded scenes."""

from __future__ import annotations

import time

import numpy as np
import torch

from parfocal.boxes import Boxes, iou
from parfocal.data.readers.scenes import SceneReader
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor

BATCH = 16


def proposal_recall(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    reader: SceneReader,
    thresholds: tuple[float, ...] = (0.5, 0.75),
) -> dict[str, float]:
    """Return recall in percent at each IoU threshold, proposals a picture, and the pictures scored.

    No ground truth reaches the proposer: this is what a user gets.

    Args:
        model: comes back in the mode, training or evaluation, that it was in.
        processor: of the model.
        reader: scenes whose regions are all their objects.
        thresholds: IoU from which an object counts as found.
    """
    was_training = model.training
    model.eval()
    found: dict[float, list[np.ndarray]] = {threshold: [] for threshold in thresholds}
    proposals = 0
    started = time.process_time()
    for start in range(0, len(reader), BATCH):
        samples = [reader[index] for index in range(start, min(start + BATCH, len(reader)))]
        pixel_values, warps = processor.pixel_values([sample.open_image() for sample in samples])
        with torch.inference_mode():
            inputs = [value.to(model.device) for value in pixel_values]
            regions = model.propose(model.encode(inputs))
        for row, (sample, warp) in enumerate(zip(samples, warps, strict=True)):
            live = regions.boxes[row][regions.mask[row]].double().cpu().numpy()
            boxes = warp.inverse().apply(Boxes.from_cxcywh(live, warp.target))
            proposals += len(boxes)
            best = iou(sample.regions, boxes).max(axis=1, initial=0.0)
            for threshold in thresholds:
                found[threshold].append(best >= threshold)
    model.train(was_training)
    result = {
        f"proposal_recall_{round(100 * key)}": 100 * float(np.concatenate(hits).mean())
        for key, hits in found.items()
    }
    return {
        **result,
        "proposals_per_image": proposals / len(reader),
        "eval_samples": float(len(reader)),
        "eval_cpu_seconds": time.process_time() - started,
    }
