"""Towers: every kind of backbone gives square maps whose cells are where the pixels were."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoConfig

from parfocal.errors import ConfigError, ShapeError
from parfocal.models.config_vision import TowerConfig, VisionConfig
from parfocal.models.vision import Tower, VisionTowers, as_map
from parfocal.predict.predictor import Predictor

VIT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"}
# model type -> (backbone, prefix tokens before the patches, name of the final norm)
VITS = {
    "clip_vision_model": (VIT, 1, None),
    "siglip_vision_model": (VIT, 0, "post_layernorm"),
    "dinov2": ({**DINO, "mlp_ratio": 2}, 1, "layernorm"),
    "dinov2_with_registers": ({**DINO, "mlp_ratio": 2, "num_register_tokens": 4}, 5, "layernorm"),
    "dinov3_vit": ({**VIT, "num_register_tokens": 4}, 5, "norm"),
}
CNNS = {
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
}


def vit_tower(kind: str, **changes) -> Tower:
    backbone = {"model_type": kind, **VITS[kind][0]}
    values = {"backbone": backbone, "image_size": 28, "token_layer": 1, "level_layers": (0, 2)}
    return Tower(TowerConfig(**{**values, **changes})).eval()


VIT_TOWER = {
    "backbone": {"model_type": "dinov2", **VITS["dinov2"][0]},
    "image_size": 28,
    "token_layer": 1,
    "level_layers": (0, 2),
}


def states_of(tower: Tower, pixels: torch.Tensor):
    with torch.no_grad():
        return tower.backbone(pixels, output_hidden_states=True)


@pytest.mark.parametrize("kind", VITS)
class TestTransformers:
    def test_maps_are_the_hidden_states_without_prefix_tokens(self, kind):
        tower, prefix = vit_tower(kind), VITS[kind][1]
        pixels = torch.randn(2, 3, 28, 28)
        with torch.no_grad():
            tokens, levels, _ = tower(pixels)
        states = states_of(tower, pixels).hidden_states
        assert states[0].shape == (2, prefix + 16, 16)
        for found, layer in ((tokens, 1), (levels[0], 0), (levels[1], 2)):
            assert found.shape == (2, 16, 4, 4)
            for row in range(4):
                for column in range(4):
                    expected = states[layer][:, prefix + 4 * row + column]
                    assert torch.equal(found[:, :, row, column], expected)

    def test_a_patch_of_the_picture_is_a_cell_of_the_map(self, kind):
        tower = vit_tower(kind, level_layers=(0,))  # before attention: a cell knows its patch only
        plain, painted = torch.zeros(1, 3, 28, 28), torch.zeros(1, 3, 28, 28)
        painted[:, :, 7:14, 21:28] = 1.0  # second row, last column
        with torch.no_grad():
            changed = (tower(painted)[1][0] - tower(plain)[1][0]).abs().sum((0, 1)) > 0
        assert torch.nonzero(changed).tolist() == [[1, 3]]

    def test_no_token_layer_is_the_final_state(self, kind):
        tower, (_, prefix, norm) = vit_tower(kind, token_layer=None), VITS[kind]
        pixels = torch.randn(1, 3, 28, 28)
        with torch.no_grad():
            tokens, *_ = tower(pixels)
            states = states_of(tower, pixels)
            expected = states.hidden_states[-1]
            if norm is not None:
                expected = getattr(tower.backbone, norm)(expected)
        flat = tokens.flatten(2).transpose(1, 2)
        assert torch.allclose(flat, expected[:, prefix:], atol=1e-6)


def test_a_hierarchical_transformer_gives_smaller_and_smaller_maps():
    backbone = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
                "window_size": 2, "patch_size": 4, "image_size": 32}  # fmt: skip
    config = TowerConfig(backbone, image_size=32, token_layer=0, level_layers=(0, 1))
    tower, pixels = Tower(config).eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        maps = tower(pixels)
    assert [tuple(level.shape) for level in maps.levels] == [(1, 8, 8, 8), (1, 16, 4, 4)]
    state = states_of(tower, pixels).hidden_states[1]
    assert torch.equal(maps.levels[1][0, :, 2, 3], state[0, 4 * 2 + 3])


@pytest.mark.parametrize(
    ("length", "message"),
    [(29, "4 x 7 would be patches and 1 are"), (34, "gives 34 tokens"), (20, "2 x 3 would be")],
)
def test_tokens_that_are_neither_patches_nor_prefix_are_refused(length, message):
    config = AutoConfig.for_model("dinov2_with_registers", patch_size=7, num_register_tokens=2)
    with pytest.raises(ShapeError, match=message):
        as_map(torch.zeros(1, length, 1), config, (28, 49))


def test_a_picture_need_not_be_square_to_be_a_map():
    config = AutoConfig.for_model("dinov2_with_registers", patch_size=7, num_register_tokens=2)
    found = as_map(torch.arange(31.0)[None, :, None], config, (28, 49))
    assert found.shape == (1, 1, 4, 7)
    assert found.flatten().tolist() == list(range(3, 31))


def test_the_proposer_may_read_the_mean_of_some_layers():
    config = vit_tower("dinov2", proposer_layers=(-2, -1))
    towers = VisionTowers(
        VisionConfig(towers=(TowerConfig(**VIT_TOWER, proposer_layers=(-2, -1)),))
    )
    pixels = torch.randn(1, 3, 28, 28)
    towers.towers[0].load_state_dict(config.state_dict())
    with torch.no_grad():
        features = towers.eval()([pixels])
        states = states_of(config, pixels).hidden_states
    mean = ((states[1] + states[2]) / 2)[:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)
    assert torch.allclose(features.proposer[0], mean, atol=1e-6)
    assert towers.proposer_channels == (16,)
    assert len(features.levels) == 2


def cubic_ramp(place: float) -> float:
    """The ramp 0, 1, 2, ... read between its values by cubic convolution with a = -0.75."""

    def weight(distance: float) -> float:
        d, a = abs(distance), -0.75
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * (d**3 - 5 * d**2 + 8 * d - 4)

    first = math.floor(place) - 1
    return sum(value * weight(place - value) for value in range(first, first + 4))


class TestScaleOffset:
    def test_positions_are_sampled_at_the_offset_factor(self):
        backbone = {"model_type": "dinov2", **DINO, "mlp_ratio": 2, "image_size": 70}
        config = TowerConfig(backbone, image_size=84, position_interpolation="scale_offset")
        embeddings = Tower(config).backbone.embeddings
        ramp = torch.arange(10.0).repeat(10, 1).flatten()  # the column of each learned position
        with torch.no_grad():
            embeddings.position_embeddings[0, 1:] = ramp[:, None]
            embeddings.position_embeddings[0, 0] = 7.0
            found = embeddings.interpolate_pos_encoding(torch.zeros(1, 145, 16), 84, 84)
        assert found.shape == (1, 145, 16)
        assert (found[0, 0] == 7.0).all()
        row = found[0, 1:].view(12, 12, 16)[5, 3:9, 0]
        expected = [cubic_ramp((column + 0.5) * 10 / 12.1 - 0.5) for column in range(3, 9)]
        assert row.tolist() == pytest.approx(expected, abs=1e-5)

    def test_the_learned_grid_is_left_alone(self):
        tower = vit_tower("dinov2", position_interpolation="scale_offset")
        embeddings = tower.backbone.embeddings
        found = embeddings.interpolate_pos_encoding(torch.zeros(1, 17, 16), 28, 28)
        assert found is embeddings.position_embeddings

    def test_another_backbone_is_refused(self):
        with pytest.raises(ConfigError, match="'scale_offset' is made for 'dinov2'"):
            vit_tower("clip_vision_model", position_interpolation="scale_offset")


@pytest.mark.parametrize("kind", CNNS)
def test_convolutional_maps_are_taken_as_they_are(kind):
    backbone = {"model_type": kind, **CNNS[kind]}
    config = TowerConfig(backbone, image_size=64, token_layer=None, level_layers=(1, 2))
    tower, pixels = Tower(config).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens, levels, _ = tower(pixels)
    output = states_of(tower, pixels)
    assert torch.equal(tokens, output.last_hidden_state)
    assert [torch.equal(level, output.hidden_states[1 + i]) for i, level in enumerate(levels)] == [
        True,
        True,
    ]
    assert [tuple(level.shape) for level in levels] == [
        (2, 8, 16, 16),
        (2, CNNS[kind]["hidden_sizes"][1], 8, 8),
    ]


@pytest.mark.parametrize("pyramid", ["none", "fpn"])
def test_declared_shapes_are_the_shapes_that_come(pyramid):
    vision = VisionConfig(
        towers=(
            TowerConfig(
                {"model_type": "resnet", **CNNS["resnet"]},
                image_size=64,
                token_layer=2,
                level_layers=(1, 2),
            ),
        ),
        pyramid=pyramid,
        pyramid_channels=12,
    )
    towers = VisionTowers(vision).eval()
    with torch.no_grad():
        features = towers([torch.randn(1, 3, 64, 64)])
    assert [level.shape[1] for level in features.levels] == list(towers.level_channels)
    assert [level.shape[2] for level in features.levels] == list(towers.level_grids) == [16, 8]
    assert list(towers.level_channels) == ([12, 12] if pyramid == "fpn" else [8, 16])
    assert [token.shape[1] for token in features.tokens] == list(towers.token_channels) == [16]
    assert [token.shape[2] for token in features.tokens] == list(towers.token_grids) == [8]


def test_a_missing_tower_input_is_refused():
    towers = VisionTowers(
        VisionConfig(towers=(TowerConfig({"model_type": "resnet", **CNNS["resnet"]}),))
    )
    with pytest.raises(ShapeError, match="1"):
        towers([torch.zeros(1, 3, 32, 32)] * 2)


def test_two_towers_answer_and_learn(make_tiny, pictures):
    first = {
        "backbone": {
            "model_type": "resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 8, 16],
            "depths": [1, 1, 1],
            "layer_type": "basic",
        },
        "image_size": 96,
        "token_layer": 3,
        "level_layers": (2, 3),
    }
    second = {
        "backbone": {"model_type": "dinov3_vit", **VIT, "num_register_tokens": 4},
        "image_size": 42,
        "image_mean": (0.5, 0.5, 0.5),
        "token_layer": None,
    }
    model, processor = make_tiny(
        difference={"vision": {"towers": [first, second]}, "fusion": {"kind": "concat"}}
    )
    assert model.fusion.out_channels == 32
    answer = Predictor(model, processor, "two").ask(pictures[1], "Where is it?", max_new_tokens=4)
    assert len(answer.proposals) > 0

    model.train()
    pixels, _ = processor.pixel_values(pictures)
    assert [tuple(value.shape) for value in pixels] == [(4, 3, 96, 96), (4, 3, 42, 42)]
    before = {name: value.clone() for name, value in model.named_parameters()}
    features = model.encode(pixels)
    ids = torch.tensor([processor.prefix_ids() + processor.tokenizer.encode("apple")] * 4)
    output = model(
        input_ids=ids,
        labels=ids,
        attention_mask=torch.ones_like(ids),
        image_features=features.image,
        region_features=model.propose(features).features,
    )
    output.loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    moved = {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    for tower in ("vision.towers.0.", "vision.towers.1."):
        assert any(name.startswith(tower) for name in moved), tower


@pytest.mark.parametrize(
    ("backbone", "message"),
    [({"model_type": "clippy"}, "no model_type 'clippy'"), ({}, "needs a `model_type`")],
    ids=["unknown", "missing"],
)
def test_a_backbone_that_is_not_known_is_refused(backbone, message):
    with pytest.raises(ConfigError, match=message):
        Tower(TowerConfig(backbone))


def test_a_timm_trunk():
    pytest.importorskip("timm")
    backbone = {
        "model_type": "timm_backbone",
        "backbone": "resnet10t",
        "out_indices": (1, 2, 3),
        "use_pretrained_backbone": False,
    }
    config = TowerConfig(backbone, image_size=64, token_layer=-1, level_layers=(0, 1))
    towers = VisionTowers(VisionConfig(towers=(config,))).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = towers([pixels])
        maps = towers.towers[0].backbone(pixels).feature_maps
    assert torch.equal(features.tokens[0], maps[-1])
    assert [torch.equal(level, maps[i]) for i, level in enumerate(features.levels)] == [True, True]
    assert towers.level_grids == (16, 8)
