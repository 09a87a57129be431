"""Configs: strict parts, rules between parts, and a JSON form that reads back equal."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from transformers import Dinov2Config

from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig, TokenIds
from parfocal.models.config_regions import ProposerConfig, RegionsConfig
from parfocal.models.config_vision import FusionConfig, ProjectorConfig, TowerConfig, VisionConfig
from parfocal.models.presets import tiny
from parfocal.models.vision import backbone_config

PARTS = (
    TowerConfig,
    VisionConfig,
    FusionConfig,
    ProjectorConfig,
    ProposerConfig,
    RegionsConfig,
    TokenIds,
)
NAMES = ("vision", "fusion", "projector", "proposer", "regions", "token_ids")
TEXT = {"model_type": "qwen2", "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
class TestEveryPart:
    def test_json_reads_back_equal(self, part):
        values = json.loads(json.dumps(part().to_dict()))
        assert part.from_dict(values) == part()

    def test_an_instance_passes_through(self, part):
        instance = part()
        assert part.from_dict(instance) is instance

    def test_an_unknown_field_is_refused_by_name(self, part):
        with pytest.raises(ConfigError, match=f"{part.__name__} has no field 'zzz'"):
            part.from_dict({"zzz": 1})

    def test_a_misspelt_field_gets_a_hint(self, part):
        name = dataclasses.fields(part)[0].name
        with pytest.raises(ConfigError, match=f"Did you mean '{name}'"):
            part.from_dict({name + "x": 1})

    def test_nothing_changes_after_construction(self, part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part(), dataclasses.fields(part)[0].name, None)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (VisionConfig, {"resize": "crop"}),
        (VisionConfig, {"pyramid": "panet"}),
        (FusionConfig, {"kind": "sum"}),
        (ProjectorConfig, {"merge": 3}),
        (ProposerConfig, {"kind": "yolo"}),
        (RegionsConfig, {"kind": "mask"}),
        (RegionsConfig, {"context": "graph"}),
        (RegionsConfig, {"layout": "stacked"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_an_unknown_choice_is_refused_with_the_choices(part, values):
    (name, value), *_ = values.items()
    with pytest.raises(ConfigError, match=rf"{name} is {value!r}; choose one of \["):
        part.from_dict(values)


@pytest.mark.parametrize(
    ("key", "field"),
    [("vision_config", "vision"), ("proposer_config", "proposer"), ("text", "text_config")],
)
def test_other_families_names_of_parts_are_refused(key, field):
    with pytest.raises(ConfigError, match=rf"no field '{key}'. Did you mean '{field}'"):
        ParfocalConfig(**{key: {}})


def test_lists_become_tuples_so_that_parts_compare():
    values = {"level_layers": [1, 2], "image_mean": [0.5, 0.5, 0.5]}
    assert TowerConfig.from_dict(values) == TowerConfig(
        level_layers=(1, 2), image_mean=(0.5, 0.5, 0.5)
    )


def test_towers_are_read_from_plain_mappings():
    vision = VisionConfig.from_dict({"towers": [{"image_size": 32}, {"image_size": 64}]})
    assert [tower.image_size for tower in vision.towers] == [32, 64]


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_match_threshold_is_an_iou(value):
    with pytest.raises(ConfigError, match=rf"match_threshold is {value}; it is an IoU"):
        ProposerConfig(match_threshold=value)


@pytest.mark.parametrize("count", [0, 3])
def test_one_or_two_towers(count):
    with pytest.raises(ConfigError, match=f"{count} towers"):
        VisionConfig(towers=(TowerConfig(),) * count)


def test_a_pyramid_needs_levels():
    with pytest.raises(ConfigError, match="level_layers"):
        VisionConfig(pyramid="fpn")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision": {"towers": [{}, {}]}}, "fusion.kind is 'none'"),
        ({"fusion": {"kind": "concat"}}, "one tower"),
        ({"proposer": {"kind": "dense"}, "regions": {"kind": "multilevel_roi"}}, "level_layers"),
        ({"regions": {"kind": "multilevel_roi"}}, "level_layers"),
        (
            {
                "vision": {"towers": [{"level_layers": (1,)}]},
                "regions": {"kind": "multilevel_roi", "level_scales": (2, 1)},
            },
            r"2 entries for 1 level",
        ),
        (
            {
                "vision": {"towers": [{"level_layers": (1,)}]},
                "proposer": {"kind": "dense"},
            },
            "set regions.kind",
        ),
    ],
    ids=[
        "two towers, no fusion",
        "concat of one tower",
        "proposer without levels",
        "regions without levels",
        "more scales than levels",
        "proposals that nothing reads",
    ],
)
def test_rules_between_parts(values, message):
    with pytest.raises(ConfigError, match=message):
        ParfocalConfig(**values)


@pytest.mark.parametrize("name", ["visoin", "fusio", "projectr", "regoins", "token_id", "dialct"])
def test_a_near_miss_at_the_top_is_refused(name):
    with pytest.raises(ConfigError, match=f"no field '{name}'. Did you mean"):
        ParfocalConfig(**{name: {}})


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        (ProposerConfig, {"refine": "false"}, "refine is 'false'; it must be bool"),
        (ProposerConfig, {"max_regions": "20"}, "max_regions is '20'; it must be int"),
        (ProposerConfig, {"max_regions": -1}, "max_regions is -1; it must be 1 or more"),
        (ProposerConfig, {"score_threshold": True}, "True; it must be float"),
        (ProposerConfig, {"decoder_heads": "8"}, r"'8'; it must be int \| None"),
        (TowerConfig, {"level_layers": 3}, r"level_layers is 3; it must be tuple\[int, \.\.\.\]"),
        (TowerConfig, {"image_mean": ["a"]}, "image_mean is"),
        (TowerConfig, {"backbone": "resnet"}, "backbone is 'resnet'"),
    ],
)
def test_values_of_other_types_are_refused(part, values, said):
    with pytest.raises(ConfigError, match=said):
        part.from_dict(values)


def test_whole_numbers_are_numbers():
    assert ProposerConfig(score_threshold=0, nms_threshold=1).nms_threshold == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_regions": 30}, "no field 'max_regions'; it is one of proposer"),
        ({"hidden_size": 30}, "it is one of proposer and regions"),
        (
            {"text_config": {"model_type": "qwen2", "hiden_size": 64}},
            "text_config has no field 'hiden_size'. Did you mean 'hidden_size'",
        ),
    ],
)
def test_what_a_part_would_not_see_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        ParfocalConfig(**values)


def test_a_misspelt_backbone_is_refused():
    tower = TowerConfig(backbone={"model_type": "resnet", "hiden_sizes": [8, 16]})
    with pytest.raises(ConfigError, match="backbone has no field 'hiden_sizes'"):
        backbone_config(tower)


def test_a_backbone_may_be_what_its_config_writes():
    """It writes `out_features`, which is a field of another name in it."""
    backbone = Dinov2Config(num_hidden_layers=2, out_features=["stage2"]).to_dict()
    assert backbone_config(TowerConfig(backbone=backbone)).to_dict() == backbone
    with pytest.raises(ConfigError, match=r"'out_feature'\. Did you mean 'out_features'"):
        backbone_config(TowerConfig(backbone={**backbone, "out_feature": ["stage2"]}))


@pytest.mark.parametrize("part", ["vision", "proposer", "token_ids"])
@pytest.mark.parametrize("value", [3, "dense", [], 0, False])
def test_a_part_that_is_no_mapping_is_refused(part, value):
    config = ParfocalConfig()
    for make in (lambda: ParfocalConfig(**{part: value}), lambda: setattr(config, part, value)):
        with pytest.raises(ConfigError, match=rf"is {re.escape(repr(value))}; give a mapping of"):
            make()


@pytest.mark.parametrize(
    ("towers", "said"),
    [
        (3, "VisionConfig.towers is 3; give a list"),
        (None, "VisionConfig.towers is None; give a list"),
        ({"image_size": 32}, "VisionConfig.towers is {'image_size': 32}; give a list"),
        ([3], "TowerConfig is 3; give a mapping of its fields.*'backbone'"),
    ],
)
def test_towers_that_are_no_list_of_mappings_are_refused(towers, said):
    with pytest.raises(ConfigError, match=said):
        VisionConfig(towers=towers)


def test_none_is_a_part_of_which_nothing_is_said():
    config = ParfocalConfig(vision=None)
    assert config.vision == VisionConfig()
    config.vision = None
    assert config.vision == VisionConfig()


def test_a_part_may_be_changed_in_a_config_that_is_read(tmp_path):
    tiny().save_pretrained(tmp_path)
    changed = ParfocalConfig.from_pretrained(tmp_path, proposer={"score_threshold": 0.3})
    assert changed.proposer == dataclasses.replace(tiny().proposer, score_threshold=0.3)
    with pytest.raises(ConfigError, match="no field 'score_treshold'"):
        changed.proposer = {"score_treshold": 0.3}


def test_extras_of_transformers_are_admitted():
    config = ParfocalConfig()
    config.pad_token_id, config.eos_token_id = 3, 4
    again = ParfocalConfig.from_dict(config.to_dict())
    assert (again.pad_token_id, again.eos_token_id) == (3, 4)
    assert ParfocalConfig(attn_implementation="eager")._attn_implementation == "eager"
    assert ParfocalConfig(architectures=["X"]).architectures == ["X"]


@pytest.mark.parametrize("make", [ParfocalConfig, tiny], ids=["defaults", "tiny"])
def test_the_whole_reads_back_equal(make, tmp_path):
    config = make()
    config.save_pretrained(tmp_path)
    through_json = ParfocalConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    for other in (through_json, ParfocalConfig.from_pretrained(tmp_path)):
        for name in (*NAMES, "dialect", "tie_word_embeddings"):
            assert getattr(other, name) == getattr(config, name), name
        assert other.text_config.to_dict() == config.text_config.to_dict()


@pytest.mark.parametrize("tied", [True, False])
def test_tying_is_the_text_models_decision(tied):
    config = ParfocalConfig(text_config={**TEXT, "tie_word_embeddings": tied})
    assert config.tie_word_embeddings is tied


def test_configs_do_not_share_parts_that_could_change():
    one, other = ParfocalConfig(), ParfocalConfig()
    one.token_ids = TokenIds(image=5)
    one.text_config.vocab_size = 7
    assert other.token_ids == TokenIds()
    assert other.text_config.vocab_size != 7
