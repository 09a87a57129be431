"""Boxes that nobody gave: which models read those of a detector, and how they get them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import PIL.Image

from parfocal.boxes import Boxes
from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.predict.seeing import Scene

logger = logging.getLogger(__name__)


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


class BoxSupply:
    """The boxes that a model's pictures enter with: the user's, or those that a finder finds.

    Args:
        model: reads them.
        name: of the model, for messages.
        finder: finds the boxes of pictures for which the user gives none; None: they stay away.

    Raises:
        ConfigError: if there is a finder and the model reads no boxes of a detector.
    """

    def __init__(
        self, model: ParfocalForConditionalGeneration, name: str, finder: Finder | None
    ) -> None:
        self.finder, self._name, self._most = finder, name, model.num_slots
        self._reads, self._warned = reads_detections(model.config), False
        if finder is not None and not self._reads:
            raise no_finder(name)

    def complete(
        self, scene: Scene, regions: Sequence[tuple[Boxes, ...]]
    ) -> list[tuple[Boxes, ...]]:
        """Return the boxes that each picture of each row enters with.

        Where the user gave none, and the model reads those of a detector, the finder is asked;
        where there is no finder, that is said once.

        Args:
            scene: the pictures.
            regions: the user's boxes of each picture of each row, pixels of the picture.
        """
        videos = scene.videos
        given = [scene.shown(own, row) if videos[row] else own for row, own in enumerate(regions)]
        bare = [row for row, own in enumerate(regions) if not any(map(len, own))]
        if not bare or not self._reads:
            return given
        if self.finder is not None:
            found = find_boxes(scene, bare, self.finder, self._most)
            return [found.get(row, own) for row, own in enumerate(given)]
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s reads the boxes of a detector; without any it sees the whole picture only. "
                "Give boxes, or load(..., finder=...); on the command line --detector, --tagger.",
                self._name,
            )
        return given


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
