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


@dataclass(frozen=True)
class ProposerConfig(PartConfig):
    """Where region proposals come from, and which of them are kept.

    Attributes:
        kind: `none`, `deformable_detr` (Groma, section 3.1) or `dense` (per-cell boxes on one map).
        score_threshold: proposals must score above it.
        nms_threshold: a box is dropped when its IoU with a better one is above it.
        max_regions: number of region slots, user boxes included.
        keep_best: when no box is left, keep the one that scores best, whatever its score.
        ground_score: in training, score with which boxes of the answer join the proposals.
        match_threshold: in training, IoU from which on a region's name stands for a box of the
            answer; with less, its turn is not learned from. 0: the region that overlaps it most
            stands for it, however little; the first one if none does. Source: 0 is Groma, official
            model/groma.py (a bare arg-max). Deviates: 0.5 is ours; after `max_regions` are full a
            box may be none of them, and official training then names whatever is nearest.
        order: of the kept proposals in their slots: best `score` first, or `left_to_right` by
            centre, which makes naming everything in turn a walk along the slots.
        candidates: best cells that reach suppression (`dense`).
        hidden_size: width of the proposer.
        encoder_layers: of `deformable_detr`, like everything below down to `score_exponents`.
        decoder_layers: number of them; each moves the boxes once.
        heads: attention heads.
        ffn_size: width between the two layers of a feed-forward block.
        points: sampling points a head and level.
        decoder_heads: None: as in the encoder, like the next two.
        decoder_ffn_size: width between the two layers of a feed-forward block of the decoder.
        decoder_points: sampling points a head and level of the decoder.
        box_head_size: inner width of the box heads; None: `hidden_size`.
        pyramid_levels: make this many levels (1 to 4) from one map by strided and transposed
            convolutions; 0: take the maps as they come.
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
    keep_best: bool = False
    ground_score: float = 0.2
    match_threshold: float = 0.5
    order: Literal["score", "left_to_right"] = "score"
    candidates: int = 100
    hidden_size: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    ffn_size: int = 1024
    points: int = 4
    decoder_heads: int | None = None
    decoder_ffn_size: int | None = None
    decoder_points: int | None = None
    box_head_size: int | None = None
    pyramid_levels: int = 0
    queries: int = 300
    dropout: float = 0.1
    score_heads: tuple[str, ...] = ("coco", "sa1b")
    score_exponents: tuple[float, ...] = (0.4, 0.6)
    refine: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.match_threshold <= 1:
            raise ConfigError(
                f"proposer.match_threshold is {self.match_threshold}; it is an IoU, from 0 (the "
                "best region, however little it overlaps) to 1."
            )


@dataclass(frozen=True)
class RegionsConfig(PartConfig):
    """How a box becomes a vector, and how that vector meets the text.

    Attributes:
        kind: `none`, `multilevel_roi` (Groma, section 3.2), `multiscale_mean` (MG-LLaVA, section
            3.2: the mean of a RoIAlign over all levels at once, then a projector of its own) or
            `crop` (TinyGroundingGPT, section 3.3: an object is a picture of its own, cut out,
            zoomed, and seen by the same towers, fusion and projector; it has no slots).
        roi_size: side of the RoIAlign grid.
        roi_boxes: what RoIAlign reads as two corners: the box's `corners`, or its centre and size
            (`official_cxcywh`). Deviates: Groma's released weights were trained with the latter,
            and so with most boxes inside out; pinned by tests/parity/test_groma.py.
        roi_canvas: side in pixels that boxes are scaled to before RoIAlign; 0: each level's own.
        roi_strides: pixels of `roi_canvas` that RoIAlign takes a cell of each level for. Deviates:
            Groma's official ones, for its released weights, are half of the true strides.
        position_size: inner width of the box's position embedding.
        hidden_size: width of a region's feature before it is lifted to the language model's width.
        fuse_rounds: rounds of cross-level convolution before RoIAlign (Groma: 5).
        norm_groups: of the norm after each of them; None: 64 where that divides the channels, else
            8.
        level_scales: what each level is resized to, as multiples of its own grid (Groma: 4, 2, 1).
        coordinate_channels: append x and y planes to the levels first (Groma).
        context: `none`, or `rank`: each region also knows its rank by position and size among all
            regions and among those that look alike, which is what comparisons ("the second apple
            from the left") are about.
        layout: `interleaved` (an index token, then a feature token, Groma), `summed` (both in one
            position) or `bare` (the feature alone, MG-LLaVA).
        norm: layer-normalise the result and scale it like the token embeddings.
        depth: of `multiscale_mean`: linear layers of its projector, GELU between them.
        merge: how `multiscale_mean` meets the text: `concat` (region tokens after the image
            tokens), `b2f_attention` (so, after each region has looked at the first tower's tokens)
            or `f2b_attention` (fused tokens look at the regions; no region tokens).
        never_empty: a picture without regions gets one of no size in its top left corner. Deviates:
            no; MG-LLaVA's weights always saw at least one region.
        merge_crops: of `crop`: side of the square of an object's tokens that are averaged into one,
            after the projector; 1: all tokens. Deviates: ours; the paper gives every object as many
            tokens as the picture, which makes a question of several objects very long.
    """

    kind: Literal["none", "multilevel_roi", "multiscale_mean", "crop"] = "none"
    roi_size: int = 14
    roi_boxes: Literal["corners", "official_cxcywh"] = "corners"
    roi_canvas: int = 0
    roi_strides: tuple[float, ...] = ()
    position_size: int = 256
    hidden_size: int = 1024
    fuse_rounds: int = 5
    norm_groups: int | None = None
    level_scales: tuple[int, ...] = (4, 2, 1)
    coordinate_channels: bool = True
    context: Literal["none", "rank"] = "none"
    layout: Literal["interleaved", "summed", "bare"] = "interleaved"
    norm: bool = False
    depth: int = 2
    merge: Literal["concat", "b2f_attention", "f2b_attention"] = "concat"
    never_empty: bool = False
    merge_crops: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_crops < 1:
            raise ConfigError(
                f"regions.merge_crops is {self.merge_crops}; 1 keeps all tokens of an object, "
                "more averages squares of that side."
            )
        wanted = len(self.level_scales) if self.roi_canvas else 0
        if len(self.roi_strides) != wanted:
            raise ConfigError(
                f"regions.roi_strides is {list(self.roi_strides)} with roi_canvas "
                f"{self.roi_canvas}; give one stride a level ({len(self.level_scales)}) and a "
                "canvas, or neither."
            )

    @property
    def from_levels(self) -> bool:
        """Whether boxes are read from the picture's own feature levels, a slot each."""
        return self.kind not in ("none", "crop")

    @property
    def in_text(self) -> bool:
        """Whether region slots stand in the text as tokens."""
        return self.from_levels and self.merge != "f2b_attention"


@dataclass(frozen=True)
class TokenIds(PartConfig):
    """Ids of the tokens that the model replaces by features; -1 where the dialect has none.

    `image`, `region` and `object` may lie beyond the token table: they are never looked up.

    Attributes:
        image: one a fused vision token.
        region: one a region slot.
        region_feature: a user region's feature in the text.
        ground_box: a box of the answer whose slot is not known yet (training only).
        first_region: id of `<r0>`; the other region names follow it.
        object: one a token of an object image (`regions.kind` `crop`).
    """

    image: int = -1
    region: int = -1
    region_feature: int = -1
    ground_box: int = -1
    first_region: int = -1
    object: int = -1


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
        if self.fusion.kind != "none" and len(self.vision.towers) != 2:
            raise ConfigError(
                f"fusion.kind is {self.fusion.kind!r} but vision has one tower; "
                "give two or use 'none'."
            )
        if self.fusion.kind == "none" and len(self.vision.towers) != 1:
            raise ConfigError(
                "vision has two towers but fusion.kind is 'none'; use 'concat' or 'conv_gate'."
            )
        tower = self.vision.level_tower
        levels = len(tower.level_layers)
        maps = len(tower.proposer_layers) or levels
        if (self.proposer.kind != "none" and maps == 0) or (
            self.regions.from_levels and levels == 0
        ):
            raise ConfigError(
                f"a proposer or region encoder needs vision.towers[{self.vision.levels_from}]"
                ".level_layers; it names none."
            )
        if self.fusion.kind == "patch_info_mining" and self.fusion.mined == "levels" and not levels:
            raise ConfigError("fusion.mined is 'levels' but no tower names level_layers.")
        if self.regions.merge != "concat" and self.regions.kind != "multiscale_mean":
            raise ConfigError(
                f"regions.merge is {self.regions.merge!r}, which regions.kind 'multiscale_mean' "
                f"has and {self.regions.kind!r} has not; use 'concat'."
            )
        if self.proposer.kind != "none" and not self.regions.from_levels:
            raise ConfigError(
                "proposer without regions: proposed boxes would never reach the text; "
                f"set regions.kind, which is {self.regions.kind!r}, to 'multilevel_roi' or "
                "'multiscale_mean'."
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
