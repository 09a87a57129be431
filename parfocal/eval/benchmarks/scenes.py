"""The bundled held-out scenes: pointing, naming, counting, captions, refusals, proposals.

Six tasks a scene, asked through the predictor's batched doors and written in scene, task and item
order:

| task | asked with | scored as |
|---|---|---|
| propose | `propose_batch(images, top=20)` | recall at IoU 0.5 and 0.75 |
| locate | `locate_batch(images, phrases)` | first box; "none" is a false rejection |
| absent | `locate_batch(images, phrases)` | right when the answer is "none" |
| count | `ask_batch(images, questions)` | the first number in the answer |
| name | `describe_regions_batch(images, boxes)` | exact name |
| caption | `describe_batch(images)` | exact name and IoU 0.5, one to one |
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from parfocal.boxes import Boxes
from parfocal.errors import ConfigError
from parfocal.eval.benchmarks.scenes_score import SIZE_LIMITS, TASKS, score_scenes
from parfocal.eval.predictions import PredictedPhrase, Prediction
from parfocal.eval.scenes import Scene, SceneSet, load_scenes
from parfocal.images import image_frame

if TYPE_CHECKING:
    from PIL import Image

    from parfocal.predict import Predictor

logger = logging.getLogger(__name__)

TOP = 20  # proposals a picture, the budget of the recall bar
_T = TypeVar("_T")


@dataclass(frozen=True)
class ScenesBenchmark:
    """The benchmark `scenes`; a change of data, wording or scoring raises the version."""

    name: str = "scenes"
    version: str = "1"
    bundled: bool = True

    def load(self, limit: int | None = None, data: Path | None = None) -> SceneSet:
        """Read the bundled scenes."""
        if data is not None:
            raise ConfigError(
                f"the scenes are bundled and take no data, {str(data)!r} was given. Leave --data "
                "out."
            )
        return load_scenes(limit=limit)

    def size(self, split: SceneSet) -> int:
        """Number of scenes."""
        return len(split.scenes)

    def predict(
        self, predictor: Predictor, split: SceneSet, batch_size: int, on_image: Callable[[], object]
    ) -> Iterator[Prediction]:
        """Ask everything about every scene; see `predict_scenes`."""
        return predict_scenes(predictor, split, batch_size, on_image)

    def score(self, predictions: Iterable[Prediction], split: SceneSet) -> dict[str, Any]:
        """The report's numbers; see `score_scenes`."""
        return score_scenes(predictions, split.scenes)

    def protocol(self, split: SceneSet) -> dict[str, Any]:
        """Data identity and scoring rules."""
        return {
            "scenes": len(split.scenes),
            "scenes_available": split.available,
            "split_sha256": split.digest,
            "proposals_asked": TOP,
            "rec_rule": "first box, IoU >= threshold; an answer without a box is a miss",
            "caption_rule": "exact name and IoU >= 0.5, one to one; a phrase without a box is a "
            "wrong claim",
            "name_rule": "equal after lower case, single spaces, no leading article, no final "
            "full stop",
            "twin_rule": "random twin: 1 / number of objects with the target's name",
            "size_rule": {
                key: f"box area < {limit} of the picture" for key, limit in SIZE_LIMITS.items()
            },
            "interval": "95 % percentile bootstrap over pictures, 1000 resamples, seed 0",
        }

    def export(self, predictions: Sequence[Prediction], split: SceneSet, out: Path) -> None:
        """Nothing: no other tool reads these scenes."""


def scene_items(scene: Scene) -> list[Prediction]:
    """Everything that is asked about one scene, in order, with the answers still empty."""
    given: dict[str, list[str | tuple[float, ...]]] = {
        "propose": [""],
        "locate": [expression.text for expression in scene.expressions],
        "absent": [expression.text for expression in scene.absent],
        "count": [f"How many {count.text} are there?" for count in scene.counts],
        "name": [scene.objects[index].xyxy for index in scene.regions],
        "caption": [""],
    }
    return [
        Prediction(id=f"{scene.id}/{task}/{index}", image=scene.id, task=task, input=value)
        for task in TASKS
        for index, value in enumerate(given[task])
    ]


