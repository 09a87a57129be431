"""What a stage has learned: how much it proposes, and how well its answers point.

Objects that are to be proposed are the regions of Samples; answers are those of their turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from parfocal.boxes import Boxes, iou
from parfocal.data.sample import Sample, Turn
from parfocal.errors import DataError
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.predict.predictor import Predictor

BATCH = 16
MAX_NEW_TOKENS = 64


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
        raise _nothing_to_find(samples)
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


def pointing_accuracy(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    samples: Samples,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Return how many answers point right, in percent, and how many were asked for.

    Asked is every question about one picture whose answer has exactly one box; the first box of
    what the model says has to meet it.

    Args:
        model: comes back in the mode, training or evaluation, that it was in.
        processor: of the model.
        samples: with turns: question, answer, question, answer.
        threshold: IoU from which a box is right.

    Raises:
        DataError: if no answer has exactly one box, or turns are others.
    """
    was_training = model.training
    predictor = Predictor(model, processor, "training")
    asked = [
        (index, sample, question.text, truth)
        for index, sample in enumerate(samples[index] for index in range(len(samples)))
        for question, truth in _pointing_turns(sample)
    ]
    hits = 0
    for start in range(0, len(asked), BATCH):
        rows = asked[start : start + BATCH]
        pictures = {index: sample.open_image() for index, sample, _, _ in rows}
        answers = predictor.ask_batch(
            [pictures[row[0]] for row in rows],
            [row[2] for row in rows],
            [row[1].regions for row in rows],
            num_beams=1,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        for (*_, truth), answer in zip(rows, answers, strict=True):
            found = answer.boxes
            hits += bool(len(found)) and float(iou(found[0], truth)[0, 0]) >= threshold
    model.train(was_training)
    if not asked:
        raise _nothing_to_point_at(samples)
    return {
        f"pointing_{round(100 * threshold)}": 100 * hits / len(asked),
        "eval_questions": float(len(asked)),
    }


def check_scorable(samples: Sequence[Sample], objective: str) -> None:
    """Refuse Samples that `proposal_recall` or `pointing_accuracy` can make nothing of.

    Args:
        samples: to be scored on.
        objective: of the stage: `detection` or `language`.

    Raises:
        DataError: as these do.
    """
    if objective == "detection":
        if not any(len(sample.regions) for sample in samples):
            raise _nothing_to_find(samples)
    elif not sum(len(list(_pointing_turns(sample))) for sample in samples):
        raise _nothing_to_point_at(samples)


def _nothing_to_find(samples: Samples) -> DataError:
    return DataError(
        f"the {len(samples)} Samples have no regions, so there is nothing to find. Give pictures "
        "with the boxes of their objects."
    )


def _nothing_to_point_at(samples: Samples) -> DataError:
    return DataError(
        f"none of the {len(samples)} Samples has an answer with exactly one box, so there is "
        "nothing to point at. Give referring expressions with their boxes."
    )


def _pointing_turns(sample: Sample) -> Iterator[tuple[Turn, Boxes]]:
    """Questions with one box as answer."""
    if len(sample.images) != 1:
        return
    roles = [turn.role for turn in sample.turns]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError(
            f"sample {sample.id!r} has the turns {roles}; to be scored, questions of the user and "
            "answers must alternate. Leave it out, or give its source a task view that asks."
        )
    for question, answer in zip(sample.turns[::2], sample.turns[1::2], strict=True):
        boxes = [phrase.boxes for phrase in answer.text.phrases]
        if sum(map(len, boxes)) == 1:
            yield question, next(found for found in boxes if len(found))
