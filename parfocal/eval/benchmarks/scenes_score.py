"""From predictions on the held-out scenes to the report's numbers, as a pure function.

Any old file can be scored again. All rates are percent except `proposals_per_image`. Every rate has
`_n`, `_low` and `_high` beside it; a rate without items is null. Bad model output is a wrong answer
and is also counted on its own as `invalid_answers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parfocal.boxes import Boxes
from parfocal.errors import DataError
from parfocal.eval.metrics import (
    CaptionCounts,
    Rate,
    covered,
    first_box_ious,
    match_caption,
    names_equal,
    parse_count,
    rate,
)
from parfocal.eval.predictions import Prediction
from parfocal.eval.scenes import Expression, Scene

TASKS = ("propose", "locate", "absent", "count", "name", "caption")
# Upper limits of box area over picture area; a box of 0.2 x 0.2 of the sides is small, one of 0.35
# x 0.35 is large.
SIZE_LIMITS = {"small": 0.04, "medium": 0.12, "large": 1.01}


@dataclass(frozen=True)
class Located:
    """One expression with what became of it; overlap is the IoU of the first box, 0 without one."""

    scene: str
    expression: Expression
    overlap: float
    rejected: bool
    chance: float
    size: str


def score_scenes(predictions: Iterable[Prediction], scenes: Sequence[Scene]) -> dict[str, Any]:
    """Score one run.

    Args:
        predictions: exactly one for each item of each scene, in any order; none at all for a task
            that the predictor cannot do.
        scenes: the scenes that were asked about.

    Returns:
        The flat keys of the report, with no value where a task was not asked, then `by_relation`,
        `by_size` and `by_absence`, and `not_asked`, the names of such tasks, if there are some.

    Raises:
        DataError: if an item of a task that was asked has no prediction, or an item has two, or a
            prediction belongs to no scene or item.
    """
    answers = _by_task(predictions, scenes)
    skipped = [task for task in TASKS if task not in answers]
    answers |= {task: [] for task in skipped}
    asked = {task: () if task in skipped else scenes for task in TASKS}
    located = _located(answers["locate"], asked["locate"])
    report: dict[str, Any] = {}
    for key, value in (
        _rec_rates(located)
        | _name_rates(answers["name"], asked["name"])
        | _proposal_rates(answers["propose"], asked["propose"])
        | _caption_rates(answers["caption"], asked["caption"])
        | _rejection_rates(answers["absent"], located)
        | _count_rates(answers["count"], asked["count"])
        | {"invalid_answers": _invalid_rate(answers)}
    ).items():
        report |= value.to_flat(key)
    report["by_relation"] = _breakdown(located, lambda one: one.expression.relation or "name only")
    report["by_size"] = _breakdown(located, lambda one: one.size)
    report["by_absence"] = _absence_breakdown(answers["absent"], asked["absent"])
    return report | ({"not_asked": skipped} if skipped else {})


def object_size(scene: Scene, index: int) -> str:
    """Size class of an object: the share of the picture's area that its box takes."""
    share = float(scene.boxes[index].area[0]) / (scene.width * scene.height)
    return next(name for name, limit in SIZE_LIMITS.items() if share < limit)


def _by_task(
    predictions: Iterable[Prediction], scenes: Sequence[Scene]
) -> dict[str, list[list[Prediction]]]:
    """Predictions as answers[task][scene][item] of the tasks asked; complete, or an error."""
    sizes = {scene.id: _num_items(scene) for scene in scenes}
    by_id: dict[str, Prediction] = {}
    for prediction in predictions:
        if prediction.id in by_id:
            raise DataError(
                f"there are two predictions for {prediction.id!r}. Keep one line an item."
            )
        by_id[prediction.id] = prediction
    asked = {prediction.task for prediction in by_id.values()} or set(TASKS)
    wanted = [task for task in TASKS if task in asked or not any(c[task] for c in sizes.values())]
    expected = [
        f"{scene}/{task}/{index}"
        for scene, counts in sizes.items()
        for task in wanted
        for index in range(counts[task])
    ]
    missing = [name for name in expected if name not in by_id]
    unknown = sorted(by_id.keys() - set(expected))
    if missing or unknown:
        raise DataError(
            f"the predictions do not fit the {len(scenes)} scenes: {len(missing)} items have none "
            "(first: "
            f"{missing[:1]}), {len(unknown)} belong to no item (first: {unknown[:1]}). Score with "
            "the scenes, and "
            "the limit, that the predictions were made with."
        )
    return {
        task: [
            [by_id[f"{scene}/{task}/{index}"] for index in range(counts[task])]
            for scene, counts in sizes.items()
        ]
        for task in wanted
    }


def _num_items(scene: Scene) -> dict[str, int]:
    return {
        "propose": 1,
        "locate": len(scene.expressions),
        "absent": len(scene.absent),
        "count": len(scene.counts),
        "name": len(scene.regions),
        "caption": 1,
    }


def _located(answers: list[list[Prediction]], scenes: Sequence[Scene]) -> list[Located]:
    located: list[Located] = []
    for scene, predictions in zip(scenes, answers, strict=True):
        targets = [scene.boxes[expression.target] for expression in scene.expressions]
        overlaps = first_box_ious([p.boxes(scene.frame) for p in predictions], targets)
        for expression, prediction, overlap in zip(
            scene.expressions, predictions, overlaps, strict=True
        ):
            chance = 1.0 / scene.num_twins(expression.target)
            size = object_size(scene, expression.target)
            located.append(
                Located(scene.id, expression, float(overlap), prediction.nothing, chance, size)
            )
    return located


