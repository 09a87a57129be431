"""Vision towers: any Transformers backbone as a source of square feature maps.

Shapes: B images, S input side, C_l channels and G_l grid side of level l. Maps are float[B, C_l,
G_l, G_l].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from transformers import AutoBackbone, AutoConfig, AutoModel, PreTrainedConfig

from parfocal.errors import ConfigError, ShapeError
from parfocal.models.config import TowerConfig, VisionConfig


@dataclass
class VisionFeatures:
    """What the towers say about a batch of pictures.

    Attributes:
        tokens: one map a tower, float[B, C, G, G], for the language model.
        levels: float[B, C_l, G_l, G_l] each, fine to coarse, for the proposer and the region
            encoder.
    """

    tokens: list[Tensor]
    levels: list[Tensor]


def backbone_config(tower: TowerConfig) -> PreTrainedConfig:
    """Return the Transformers config of a tower's backbone; ConfigError if it is unknown."""
    values = dict(tower.backbone)
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise ConfigError(
            "vision tower: backbone needs a `model_type`, "
            "for example 'dinov2' or 'clip_vision_model'."
        )
    try:
        return AutoConfig.for_model(model_type, **values)
    except ValueError as err:
        raise ConfigError(
            f"vision tower: Transformers knows no model_type {model_type!r}."
        ) from err


class Tower(nn.Module):
    """One backbone; picks hidden states and gives each the shape of a map."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.token_layer, self.level_layers = config.token_layer, config.level_layers
        backbone = backbone_config(config)
        self.is_timm = backbone.model_type == "timm_backbone"
        self.backbone = (AutoBackbone if self.is_timm else AutoModel).from_config(backbone)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode float[B, 3, S, S] into the token map and the level maps."""
        if self.is_timm:
            states = self.backbone(pixel_values).feature_maps
            last = states[-1]
        else:
            output = self.backbone(pixel_values, output_hidden_states=True)
            states, last = output.hidden_states, output.last_hidden_state
        tokens = last if self.token_layer is None else states[self.token_layer]
        return _as_map(tokens), [_as_map(states[layer]) for layer in self.level_layers]


def _as_map(state: Tensor) -> Tensor:
    """Return a map; sequences lose their prefix tokens (class, registers) and become square."""
    if state.ndim == 4:
        return state
    grid = int(state.shape[1] ** 0.5)
    patches = state[:, state.shape[1] - grid * grid :]  # prefix tokens come first
    return patches.transpose(1, 2).reshape(state.shape[0], state.shape[2], grid, grid)


class VisionTowers(nn.Module):
    """All towers of a model and, where configured, the pyramid over the first one's levels."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.towers = nn.ModuleList([Tower(tower) for tower in config.towers])
        token_shapes, level_shapes = _probe(config)
        self.token_channels = tuple(channels for channels, _ in token_shapes)
        self.token_grids = tuple(grid for _, grid in token_shapes)
        self.level_channels = tuple(channels for channels, _ in level_shapes)
        self.level_grids = tuple(grid for _, grid in level_shapes)
        self.pyramid = None
        if config.pyramid == "fpn":
            self.pyramid = FeaturePyramidNetwork(list(self.level_channels), config.pyramid_channels)
            self.level_channels = (config.pyramid_channels,) * len(self.level_channels)

    def forward(self, pixel_values: Sequence[Tensor]) -> VisionFeatures:
        """Encode a batch.

        Args:
            pixel_values: one float[B, 3, S, S] a tower, normalised for it.

        Raises:
            ShapeError: if the number of inputs is not the number of towers.
        """
        if len(pixel_values) != len(self.towers):
            raise ShapeError(
                f"got pixel values for {len(pixel_values)} towers, "
                f"the model has {len(self.towers)}."
            )
        encoded = [tower(pixels) for tower, pixels in zip(self.towers, pixel_values, strict=True)]
        levels = encoded[0][1]
        if self.pyramid is not None:
            named = {str(index): level for index, level in enumerate(levels)}
            levels = list(self.pyramid(named).values())
        return VisionFeatures([tokens for tokens, _ in encoded], levels)


def _probe(config: VisionConfig) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return (channels, grid) of every token map and of the first tower's levels.

    Found by a run on the meta device, so no table of backbones is needed.
    """
    tokens, levels = [], []
    for index, tower in enumerate(config.towers):
        with torch.device("meta"), torch.no_grad():
            probe = Tower(tower).eval()
            token_map, level_maps = probe(torch.zeros(1, 3, tower.image_size, tower.image_size))
        tokens.append((token_map.shape[1], token_map.shape[2]))
        if index == 0:
            levels = [(level.shape[1], level.shape[2]) for level in level_maps]
    return tokens, levels
