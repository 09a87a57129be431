"""MG-LLaVA's videos from raw frames on: which frames, their pixels, their boxes, the answer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from parfocal.boxes import Boxes
from parfocal.detectors.pipeline import MG_LLAVA, choose
from parfocal.dialects.grounded import GroundedText
from parfocal.images import image_frame
from parfocal.models.frames import prepare_frame, seen_boxes
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.splicing import rows_of
from parfocal.video import frame_indices
from tests.parity.test_mg_llava import Recording, config_of, model_folders, recording, same
from tests.parity.test_mg_llava_prompts import processor_of

EXACT = {"atol": 1e-4, "rtol": 1e-4}


def with_video(path: Path) -> bool:
    """True where a folder recorded a video, whose prompt its own template holds."""
    return any("video" in name for name in json.loads((path / "config.json").read_text())["cases"])


FOLDERS = [path for path in model_folders() if with_video(path)]


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def found(request) -> Recording:
    return recording(request.param.name)


def folder_of(found: Recording) -> Path:
    return next(path for path in FOLDERS if found is recording(path.name))


def taken(found: Recording) -> list[Image.Image]:
    """The frames that the official code takes of those that were decoded."""
    raw = found.inputs["raw/video_frames"]
    chosen = frame_indices(len(raw), found.config["num_frames"])
    return [Image.fromarray(raw[index].numpy()) for index in chosen]


def detected(found: Recording, folder: Path, frames: list[Image.Image]) -> list[Boxes]:
    """The recorded detections of each frame, after suppression and limits."""
    records = json.loads((folder / "box_annotations.json").read_text())
    (record,) = (record for record in records if "frames" in record)
    return [
        choose(
            Boxes(
                one["boxes"] or [], image_frame(frame), scores=one["scores"], labels=one["labels"]
            ),
            MG_LLAVA,
        )
        for one, frame in zip(record["frames"], frames, strict=True)
    ]


def pixels_of(
    processor: ParfocalProcessor, boxes: list[Boxes], warps: list[Any], side: int
) -> list[Tensor]:
    """Corners of the boxes in pixels of the large input, float[U, 4] a frame."""
    shown = [seen_boxes(own, warp) for own, warp in zip(boxes, warps, strict=True)]
    values, mask = processor.unit_boxes(shown, warps)
    centre, half = values[..., :2], values[..., 2:] / 2
    corners = torch.cat((centre - half, centre + half), dim=-1) * side
    empty = torch.zeros(1, 4)  # the official code makes up a box where there is none
    return [row[own] if own.any() else empty for row, own in zip(corners, mask, strict=True)]


def test_cropped_frames(found):
    processor = processor_of(folder_of(found), found.config["template"])
    values, warps = processor.pixel_values(taken(found), [True] * found.config["num_frames"])
    for key, tower in zip(("pixel_values", "pixel_values_aux"), values, strict=True):
        expected = found.inputs[f"video/{key}"].transpose(0, 1)
        assert tower.shape == expected.shape
        torch.testing.assert_close(tower, expected, **EXACT)
    assert len(warps) == found.config["num_frames"]


def test_padded_frames(found):
    vision = dataclasses.replace(config_of(found.config).vision, video="pad")
    made = [prepare_frame(frame, vision) for frame in taken(found)]
    for tower, key in enumerate(("pixel_values_first", "pixel_values_aux_first")):
        expected = found.inputs[f"video_padded/{key}"].transpose(0, 1)
        first = torch.stack([made[0][0][tower]])
        torch.testing.assert_close(first, expected, **EXACT)


@pytest.mark.parametrize(
    ("mode", "case"), [("crop", "video_eval/boxes_0"), ("pad", "video_padded/boxes")]
)
def test_boxes_of_frames(found, mode, case):
    folder = folder_of(found)
    processor = processor_of(folder, found.config["template"])
    vision = dataclasses.replace(processor.settings.vision, video=mode)
    frames = taken(found)
    warps = [prepare_frame(frame, vision)[1] for frame in frames]
    side = found.config["image_size_aux"]
    ours = pixels_of(processor, detected(found, folder, frames), warps, side)
    for index, corners in enumerate(ours):
        torch.testing.assert_close(corners, found.inputs[f"{case}_{index}"], atol=1e-3, rtol=0)


@torch.inference_mode()
def test_from_raw_frames_and_words_to_the_recorded_answer(found):
    folder = folder_of(found)
    model, processor = found.model, processor_of(folder, found.config["template"])
    frames = taken(found)
    values, warps = processor.pixel_values(frames, [True] * len(frames))
    boxes = [
        seen_boxes(own, warp)
        for own, warp in zip(detected(found, folder, frames), warps, strict=True)
    ]
    counts = [len(frames)]
    asked = [GroundedText.of("What is in the video?")]
    text = processor.ask(asked, boxes, warps, pictures=counts)
    features = model.encode(values)
    regions = model.propose(features, text.user_boxes, text.user_mask)
    mask = model.live_mask(text.input_ids, text.attention_mask, rows_of(regions.mask, counts))
    inputs = {
        "input_ids": text.input_ids, "attention_mask": mask,
        "image_features": rows_of(features.image, counts),
        "region_features": rows_of(regions.features, counts),
    }  # fmt: skip
    logits = model(**inputs).logits[:, -1]
    same("logits_last", logits, found.outputs["video_eval/logits_last"])
    said = model.generate(
        **inputs, do_sample=False, max_new_tokens=found.config["greedy"]["max_new_tokens"],
        eos_token_id=found.config["eos_token_id"], pad_token_id=found.config["pad_token_id"],
    )[:, text.input_ids.shape[1] :]  # fmt: skip
    assert said.tolist() == found.outputs["video_eval/greedy_tokens"].tolist()
