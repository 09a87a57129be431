"""MG-LLaVA's box preprocessing against what the official datasets recorded.

The boxes of a picture pass suppression, limits and the fit to the high-resolution square; the
recorded cases hold the result of the whole chain, in training and in evaluation.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.data.proposals import Proposals
from parfocal.data.sample import ImageRef, Sample
from parfocal.data.selection import official_limits
from parfocal.detectors.pipeline import MG_LLAVA, choose
from parfocal.models.frames import frame_warp, seen_boxes
from parfocal.models.presets import get_preset
from parfocal.models.processing import ParfocalProcessor
from tests.parity.conftest import recorded
from tests.parity.test_mg_llava_prompts import FOLDER, processor_of

RECORDED = json.loads(recorded("mg_llava/box_cases.json").read_text())
DEFAULTS = RECORDED["defaults"]
ROOM_FOR_BOXES = 50  # tokens: the text is too long when fewer than these are left
SIDE = 768  # of the high-resolution square, pixels


def read_case(name: str, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
    entry = RECORDED["cases"][name]
    return {**DEFAULTS, **entry["case"]}, entry["result"][mode]


def is_crowded(case: dict[str, Any]) -> bool:
    text_length = min(case.get("text_len", 0), case["max_text_length"])
    return bool(text_length >= case["max_text_length"] - ROOM_FOR_BOXES)


def entered(boxes: Boxes, pad: bool) -> Boxes:
    """The boxes that the model reads, as whole pixels of the high-resolution square."""
    vision = dataclasses.replace(
        get_preset("mg_llava_vicuna_7b").vision, video="pad" if pad else "crop"
    )
    words = processor_of(FOLDER, "vicuna")
    processor = ParfocalProcessor(
        words.tokenizer, dataclasses.replace(words.settings, vision=vision)
    )
    warp = frame_warp(boxes.frame, vision)
    shown = seen_boxes(boxes, warp)
    centre, size = processor.unit_boxes([shown], [warp])[0][0].double().chunk(2, dim=-1)
    corners = np.hstack([centre - size / 2, centre + size / 2]) * SIDE
    np.testing.assert_allclose(corners, np.rint(corners), atol=1e-3)
    return Boxes(np.rint(corners), Frame("high", SIDE, SIDE), labels=shown.labels)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", RECORDED["cases"])
def test_recorded_case(name: str, mode: str) -> None:
    case, expected = read_case(name, mode)
    frame = Frame("image", *case["image_size"])
    found = Boxes(case["boxes"], frame, scores=case["scores"], labels=case["labels"])
    limits = official_limits(case["limit_num"])
    assert case["limit_mode"] == "per_category"
    settings = dataclasses.replace(MG_LLAVA, limits=limits, iou_threshold=case["iou"])
    crowded = mode == "train" and is_crowded(case)
    assert expected.get("aux_shape", [3, SIDE, SIDE]) == [3, SIDE, SIDE]
    ours = entered(choose(found, settings, crowded), case["pad"])
    assert ours.to_json() == expected["boxes"]
    assert list(ours.labels or ()) == expected["labels"]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", RECORDED["cases"])
def test_recorded_case_through_its_file(name: str, mode: str, tmp_path: Path) -> None:
    """Files of boxes give the same, cut at the picture instead of at the square around it."""
    case, expected = read_case(name, mode)
    record = {"id": "1"} | {key: case[key] for key in ("boxes", "scores", "labels")}
    (tmp_path / "boxes.json").write_text(json.dumps([record]))
    crowded = mode == "train" and is_crowded(case)
    proposals = Proposals(
        tmp_path / "boxes.json", iou_threshold=case["iou"],
        limits=official_limits(case["limit_num"]), crowded=lambda _: crowded,
    )  # fmt: skip
    picture = ImageRef("a.png", *case["image_size"])
    (sample,) = proposals.add_to([Sample("1", (picture,), (), meta={"row": 0, "id": "1"})])
    ours = entered(sample.regions, case["pad"])
    whole = Boxes([[0, 0, picture.width, picture.height]], picture.frame())
    edges = entered(whole, case["pad"]).to_json()[0]
    official = Boxes(
        np.clip(np.reshape(expected["boxes"], (-1, 4)), [edges[:2] * 2], [edges[2:] * 2]),
        ours.frame, labels=expected["labels"],
    )  # fmt: skip
    official, ours = official[official.area > 0], ours[ours.area > 0]
    assert len(ours)
    assert ours.labels == official.labels
    np.testing.assert_allclose(ours.xyxy, official.xyxy, atol=1)


def test_the_settings_are_the_recorded_defaults() -> None:
    assert DEFAULTS["iou"] == MG_LLAVA.iou_threshold
    assert MG_LLAVA.limits == official_limits(DEFAULTS["limit_num"])
