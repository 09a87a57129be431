"""What a model is made of: counts against the papers and official files, work against formulas."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, Qwen2_5_VLConfig

from parfocal.errors import CheckpointError
from parfocal.models.info import TEXT_TOKENS, ModelInfo, config_info, folder_info, preset_info
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import PRESETS, tiny, vary

FIXTURES = Path(__file__).parents[2] / "fixtures"

# preset -> (parameters, of what): official tensors counted one by one, and what the papers write
OFFICIAL = {
    "groma_7b": (7_377_311_657, 7.377),
    "mg_llava_vicuna_7b": (7_293_797_057, 7.4),
    "mg_llava_vicuna_13b": (13_594_121_921, 13.6),
    "mg_llava_yi1_5_34b": (35_025_510_081, 34.4),
    "mg_llava_llama3_8b": (8_585_642_689, 8.4),
    "mg_llava_phi3_3_8b": (4_357_779_137, 4.2),
}
# the papers' counts leave out what is not said; ours are those of the official tensors
FURTHER_OFF = {"mg_llava_llama3_8b": 0.025, "mg_llava_phi3_3_8b": 0.04}


@cache
def info_of(name: str) -> ModelInfo:
    return preset_info(name)


def sized(names: Iterable[str]) -> list[Any]:
    """Parameters; the large presets but one, which take a second each, are slow tests."""
    quick = ("mini", "tiny", "groma_7b")
    return [
        pytest.param(name, marks=() if name in quick else pytest.mark.slow, id=name)
        for name in names
    ]


@pytest.mark.parametrize("name", sized(PRESETS))
def test_every_preset_builds_without_memory_and_every_part_has_its_work(name):
    found = info_of(name)
    assert found.name == name
    assert found.parameters > 0
    for part in found.parts:
        assert part.parameters > 0, part
        assert part.flops > 0, part
    assert found.flops == sum(part.flops for part in found.parts)
    assert found.image_tokens > 0
    assert json.loads(json.dumps(found.to_json()))["parameters"] == found.parameters


@pytest.mark.parametrize("name", sized(OFFICIAL))
def test_parameters_are_the_official_ones(name, record_property):
    exact, reported = OFFICIAL[name]
    found = info_of(name).parameters
    record_property("parameters", f"{found:,}")
    assert found == exact
    assert found == pytest.approx(reported * 1e9, rel=FURTHER_OFF.get(name, 0.02))


LLMS = {
    "mg_llava_phi3_3_8b": "phi3-mini",
    "mg_llava_vicuna_7b": "vicuna-7b",
    "mg_llava_llama3_8b": "llama3-8b",
    "mg_llava_vicuna_13b": "vicuna-13b",
    "mg_llava_yi1_5_34b": "yi1.5-34b",
}


@pytest.mark.parametrize("name", sized(LLMS))
def test_all_but_the_encoders_is_what_the_released_file_holds(name):
    text = (FIXTURES / "mg_llava" / "checkpoint_keys.json").read_text(encoding="utf-8")
    official = json.loads(text)["llms"][LLMS[name]]["n_params"]
    parts = info_of(name).parts
    trained = [part.parameters for part in parts if not part.name.startswith("vision")]
    assert sum(trained) == official


def test_the_table_counts_what_the_real_model_has():
    model = ParfocalForConditionalGeneration(tiny())
    assert config_info(tiny(), "x").parameters == sum(p.numel() for p in model.parameters())


class TestWork:
    def test_of_a_vit_is_the_formula(self):
        config = CLIPVisionConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
            image_size=56, patch_size=14,
        )  # fmt: skip
        tower = {
            "backbone": {"model_type": "clip_vision_model", **config.to_dict()},
            "image_size": 56, "level_layers": [-1], "token_layer": -2,
        }  # fmt: skip
        ours = vary(tiny(), {"vision": {"towers": [tower], "pyramid": "none"}})
        part = config_info(ours, "x").parts[0]
        tokens, width, inner, patches = 17, 64, 128, 16
        layer = 4 * tokens * width**2 + 2 * tokens * width * inner + 2 * tokens**2 * width
        assert part.flops == 2 * (3 * layer + patches * width * 3 * 14**2)

    def test_of_a_language_model_is_the_formula(self):
        text = {
            "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        }  # fmt: skip
        found = config_info(vary(tiny(), {"text_config": text}), "x")
        length, width = found.prompt_tokens, 32
        assert length == found.image_tokens + found.region_tokens + TEXT_TOKENS
        layer = length * (3 * width**2 + 3 * width * 48) + 2 * length**2 * width
        assert found.parts[-1].flops == 2 * (2 * layer + width * 300)
        assert found.cache_numbers == 2 * 2 * 2 * 8

    def test_more_slots_are_more_tokens_and_more_work(self):
        few, many = (
            config_info(vary(tiny(), {"proposer": {"max_regions": slots}}), "x") for slots in (2, 6)
        )
        assert (few.region_tokens, many.region_tokens) == (2, 6)
        work = [{part.name: part.flops for part in found.parts} for found in (few, many)]
        assert work[0]["regions"] < work[1]["regions"]
        assert work[0]["vision 1"] == work[1]["vision 1"]

    def test_interleaved_slots_take_two_tokens(self):
        groma = info_of("groma_7b")
        assert (groma.image_tokens, groma.region_slots, groma.region_tokens) == (256, 100, 200)

    def test_what_is_done_once_a_picture_for_regions_is_theirs(self):
        regions = {part.name: part.flops for part in info_of("groma_7b").parts}["regions"]
        cells, width = 128**2 + 64**2 + 32**2, 1024
        rounds = 2 * 5 * cells * 9 * width**2
        lifted = 2 * cells * (width + 2) * width
        boxes = 2 * 100 * (3 * 196 * 9 * width**2 + 196 * width * 1024 + 1024 * 4096)
        assert regions == pytest.approx(rounds + lifted + boxes, rel=1e-3)


class TestMemory:
    def test_weights_and_cache_by_type(self):
        found = info_of("groma_7b").memory()
        assert found["float32"]["weights"] == 4 * 7_377_311_657
        assert found["bfloat16"]["weights"] == 2 * 7_377_311_657
        assert found["bfloat16"]["cache"] == 2 * (2 * 32 * 32 * 128) * 520
        assert found["int4"]["weights"] < found["int8"]["weights"] < found["bfloat16"]["weights"]
        for sizes in found.values():
            assert sizes["total"] == sizes["weights"] + sizes["cache"]

    def test_quantisation_leaves_tables_and_convolutions(self):
        found = info_of("mini")
        assert 0 < found.linear_parameters < found.parameters

    def test_quantisation_is_of_the_language_model_alone(self):
        layer = 4 * 4096**2 + 3 * 4096 * 11008  # of Vicuna-7B
        assert info_of("groma_7b").linear_parameters == 32 * layer


class TestFolders:
    def test_ours(self, tmp_path):
        tiny().save_pretrained(tmp_path)
        assert folder_info(tmp_path).parameters == config_info(tiny(), "x").parameters

    def test_an_official_folder(self, tmp_path):
        text = (FIXTURES / "groma" / "config_7b_reconstructed.json").read_text()
        (tmp_path / "config.json").write_text(text)
        assert folder_info(tmp_path, "groma").parameters == 7_377_311_657

    def test_another_family_has_parts_and_no_work(self, tmp_path):
        text = {
            "vocab_size": 200, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2,
        }  # fmt: skip
        vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64}
        Qwen2_5_VLConfig(text_config=text, vision_config=vision).save_pretrained(tmp_path)
        found = folder_info(tmp_path, "qwen")
        assert found.model_type == "qwen2_5_vl"
        assert {part.name for part in found.parts} >= {"visual", "language_model"}
        assert found.flops is None
        with torch.device("meta"):
            from transformers import AutoModelForImageTextToText

            model = AutoModelForImageTextToText.from_config(
                Qwen2_5_VLConfig.from_pretrained(tmp_path)
            )
        assert found.parameters == sum(value.numel() for value in model.parameters())

    def test_a_language_model(self, tmp_path):
        LlamaConfig(
            vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4,
        ).save_pretrained(tmp_path)  # fmt: skip
        assert folder_info(tmp_path).cache_numbers == 2 * 2 * 32

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ({"model_type": "parfocal", "vision": 3}, "VisionConfig is 3"),
            ({"model_type": "qwen2", "hidden_size": "a"}, "expected int, got str"),
        ],
    )
    def test_a_config_that_cannot_be_read_is_refused_with_the_reason(
        self, tmp_path, config, reason
    ):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(CheckpointError, match=rf"can read \(.*{reason}.*\)\. Give a preset"):
            folder_info(tmp_path)

    def test_a_folder_without_a_config_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"no config\.json.*groma_7b"):
            folder_info(tmp_path)
