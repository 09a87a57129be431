"""Our readers against what the official Groma loaders gave for the same annotation files.

Recordings: see fixtures/groma/README.md. The official loaders render questions and answers; ours
leave that to others, so the text is compared where it comes from the files. Official boxes are
centre, width and height as fractions of the picture's sides, in the order of their placeholders.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from parfocal.boxes import Boxes, iou
from parfocal.data.readers import get_reader
from parfocal.data.sample import Sample
from parfocal.dialects import get_dialect
from parfocal.dialects.base import View
from tests.parity.conftest import recorded

ROOT = recorded("groma/data_fixture")
OPENING = "How can I assist you with it?"
GRIT_PICTURE, GRIT_SIZE = "sub_im2.png", (200, 150)
REPEATS = 0.6  # IoU above which the official loader drops a region of several


def recorded(*datasets: str) -> list[Any]:
    """Recorded samples as test parameters; those of random crops are another matter."""
    samples = json.loads((ROOT / "golden.json").read_text("utf-8"))["samples"]
    names = ("dataset", "conv_temp", "legacy", "index")
    chosen = [
        pytest.param(s, id="-".join(str(s[name]) for name in names if name in s))
        for s in samples
        if s["dataset"] in datasets and s.get("mode") != "train"
    ]
    assert chosen, f"no recording of {datasets} in {ROOT}"
    return chosen


@cache
def read(reader: str, name: str, images: Path | None = None) -> tuple[Sample, ...]:
    return tuple(get_reader(reader)([ROOT / name], images=images))


def rounds(official: dict[str, Any]) -> list[tuple[str, str]]:
    """(question, answer) of every real round of a recorded prompt."""
    prompt = official["prompt"].partition(OPENING)[2]
    return re.findall(r"USER: (.*?) ASSISTANT: <sep>(.*?)<sep>", prompt)


def as_official(boxes: Boxes) -> np.ndarray:
    sides = [boxes.frame.width, boxes.frame.height]
    return boxes.cxcywh / np.array(sides * 2)


def check_boxes(boxes: Boxes, official: list[list[float]]) -> None:
    assert len(boxes) == len(official)
    np.testing.assert_allclose(as_official(boxes), official, rtol=0, atol=1e-6)


@pytest.mark.parametrize("official", recorded("refcoco_rec"))
def test_referring_expressions(official):
    sample = read("groma_rec", "refcoco.json")[official["index"]]
    ((question, _),) = rounds(official)
    assert re.findall(r"<p>(.*?)</p>", question) == [sample.regions.labels[0]]
    check_boxes(sample.regions, official["ground_boxes"])


@pytest.mark.parametrize("official", recorded("refcoco_cap", "single_vg"))
def test_region_captions(official):
    of_expressions = official["dataset"] == "refcoco_cap"  # the files of the expressions, turned
    reader, name = (
        ("groma_rec", "refcoco.json")
        if of_expressions
        else ("groma_region_caption", "vg_single.json")
    )
    sample = read(reader, name)[official["index"]]
    ((_, answer),) = rounds(official)
    assert answer == sample.regions.labels[0].capitalize()
    check_boxes(sample.regions, official["refer_boxes"])


@pytest.mark.parametrize("official", recorded("multi_vg"))
def test_several_region_captions(official):
    """The official loader drops near-duplicates by random scores and asks in that random order."""
    regions = read("groma_region_caption", "vg_multi.json")[official["index"]].regions
    captions = [caption.capitalize() for caption in regions.labels]
    chosen = regions[[captions.index(answer) for _, answer in rounds(official)]]
    check_boxes(chosen, official["refer_boxes"])
    assert (iou(regions, chosen).max(axis=1) > REPEATS).all()


@pytest.mark.parametrize("official", recorded("flickr30k"))
def test_captions_with_boxes(official):
    sample = read("groma_flickr", "flickr.json")[official["index"]]
    frame = sample.frames[0]
    ((_, answer),) = rounds(official)
    text = sample.turns[0].text
    assert get_dialect("region_tokens").render(text, View(frame)) == answer
    check_boxes(text.boxes(frame), official["ground_boxes"])


@pytest.mark.parametrize("official", recorded("grit"))
def test_web_captions_with_boxes(official, tmp_path):
    """The official loader asks for the phrase of a random box and puts that box first."""
    Image.new("RGB", GRIT_SIZE).save(tmp_path / GRIT_PICTURE)
    sample = read("groma_grit", "grit.json", tmp_path)[official["index"]]
    ((question, answer),) = rounds(official)
    (words,) = re.findall(r"<p>(.*?)</p>", question)
    (phrase,) = (phrase for phrase in sample.turns[0].text.phrases if phrase.text == words)
    assert answer.count("<ground_box>") == len(phrase.boxes)
    drawn = np.abs(as_official(phrase.boxes) - official["ground_boxes"][0]).sum(axis=1).argmin()
    others = [number for number in range(len(phrase.boxes)) if number != drawn]
    check_boxes(phrase.boxes[[int(drawn), *others]], official["ground_boxes"])


@pytest.mark.parametrize("official", recorded("groma_instruct"))
def test_conversations(official):
    sample = read("groma_instruct", "groma_instruct.json")[official["index"]]
    frame = sample.frames[0]
    ours = [get_dialect("region_tokens").render(turn.text, View(frame)) for turn in sample.turns]
    questions = ["[grounding]" + question for question in ours[::2]]
    assert list(zip(questions, ours[1::2], strict=True)) == rounds(official)
    boxes = Boxes.concat([turn.text.boxes(frame) for turn in sample.turns])
    check_boxes(boxes, official["ground_boxes"])


@pytest.mark.parametrize("official", recorded("coco"))
def test_all_of_a_category(official):
    regions = read("coco", "coco.json")[official["index"]].regions
    ((question, _),) = rounds(official)
    (category,) = re.findall(r"<p>(.*?)</p>", question)
    check_boxes(regions[[label == category for label in regions.labels]], official["ground_boxes"])


@pytest.mark.parametrize("official", recorded("coco_box", "sa1b_box"))
def test_detection_without_classes(official):
    sample = read("coco", "det.json")[official["index"]]
    assert [sample.images[0].height, sample.images[0].width] == official["ori_shape"][:2]
    check_boxes(sample.regions, official["bboxes"])
