"""Vision towers: any Transformers backbone as a source of square feature maps.

Shapes: B images, S input side, C_l channels and G_l grid side of level l. Maps are float[B, C_l,
G_l, G_l].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import FeaturePyramidNetwork
from transformers import AutoBackbone, AutoConfig, AutoModel, PreTrainedConfig
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from parfocal.errors import ConfigError, ShapeError
from parfocal.models.config_part import refuse_misspelt
from parfocal.models.config_vision import TowerConfig, VisionConfig


@dataclass
class VisionFeatures:
    """What the towers say about a batch of pictures.

    Attributes:
        tokens: one map a tower, float[B, C, G, G], for the language model.
        levels: float[B, C_l, G_l, G_l] each, fine to coarse, for the proposer and the region
            encoder.
        proposer: float[B, C_l, G_l, G_l] each, fine to coarse, what the proposer reads.
    """

    tokens: list[Tensor]
    levels: list[Tensor]
    proposer: list[Tensor]


class TowerMaps(NamedTuple):
    """One tower's maps, float[B, C_l, G_l, G_l] each; `proposer` is empty where levels serve."""

    tokens: Tensor
    levels: list[Tensor]
    proposer: list[Tensor]


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
        config = AutoConfig.for_model(model_type, **values)
    except ValueError as err:
        raise ConfigError(
            f"vision tower: Transformers knows no model_type {model_type!r}."
        ) from err
    refuse_misspelt(values, config, "vision tower: backbone")
    return config