def predict_scenes(
    predictor: Predictor,
    split: SceneSet,
    batch_size: int = 16,
    on_image: Callable[[], object] = lambda: None,
) -> Iterator[Prediction]:
    """Ask a predictor everything about every scene.

    Args:
        predictor: answers in pixels of the picture it is given.
        split: the scenes.
        batch_size: how many pictures are held, and how many questions are asked, at a time. The
            output's order, ids and number of lines do not depend on it.
        on_image: called after each scene.

    Yields:
        One prediction an item, in the order of the scenes, then `TASKS`, then the items. A task
        that the predictor refuses is left out with a warning: not every family does all of them.
    """
    begun: set[str] = set()
    skipped: set[str] = set()
    for scenes in _chunks(split.scenes, batch_size):
        pictures = split.open(scenes)
        items = [item for scene in scenes for item in scene_items(scene)]
        answered: dict[str, Prediction] = {}
        for task in TASKS:
            asked = [item for item in items if item.task == task and task not in skipped]
            for part in _parts(asked, batch_size, whole=task == "name"):
                try:
                    found = _ASK[task](predictor, part, pictures)
                except ConfigError as err:
                    if task in begun:
                        raise
                    logger.warning("the task %r is left out: %s", task, err)
                    skipped.add(task)
                    break
                begun.add(task)
                answered.update((item.id, item) for item in found)
        yield from (answered[item.id] for item in items if item.task not in skipped)
        for _ in scenes:
            on_image()


def _parts(items: Sequence[Prediction], size: int, whole: bool) -> Iterator[Sequence[Prediction]]:
    """Items in parts of `size`; `whole` ones end with a picture, whose regions are named together.

    >>> from types import SimpleNamespace as Item
    >>> items = [Item(image=name) for name in "aabbb"]
    >>> [[item.image for item in part] for part in _parts(items, 1, whole=True)]
    [['a', 'a'], ['b', 'b', 'b']]
    """
    start = 0
    while start < len(items):
        end = min(start + size, len(items))
        while whole and end < len(items) and items[end].image == items[end - 1].image:
            end += 1
        yield items[start:end]
        start = end


_Pictures = dict[str, "Image.Image"]


def _propose(
    predictor: Predictor, items: Sequence[Prediction], pictures: _Pictures
) -> list[Prediction]:
    found = predictor.propose_batch([pictures[item.image] for item in items], top=TOP)
    return [
        replace(item, phrases=(PredictedPhrase.from_boxes("", boxes),))
        for item, boxes in zip(items, found, strict=True)
    ]


def _locate(
    predictor: Predictor, items: Sequence[Prediction], pictures: _Pictures
) -> list[Prediction]:
    phrases = [str(item.input) for item in items]
    answers = predictor.locate_batch([pictures[item.image] for item in items], phrases)
    return [item.with_answer(answer) for item, answer in zip(items, answers, strict=True)]


def _count(
    predictor: Predictor, items: Sequence[Prediction], pictures: _Pictures
) -> list[Prediction]:
    questions = [str(item.input) for item in items]
    answers = predictor.ask_batch([pictures[item.image] for item in items], questions)
    return [item.with_answer(answer) for item, answer in zip(items, answers, strict=True)]


def _name(
    predictor: Predictor, items: Sequence[Prediction], pictures: _Pictures
) -> list[Prediction]:
    by_image: dict[str, list[Prediction]] = {}
    for item in items:
        by_image.setdefault(item.image, []).append(item)
    frames = [image_frame(pictures[image]) for image in by_image]
    boxes = [
        Boxes([[float(value) for value in item.input] for item in own], frame)
        for own, frame in zip(by_image.values(), frames, strict=True)
    ]
    answers = predictor.describe_regions_batch([pictures[image] for image in by_image], boxes)
    return [
        item.with_answer(answer)
        for own, answered in zip(by_image.values(), answers, strict=True)
        for item, answer in zip(own, answered, strict=True)
    ]


def _caption(
    predictor: Predictor, items: Sequence[Prediction], pictures: _Pictures
) -> list[Prediction]:
    answers = predictor.describe_batch([pictures[item.image] for item in items])
    return [item.with_answer(answer) for item, answer in zip(items, answers, strict=True)]


_ASK: dict[str, Callable[..., list[Prediction]]] = {
    "propose": _propose,
    "locate": _locate,
    "absent": _locate,
    "count": _count,
    "name": _name,
    "caption": _caption,
}


def _chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
