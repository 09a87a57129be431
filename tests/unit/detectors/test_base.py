"""What all detectors share, and that importing the room stays cheap."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import parfocal
from parfocal.boxes import Frame
from parfocal.detectors.base import boxes_of, labels_per_image
from parfocal.errors import ConfigError

PICTURE = Image.new("RGB", (100, 50))


def test_one_list_serves_every_picture_and_one_list_a_picture_is_kept() -> None:
    assert labels_per_image(["a", "b"], 3) == [("a", "b")] * 3
    assert labels_per_image([["a"], [], ["b", "a"]], 3) == [("a",), (), ("b", "a")]
    assert labels_per_image([], 0) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("cat", "bare string 'cat'"),
        ([], "labels is empty"),
        ([["a"]], "1 lists for 2"),
        (["a", ["b"]], "mixes"),
    ],
    ids=["bare string", "nothing", "too few lists", "mixed"],
)
def test_labels_that_do_not_go_with_the_pictures_are_refused(labels: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        labels_per_image(labels, 2)


def test_boxes_come_best_first_and_ties_keep_their_order() -> None:
    rows = [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]
    boxes = boxes_of(rows, [0.5, 0.9, 0.5], ["a", "b", "c"], PICTURE, clip=True)
    assert boxes.labels == ("b", "a", "c")
    assert boxes.frame == Frame("image", 100, 50)


def test_clipping_drops_what_lies_outside_and_is_optional() -> None:
    rows = [[-10, -10, 20, 20], [0, 60, 10, 70]]
    clipped = boxes_of(rows, [0.9, 0.8], ["in", "below"], PICTURE, clip=True)
    assert clipped.to_json() == [[0, 0, 20, 20]]
    assert clipped.labels == ("in",)
    assert boxes_of(rows, [0.9, 0.8], ["in", "below"], PICTURE, clip=False).to_json() == rows


def test_corners_that_rounding_turned_round_are_swapped() -> None:
    boxes = boxes_of(np.array([[5.0, 4.0, 5.0 - 1e-7, 9.0]]), [1.0], ["a"], PICTURE, clip=False)
    assert boxes.xyxy[0].tolist() == [5.0 - 1e-7, 4.0, 5.0, 9.0]


def test_importing_the_room_loads_no_deep_learning_library() -> None:
    here = str(Path(parfocal.__file__).parents[1])
    code = (
        "import sys, parfocal.detectors as room; room.DETECTORS, room.TAGGERS, room.RegionFinder; "
        "print(sorted({'torch', 'torchvision', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": here},
        check=True,
    )
    assert done.stdout.strip() == "[]"
