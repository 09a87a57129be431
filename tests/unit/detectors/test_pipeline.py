"""From picture to boxes with a tagger and a detector that say what they were told to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.selection import BoxLimits
from parfocal.detectors.base import boxes_of, labels_per_image
from parfocal.detectors.cache import BoxCache
from parfocal.detectors.pipeline import (
    MG_LLAVA,
    RegionFinder,
    RegionSettings,
    prompts_for,
    queries_for,
)
from parfocal.errors import ConfigError


class ColourTagger:
    """Names a picture by its red channel: 0 nothing, else as many names."""

    identity: ClassVar[dict[str, Any]] = {"kind": "colour"}

    def tag(self, images: Sequence[Image.Image]) -> list[tuple[str, ...]]:
        return [("Cat ", "Dog", "bus")[: image.getpixel((0, 0))[0]] for image in images]


class GridDetector:
    """Two boxes a name, the second a copy with a lower score; remembers what it was asked."""

    def __init__(self, weights: str = "w1") -> None:
        self.identity: dict[str, Any] = {"kind": "grid", "weights": weights}
        self.asked: list[tuple[list[tuple[str, ...]], float | None, bool]] = []

    def detect(
        self,
        images: Sequence[Image.Image],
        labels: Any,
        threshold: float | None = None,
        clip: bool = True,
    ) -> list[Boxes]:
        names = labels_per_image(labels, len(images))
        self.asked.append((names, threshold, clip))
        return [self._one(image, row, clip) for image, row in zip(images, names, strict=True)]

    def _one(self, image: Image.Image, names: tuple[str, ...], clip: bool) -> Boxes:
        rows, scores, labels = [], [], []
        for index, name in enumerate(names):
            rows += [[-2.5, 10.9 * index, 30.7, 10.9 * index + 8.2]] * 2
            scores += [0.9 - 0.1 * index, 0.5 - 0.1 * index]
            labels += [name] * 2
        return boxes_of(np.array(rows).reshape(-1, 4), scores, labels, image, clip)


def picture(names: int, size: tuple[int, int] = (40, 60)) -> Image.Image:
    return Image.new("RGB", size, (names, 0, 0))


def test_mg_llava_prompts_thresholds_and_whole_pixels() -> None:
    detector = GridDetector()
    [boxes] = RegionFinder(ColourTagger(), detector).find([picture(2)])
    prompts = ("a photo of cat", "a photo of dog")
    assert detector.asked == [([prompts], 0.2, False)]
    assert boxes.labels == ("cat", "dog")  # the copies were suppressed
    assert boxes.to_json() == [[-2, 0, 30, 8], [-2, 10, 30, 19]]  # toward zero, not clipped


def test_without_a_tag_mg_llava_asks_for_nothing_in_particular() -> None:
    detector = GridDetector()
    [boxes] = RegionFinder(ColourTagger(), detector).find([picture(0)])
    assert detector.asked[0][0] == [("a photo of ",)]
    assert boxes.labels == ("",)
    quiet = dataclasses.replace(MG_LLAVA, ask_without_names=False)
    assert RegionFinder(ColourTagger(), GridDetector(), quiet).find([picture(0)])[0].labels == ()


def test_other_settings_clip_and_keep_fractions_and_case() -> None:
    settings = RegionSettings(limits=BoxLimits(total=1, per_label=1))
    [boxes] = RegionFinder(ColourTagger(), GridDetector(), settings).find([picture(2)])
    assert boxes.labels == ("Cat", "Dog")
    np.testing.assert_allclose(boxes.xyxy[0], [0, 0, 30.7, 8.2])


def test_a_batch_gives_what_single_pictures_give() -> None:
    pictures = [picture(2), picture(0), picture(3, (50, 50)), picture(1)]
    finder = RegionFinder(ColourTagger(), GridDetector(), batch_size=2)
    assert finder.find(pictures) == [finder.find([one])[0] for one in pictures]
    assert finder.find([]) == []


def test_the_same_picture_is_worked_on_once() -> None:
    detector = GridDetector()
    first, second, third = RegionFinder(ColourTagger(), detector).find(
        [picture(1), picture(2), picture(1)]
    )
    assert first == third != second
    assert [len(names) for names, *_ in detector.asked] == [2]


def test_cached_boxes_are_the_same_boxes(tmp_path: Path) -> None:
    cache = BoxCache(tmp_path)
    found = RegionFinder(ColourTagger(), GridDetector(), RegionSettings(), cache).find(
        [picture(2), picture(3)]
    )
    again = GridDetector()
    finder = RegionFinder(ColourTagger(), again, RegionSettings(), cache)
    assert finder.find([picture(3), picture(2)]) == found[::-1]
    assert again.asked == []


def test_other_weights_or_settings_do_not_share_boxes(tmp_path: Path) -> None:
    cache = BoxCache(tmp_path)
    RegionFinder(ColourTagger(), GridDetector(), MG_LLAVA, cache).find([picture(1)])
    for detector, settings in (
        (GridDetector("w2"), MG_LLAVA),
        (GridDetector(), dataclasses.replace(MG_LLAVA, iou_threshold=0.3)),
        (GridDetector(), dataclasses.replace(MG_LLAVA, limits=BoxLimits(total=None))),
    ):
        RegionFinder(ColourTagger(), detector, settings, cache).find([picture(1)])
        assert len(detector.asked) == 1


def test_any_source_of_a_picture_will_do(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture(2).save(path)
    finder = RegionFinder(ColourTagger(), GridDetector())
    assert finder.find([path, path.read_bytes()]) == finder.find([picture(2)]) * 2


def test_queries_and_prompts() -> None:
    assert queries_for((" A ", "B"), RegionSettings()) == ("A", "B")
    assert queries_for((), RegionSettings()) == ()
    assert prompts_for(("x",), RegionSettings(prompt="find {}!")) == ("find x!",)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": "a photo"}, "prompt is 'a photo'"),
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"iou_threshold": -0.1}, "iou_threshold is -0.1"),
    ],
)
def test_impossible_settings_are_refused(bad: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegionSettings(**bad)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        RegionFinder(ColourTagger(), GridDetector(), batch_size=0)