def _hit_rate(located: Sequence[Located], threshold: float) -> Rate:
    return rate([one.overlap >= threshold for one in located], [one.scene for one in located])


def _rec_rates(located: list[Located]) -> dict[str, Rate]:
    twins = [one for one in located if one.expression.kind == "twin"]
    unique = [one for one in located if one.expression.kind == "unique"]
    return {
        "rec_acc_50": _hit_rate(located, 0.5),
        "rec_acc_75": _hit_rate(located, 0.75),
        "rec_unique_50": _hit_rate(unique, 0.5),
        "rec_twins_50": _hit_rate(twins, 0.5),
        "rec_twins_random_50": rate([one.chance for one in twins], [one.scene for one in twins]),
    }


def _name_rates(answers: list[list[Prediction]], scenes: Sequence[Scene]) -> dict[str, Rate]:
    hits = [
        (names_equal(prediction.output, scene.objects[index].name), scene.id)
        for scene, predictions in zip(scenes, answers, strict=True)
        for index, prediction in zip(scene.regions, predictions, strict=True)
    ]
    return {"name_exact": rate([hit for hit, _ in hits], [image for _, image in hits])}


def _proposal_rates(answers: list[list[Prediction]], scenes: Sequence[Scene]) -> dict[str, Rate]:
    images = [scene.id for scene in scenes]
    found = [row[0].boxes(scene.frame) for row, scene in zip(answers, scenes, strict=True)]
    objects = [float(len(scene.objects)) for scene in scenes]

    def recall(threshold: float) -> Rate:
        pairs = zip(found, scenes, strict=True)
        hits = [float(np.sum(covered(boxes, scene.boxes, threshold))) for boxes, scene in pairs]
        return rate(hits, images, objects)

    return {
        "proposal_recall_50": recall(0.5),
        "proposal_recall_75": recall(0.75),
        "proposals_per_image": rate([len(boxes) for boxes in found], images, scale=1.0),
    }


def _caption_rates(answers: list[list[Prediction]], scenes: Sequence[Scene]) -> dict[str, Rate]:
    counts = [_caption_counts(row[0], scene) for row, scene in zip(answers, scenes, strict=True)]
    images = [scene.id for scene in scenes]
    matched = [one.matched for one in counts]
    claimed = [one.claimed for one in counts]
    true = [one.true for one in counts]
    either = [one.claimed + one.true for one in counts]
    return {
        "caption_precision": rate(matched, images, claimed),
        "caption_recall": rate(matched, images, true),
        "caption_f1": rate([2 * m for m in matched], images, either, n=len(scenes)),
    }


def _caption_counts(prediction: Prediction, scene: Scene) -> CaptionCounts:
    names = [phrase.text for phrase in prediction.phrases for _ in phrase.xyxy]
    boxless = sum(not phrase.xyxy for phrase in prediction.phrases)
    true_names = [thing.name for thing in scene.objects]
    boxes: Boxes = prediction.boxes(scene.frame)
    return match_caption(names, boxes, true_names, scene.boxes, boxless=boxless)


def _rejection_rates(answers: list[list[Prediction]], located: list[Located]) -> dict[str, Rate]:
    absent = [prediction for row in answers for prediction in row]
    return {
        "absent_rejection": rate([p.nothing for p in absent], [p.image for p in absent]),
        "false_rejection": rate([one.rejected for one in located], [one.scene for one in located]),
    }


def _count_rates(answers: list[list[Prediction]], scenes: Sequence[Scene]) -> dict[str, Rate]:
    hits = [
        (parse_count(prediction.output) == count.n, scene.id)
        for scene, predictions in zip(scenes, answers, strict=True)
        for count, prediction in zip(scene.counts, predictions, strict=True)
    ]
    return {"count_exact": rate([hit for hit, _ in hits], [image for _, image in hits])}


def _invalid_rate(answers: dict[str, list[list[Prediction]]]) -> Rate:
    """Answers in words that had problems, or that hold nothing which their task can use."""
    asked = [p for task in TASKS if task != "propose" for row in answers[task] for p in row]
    return rate([_invalid(prediction) for prediction in asked], [p.image for p in asked])


def _invalid(prediction: Prediction) -> bool:
    if prediction.problems:
        return True
    if prediction.task in ("locate", "absent"):
        return not prediction.nothing and not any(phrase.xyxy for phrase in prediction.phrases)
    if prediction.task == "count":
        return parse_count(prediction.output) is None
    return not prediction.output.strip()


def _breakdown(located: list[Located], key: Any) -> dict[str, dict[str, float | int | None]]:
    groups: dict[str, list[Located]] = {}
    for one in located:
        groups.setdefault(key(one), []).append(one)
    return {
        name: _hit_rate(group, 0.5).to_flat("rec_acc_50")
        | {"rec_acc_75": round(100.0 * float(np.mean([g.overlap >= 0.75 for g in group])), 2)}
        for name, group in sorted(groups.items())
    }


def _absence_breakdown(
    answers: list[list[Prediction]], scenes: Sequence[Scene]
) -> dict[str, dict[str, float | int | None]]:
    groups: dict[str, list[Prediction]] = {}
    for scene, predictions in zip(scenes, answers, strict=True):
        for absent, prediction in zip(scene.absent, predictions, strict=True):
            groups.setdefault(absent.kind, []).append(prediction)
    return {
        kind: rate([p.nothing for p in group], [p.image for p in group]).to_flat("absent_rejection")
        for kind, group in sorted(groups.items())
    }
