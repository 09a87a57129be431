"""What a detector and a tagger are, and what all of them share.

A tagger looks at a picture and names what is in it; a detector is given names and finds boxes.
`RegionFinder` chains the two. Both take pictures as `parfocal.images.load_image` gives them and
work on batches first: one picture is a batch of one and gets the same answer.

Shapes: N boxes of one picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.errors import ConfigError
from parfocal.images import image_frame

# Names for every picture alike, or a list of names a picture.
Labels: TypeAlias = Sequence[str] | Sequence[Sequence[str]]
Item = TypeVar("Item")


class Detector(Protocol):
    """Finds boxes for given names."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the boxes depend on, as JSON: kind, a digest of the weights, settings."""
        ...

    def detect(
        self,
        images: Sequence[Image.Image],
        labels: Labels,
        threshold: float | None = None,
        clip: bool = True,
    ) -> list[Boxes]:
        """Find boxes in a batch of pictures.

        Args:
            images: upright RGB pictures.
            labels: what to look for: one list for all pictures, or one list a picture. A picture
                without names gets no boxes.
            threshold: boxes must score above it; None = the detector's own.
            clip: cut boxes at the edges of the picture and drop what then has no area; without it
                boxes may reach outside, as the network gave them.

        Returns:
            A `Boxes` a picture in its pixels, best score first, each labelled with a given name as
            it was given.
        """
        ...


class Tagger(Protocol):
    """Names what is in a picture."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the tags depend on, as JSON: kind, a digest of the weights, settings."""
        ...

    def tag(self, images: Sequence[Image.Image]) -> list[tuple[str, ...]]:
        """Name what is in each of a batch of upright RGB pictures; no name may be one as well."""
        ...


def in_parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in their order, `size` at a time; the last part may be smaller.

    >>> list(in_parts("abcde", 2))
    ['ab', 'cd', 'e']
    """
    return (items[start : start + size] for start in range(0, len(items), size))


def labels_per_image(labels: Labels, num_images: int) -> list[tuple[str, ...]]:
    """One tuple of names a picture.

    Raises:
        ConfigError: if the names are a bare string, or there is not one list a picture.

    >>> labels_per_image(["cat", "dog"], 2)
    [('cat', 'dog'), ('cat', 'dog')]
    >>> labels_per_image([["cat"], []], 2)
    [('cat',), ()]
    """
    if isinstance(labels, str):
        raise ConfigError(
            f"labels is the bare string {labels!r}; pass a list of names: [{labels!r}]."
        )
    if all(isinstance(label, str) for label in labels):
        if labels or num_images == 0:
            return [tuple(str(label) for label in labels)] * num_images
        raise ConfigError(
            "labels is empty; pass names such as ['cat', 'dog'], or one list a picture ([] for a "
            "picture in which nothing is looked for)."
        )
    if any(isinstance(row, str) for row in labels):
        raise ConfigError("labels mixes names and lists of names; pass one list a picture.")
    if len(labels) != num_images:
        raise ConfigError(
            f"labels has {len(labels)} lists for {num_images} picture(s); pass one list a picture, "
            "or one flat list for all of them."
        )
    return [tuple(row) for row in labels]


def boxes_of(
    xyxy: ArrayLike,
    scores: ArrayLike,
    labels: Sequence[str],
    image: Image.Image,
    clip: bool,
) -> Boxes:
    """What a network found as `Boxes` of the picture, best score first; ties stay in order.

    Args:
        xyxy: float[N, 4], pixels of the picture; corners that a network put the wrong way round by
            rounding are swapped.
        scores: float[N].
        labels: one a box.
        image: the picture.
        clip: cut at its edges and drop what then has no area.
    """
    rows = np.asarray(xyxy, dtype=np.float64).reshape(-1, 2, 2)
    ordered = np.hstack([rows.min(axis=1), rows.max(axis=1)])
    boxes = Boxes(ordered, image_frame(image), scores=scores, labels=labels)
    if clip:
        boxes = boxes.clip()
        boxes = boxes[boxes.area > 0]
    return boxes[best_first(boxes)]


def no_boxes(image: Image.Image) -> Boxes:
    """What a detector gives for a picture in which it finds, or looks for, nothing."""
    return Boxes([], image_frame(image), scores=[], labels=[])


def best_first(boxes: Boxes) -> NDArray[np.int64]:
    """Row numbers int64[N], highest score first; ties stay in order, as do boxes without scores."""
    scores = np.zeros(len(boxes)) if boxes.scores is None else boxes.scores
    return np.argsort(-scores, kind="stable").astype(np.int64)
