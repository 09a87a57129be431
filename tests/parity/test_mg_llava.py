"""MG-LLaVA against recordings of the official code: every intermediate of every case.

The recordings are made by the official classes at small sizes; `tests/fixtures/mg_llava` and the
`config.json` of each folder say how. Placeholders are -200 (picture) and -201 (video) there, and
rows are as long as their boxes make them; ours hold slots, so ours are compared at live positions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.ops import roi_align

from parfocal.models.checkpoints.convert import convert
from parfocal.models.checkpoints.mg_llava import MG_LLAVA
from parfocal.models.config import ParfocalConfig
from parfocal.models.fusion import join_levels
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.outputs import ImageFeatures
from parfocal.models.presets import vary
from parfocal.models.presets_mg_llava import mg_llava
from parfocal.models.proposer import Regions
from parfocal.models.splicing import rows_of
from tests.parity.conftest import fixture_folders

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta",
    "bos_token_id", "eos_token_id", "pad_token_id", "sliding_window",
    "original_max_position_embeddings", "tie_word_embeddings", "hidden_act",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """One folder: the model at its sizes with its weights, and what went in and came out."""

    config: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    model: ParfocalForConditionalGeneration
    names: dict[str, tuple[str, ...]]  # official name -> ours


@dataclass(frozen=True)
class Case:
    """One case as our model takes it.

    Attributes:
        pixels: one float[P, 3, S, S] a tower.
        boxes: float[P, U, 4], cxcywh, unit frame, and their mask bool[P, U].
        mask: bool[P, U].
        pictures: of each row.
        input_ids: int[B, L], right-padded; where it is live, attention bool[B, L].
        attention: bool[B, L].
        labels: int[B, L], or None.
    """

    pixels: list[Tensor]
    boxes: Tensor
    mask: Tensor
    pictures: list[int]
    input_ids: Tensor
    attention: Tensor
    labels: Tensor | None


def model_folders() -> list[Path]:
    """Folders that record a whole model (the others record parts)."""
    return [
        path for path in fixture_folders("mg_llava") if (path / "state_dict.safetensors").exists()
    ]


def _config(path: Path) -> dict[str, Any]:
    return json.loads((path / "config.json").read_text())


def case_names() -> list[tuple[str, str]]:
    """Every case of every folder."""
    return [(path.name, name) for path in model_folders() for name in _config(path)["cases"]]


def config_of(recorded: dict[str, Any]) -> ParfocalConfig:
    """Derive our config from what the recording says about its sizes."""
    clip, convnext, text = (
        recorded[key] for key in ("clip_vision_config", "convnext", "llm_config")
    )
    values = {key: text[key] for key in TEXT_FIELDS if key in text}
    base = mg_llava({"model_type": recorded["llm_type"], **values})
    low, high = base.vision.towers
    low_backbone = {
        "model_type": "clip_vision_model",
        **{key: value for key, value in clip.items() if key != "visual_select_layer"},
    }
    high_backbone = {
        "model_type": "convnext", "hidden_sizes": convnext["dims"], "depths": convnext["depths"],
    }  # fmt: skip
    towers = [
        {**low.to_dict(), "backbone": low_backbone, "image_size": recorded["image_size"],
         "token_layer": clip["visual_select_layer"]},
        {**high.to_dict(), "backbone": high_backbone, "image_size": recorded["image_size_aux"]},
    ]  # fmt: skip
    most = max(
        (count for case in recorded["cases"].values() for count in _flat(case["num_boxes"])),
        default=1,
    )
    return vary(
        base,
        {
            "vision": {"towers": towers},
            "proposer": {"max_regions": most + 2},  # some slots stay dead in every case
            "regions": {"roi_size": recorded["box_feat_size"]},
        },
    )


def _flat(values: list[Any]) -> Iterator[int]:
    for value in values:
        yield from _flat(value) if isinstance(value, list) else (value,)


@lru_cache(maxsize=4)
def recording(folder: str) -> Recording:
    """Load a folder by its name."""
    path = next(path for path in model_folders() if path.name == folder)
    config = _config(path)
    ours = config_of(config)
    model = ParfocalForConditionalGeneration(ours).eval()
    state = load_file(path / "state_dict.safetensors")
    converted = convert(state, MG_LLAVA, model.state_dict())
    model.load_state_dict(converted.state, strict=True)
    inputs, outputs = (load_file(path / f"{name}.safetensors") for name in ("inputs", "outputs"))
    return Recording(config, inputs, outputs, model, converted.report.used)


def case_of(found: Recording, name: str) -> Case:
    """Bring a recorded case into our form."""
    inputs, config = found.inputs, found.config
    meta, pixels, boxes, pictures = config["cases"][name], [], [], []
    for row, image in enumerate(meta["images"]):
        if image == "VIDEO":
            frames = [inputs[f"video/{key}"].transpose(0, 1) for key in PIXELS]
            pixels += list(zip(*frames, strict=True))
            boxes += [inputs[f"{name}/boxes_{row}_{frame}"] for frame in range(len(frames[0]))]
            pictures.append(len(frames[0]))
            continue
        if image == "ZEROS":
            sides = (config["image_size"], config["image_size_aux"])
            pixels.append(tuple(torch.zeros(3, side, side) for side in sides))
        else:
            pixels.append(tuple(inputs[f"image/{image}/{key}"] for key in PIXELS))
        boxes.append(inputs[f"{name}/boxes_{row}"])
        pictures.append(0 if image == "ZEROS" else 1)
    unit, mask = _unit(boxes, config["image_size_aux"])
    towers = [torch.stack([picture[tower] for picture in pixels]) for tower in range(2)]
    ids, attention, labels = _rows(found, name, pictures)
    return Case(towers, unit, mask, pictures, ids, attention, labels)


PIXELS = ("pixel_values", "pixel_values_aux")


def _unit(boxes: list[Tensor], side: int) -> tuple[Tensor, Tensor]:
    """Pad corner boxes in pixels to cxcywh in the unit frame."""
    unit = torch.zeros(len(boxes), max(map(len, boxes)), 4)
    mask = torch.zeros(unit.shape[:2], dtype=torch.bool)
    for row, corners in enumerate(boxes):
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        unit[row, : len(corners)] = torch.cat((centre, size), dim=1) / side
        mask[row, : len(corners)] = True
    return unit, mask


def _rows(found: Recording, name: str, pictures: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Replace the recorded placeholders by ours and pad on the right."""
    inputs, model = found.inputs, found.model
    ids, labels = inputs[f"{name}/input_ids"], inputs.get(f"{name}/labels")
    live = inputs.get(f"{name}/attention_mask", torch.ones_like(ids, dtype=torch.bool))
    tokens = model.config.token_ids
    block = [tokens.image] * model.num_image_tokens + [tokens.region] * model.num_slots
    wide: list[tuple[list[int], list[int]]] = []
    for row, count in enumerate(pictures):
        new_ids, new_labels = [], []
        for column in torch.nonzero(live[row])[:, 0].tolist():
            token = int(ids[row, column])
            placed = block * count if token in (-200, -201) else [token]
            new_ids += placed
            label = -100 if labels is None else int(labels[row, column])
            new_labels += [-100] * len(placed) if len(placed) > 1 else [label]
        wide.append((new_ids, new_labels))
    width = max(len(row) for row, _ in wide)
    padded = torch.tensor([row + [0] * (width - len(row)) for row, _ in wide])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row, _ in wide])
    if labels is None:
        return padded, mask, None
    learned = torch.tensor([row + [-100] * (width - len(row)) for _, row in wide])
    return padded, mask, learned


