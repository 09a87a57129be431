"""Towers: every kind of backbone gives square maps whose cells are where the pixels were."""

from __future__ import annotations

import pytest
import torch

from parfocal.errors import ConfigError, ShapeError
from parfocal.models.config import TowerConfig, VisionConfig
from parfocal.models.vision import Tower, VisionTowers
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


def states_of(tower: Tower, pixels: torch.Tensor):
    with torch.no_grad():
        return tower.backbone(pixels, output_hidden_states=True)


@pytest.mark.parametrize("kind", VITS)
class TestTransformers:
    def test_maps_are_the_hidden_states_without_prefix_tokens(self, kind):
        tower, prefix = vit_tower(kind), VITS[kind][1]
        pixels = torch.randn(2, 3, 28, 28)
        with torch.no_grad():
            tokens, levels = tower(pixels)
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
            tokens, _ = tower(pixels)
            states = states_of(tower, pixels)
            expected = states.hidden_states[-1]
            if norm is not None:
                expected = getattr(tower.backbone, norm)(expected)
        flat = tokens.flatten(2).transpose(1, 2)
        assert torch.allclose(flat, expected[:, prefix:], atol=1e-6)


@pytest.mark.parametrize("kind", CNNS)
def test_convolutional_maps_are_taken_as_they_are(kind):
    backbone = {"model_type": kind, **CNNS[kind]}
    config = TowerConfig(backbone, image_size=64, token_layer=None, level_layers=(1, 2))
    tower, pixels = Tower(config).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens, levels = tower(pixels)
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
