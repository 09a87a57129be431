"""Boxes that nobody gave: which models read those of a detector, and how they get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import PIL.Image

from parfocal.boxes import Boxes
from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.predict.seeing import Scene


class Finder(Protocol):
    """Finds the boxes of pictures, as `parfocal.detectors.RegionFinder` does."""

    def find(self, images: Sequence[PIL.Image.Image]) -> list[Boxes]:
        """Return a `Boxes` a picture, in its pixels, with scores, best first."""
        ...


def reads_detections(config: ParfocalConfig) -> bool:
    """Return True for a model that reads boxes beside a picture and proposes none, as MG-LLaVA."""
    return config.regions.kind == "multiscale_mean" and config.proposer.kind == "none"


def no_finder(model: str) -> ConfigError:
    """Make the error of a model that was given a finder and would never ask it."""
    return ConfigError(
        f"{model} does not read the boxes of a detector: it finds regions itself, or has none. "
        "Leave the finder out (finder=..., on the command line --detector and --tagger); it is for "
        "models such as MG-LLaVA."
    )


def find_boxes(
    scene: Scene, rows: Sequence[int], finder: Finder, most: int
) -> dict[int, tuple[Boxes, ...]]:
    """Return the boxes of each picture of some rows, by row.

    Args:
        scene: the pictures.
        rows: which; a picture that is in several is looked at once.
        finder: finds them.
        most: boxes that a picture may have; the best stay.
    """
    places = list(dict.fromkeys(index for row in rows for index in scene.rows[row]))
    boxes = finder.find([scene.images[index] for index in places])
    found = dict(zip(places, boxes, strict=True))
    seen = {row: scene.shown([found[index] for index in scene.rows[row]], row) for row in rows}
    return {row: tuple(_best(own, most) for own in shown) for row, shown in seen.items()}


def _best(boxes: Boxes, most: int) -> Boxes:
    """Return at most `most` boxes, those with the best scores, in the order given."""
    if len(boxes) <= most or boxes.scores is None:
        return boxes[:most]
    return boxes[np.sort(np.argsort(-boxes.scores, kind="stable")[:most])]
