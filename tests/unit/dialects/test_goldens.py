"""Shared golden cases of the families whose dialects are built in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.dialects import (
    GroundedText,
    Phrase,
    View,
    get_dialect,
    padded_unit_square,
)

FAMILIES = {
    "groma": "region_tokens",
    "groundinggpt": "coordinates",
    "tinygroundinggpt": "coordinates",
}
CASES: list[dict[str, Any]] = [
    case
    for case in json.loads(
        (Path(__file__).parents[2] / "fixtures" / "dialect_cases.json").read_text()
    )
    if case["family"] in FAMILIES
]


def _view(case: dict[str, Any]) -> View:
    frame = Frame("image", *case["image_wh"])
    regions = None
    if "context" in case:
        width, height = case["image_wh"]
        unit = np.array(case["context"]["pred_boxes_cxcywh"])
        regions = Boxes.from_cxcywh(unit * [width, height, width, height], frame)
    return View(frame, padded_unit_square(frame), regions)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["kind"] != "encode"], ids=lambda case: case["id"]
)
def test_parse_gives_the_boxes_and_the_problem(case: dict[str, Any]) -> None:
    dialect, view = get_dialect(FAMILIES[case["family"]]), _view(case)
    parsed = dialect.parse(case["output_text"], view, expects_boxes=True)
    np.testing.assert_allclose(
        parsed.text.boxes(view.image).xyxy,
        np.reshape(case["boxes_xyxy_original_px"], (-1, 4)),
        atol=1e-6,
    )
    problems = [problem.kind for problem in parsed.problems]
    assert problems == ([case["problem"]] if "problem" in case else [])
    if "labels" in case:
        labels = [phrase.text for phrase in parsed.text.phrases for _ in phrase.boxes]
        assert labels == case["labels"]


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["kind"] == "encode"], ids=lambda case: case["id"]
)
def test_render_writes_the_numbers_and_reads_them_back(case: dict[str, Any]) -> None:
    dialect, view = get_dialect(FAMILIES[case["family"]]), _view(case)
    boxes = Boxes(case["boxes_xyxy_original_px"], view.image)
    written = dialect.render(GroundedText.of(Phrase("", boxes)), view)
    assert json.loads(written) == pytest.approx(case["model_coords"])
    again = dialect.parse(written, view).text.boxes(view.image)
    np.testing.assert_allclose(again.xyxy, case["roundtrip_boxes_xyxy_original_px"], atol=1e-6)


def test_every_family_has_cases() -> None:
    assert {case["family"] for case in CASES} == set(FAMILIES)
