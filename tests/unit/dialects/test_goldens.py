"""Every shared golden case: the boxes, labels and problems of outputs, and the numbers written."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects import (
    GroundedText,
    Parsed,
    Phrase,
    View,
    get_dialect,
    read_detections,
    smart_resize,
)

FAMILIES = {
    "cogvlm-grounding": "cogvlm_grounding",
    "deepseek-vl2": "deepseek_vl2",
    "ferret": "ferret",
    "florence-2": "florence2",
    "gemini": "gemini",
    "glamm": "glamm",
    "groma": "region_tokens",
    "groundinggpt": "groundinggpt",
    "internvl": "internvl",
    "kosmos-2": "kosmos2",
    "llava-1.5": "llava_1_5",
    "minigpt-v2": "minigpt_v2",
    "molmo": "molmo",
    "molmo2": "molmo2",
    "paligemma": "paligemma",
    "qwen-vl": "qwen_vl",
    "qwen2-vl": "qwen2_vl",
    "qwen2.5-vl": "qwen2_5_vl",
    "qwen3-vl": "qwen3_vl",
    "rex-omni": "rex_omni",
    "shikra": "shikra",
    "tinygroundinggpt": "coordinates",
}
PADDED = {"grounding-dino": False, "owlv2": True, "owlvit": False}  # at the right and the bottom
FIXTURE = Path(__file__).parents[2] / "fixtures" / "dialect_cases.json"
CASES: list[dict[str, Any]] = json.loads(FIXTURE.read_text(encoding="utf-8"))

# The label that Transformers makes up for a box without a phrase; ours has none.
MADE_UP = {"kosmos-2-13": [""]}
PIXELS = 1e-3  # the goldens have four decimals


def cases(*kinds: str, key: str = "id", without: tuple[str, ...] = ()) -> list[Any]:
    chosen = [
        case
        for case in CASES
        if (not kinds or case["kind"] in kinds)
        and case["kind"] not in without
        and case["family"] in FAMILIES
        and key in case
    ]
    assert chosen
    return [pytest.param(case, id=case["id"]) for case in chosen]


def _view(case: dict[str, Any]) -> View:
    frame = Frame("image", *case["image_wh"])
    dialect = get_dialect(FAMILIES[case["family"]])
    coordinates = dialect.coordinate_frame(frame)
    if "resized_wh" in case:
        coordinates = Warp.resize(frame, *case["resized_wh"])
    regions = None
    if "context" in case:
        width, height = case["image_wh"]
        unit = np.array(case["context"]["pred_boxes_cxcywh"])
        regions = Boxes.from_cxcywh(unit * [width, height, width, height], frame)
    others = (Frame("image1", *case["image_wh"]),) if "image_index" in case else ()
    return View(frame, coordinates, regions, others)


def _parse(case: dict[str, Any]) -> Parsed:
    text = case.get("output_text", case.get("input_text"))
    asked = case["family"] != "glamm"  # its boxes are masks, which the text does not hold
    return get_dialect(FAMILIES[case["family"]]).parse(text, _view(case), expects_boxes=asked)


def _rows(parsed: Parsed) -> np.ndarray:
    """float64[N, 4] of every phrase, whichever picture it points into."""
    return np.array([row for p in parsed.text.phrases for row in p.boxes.to_json()]).reshape(-1, 4)


@pytest.mark.parametrize("case", cases(without=("encode", "resize")))
def test_parse_gives_the_boxes_the_labels_and_the_problem(case: dict[str, Any]) -> None:
    parsed = _parse(case)
    expected = np.reshape(case["boxes_xyxy_original_px"] or [], (-1, 4))
    points = np.reshape(case.get("points_xy_original_px", []), (-1, 2))
    expected = np.concatenate([expected, np.hstack([points, points])])
    np.testing.assert_allclose(_rows(parsed), expected, atol=PIXELS)

    kinds = [case["problem"]] if "problem" in case else []
    assert [problem.kind for problem in parsed.problems] == kinds
    assert parsed.text.is_nothing is (case["kind"] == "absent")


@pytest.mark.parametrize("case", cases(key="labels", without=("encode", "resize", "absent")))
def test_labels(case: dict[str, Any]) -> None:
    phrases = _parse(case).text.phrases
    placed = [phrase.text for phrase in phrases for _ in phrase.boxes]
    if case["family"] == "glamm":
        placed = [phrase.text for phrase in phrases]
    assert placed == MADE_UP.get(case["id"], case["labels"])


@pytest.mark.parametrize("case", cases(key="image_index"))
def test_points_know_their_picture(case: dict[str, Any]) -> None:
    frames = [phrase.boxes.frame.name for phrase in _parse(case).text.phrases]
    assert frames == [f"image{index or ''}" for index in case["image_index"]]


@pytest.mark.parametrize("case", cases("encode"))
def test_render_writes_the_numbers_and_reads_them_back(case: dict[str, Any]) -> None:
    dialect, view = get_dialect(FAMILIES[case["family"]]), _view(case)
    boxes = Boxes(case["boxes_xyxy_original_px"], view.image)
    written = dialect.render(GroundedText.of(Phrase("", boxes)), view)
    assert written == re.sub(r"^(caption |<REGION_TO_DESCRIPTION>)", "", case["input_text"])
    numbers = [float(number) for number in re.findall(r"[0-9.]+", written)]
    assert numbers == pytest.approx(case["model_coords"])
    parsed = dialect.parse(written, view)
    back = case.get("roundtrip_boxes_xyxy_original_px")
    if back is not None:
        np.testing.assert_allclose(_rows(parsed), back, atol=PIXELS)
    assert not parsed.problems


@pytest.mark.parametrize("case", cases("encode", key="input_text") + cases("region_description"))
def test_a_region_is_written_the_same_way(case: dict[str, Any]) -> None:
    dialect, view = get_dialect(FAMILIES[case["family"]]), _view(case)
    regions = Boxes(case["boxes_xyxy_original_px"], view.image)
    asked = dialect.render(dialect.describe_region(0), View(view.image, view.coordinates, regions))
    assert re.sub(r"^(caption |<REGION_TO_DESCRIPTION>)", "", case["input_text"]) in asked


@pytest.mark.parametrize("case", cases("resize"))
def test_resized_sizes(case: dict[str, Any]) -> None:
    assert list(smart_resize(*case["image_wh"], **case["resize_cfg"])) == case["resized_wh"]


@pytest.mark.parametrize("case", cases(key="raw_boxes_xyxy_original_px"))
def test_recovered_boxes_are_the_raw_ones_in_order_and_clipped(case: dict[str, Any]) -> None:
    raw = np.array(case["raw_boxes_xyxy_original_px"]).reshape(-1, 2, 2)
    frame = Frame("image", *case["image_wh"])
    ordered = Boxes(np.hstack([raw.min(axis=1), raw.max(axis=1)]), frame)
    np.testing.assert_allclose(_rows(_parse(case)), ordered.clip().xyxy, atol=PIXELS)


@pytest.mark.parametrize("case", cases(key="hf_native_int_boxes"))
def test_native_boxes_are_ours_cut_to_whole_pixels(case: dict[str, Any]) -> None:
    text = case.get("output_text", case.get("input_text", ""))
    bins = [int(number) for number in re.findall(r"<loc_([0-9]+)>", text)]
    # The native reader takes an unlabelled run of five from the middle of its first token.
    start = 1 if case.get("problem") == "unlabelled_box" else 0
    grid, (width, height) = get_dialect("florence2").grid, case["image_wh"]  # type: ignore[attr-defined]
    rows = [bins[i : i + 4] for i in range(start, start + (len(bins) - start) // 4 * 4, 4)]
    sides = [width, height, width, height]
    native = [[int(grid.read(n) * s) for n, s in zip(row, sides, strict=True)] for row in rows]
    assert native == case["hf_native_int_boxes"]
    if start == 0 and case.get("problem") != "out_of_range" and "output_text" in case:
        assert _rows(_parse(case)).astype(int).tolist() == native


@pytest.mark.parametrize("case", cases(key="alt_boxes_original_frame"))
def test_the_other_reading_has_its_own_name(case: dict[str, Any]) -> None:
    frame = Frame("image", *case["image_wh"])
    parsed = get_dialect("llava_1_5_unpadded").parse(case["output_text"], View(frame))
    np.testing.assert_allclose(_rows(parsed), case["alt_boxes_original_frame"], atol=PIXELS)


@pytest.mark.parametrize("case", cases(key="alt_boxes_div1024"))
def test_the_reading_of_demos_is_less_than_a_pixel_off(case: dict[str, Any]) -> None:
    np.testing.assert_allclose(_rows(_parse(case)), case["alt_boxes_div1024"], atol=1.0)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["family"] in PADDED], ids=lambda case: case["id"]
)
def test_detections(case: dict[str, Any]) -> None:
    frame, context = Frame("image", *case["image_wh"]), case["context"]
    seen = Warp.pad_to_square(frame, centre=False) if PADDED[case["family"]] else None
    unit = seen.then(Warp.to_unit(seen.target)) if seen else Warp.to_unit(frame)
    labels = case.get("labels", ["a cat"])
    boxes = Boxes.from_cxcywh(
        context["pred_boxes_cxcywh"], unit.target, scores=context["scores"], labels=labels
    )
    parsed = read_detections(unit.inverse().apply(boxes))
    np.testing.assert_allclose(_rows(parsed), case["boxes_xyxy_original_px"], atol=PIXELS)
    assert [p.kind for p in parsed.problems] == ([case["problem"]] if "problem" in case else [])
    assert [phrase.text for phrase in parsed.text.phrases] == labels
    assert parsed.text.boxes(frame).scores.tolist() == context["scores"]  # type: ignore[union-attr]


def test_every_case_belongs_to_a_test() -> None:
    assert {case["family"] for case in CASES} == {*FAMILIES, *PADDED}
    assert len(CASES) == 134
