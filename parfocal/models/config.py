"""Configuration of the composable model: a strict dataclass a part, `ParfocalConfig` around them.

Every part rejects unknown keys; the top level, which has to admit the extras that Transformers
adds, rejects keys that are close to a field of ours (`fusoin=...`). Nothing is rewritten after
construction: what does not fit is a `ConfigError`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from parfocal.errors import ConfigError

Part = TypeVar("Part", bound="PartConfig")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PartConfig:
    """Base of the parts: to and from a plain mapping, rejecting unknown keys and choices."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):
            hint, value = hints[item.name], getattr(self, item.name)
            choices = get_args(hint) if get_origin(hint) is Literal else ()
            if choices and value not in choices:
                raise ConfigError(
                    f"{type(self).__name__}.{item.name} is {value!r}; "
                    f"choose one of {list(choices)}."
                )

    @classmethod
    def from_dict(cls: type[Part], values: Mapping[str, Any] | Part) -> Part:
        """Build the part from `values`; ConfigError names an unknown key and the closest known."""
        if isinstance(values, cls):
            return values
        known = [item.name for item in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"{cls.__name__} has no field {key!r}.{hint} Its fields are {known}."
                )
        return cls(**{key: _frozen(value) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, PartConfig | PreTrainedConfig):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


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
    """

    backbone: Mapping[str, Any] = field(default_factory=lambda: {"model_type": "resnet"})
    image_size: int = 224
    image_mean: tuple[float, ...] = IMAGENET_MEAN
    image_std: tuple[float, ...] = IMAGENET_STD
    token_layer: int | None = -1
    level_layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class VisionConfig(PartConfig):
    """The towers and how a picture enters them.

    Attributes:
        towers: one or two towers; they see the same picture, each with its own normalisation.
        resize: `squash` to the square input, or `pad` to a square (centred, with the mean colour)
            and then resize.
        pyramid: `none`, or `fpn`: a top-down feature pyramid over the first tower's levels.
        pyramid_channels: width of the pyramid's maps.
    """

    towers: tuple[TowerConfig, ...] = (TowerConfig(),)
    resize: Literal["squash", "pad"] = "pad"
    pyramid: Literal["none", "fpn"] = "none"
    pyramid_channels: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "towers", tuple(TowerConfig.from_dict(tower) for tower in self.towers)
        )
        super().__post_init__()
        if not 1 <= len(self.towers) <= 2:
            raise ConfigError(f"vision has {len(self.towers)} towers; give one or two.")
        if self.pyramid == "fpn" and not self.towers[0].level_layers:
            raise ConfigError(
                "vision.pyramid is 'fpn' but the first tower names no level_layers "
                "to build it from."
            )


@dataclass(frozen=True)
class FusionConfig(PartConfig):
    """How the towers' token maps become one.

    Attributes:
        kind: `none` (one tower: its map), or `concat` (channels, first tower first).
    """

    kind: Literal["none", "concat"] = "none"


@dataclass(frozen=True)
class ProjectorConfig(PartConfig):
    """From fused vision tokens to the language model's width.

    Attributes:
        depth: number of linear layers, GELU between them.
        merge: side of the square of neighbouring tokens that become one (2 = Groma's 2x2 merge).
        norm: layer-normalise the result and scale it like the token embeddings.
    """

    depth: int = 2
    merge: Literal[1, 2] = 1
    norm: bool = False


@dataclass(frozen=True)
class ProposerConfig(PartConfig):
    """Where region proposals come from, and which of them are kept.

    Attributes:
        kind: `none`, `deformable_detr` (Groma, section 3.1) or `dense` (per-cell boxes on one map).
        score_threshold: proposals must score above it.
        nms_threshold: a box is dropped when its IoU with a better one is above it.
        max_regions: number of region slots, user boxes included.
        order: of the kept proposals in their slots: best `score` first, or `left_to_right` by
            centre, which makes naming everything in turn a walk along the slots.
        candidates: best cells that reach suppression (`dense`).
        hidden_size: width of the proposer.
        encoder_layers: of `deformable_detr`, like everything below down to `score_exponents`.
        decoder_layers: number of them; each moves the boxes once.
        heads: attention heads.
        ffn_size: width between the two layers of a feed-forward block.
        points: sampling points a head and level.
        queries: number of boxes that leave the decoder.
        dropout: probability, in training.
        score_heads: names of the objectness heads, one a kind of supervision.
        score_exponents: powers with which the heads' scores are multiplied into one.
        refine: look at every candidate a second time and move its sides.
    """

    kind: Literal["none", "deformable_detr", "dense"] = "none"
    score_threshold: float = 0.15
    nms_threshold: float = 0.6
    max_regions: int = 100
    order: Literal["score", "left_to_right"] = "score"
    candidates: int = 100
    hidden_size: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    ffn_size: int = 1024
    points: int = 4
    queries: int = 300
    dropout: float = 0.1
    score_heads: tuple[str, ...] = ("coco", "sa1b")
    score_exponents: tuple[float, ...] = (0.4, 0.6)
    refine: bool = False


@dataclass(frozen=True)
class RegionsConfig(PartConfig):
    """How a box becomes a vector, and how that vector meets the text.

    Attributes:
        kind: `none` or `multilevel_roi` (Groma, section 3.2).
        roi_size: side of the RoIAlign grid.
        hidden_size: width of a region's feature before it is lifted to the language model's width.
        fuse_rounds: rounds of cross-level convolution before RoIAlign (Groma: 5).
        level_scales: what each level is resized to, as multiples of its own grid (Groma: 4, 2, 1).
        coordinate_channels: append x and y planes to the levels first (Groma).
        context: `none`, or `rank`: each region also knows its rank by position and size among all
            regions and among those that look alike, which is what comparisons ("the second apple
            from the left") are about.
        layout: `interleaved` (an index token, then a feature token, Groma) or `summed` (both in one
            position).
        norm: layer-normalise the result and scale it like the token embeddings.
    """

    kind: Literal["none", "multilevel_roi"] = "none"
    roi_size: int = 14
    hidden_size: int = 1024
    fuse_rounds: int = 5
    level_scales: tuple[int, ...] = (4, 2, 1)
    coordinate_channels: bool = True
    context: Literal["none", "rank"] = "none"
    layout: Literal["interleaved", "summed"] = "interleaved"
    norm: bool = False


@dataclass(frozen=True)
class TokenIds(PartConfig):
    """Ids of the tokens that the model replaces by features; -1 where the dialect has none.

    Attributes:
        image: one a fused vision token.
        region: one a region slot.
        region_feature: a user region's feature in the text.
        ground_box: a box of the answer whose slot is not known yet (training only).
        first_region: id of `<r0>`; the other region names follow it.
    """

    image: int = -1
    region: int = -1
    region_feature: int = -1
    ground_box: int = -1
    first_region: int = -1


_PARTS: dict[str, type[PartConfig]] = {
    "vision": VisionConfig,
    "fusion": FusionConfig,
    "projector": ProjectorConfig,
    "proposer": ProposerConfig,
    "regions": RegionsConfig,
    "token_ids": TokenIds,
}


@strict
class ParfocalConfig(PreTrainedConfig):
    """A whole model: `vision -> fusion -> projector`, `proposer -> regions`, `text` and a dialect.

    Example:
        >>> config = ParfocalConfig(vision={"resize": "squash"}, dialect="plain")
        >>> config.vision.resize
        'squash'
    """

    model_type = "parfocal"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2")
    }

    vision: Any = None
    fusion: Any = None
    projector: Any = None
    proposer: Any = None
    regions: Any = None
    token_ids: Any = None
    text_config: dict | PreTrainedConfig | None = None
    dialect: str = "plain"
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        ours = [item for item in type(self).__annotations__ if not item.startswith("_")]
        for key in kwargs:
            close = difflib.get_close_matches(key, ours, n=1, cutoff=0.75)
            if close:
                raise ConfigError(
                    f"ParfocalConfig has no field {key!r}. Did you mean {close[0]!r}?"
                )
        for name, part in _PARTS.items():
            setattr(self, name, part.from_dict(getattr(self, name) or {}))
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self._check_parts()

    def _check_parts(self) -> None:
        if self.fusion.kind == "concat" and len(self.vision.towers) != 2:
            raise ConfigError(
                "fusion.kind is 'concat' but vision has one tower; give two or use 'none'."
            )
        if self.fusion.kind == "none" and len(self.vision.towers) != 1:
            raise ConfigError("vision has two towers but fusion.kind is 'none'; use 'concat'.")
        levels = len(self.vision.towers[0].level_layers)
        if (self.proposer.kind != "none" or self.regions.kind != "none") and levels == 0:
            raise ConfigError(
                "a proposer or region encoder needs vision.towers[0].level_layers; it names none."
            )
        if self.proposer.kind != "none" and self.regions.kind == "none":
            raise ConfigError(
                "proposer without regions: proposed boxes would never reach the text; "
                "set regions.kind."
            )
        if self.regions.kind == "multilevel_roi" and len(self.regions.level_scales) > levels:
            raise ConfigError(
                f"regions.level_scales has {len(self.regions.level_scales)} entries "
                f"for {levels} level(s) of the tower."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that `from_dict` reads back to an equal config."""
        values = super().to_dict()
        values.update({name: getattr(self, name).to_dict() for name in _PARTS})
        return values
