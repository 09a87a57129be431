"""Annotated Samples as readers yield them, and a check of everything that a view makes of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.views import TaskView, apply
from parfocal.dialects.grounded import GroundedText, ObjectRef, RegionRef

IMAGE = ImageRef("street.jpg", 400, 300)
Annotate = Callable[..., Sample]
Make = Callable[..., tuple[list[Sample], Counter[str]]]


def build_sample(
    regions: Sequence[tuple[str, Sequence[float]]] = (),
    caption: GroundedText | None = None,
    **meta: Any,
) -> Sample:
    """A Sample of one picture of 400 x 300 pixels, whose regions are (label, xyxy)."""
    boxes = Boxes(
        [box for _, box in regions], IMAGE.frame(), labels=[label for label, _ in regions]
    )
    turns = () if caption is None else (Turn("assistant", caption),)
    meta = {"image_key": "coco:7", **meta}
    return Sample("made:train:7", (IMAGE,), turns, boxes, "made", "train", "CC0", meta)


def require_sound(made: Sequence[Sample], sample: Sample, view: TaskView) -> None:
    """What holds for every view: origin kept, ids unique, turns alternate, nothing left over."""
    assert len({item.id for item in made}) == len(made)
    for number, item in enumerate(made):
        assert item.id == f"{sample.id}#{view.name}-{number}"
        assert item.meta["view"] == view.name
        assert item.meta.get("image_key") == sample.meta.get("image_key")
        kept = (item.source, item.split, item.licence)
        assert kept == (sample.source, sample.split, sample.licence)
        assert item.images[: len(sample.images)] == sample.images
        roles = [turn.role for turn in item.turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        spans = [span for turn in item.turns for span in turn.text.spans]
        objects = [span.image for span in spans if isinstance(span, ObjectRef)]
        assert objects == list(range(len(sample.images), len(item.images)))
        for image in item.images[len(sample.images) :]:
            assert image.parent == 0
            assert image.path is None
        if item.turns:
            referred = [span.index for span in spans if isinstance(span, RegionRef)]
            assert sorted(referred) == list(range(len(item.regions)))
            assert item.regions.labels is None  # the label is often the answer


@pytest.fixture
def annotate() -> Annotate:
    """See `build_sample`."""
    return build_sample


@pytest.fixture
def make() -> Make:
    """Apply a view, check what holds for all, and return the Samples and what was left out."""

    def run(sample: Sample, view: TaskView, seed: int = 0) -> tuple[list[Sample], Counter[str]]:
        skipped: Counter[str] = Counter()
        made = apply(sample, view, seed, skipped)
        require_sound(made, sample, view)
        assert made or skipped
        return made, skipped

    return run


@pytest.fixture
def asked() -> Callable[[Sample], list[tuple[str, str]]]:
    """The questions and answers of a Sample as a person reads them."""

    def read(sample: Sample) -> list[tuple[str, str]]:
        words = [turn.text.plain for turn in sample.turns]
        return list(zip(words[::2], words[1::2], strict=True))

    return read
