"""RAM++ against what the official implementation recorded, for every fixture folder there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from parfocal.detectors.pipeline import MG_LLAVA, prompts_for, queries_for
from parfocal.detectors.ram_plus import (
    RamPlusConfig,
    RamPlusTagger,
    preprocess,
)
from parfocal.detectors.ram_plus_files import load_ram_plus, read_tags
from tests.parity.conftest import fixture_folders

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
FOLDERS = fixture_folders("ram_plus")


def config_of(folder: Path) -> RamPlusConfig:
    """The recorded sizes as ours."""
    recorded = json.loads((folder / "config.json").read_text())
    decoder = recorded["decoder"]
    same = ("image_size", "patch_size", "embed_dim", "window_size", "mlp_ratio", "num_tags")
    assert decoder["hidden_act"] == "gelu"
    return RamPlusConfig(
        **{name: recorded[name] for name in same},
        **{n: tuple(recorded[n]) for n in ("depths", "num_heads", "image_mean", "image_std")},
        swin_norm_eps=recorded["swin_layer_norm_eps"],
        projection_size=recorded["proj_dim"],
        num_descriptions=recorded["descriptions_per_tag"],
        decoder_size=decoder["hidden_size"],
        decoder_layers=decoder["num_hidden_layers"],
        decoder_heads=decoder["num_attention_heads"],
        decoder_ffn_size=decoder["intermediate_size"],
        decoder_norm_eps=decoder["layer_norm_eps"],
    )


class Case:
    """A fixture folder, the tagger loaded from its official files, and one run of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorded = json.loads((folder / "config.json").read_text())
        self.expected = json.loads((folder / "expected.json").read_text())
        self.outputs = load_file(folder / "outputs.safetensors")
        self.pixels = load_file(folder / "inputs.safetensors")["pixel_values"]
        weights = folder / "state_dict.safetensors"
        loaded = load_ram_plus(weights, config=config_of(folder), device="cpu")
        silenced = self.recorded["delete_tag_index"]
        self.tagger = RamPlusTagger(loaded.model, loaded.tags, loaded.thresholds.tolist(), silenced)
        self.ours = self.run()

    @torch.no_grad()
    def run(self) -> dict[str, Tensor]:
        """Every recorded intermediate under its recorded name."""
        model = self.tagger.model
        seen: dict[str, Any] = {}

        def keep(name: str) -> Any:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                seen[name] = output[0] if isinstance(output, tuple) else output

            return hook

        modules = {
            "swin.patch_embed": model.swin.embeddings.norm,
            "swin.norm": model.swin.layernorm,
            "wordvec_proj": model.wordvec_proj,
        }
        for index, stage in enumerate(model.swin.encoder.layers):
            modules[f"swin.stage{index}.before_downsample"] = stage.blocks[-1]
            if stage.downsample is not None:
                modules[f"swin.stage{index}.output"] = stage.downsample
        for index, layer in enumerate(model.decoder):
            modules[f"decoder.layer{index}.crossattention"] = layer.attention_norm
            modules[f"decoder.layer{index}.output"] = layer
        hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
        hooks.append(
            model.image_proj.register_forward_pre_hook(
                lambda module, inputs: seen.__setitem__("swin.cls_and_tokens", inputs[0])
            )
        )
        seen["image_embeds"] = model.encode(self.pixels)
        everything = range(model.config.num_tags)
        seen["logits"] = model.score(seen["image_embeds"], everything)
        for hook in hooks:
            hook.remove()
        cls = seen["image_embeds"][:, 0]
        logits, weights = model.weigh(seen["image_embeds"], everything)
        probs = seen["logits"].sigmoid()
        fired = self.tagger.fired(probs)
        return seen | {
            "image_cls_normalized": cls / cls.norm(dim=-1, keepdim=True),
            "reweight_logits": logits,
            "reweight_weights": weights,
            "label_embed_reweighted": model.mix(weights, everything),
            "decoder.input": seen["wordvec_proj"].relu(),
            "probs": probs,
            "class_threshold": self.tagger.thresholds,
            "tag_mask": fired,
            "tag_mask_before_delete": probs > self.tagger.thresholds,
        }

    def tags(self, names: list[str]) -> list[str]:
        rows = self.ours["tag_mask"]
        return [" | ".join(names[i] for i in row.nonzero().flatten()) for row in rows]


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_every_recorded_intermediate_is_reproduced(case: Case) -> None:
    numeric = {name for name in case.outputs if "utf8" not in name}
    assert numeric <= case.ours.keys(), f"not compared: {sorted(numeric - case.ours.keys())}"
    for name in sorted(numeric):
        ours, theirs = case.ours[name], case.outputs[name]
        if theirs.dtype == torch.uint8:
            assert torch.equal(ours.to(torch.uint8), theirs), name
        else:
            torch.testing.assert_close(ours, theirs, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


def test_tag_strings_are_identical(case: Case) -> None:
    assert case.tags(list(case.tagger.tags)) == case.expected["tags"]
    chinese = read_tags(case.folder / "ram_tag_list_chinese.txt")
    assert case.tags(chinese) == case.expected["tags_chinese"]
    for index, text in enumerate(case.expected["tags"]):
        assert bytes(case.outputs[f"tags_utf8.{index}"].tolist()).decode() == text
    for index, text in enumerate(case.expected["tags_chinese"]):
        assert bytes(case.outputs[f"tags_chinese_utf8.{index}"].tolist()).decode() == text


def test_mg_llava_asks_the_detector_for_the_same(case: Case) -> None:
    tags = [tuple(text.split(" | ")) if text else () for text in case.expected["tags"]]
    queries = [queries_for(row, MG_LLAVA) for row in tags]
    assert [list(row) for row in queries] == case.expected["mg_llava_tags"]
    prompts = [list(prompts_for(row, MG_LLAVA)) for row in queries]
    assert prompts == case.expected["mg_llava_prompts"]


def test_pictures_enter_bit_for_bit(case: Case) -> None:
    checked = 0
    for index, source in enumerate(case.expected["pixel_values_source"]):
        if source.endswith(".png"):
            with Image.open(case.folder / source) as image:
                pixels = preprocess([image], case.tagger.model.config)
            np.testing.assert_array_equal(pixels[0].numpy(), case.pixels[index].numpy())
            checked += 1
    assert checked


def test_chunks_of_tags_and_single_pictures_change_nothing(case: Case) -> None:
    model = case.tagger.model
    with torch.no_grad():
        chunked = model(case.pixels, tag_chunk=2)
        singles = torch.cat([model(row[None]) for row in case.pixels])
    torch.testing.assert_close(chunked, case.ours["logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(singles, case.ours["logits"], atol=1e-5, rtol=1e-5)
