"""Groma's key map and config: the published 7B model, by names, shapes and counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.groma import (
    OfficialConstants,
    convert_groma,
    groma_config,
    groma_token_ids,
)
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import groma_7b
from parfocal.models.vision import backbone_config

FIXTURE = Path(__file__).parents[3] / "fixtures" / "groma"
PARTS = ("vision", "fusion", "projector", "proposer", "regions", "token_ids", "dialect")
# aliases of one tensor: in files of either kind one of the two names may be absent
HEADS = ("class_embed_enc", "class_embed_coco", "class_embed_sa1b", "bbox_embed")


def official_config() -> dict:
    text = (FIXTURE / "config_7b_reconstructed.json").read_text(encoding="utf-8")
    return json.loads(text)


def official_tensors() -> dict[str, torch.Tensor]:
    lines = (FIXTURE / "keys_7b.tsv").read_text(encoding="utf-8").splitlines()[1:]
    shapes = {name: shape for name, shape, *_ in (line.split("\t") for line in lines)}
    return {
        name: torch.empty([int(side) for side in shape.split("x")], device="meta")
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def targets() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return ParfocalForConditionalGeneration(groma_7b()).state_dict()


class TestPublishedModel:
    def test_every_official_tensor_has_its_place_and_every_place_is_filled(self, targets):
        source = official_tensors()
        report = convert_groma(source, groma_7b(), targets).report
        assert set(report.used) == set(source)
        assert len(report.used) == 1177
        assert len(report.aliases) == 68
        assert not report.dropped
        assert not report.kept

    def test_the_preset_has_the_published_number_of_parameters(self, targets, record_property):
        source = official_tensors()
        twice = {name for name in source if ".ddetr_transformer.decoder." in name} & {
            name for name in source if any(f".{head}." in name for head in HEADS)
        }
        official = sum(value.numel() for name, value in source.items() if name not in twice)
        ours = sum(value.numel() for value in targets.values())
        record_property("parameters", f"{ours:,}")
        assert ours == official
        assert ours == pytest.approx(7.377e9, rel=0.02)

    @pytest.mark.parametrize("owner", ["ddetr_transformer.decoder.", "ddetr_transformer."])
    def test_a_file_may_hold_either_name_of_the_shared_heads(self, targets, owner):
        source = {
            name: value
            for name, value in official_tensors().items()
            if not any(name.startswith(f"perceiver.{owner}{head}.") for head in HEADS)
        }
        assert len(source) == 1109
        assert convert_groma(source, groma_7b(), targets).report.aliases == []

    def test_inverse_frequencies_of_older_files_are_dropped(self, targets):
        name = "llm.model.layers.0.self_attn.rotary_emb.inv_freq"
        source = {**official_tensors(), name: torch.empty(64, device="meta")}
        assert list(convert_groma(source, groma_7b(), targets).report.dropped) == [name]

    def test_the_detection_checkpoint_fills_tower_and_proposer_only(self, targets):
        source = {
            name.removeprefix("perceiver."): value
            for name, value in official_tensors().items()
            if name.startswith("perceiver.")
        }
        found = convert_groma(source, groma_7b(), targets)
        assert {name.split(".")[0] for name in found.state} == {"vision", "proposer"}
        assert {name.split(".")[0] for name in found.report.kept} == {
            "projector",
            "regions",
            "text",
        }

    def test_one_renamed_one_missing_and_one_misshapen_are_all_named(self, targets):
        source = official_tensors()
        source["llm.model.norm.wieght.x"] = source.pop("llm.model.norm.weight")
        del source["img_txt_bridge.2.bias"]
        source["extra_lm_head.weight"] = torch.empty(100, 4096, device="meta")
        with pytest.raises(CheckpointError) as caught:
            convert_groma(source, groma_7b(), targets)
        for name in ("llm.model.norm.wieght.x", "projector.layers.2.bias", "text.lm_head.weight"):
            assert name in str(caught.value)


class TestConfig:
    def test_the_published_config_is_the_preset(self):
        found, preset = groma_config(official_config()), groma_7b()
        for name in PARTS[1:]:
            assert getattr(found, name) == getattr(preset, name), name
        towers = [config.vision.towers[0] for config in (found, preset)]
        backbones = [backbone_config(tower).to_dict() for tower in towers]
        assert backbones[0] == backbones[1]
        assert all(
            getattr(towers[0], name) == getattr(towers[1], name)
            for name in ("image_size", "token_layer", "level_layers", "proposer_layers")
        )
        assert found.text_config.to_dict() == preset.text_config.to_dict()

    def test_absent_keys_mean_the_defaults_of_the_version_that_wrote_the_file(self):
        official = official_config()
        official["perceiver_cfg"]["ddetr_cfg"].pop("num_feature_levels")
        assert groma_config(official).proposer.pyramid_levels == 4

    def test_a_decoder_of_other_sizes_keeps_them(self):
        official = official_config()
        official["perceiver_cfg"]["ddetr_cfg"].update(decoder_ffn_dim=512, decoder_n_points=2)
        proposer = groma_config(official).proposer
        assert (proposer.ffn_size, proposer.decoder_ffn_size) == (1024, 512)
        assert (proposer.points, proposer.decoder_points, proposer.decoder_heads) == (4, 2, None)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"two_stage": False}, "two_stage"),
            ({"activation_function": "gelu"}, "activation_function"),
            ({"num_queries": 100}, "have to be equal"),
        ],
    )
    def test_what_no_official_model_has_is_refused(self, change, message):
        official = official_config()
        official["perceiver_cfg"]["ddetr_cfg"].update(change)
        with pytest.raises(CheckpointError, match=message):
            groma_config(official)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model_type": "mistral"}, "'model_type': 'mistral'"),
            ({"rope_theta": 1e6}, "'rope_theta': 1000000.0"),
            ({"rope_scaling": {"factor": 2.0}}, "rope_scaling"),
        ],
    )
    def test_a_language_model_that_no_official_model_has_is_refused(self, change, message):
        official = official_config()
        official["llm_cfg"].update(change)
        with pytest.raises(CheckpointError, match=message):
            groma_config(official)

    def test_another_familys_config_is_refused(self):
        with pytest.raises(CheckpointError, match="no Groma config"):
            groma_config({"model_type": "llava"})

    def test_numbers_of_the_code_can_be_given(self):
        found = groma_config(official_config(), OfficialConstants(region_size=6, roi_canvas=112))
        assert (found.regions.hidden_size, found.regions.roi_canvas) == (6, 112)

    def test_placeholders_have_the_published_ids(self):
        ids = groma_token_ids(32000)
        assert (ids.image, ids.region, ids.ground_box) == (32008, 32009, 32011)
        assert (ids.region_feature, ids.first_region) == (32012, 32014)
        assert groma_7b().token_ids == ids

    def test_a_saved_config_is_the_same(self, tmp_path):
        groma_7b().save_pretrained(tmp_path)
        again = ParfocalConfig.from_pretrained(tmp_path)
        assert all(getattr(again, name) == getattr(groma_7b(), name) for name in PARTS)
