"""Configuration of what happens to pictures: towers, fusion, and the way to the text's width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from parfocal.errors import ConfigError
from parfocal.models.config_part import PartConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TowerConfig(PartConfig):
    """One vision tower: a Transformers backbone and which of its hidden states are used.

    Attributes:
        backbone: the backbone's own config as a mapping with `model_type` (CLIP, SigLIP, DINOv2/3,
            ConvNeXt, ResNet, ...).
        image_size: side of the square input in pixels.
        image_mean: subtracted from RGB in 0 to 1.
        image_std: what the difference is divided by.
        token_layer: index into the hidden states for the language model's tokens; None = the final,
            normed state.
        level_layers: indices for the maps that the proposer and the region encoder read, fine to
            coarse.
        input_from: index of the tower whose normalised input is shrunk (bilinear, not antialiased)
            to make this one's; None: the input is made from the picture. Deviates: no; MG-LLaVA's
            weights saw a low-resolution view that came from the high-resolution one.
        proposer_layers: hidden states whose mean is the one map that the proposer reads (Groma:
            the last four); empty: it reads the levels.
        position_interpolation: how learned positions are stretched to another grid: to its `size`,
            or by the factor (grid + 0.1) / learned grid (`scale_offset`, DINOv2 only).
            Deviates: `scale_offset` is what DINOv2 and early Transformers did; weights that were
            trained with it see hidden states about 2 % off with `size`.
    """

    backbone: Mapping[str, Any] = field(default_factory=lambda: {"model_type": "resnet"})
    image_size: int = 224
    image_mean: tuple[float, ...] = IMAGENET_MEAN
    image_std: tuple[float, ...] = IMAGENET_STD
    token_layer: int | None = -1
    level_layers: tuple[int, ...] = ()
    input_from: int | None = None
    proposer_layers: tuple[int, ...] = ()
    position_interpolation: Literal["size", "scale_offset"] = "size"


@dataclass(frozen=True)
class VisionConfig(PartConfig):
    """The towers and how a picture enters them.

    Attributes:
        towers: one or two towers; they see the same picture, each with its own normalisation.
        resize: `squash` to the square input, or `pad` to a square (centred, with the mean colour)
            and then resize.
        pyramid: `none`, or `fpn`: a top-down feature pyramid over the levels.
        pyramid_channels: width of the pyramid's maps.
        levels_from: index of the tower whose `level_layers` are the levels.
        pad_rounding: how the mean colour becomes 8-bit for `pad`: `nearest`, or `down`. Deviates:
            no; MG-LLaVA's (and LLaVA's) weights saw the colour rounded down.
        whole_pixel_boxes: user boxes are rounded to whole pixels of the input of the tower that
            gives the levels, and cut to it. Deviates: no; MG-LLaVA's weights saw such boxes.
        video: how frames of a video enter: scaled and cropped at the centre (`crop`), or padded to
            a square and scaled (`pad`); `none` for a model that reads one picture at a time.
    """

    towers: tuple[TowerConfig, ...] = (TowerConfig(),)
    resize: Literal["squash", "pad"] = "pad"
    pyramid: Literal["none", "fpn"] = "none"
    pyramid_channels: int = 256
    levels_from: int = 0
    pad_rounding: Literal["nearest", "down"] = "nearest"
    whole_pixel_boxes: bool = False
    video: Literal["none", "crop", "pad"] = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.towers, tuple | list):
            raise ConfigError(
                f"VisionConfig.towers is {self.towers!r}; give a list of one or two towers."
            )
        object.__setattr__(
            self, "towers", tuple(TowerConfig.from_dict(tower) for tower in self.towers)
        )
        super().__post_init__()
        if not 1 <= len(self.towers) <= 2:
            raise ConfigError(f"vision has {len(self.towers)} towers; give one or two.")
        if not 0 <= self.levels_from < len(self.towers):
            raise ConfigError(
                f"vision.levels_from is {self.levels_from} but there are {len(self.towers)} "
                "towers; they count from 0."
            )
        for index, tower in enumerate(self.towers):
            source = tower.input_from
            if source is not None and (source == index or not 0 <= source < len(self.towers)):
                raise ConfigError(
                    f"vision.towers[{index}].input_from is {source}; "
                    "name the other tower, counting from 0, or None."
                )
        if self.pyramid == "fpn" and not self.level_tower.level_layers:
            raise ConfigError(
                f"vision.pyramid is 'fpn' but towers[{self.levels_from}] names no level_layers "
                "to build it from."
            )

    @property
    def level_tower(self) -> TowerConfig:
        """The tower that gives the levels."""
        return self.towers[self.levels_from]


@dataclass(frozen=True)
class FusionConfig(PartConfig):
    """How the towers' token maps become one.

    Attributes:
        kind: `none` (one tower: its map), `concat` (channels, first tower first), or one of
            MG-LLaVA's: `conv_gate`, `patch_info_mining`, `resampler`. These take a low-resolution
            tower first and a high-resolution one second.
        gated: of `conv_gate`: scale the high-resolution map by a learned number a picture.
        join: of `conv_gate`: `add` the two maps, or put them side by side as `channels`.
        mined: what `patch_info_mining` looks into: all `levels`, or the second tower's `tokens`.
        heads: attention heads of `resampler`.
    """

    kind: Literal["none", "concat", "conv_gate", "patch_info_mining", "resampler"] = "none"
    gated: bool = True
    join: Literal["add", "channels"] = "add"
    mined: Literal["levels", "tokens"] = "levels"
    heads: int = 8


@dataclass(frozen=True)
class ProjectorConfig(PartConfig):
    """From fused vision tokens to the language model's width.

    Attributes:
        depth: number of linear layers, GELU between them; 0 for tokens that already have the
            language model's width (a resampler's).
        merge: side of the square of neighbouring tokens that become one (2 = Groma's 2x2 merge).
        norm: layer-normalise the result and scale it like the token embeddings.
    """

    depth: int = 2
    merge: Literal[1, 2] = 1
    norm: bool = False