class Tower(nn.Module):
    """One backbone; picks hidden states and gives each the shape of a map."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.token_layer, self.level_layers = config.token_layer, config.level_layers
        self.proposer_layers = config.proposer_layers
        backbone = backbone_config(config)
        self.is_timm = backbone.model_type == "timm_backbone"
        self.backbone = (AutoBackbone if self.is_timm else AutoModel).from_config(backbone)
        if backbone.model_type == "convnext":
            self.backbone.layernorm = nn.Identity()  # of the pooled output, which nobody reads
        if config.position_interpolation == "scale_offset":
            if backbone.model_type != "dinov2":
                raise ConfigError(
                    "vision tower: position_interpolation 'scale_offset' is made for 'dinov2', "
                    f"the backbone is {backbone.model_type!r}; use 'size'."
                )
            embeddings = ScaleOffsetEmbeddings(backbone)
            embeddings.load_state_dict(self.backbone.embeddings.state_dict(), assign=True)
            self.backbone.embeddings = embeddings

    def forward(self, pixel_values: Tensor) -> TowerMaps:
        """Encode float[B, 3, S, S] into the maps that the config names."""
        if self.is_timm:
            states = self.backbone(pixel_values).feature_maps
            last = states[-1]
        else:
            output = self.backbone(pixel_values, output_hidden_states=True)
            states, last = output.hidden_states, output.last_hidden_state
        size, config = (pixel_values.shape[-2], pixel_values.shape[-1]), self.backbone.config
        tokens = last if self.token_layer is None else states[self.token_layer]
        averaged = [states[layer] for layer in self.proposer_layers]
        mean = [torch.stack(averaged).mean(0)] if averaged else []
        return TowerMaps(
            as_map(tokens, config, size),
            [as_map(states[layer], config, size) for layer in self.level_layers],
            [as_map(state, config, size) for state in mean],
        )


class ScaleOffsetEmbeddings(Dinov2Embeddings):
    """DINOv2's embeddings with the stretch of positions that its released features were made with.

    Source: the original DINOv2 code and Transformers 4.32 (the version Groma was trained with).
    Deviates: from current Transformers, which stretches to the exact size; tests/parity pins it.
    """

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Return positions float[1, 1 + rows * columns, C] for a picture of the given pixels."""
        learned = self.position_embeddings
        patch_height, patch_width = self.patch_embeddings.patch_size
        rows, columns = height // patch_height, width // patch_width
        side = round((learned.shape[1] - 1) ** 0.5)
        if rows == columns == side:
            return learned
        grid = learned[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        # the offset makes sure of the size, and the factor itself places the samples
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        stretched = interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
        flat = stretched.flatten(2).transpose(1, 2).to(learned.dtype)
        return torch.cat((learned[:, :1], flat), dim=1)


def as_map(state: Tensor, config: PreTrainedConfig, size_hw: tuple[int, int]) -> Tensor:
    """Give a hidden state the shape of a map.

    Maps stay as they are. Sequences have one token a patch, row by row, after prefix tokens
    (registers, and one or two for classification), which are dropped; stages of hierarchical
    transformers have a quarter of the previous stage's tokens.

    Args:
        state: float[B, C, G, G] or float[B, prefix + G * G, C].
        config: of the backbone; its `patch_size` and `num_register_tokens` count.
        size_hw: of the picture, in pixels.

    Returns:
        float[B, C, G, G].

    Raises:
        ShapeError: if the tokens are not patches of the picture.
    """
    if state.ndim == 4:
        return state
    patch, length = getattr(config, "patch_size", None), state.shape[1]
    if patch is None:
        raise ShapeError(
            f"backbone {config.model_type!r} gives sequences but names no patch_size, so its "
            "tokens cannot be placed; use a backbone with one, or one that gives maps."
        )
    sides = (patch, patch) if isinstance(patch, int) else tuple(patch)
    rows, columns = size_hw[0] // sides[0], size_hw[1] // sides[1]
    while rows * columns > length:
        rows, columns = rows // 2, columns // 2
    prefix = length - rows * columns
    registers = getattr(config, "num_register_tokens", 0)
    if prefix not in (registers, registers + 1, registers + 2):
        raise ShapeError(
            f"backbone {config.model_type!r} gives {length} tokens for a picture of {size_hw} "
            f"pixels, of which {rows} x {columns} would be patches and {prefix} are left over; "
            f"expected {registers} to {registers + 2}. Choose an image_size that is a multiple "
            f"of the patch size {patch}."
        )
    patches = state[:, prefix:].transpose(1, 2)
    return patches.reshape(state.shape[0], state.shape[2], rows, columns)


class VisionTowers(nn.Module):
    """All towers of a model and, where configured, the pyramid over the levels."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.towers = nn.ModuleList([Tower(tower) for tower in config.towers])
        self.levels_from = config.levels_from
        token_shapes, level_shapes, proposer_shapes = _probe(config)
        self.token_channels = tuple(channels for channels, _ in token_shapes)
        self.token_grids = tuple(grid for _, grid in token_shapes)
        self.level_channels = tuple(channels for channels, _ in level_shapes)
        self.level_grids = tuple(grid for _, grid in level_shapes)
        self.pyramid = None
        if config.pyramid == "fpn":
            self.pyramid = FeaturePyramidNetwork(list(self.level_channels), config.pyramid_channels)
            self.level_channels = (config.pyramid_channels,) * len(self.level_channels)
        own = tuple(channels for channels, _ in proposer_shapes)
        self.proposer_channels = own or self.level_channels

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
        levels = encoded[self.levels_from].levels
        if self.pyramid is not None:
            named = {str(index): level for index, level in enumerate(levels)}
            levels = list(self.pyramid(named).values())
        tokens = [maps.tokens for maps in encoded]
        return VisionFeatures(tokens, levels, encoded[self.levels_from].proposer or levels)


Shape = tuple[int, int]


def _probe(config: VisionConfig) -> tuple[list[Shape], list[Shape], list[Shape]]:
    """Return (channels, grid) of every token map, and of the level tower's levels and own map.

    The last is what only the proposer reads. Found by a run on the meta device, so no table of
    backbones is needed.
    """

    def shapes(maps: Sequence[Tensor]) -> list[Shape]:
        return [(found.shape[1], found.shape[2]) for found in maps]

    probed = []
    for tower in config.towers:
        with torch.device("meta"), torch.no_grad():
            probe = Tower(tower).eval()
            probed.append(probe(torch.zeros(1, 3, tower.image_size, tower.image_size)))
    tokens = shapes([maps.tokens for maps in probed])
    leading = probed[config.levels_from]
    return tokens, shapes(leading.levels), shapes(leading.proposer)
