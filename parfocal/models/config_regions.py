"""Configuration of what happens to boxes: which are proposed and kept, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from parfocal.errors import ConfigError
from parfocal.models.config_part import PartConfig


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
    score_heads: tuple[str, ...] = ("object",)
    score_exponents: tuple[float, ...] = (1.0,)
    refine: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.match_threshold <= 1:
            raise ConfigError(
                f"proposer.match_threshold is {self.match_threshold}; it is an IoU, from 0 (the "
                "best region, however little it overlaps) to 1."
            )
        for name in ("max_regions", "candidates", "queries"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"proposer.{name} is {getattr(self, name)}; it must be 1 or more."
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