@contextmanager
def watch(**modules: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Collect what modules return while the block runs."""
    seen: dict[str, Any] = {}

    def keep(name: str):
        return lambda module, args, output: seen.__setitem__(name, output)

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def same(kind: str, found: Tensor, expected: Tensor) -> None:
    """Hold a tensor against the recording."""
    assert found.shape == expected.shape, kind
    torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda text: f"{kind}: {text}")


def run(found: Recording, case: Case) -> tuple[dict[str, Any], ImageFeatures, Regions]:
    """Encode and propose, collecting what the parts return."""
    model = found.model
    low, high = (tower.backbone for tower in model.vision.towers)
    fusion = model.fusion
    with (
        torch.inference_mode(),
        watch(
            clip=low, stem=high.embeddings, vision=model.vision, slow=fusion.convs.high,
            fast=fusion.convs.low, gate=fusion.gate, fusion=fusion, projector=model.projector,
            box_projector=model.regions.project,
        ) as seen,
    ):  # fmt: skip
        features = model.encode(case.pixels)
        regions = model.propose(features, case.boxes, case.mask)
        seen["roi_mean"] = model.regions.appearance(features.levels, regions.boxes)
    return seen, features, regions


CASES = case_names()


@pytest.mark.parametrize(("folder", "name"), CASES, ids=lambda value: value)
def test_vision_side(folder, name):
    """Encoders, fusion, projector, pooled boxes and their projector."""
    found = recording(folder)
    case, expected = case_of(found, name), Outputs(found.outputs, name)
    seen, features, regions = run(found, case)
    tokens = seen["vision"].tokens[0].flatten(2).transpose(1, 2)
    same("clip_hidden_state", tokens, expected.pop("clip_hidden_state"))
    for key in expected.starting("clip_hidden_states_"):
        same("clip_hidden_states", seen["clip"].hidden_states[int(key[-1])], expected.pop(key))
    for key in expected.starting("convnext_stage_"):
        same("convnext_stage", features.levels[int(key[-1])], expected.pop(key))
    fused = seen["fusion"].flatten(2).transpose(1, 2)
    same("fuse_output", fused, expected.pop("fuse_output"))
    same("fuse_gate_pre_tanh", seen["gate"], expected.pop("fuse_gate_pre_tanh"))
    same("projector_output", features.image, expected.pop("projector_output"))
    for key, value in (
        ("convnext_stem", seen["stem"]),
        ("fuse_slow_proj", seen["slow"]),
        ("fuse_fast_proj", seen["fast"]),
        ("multi_scale_map", join_levels(features.levels)),
    ):
        if key in expected:
            same(key, value, expected.pop(key))
    for picture in range(len(case.boxes)):
        live = regions.mask[picture]
        assert int(live.sum()) == max(1, int(case.mask[picture].sum()))
        for key, value in (
            (f"roi_mean_{picture}", seen["roi_mean"][picture][live]),
            (f"bbox_projector_output_{picture}", regions.features[picture][live]),
        ):
            same(key.rstrip("_0123456789"), value, expected.pop(key))
        assert not regions.features[picture][~live].any()
    check_cells(found, case, features, expected)
    assert not expected.names - TEXT_SIDE, "a recorded intermediate was not compared"


def check_cells(found: Recording, case: Case, features: ImageFeatures, expected: Outputs) -> None:
    """Hold the cells of the reference RoIAlign, which the model never makes, against theirs."""
    if "roi_box0_stride8" not in expected:
        return
    cells = reference_cells(features.levels, case.boxes[0], found.model.regions.roi_size)
    same("roi cells", cells[0, :, ::8, ::8], expected.pop("roi_box0_stride8"))
    same("roi cells", cells[1, :2], expected.pop("roi_box1_first2ch"))


def reference_cells(levels: list[Tensor], boxes: Tensor, size: int) -> Tensor:
    """RoIAlign of the first picture's boxes float[U, 4] as the official code has it."""
    joined = join_levels(levels)[:1]
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = torch.cat((centre - half, centre + half), dim=1) * joined.shape[-1]
    return roi_align(joined, [corners], size, 1.0, -1, aligned=False)


class Outputs:
    """What was recorded of one case, taken out one by one."""

    def __init__(self, outputs: dict[str, Tensor], case: str) -> None:
        start = f"{case}/"
        self.values = {
            key.removeprefix(start): value
            for key, value in outputs.items()
            if key.startswith(start)
        }

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def pop(self, key: str) -> Tensor:
        return self.values.pop(key)

    def starting(self, start: str) -> list[str]:
        return [key for key in self.values if key.startswith(start)]

    @property
    def names(self) -> set[str]:
        return set(self.values)


TEXT_SIDE = {
    "inputs_embeds", "attention_mask", "position_ids", "labels", "logits", "logits_last", "loss",
    "greedy_tokens",
}  # fmt: skip


@pytest.mark.parametrize(("folder", "name"), CASES, ids=lambda value: value)
def test_language_side(folder, name):
    """Spliced embeddings, positions, labels, logits and loss."""
    found = recording(folder)
    model, case, expected = found.model, case_of(found, name), found.outputs
    features, regions = run(found, case)[1:]
    image, slots, alive = row_features(case, features, regions)
    live = model.live_mask(case.input_ids, case.attention.long(), alive).bool()
    with torch.inference_mode():
        embeds = model.embed(case.input_ids, image, slots)
        output = model(
            input_ids=case.input_ids, attention_mask=live.long(), labels=case.labels,
            image_features=image, region_features=slots,
        )  # fmt: skip
    recorded = {key: expected[f"{name}/{key}"] for key in TEXT_SIDE if f"{name}/{key}" in expected}
    for row in range(len(live)):
        length = int(live[row].sum())
        # the official code adds a row of padding after each row of text alone; ours does not
        their = row + case.pictures[:row].count(0)
        same("inputs_embeds", embeds[row, live[row]], recorded["inputs_embeds"][their, :length])
        same("logits_last", output.logits[row, live[row]][-1], recorded["logits_last"][their])
        if "logits" in recorded:
            same("logits", output.logits[row, live[row]], recorded["logits"][their, :length])
        if "labels" in recorded:
            assert recorded["attention_mask"][their].sum() == length
            assert torch.equal(case.labels[row, live[row]], recorded["labels"][their, :length])
            counted = (live[row].long().cumsum(0) - 1)[live[row]]
            assert torch.equal(counted, recorded["position_ids"][their, :length])
    if case.labels is not None:
        same("loss", output.loss[None], expected[f"{name}/loss"])


def row_features(
    case: Case, features: ImageFeatures, regions: Regions
) -> tuple[Tensor, Tensor, Tensor]:
    """Image tokens, region features and region mask of each row; rows of text have none."""
    owners = [row for row, count in enumerate(case.pictures) for _ in range(max(1, count))]
    used = [index for index, row in enumerate(owners) if case.pictures[row]]
    return (
        rows_of(features.image[used], case.pictures),
        rows_of(regions.features[used], case.pictures),
        rows_of(regions.mask[used], case.pictures),
    )


@pytest.mark.parametrize(
    ("folder", "name"),
    [pair for pair in CASES if pair[1].startswith("generate_") or pair[1] == "video_eval"],
    ids=lambda value: value,
)
def test_greedy_tokens(folder, name):
    found = recording(folder)
    model, case = found.model, case_of(found, name)
    features, regions = run(found, case)[1:]
    image, slots, alive = row_features(case, features, regions)
    expected = found.outputs[f"{name}/greedy_tokens"]
    with torch.inference_mode():
        tokens = model.generate(
            input_ids=case.input_ids,
            attention_mask=model.live_mask(case.input_ids, case.attention.long(), alive),
            image_features=image,
            region_features=slots,
            do_sample=False,
            max_new_tokens=found.config["greedy"]["max_new_tokens"],
            eos_token_id=found.config["eos_token_id"],
            pad_token_id=found.config["pad_token_id"],
        )[:, case.input_ids.shape[1] :]
    assert tokens[0, : expected.shape[1]].tolist() == expected[0].tolist()
    assert tokens.shape[1] == expected.shape[1]


@pytest.mark.parametrize(
    "folder",
    [path.name for path in model_folders() if "grad_norms_batch2" in _config(path)],
)
def test_gradients(folder):
    """What a batch of two teaches every trained part, as in stage 2."""
    found = recording(folder)
    model, case = found.model, case_of(found, "batch2")
    features = model.encode(case.pixels)
    regions = model.propose(features, case.boxes, case.mask)
    image, slots, alive = row_features(case, features, regions)
    live = model.live_mask(case.input_ids, case.attention.long(), alive)
    model.zero_grad()
    model(
        input_ids=case.input_ids, attention_mask=live, labels=case.labels,
        image_features=image, region_features=slots,
    ).loss.backward()  # fmt: skip
    ours = dict(model.named_parameters())
    recorded = {
        key.removeprefix("grads_batch2_sft/"): value
        for key, value in found.outputs.items()
        if key.startswith("grads_batch2_sft/")
    }
    for name, value in recorded.items():
        (target,) = found.names[name]
        same("gradient", ours[target].grad, value)
    for name, norm in found.config["grad_norms_batch2"]["sft"].items():
        (target,) = found.names[name]
        assert float(ours[target].grad.norm()) == pytest.approx(norm, rel=1e-4, abs=1e-5), name
    model.zero_grad()
