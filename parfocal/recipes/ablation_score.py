"""What arms of an ablation are compared by: answers about validation scenes, and their statistics.

Questions, targets and rules are those of the benchmark `scenes`; its held-out scenes are not read.
All scores are percent.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
from PIL import Image

from parfocal.boxes import Boxes, Frame, iou
from parfocal.data.scenes.heldout import annotate
from parfocal.eval.metrics import names_equal, parse_count
from parfocal.predict.protocol import AnyPredictor
from parfocal.train.recipe import Recipe
from parfocal.train.stages import scenes_of

METRICS: Mapping[str, str] = {
    "rec": "expressions whose first box has IoU 0.5 or more with the object",
    "rec_unique": "the same, of objects whose name is there once",
    "rec_twins": "the same, of objects that have twins",
    "rec_iou": "mean IoU of the first box",
    "name": "regions named exactly",
    "count": "numbers of objects said exactly",
    "absent": "things that are not there, and said not to be",
}
BATCH = 16
OPTIONS: Mapping[str, Any] = {"num_beams": 1, "max_new_tokens": 64}

Picture = tuple[Image.Image, Mapping[str, Any]]  # with what is there and what to ask


def score_arm(predictor: AnyPredictor, recipe: Recipe, scenes: int) -> dict[str, float]:
    """Score a model on the first validation scenes.

    Args:
        predictor: of the model.
        recipe: it was trained by; says what scenes are like.
        scenes: how many; those with fewer than two objects, or with hidden ones, are passed over.

    Returns:
        Percent by name of `METRICS`; those that nothing was asked for are missing.
    """
    pictures = validation_pictures(recipe, scenes)
    found: dict[str, list[float]] = {}
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        for scores in (_located(predictor, part), _told(predictor, part)):
            for name, values in scores.items():
                found.setdefault(name, []).extend(values)
    return {name: 100 * float(np.mean(found[name])) for name in METRICS if found.get(name)}


def validation_pictures(recipe: Recipe, scenes: int) -> list[Picture]:
    """Paint validation scenes, each with what the benchmark would ask about it."""
    reader = scenes_of(recipe, "validation", scenes)
    pictures: list[Picture] = []
    for index in count():
        if len(pictures) == scenes:
            break
        scene = reader.scene(index)
        if len(scene.objects) >= 2 and not scene.hidden:
            pictures.append((Image.fromarray(scene.pixels), annotate(scene, reader.bank)))
    return pictures


def _located(predictor: AnyPredictor, pictures: Sequence[Picture]) -> dict[str, list[float]]:
    """Expressions, and things that are not there."""
    asked = [(image, row, item) for image, row in pictures for item in row["expressions"]]
    missing = [(image, item["text"]) for image, row in pictures for item in row["absent"]]
    answers = predictor.locate_batch(
        [image for image, *_ in asked] + [image for image, _ in missing],
        [item["text"] for *_, item in asked] + [text for _, text in missing],
        **OPTIONS,
    )
    scores: dict[str, list[float]] = {}
    for (image, row, item), answer in zip(asked, answers[: len(asked)], strict=True):
        target = row["objects"][item["target"]]["xyxy"]
        truth, boxes = Boxes([target], Frame("image", *image.size)), answer.boxes
        overlap = float(iou(boxes[0], truth)[0, 0]) if len(boxes) else 0.0
        kind = "rec_twins" if item["kind"] == "twin" else "rec_unique"
        for name, value in (("rec", overlap >= 0.5), (kind, overlap >= 0.5), ("rec_iou", overlap)):
            scores.setdefault(name, []).append(float(value))
    scores["absent"] = [float(answer.text.is_nothing) for answer in answers[len(asked) :]]
    return scores


def _told(predictor: AnyPredictor, pictures: Sequence[Picture]) -> dict[str, list[float]]:
    """Counts, and names of regions."""
    asked = [(image, item) for image, row in pictures for item in row["counts"]]
    answers = predictor.ask_batch(
        [image for image, _ in asked],
        [f"How many {item['text']} are there?" for _, item in asked],
        **OPTIONS,
    )
    counted = [
        float(parse_count(answer.text.plain) == item["n"])
        for (_, item), answer in zip(asked, answers, strict=True)
    ]
    shown = [[row["objects"][index] for index in row["regions"]] for _, row in pictures]
    described = predictor.describe_regions_batch(
        [image for image, _ in pictures],
        [[item["xyxy"] for item in items] for items in shown],
        **OPTIONS,
    )
    named = [
        float(names_equal(answer.text.plain, item["name"]))
        for items, said in zip(shown, described, strict=True)
        for item, answer in zip(items, said, strict=True)
    ]
    return {"count": counted, "name": named}


@dataclass(frozen=True)
class Spread:
    """One score over the seeds.

    Attributes:
        mean: of the values.
        sd: their standard deviation (n - 1); None for one value.
        values: one a seed, in their order.
    """

    mean: float
    sd: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value.

        >>> Spread.of([1.0, 2.0, 3.0]).sd
        1.0
        """
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, tuple(values))

    def __str__(self) -> str:
        """Mean and sd, such as "81.3 +- 1.2"."""
        return f"{self.mean:.1f}" + ("" if self.sd is None else f" +- {self.sd:.1f}")


def ranking(spreads: Mapping[str, Spread]) -> str:
    """Order arms by their means, best first.

    `~` stands between neighbours whose means differ by no more than the larger of their sds; it
    says how noisy the order is, and is no test.

    >>> ranking({"a": Spread(5.0, 1.0, ()), "b": Spread(9.0, 1.0, ()), "c": Spread(8.5, 1.0, ())})
    'b ~ c > a'
    """
    order = sorted(spreads, key=lambda name: -spreads[name].mean)
    words = order[:1]
    for better, worse in pairwise(order):
        gap = spreads[better].mean - spreads[worse].mean
        noise = max(spreads[better].sd or 0.0, spreads[worse].sd or 0.0)
        words += [">" if gap > noise else "~", worse]
    return " ".join(words)
