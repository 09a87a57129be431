"""From a picture to the boxes that a model reads: tags, prompts, detection, suppression, limits.

    pictures -> tagger -> names -> prompts -> detector -> per-label suppression -> limits -> boxes

`MG_LLAVA` holds the settings with which that model's training boxes were made, so that one picture
and a question is enough for it.

Shapes: B pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.selection import MG_LLAVA_IOU, BoxLimits, limit, suppress
from parfocal.detectors.base import Detector, Tagger, in_parts
from parfocal.detectors.cache import BoxCache
from parfocal.errors import ConfigError
from parfocal.images import ImageSource, image_digest, image_frame, load_image


@dataclass(frozen=True)
class RegionSettings:
    """How boxes are found.

    Attributes:
        prompt: what the detector is asked for a name; `{}` stands for the name.
        threshold: boxes must score above it; None = the detector's own.
        lower_case: names are written in lower case.
        ask_without_names: where the tagger names nothing, ask for the empty name all the same.
        clip: cut boxes at the edges of the picture; without it they may reach outside.
        whole_pixels: coordinates lose their fraction, toward zero.
        iou_threshold: of the suppression within a label.
        limits: how many boxes a picture keeps.

    Raises:
        ConfigError: if the prompt has no place for the name, or a threshold is not from 0 to 1.
    """

    prompt: str = "{}"
    threshold: float | None = None
    lower_case: bool = False
    ask_without_names: bool = False
    clip: bool = True
    whole_pixels: bool = False
    iou_threshold: float = 0.5
    limits: BoxLimits = field(default_factory=BoxLimits)

    def __post_init__(self) -> None:
        """Check prompt and thresholds."""
        if self.prompt.count("{}") != 1:
            raise ConfigError(
                f"prompt is {self.prompt!r}; it needs one {{}} where the name goes, as in "
                "'a photo of {}'."
            )
        for name in ("threshold", "iou_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value!r}; it must be a number from 0 to 1.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


# Source: official mg_llava/bbox_generation/image_offline_to_bbox.py (prompt, 0.2, lower case,
# truncation, no clipping), mg_llava/dataset/mg_llava_dataset.py (100 boxes, 20 a label).
# An empty tag string is split into one empty tag there, hence the question for "a photo of ". With
# OWLv2 prompted by RAM++ these are the released models' boxes.
# Deviates: no.
MG_LLAVA: Final = RegionSettings(
    prompt="a photo of {}",
    threshold=0.2,
    lower_case=True,
    ask_without_names=True,
    clip=False,
    whole_pixels=True,
    iou_threshold=MG_LLAVA_IOU,
    limits=BoxLimits(total=100, per_label=20),
)


def queries_for(names: Sequence[str], settings: RegionSettings) -> tuple[str, ...]:
    """The names that boxes will be labelled with.

    >>> queries_for(("French fries", "cat "), MG_LLAVA), queries_for((), MG_LLAVA)
    (('french fries', 'cat'), ('',))
    """
    if not names:
        return ("",) if settings.ask_without_names else ()
    stripped = (name.strip() for name in names)
    return tuple(name.lower() if settings.lower_case else name for name in stripped)


def prompts_for(queries: Sequence[str], settings: RegionSettings) -> tuple[str, ...]:
    """What the detector is asked.

    >>> prompts_for(("cat",), MG_LLAVA)
    ('a photo of cat',)
    """
    return tuple(settings.prompt.replace("{}", query) for query in queries)


class RegionFinder:
    """Finds the boxes of pictures; what was found once is read from the cache.

    Args:
        tagger: names what is in a picture.
        detector: finds what was named.
        settings: thresholds, suppression and limits; MG-LLaVA's by default.
        cache: where boxes are kept between runs; None = nowhere.
        batch_size: pictures that are tagged and detected at a time.

    Example:
        >>> finder = RegionFinder(load_tagger("ram_plus"), load_detector("owlv2"))  # doctest: +SKIP
        >>> boxes = finder.find(["street.jpg"])[0]  # doctest: +SKIP
    """

    def __init__(
        self,
        tagger: Tagger,
        detector: Detector,
        settings: RegionSettings = MG_LLAVA,
        cache: BoxCache | None = None,
        batch_size: int = 8,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be 1 or more.")
        self.tagger, self.detector, self.settings = tagger, detector, settings
        self.cache, self.batch_size = cache, batch_size
        self._fingerprint = "" if cache is None else cache.register(self.identity)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the boxes depend on, apart from the picture."""
        return {
            "tagger": dict(self.tagger.identity),
            "detector": dict(self.detector.identity),
            "settings": self.settings.to_dict(),
        }

    def find(self, images: Sequence[ImageSource]) -> list[Boxes]:
        """Find the boxes of a batch of pictures.

        Args:
            images: whatever `load_image` takes.

        Returns:
            A `Boxes` a picture in its pixels, with scores and labels; it may be empty.
        """
        pictures = [load_image(image) for image in images]
        digests = [image_digest(picture) for picture in pictures]
        found = self._cached(pictures, digests)
        missing = {d: p for d, p in zip(digests, pictures, strict=True) if d not in found}
        waiting = list(missing.items())  # each picture once, however often it was given
        for batch in in_parts(waiting, self.batch_size):
            for (digest, _), boxes in zip(batch, self._found([p for _, p in batch]), strict=True):
                found[digest] = boxes
                if self.cache is not None:
                    self.cache.write(self._fingerprint, digest, boxes)
        return [found[digest] for digest in digests]

    def _cached(self, pictures: list[Image.Image], digests: list[str]) -> dict[str, Boxes]:
        if self.cache is None:
            return {}
        found = {}
        for picture, digest in zip(pictures, digests, strict=True):
            boxes = self.cache.read(self._fingerprint, digest, image_frame(picture))
            if boxes is not None:
                found[digest] = boxes
        return found

    def _found(self, pictures: list[Image.Image]) -> list[Boxes]:
        settings = self.settings
        queries = [queries_for(names, settings) for names in self.tagger.tag(pictures)]
        prompts = [prompts_for(row, settings) for row in queries]
        raw = self.detector.detect(pictures, prompts, settings.threshold, settings.clip)
        return [
            choose(_labelled(boxes, asked, named), settings)
            for boxes, asked, named in zip(raw, prompts, queries, strict=True)
        ]


def choose(boxes: Boxes, settings: RegionSettings, crowded: bool = False) -> Boxes:
    """Round, suppress and limit boxes that a detector found.

    Args:
        boxes: with scores and labels.
        settings: how.
        crowded: the text leaves no room for many boxes; see `BoxLimits`.
    """
    if settings.whole_pixels:
        boxes = Boxes(np.trunc(boxes.xyxy), boxes.frame, boxes.scores, boxes.labels)
    return limit(suppress(boxes, settings.iou_threshold), settings.limits, crowded)


def _labelled(boxes: Boxes, prompts: Sequence[str], queries: Sequence[str]) -> Boxes:
    """Boxes under the names instead of under what was asked."""
    names = dict(zip(prompts, queries, strict=True))
    return boxes.replace(labels=[names[label] for label in boxes.labels or ()])
