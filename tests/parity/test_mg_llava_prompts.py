"""MG-LLaVA's pictures and prompts against recordings of the official data code."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects.grounded import GroundedText
from parfocal.models.config_regions import ProposerConfig
from parfocal.models.config_vision import VisionConfig
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import ProcessorSettings
from parfocal.models.templates import TEMPLATES
from parfocal.models.text_batch import IGNORED
from tests.parity.conftest import recorded
from tests.parity.test_mg_llava import config_of, model_folders

PICTURE = -200  # the official placeholder; ours are folded back into it
FRAME = Frame("image", 100, 60)


@lru_cache(maxsize=16)
def processor_of(folder: Path, template: str) -> ParfocalProcessor:
    """The processor of a recorded model, with one of the templates."""
    config = config_of(json.loads((folder / "config.json").read_text()))
    assert isinstance(config.proposer, ProposerConfig)
    assert isinstance(config.vision, VisionConfig)
    settings = ProcessorSettings(
        vision=config.vision, dialect=config.dialect, template=TEMPLATES[template],
        num_image_tokens=9, num_slots=config.proposer.max_regions, layout=config.regions.layout,
        token_ids=config.token_ids,
    )  # fmt: skip
    return ParfocalProcessor(AutoTokenizer.from_pretrained(str(folder / "tokenizer")), settings)


def folded(processor: ParfocalProcessor, values: list[int], ids: list[int]) -> list[int]:
    """Write one `PICTURE` for a picture's tokens and slots (-100 in labels)."""
    settings = processor.settings
    length = settings.num_image_tokens + settings.num_slots
    if settings.token_ids.image not in ids:
        return values
    start = ids.index(settings.token_ids.image)
    mark = PICTURE if values is ids else IGNORED
    return [*values[:start], mark, *values[start + length :]]


PROMPTS = json.loads(recorded("mg_llava/prompt_cases.json").read_text())
FOLDER = model_folders()[0]  # its toy tokenizer is the one the prompts were recorded with


@pytest.mark.parametrize(
    ("template", "name"),
    [(template, name) for template, cases in PROMPTS["eval"].items() for name in cases],
)
def test_evaluation_prompts(template, name):
    case, processor = PROMPTS["eval"][template][name], processor_of(FOLDER, template)
    before, after = PROMPTS["templates"][template]["INSTRUCTION"].split("{input}")
    asked = case["prompt"].removeprefix(f"{before}<image>\n").removesuffix(after)
    batch = processor.ask([GroundedText.of(asked)], [Boxes.empty(FRAME)], [Warp.to_unit(FRAME)])
    ids = batch.input_ids[0].tolist()
    encode = processor.tokenizer.encode
    first, second = (
        encode(piece, add_special_tokens=False) for piece in case["prompt"].split("<image>")
    )
    bos = [processor.tokenizer.bos_token_id] if case["bos_prepended"] else []
    assert folded(processor, ids, ids) == [*bos, *first, PICTURE, *second]


def sample_of(conversation: list[dict[str, str]], picture: bool) -> Sample:
    """Read a conversation as the official code does: answers before any question are left out."""
    while conversation and conversation[0]["from"] == "gpt":
        conversation = conversation[1:]
    turns = tuple(
        Turn(
            "user" if turn["from"] == "human" else "assistant",
            GroundedText.of(turn["value"].replace("<image>", "").strip()),
        )
        for turn in conversation
    )
    images = (ImageRef("a.png", int(FRAME.width), int(FRAME.height)),) if picture else ()
    return Sample("1", images, turns)


def packed(processor: ParfocalProcessor, sample: Sample) -> tuple[list[int], list[int]]:
    """The ids and labels of one conversation in the official form."""
    batch = processor.pack([sample], [Warp.to_unit(FRAME)] * len(sample.images))
    assert set(batch.turn[0].tolist()) == {0, 1}  # each turn sees the earlier ones
    ids, labels = batch.input_ids[0].tolist(), batch.labels[0].tolist()
    return folded(processor, ids, ids), folded(processor, labels, ids)


@pytest.mark.parametrize("template", PROMPTS["train"])
def test_training_conversations(template):
    case = PROMPTS["train"][template]
    ids, labels = packed(processor_of(FOLDER, template), sample_of(case["conversations"], True))
    assert ids == case["input_ids"]
    assert labels == case["labels"]


@pytest.mark.parametrize("folder", model_folders(), ids=lambda path: path.name)
def test_training_data_of_the_recorded_cases(folder):
    """From the conversation to the ids and labels that the recorded model was given."""
    config = json.loads((folder / "config.json").read_text())
    items = json.loads((folder / "train_data.json").read_text())
    inputs = load_file(folder / "inputs.safetensors")
    processor, compared = processor_of(folder, config["template"]), 0
    for name, case in config["cases"].items():
        if f"{name}/labels" not in inputs or "VIDEO" in case["images"]:
            continue
        words = iter(item for item in items if "image" not in item and "video" not in item)
        for row, image in enumerate(case["images"]):
            item = next(words) if image == "ZEROS" else _with_image(items, image)
            ids, labels = packed(processor, sample_of(item["conversations"], image != "ZEROS"))
            expected = [inputs[f"{name}/{key}"][row].tolist() for key in ("input_ids", "labels")]
            assert ids == expected[0][: len(ids)], (name, row)
            assert labels == expected[1][: len(labels)], (name, row)
            assert set(expected[1][len(labels) :]) <= {IGNORED}
            compared += 1
    assert compared


def _with_image(items: list[dict[str, Any]], image: str) -> dict[str, Any]:
    return next(item for item in items if item.get("image") == f"{image}.png")


@pytest.mark.parametrize("folder", model_folders(), ids=lambda path: path.name)
def test_pictures_enter_as_they_did(folder):
    """Pad with the mean colour rounded down, resize, normalise; the small view from the large."""
    config = json.loads((folder / "config.json").read_text())
    inputs = load_file(folder / "inputs.safetensors")
    processor = processor_of(folder, config["template"])
    names = [key.split("/")[1] for key in inputs if key.startswith("image/")]
    for name in dict.fromkeys(names):
        image = Image.open(folder / "images" / f"{name}.png").convert("RGB")
        (low, high), _ = processor.picture(image)
        torch.testing.assert_close(
            high, inputs[f"image/{name}/pixel_values_aux"], atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(low, inputs[f"image/{name}/pixel_values"], atol=1e-4, rtol=1e-4)
    assert names
