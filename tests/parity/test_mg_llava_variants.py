"""MG-LLaVA's ablations (Table 5) against recordings of the official modules.

`config.json` of the folder says which come from official source and which were translated from the
bytecode that the official repository ships.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.ops import box_convert, roi_align

from parfocal.models.config_regions import RegionsConfig
from parfocal.models.config_vision import FusionConfig
from parfocal.models.fusion import FusionInputs, build_fusion
from parfocal.models.multiscale_mean import MultiscaleMean, RegionsReadTokens, TokensReadRegions
from tests.parity.conftest import fixture_folders

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
CONVS = {
    "slow_conv": "convs.high.0",
    "slow_proj": "convs.high.2",
    "fast_conv": "convs.low.0",
    "fast_proj": "convs.low.2",
    "gate": "gate",
}
ATTENTION = {
    "vlm_uni_query_projector": "attention.query",
    "vlm_uni_aux_projector": "attention.key",
    "vlm_uni_key_projector": "attention.key",
    "vlm_uni_val_projector": "attention.value",
}
RESAMPLER = {
    "query": "query",
    "kv_proj": "lift",
    "ln_q": "norm_query",
    "ln_kv": "norm_memory",
    "attn": "attention",
    "ln_post": "norm_out",
    "proj": "project",
    "pos_embed": "position",
}

FOLDERS = [path for path in fixture_folders("mg_llava") if (path / "weights.safetensors").exists()]
pytestmark = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


class Variants:
    """One folder."""

    def __init__(self, path: Path) -> None:
        self.config = json.loads((path / "config.json").read_text())
        self.inputs, self.weights, self.outputs = (
            load_file(path / f"{name}.safetensors") for name in ("inputs", "weights", "outputs")
        )
        config, grid = self.config, self.config["grid"]
        self.low = tokens_to_map(self.inputs["low_res_tokens"], grid)
        self.high, self.joined = self.inputs["convnext_last"], self.inputs["convnext_map"]
        self.sizes = FusionInputs(
            channels=(config["low_dim"], config["high_dim"]),
            grids=(grid, grid),
            level_channels=(config["map_dim"],),
            level_grids=(self.joined.shape[-1],),
            width=config["llm_hidden"],
        )

    def of(self, group: str, names: dict[str, str]) -> dict[str, Tensor]:
        """The weights of a group in our names."""
        found = {}
        for key, value in self.weights.items():
            if key.startswith(f"{group}/"):
                head, _, rest = key.removeprefix(f"{group}/").partition(".")
                found[".".join(filter(None, (names[head], rest)))] = value
        return found

    def fuse(self, config: FusionConfig, state: dict[str, Tensor]) -> Tensor:
        """Build a fusion, load it strictly and fuse; float[B, T, C]."""
        fusion = build_fusion(config, self.sizes).eval()
        fusion.load_state_dict(state, strict=True)
        with torch.inference_mode():
            fused = fusion([self.low, self.high], [self.joined])
        assert fused.shape[1:3] == (fusion.out_channels, fusion.out_grid)
        return map_to_tokens(fused)


@lru_cache(maxsize=2)
def variants(path: Path) -> Variants:
    return Variants(path)


def tokens_to_map(tokens: Tensor, grid: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (grid, grid))


def map_to_tokens(fused: Tensor) -> Tensor:
    return fused.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("group", "config"),
    [
        ("fuse_model_0", FusionConfig("conv_gate")),
        ("fuse_model_1", FusionConfig("conv_gate", join="channels")),
        ("fuse_model_2", FusionConfig("conv_gate", gated=False, join="channels")),
        ("fuse_model_3", FusionConfig("concat")),
    ],
    ids=["conv gate", "as channels", "as channels without gate", "channel concat"],
)
def test_convolutional_fusions(folder, group, config):
    found = variants(folder)
    fused = found.fuse(config, found.of(group, CONVS))
    torch.testing.assert_close(fused, found.outputs[f"{group}/output"], **TOLERANCE)


def test_conv_gate_starts_as_the_low_resolution_map(folder):
    found = variants(folder)
    fusion = build_fusion(FusionConfig("conv_gate"), found.sizes)
    with torch.inference_mode():
        fused = map_to_tokens(fusion([found.low, found.high]))
    assert torch.equal(fused, found.outputs["conv_gate/at_init_equals_low"])


@pytest.mark.parametrize(
    ("group", "mined"), [("patch_info_mining_map", "levels"), ("patch_info_mining_last", "tokens")]
)
def test_patch_info_mining(folder, group, mined):
    found = variants(folder)
    config = FusionConfig("patch_info_mining", mined=mined)
    fused = found.fuse(config, found.of(group, ATTENTION))
    torch.testing.assert_close(fused, found.outputs[f"{group}/output"], **TOLERANCE)


def test_resampler(folder):
    found = variants(folder)
    config = FusionConfig("resampler", heads=found.config["resampler_heads"])
    convs = found.of("resampler_fuse", CONVS)
    fixed = build_fusion(config, found.sizes).position
    torch.testing.assert_close(fixed, found.weights["resampler/pos_embed"], **TOLERANCE)
    fused = found.fuse(config, {**convs, **found.of("resampler", RESAMPLER)})
    torch.testing.assert_close(fused, found.outputs["resampler/output"], **TOLERANCE)

    fusion = build_fusion(config, found.sizes)
    fusion.load_state_dict(convs, strict=False)
    with torch.inference_mode():
        side_by_side = torch.cat(
            [map_to_tokens(part) for part in fusion.convs(found.low, found.high)], dim=1
        )
    torch.testing.assert_close(side_by_side, found.outputs["resampler/tokens_in"], **TOLERANCE)


def pooled_boxes(found: Variants) -> tuple[Tensor, Tensor]:
    """The pooled boxes of both pictures, padded, and which are real."""
    rows = [found.inputs[f"box_features_{row}"][0] for row in range(2)]
    most = max(map(len, rows))
    padded = torch.stack([nn.functional.pad(row, (0, 0, 0, most - len(row))) for row in rows])
    mask = torch.stack([torch.arange(most) < len(row) for row in rows])
    return padded, mask


def test_f2b_attention(folder):
    found = variants(folder)
    boxes, mask = pooled_boxes(found)
    merge = TokensReadRegions(found.config["map_dim"], found.config["low_dim"])
    merge.load_state_dict(found.of("f_to_b_cross_attention", ATTENTION), strict=True)
    padded = boxes.masked_fill(~mask[..., None], 7.0)  # dead slots must not matter
    with torch.inference_mode():
        tokens = map_to_tokens(merge(found.low, padded, mask))
    torch.testing.assert_close(tokens, found.outputs["f_to_b_cross_attention/output"], **TOLERANCE)


def test_b2f_attention(folder):
    found = variants(folder)
    boxes, mask = pooled_boxes(found)
    merge = RegionsReadTokens(found.config["map_dim"], found.config["low_dim"])
    merge.load_state_dict(found.of("b_to_f_cross_attention", ATTENTION), strict=True)
    with torch.inference_mode():
        seen = merge(boxes, found.low)
    for row in range(2):
        expected = found.outputs[f"b_to_f_cross_attention/output_{row}"]
        torch.testing.assert_close(seen[row, mask[row]][None], expected, **TOLERANCE)


@pytest.mark.parametrize(("key", "size"), [("map_56x56", 56), ("map_7x7", 7), ("last_only_7x7", 7)])
def test_pooled_boxes(folder, key, size):
    """The separable form, and the RoIAlign it stands for, against the recording."""
    found, expected = variants(folder), variants(folder).outputs[f"align_box/{key}"]
    level = (found.high if key.startswith("last") else found.joined)[:1]
    pooled, cells = pool(found, level, size)
    torch.testing.assert_close(pooled, expected, **TOLERANCE)
    torch.testing.assert_close(cells, expected, **TOLERANCE)


def pool(found: Variants, level: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pool the recorded boxes over float[1, C, G, G] in both ways, float[N, C] each."""
    side, corners = found.config["boxes_image_size"], found.inputs["roi_boxes_in_96px"]
    encoder = MultiscaleMean(RegionsConfig("multiscale_mean", roi_size=size), (level.shape[1],), 8)
    unit = box_convert(corners, "xyxy", "cxcywh")[None] / side
    scale = level.shape[-1] / side
    cells = roi_align(level, [corners], size, scale, -1, aligned=False)
    return encoder.appearance([level], unit)[0], cells.mean(dim=(2, 3))


def test_a_linear_map_a_level_is_one_of_the_mean(folder):
    """The official option that maps each level's cells needs no code: it is linear in the mean."""
    found = variants(folder)
    parts = pool(found, found.joined[:1], 7)[0].split(found.config["stage_dims"], dim=1)
    mapped = sum(
        nn.functional.linear(
            part,
            found.weights[f"multi_level_linear/{level}.weight"],
            found.weights[f"multi_level_linear/{level}.bias"],
        )
        for level, part in enumerate(parts)
    )
    torch.testing.assert_close(mapped, found.outputs["align_box/multi_level_7x7"], **TOLERANCE)


def test_every_recorded_variant_has_a_test(folder):
    assert {key.split("/")[0] for key in variants(folder).outputs} == {
        "align_box", "b_to_f_cross_attention", "conv_gate", "f_to_b_cross_attention",
        "fuse_model_0", "fuse_model_1", "fuse_model_2", "fuse_model_3", "patch_info_mining_last",
        "patch_info_mining_map", "resampler",
    }  # fmt: skip
