"""Everything that decides the shape and the maths of the deformable DETR proposer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from parfocal.errors import ConfigError


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one layer.

    Attributes:
        width: of every token or query.
        heads: attention heads.
        levels: maps that deformable attention looks at.
        points: sampling points per head and level.
        ffn_size: inner width of the feed-forward block.
    """

    width: int
    heads: int
    levels: int
    points: int
    ffn_size: int


@dataclass(frozen=True)
class DetrSettings:
    """Everything that decides the shape and the maths of a `DeformableDetrProposer`.

    Attributes:
        in_channels: channels of the input maps: one number for all, or one per level.
        input_kind: "single_map_pyramid" makes every level from one map by strided and transposed
            convolutions (1 to 4 levels); "levels" takes one map per level, finest first.
        hidden_size: D, a multiple of 4 and of the numbers of heads.
        num_encoder_layers, num_decoder_layers: how many layers; the decoder's is L.
        num_heads: attention heads.
        ffn_size: inner width of the feed-forward blocks.
        num_points: sampling points per head and level.
        decoder_heads, decoder_ffn_size, decoder_points: the decoder's; None: as in the encoder.
        num_levels: how many maps of different sizes become tokens.
        num_queries: Q, proposals per picture; the input must have at least as many tokens.
        dropout: after every attention and feed-forward block, in training only.
        box_head_size: inner width of the box heads; Groma's is 256 at any hidden_size.
        score_heads: names of the score heads; every decoder layer has one of each.
        score_exponents: one per head; the final score is the product of sigmoid(logit)^exponent.
        initial_box_scale: side of the box a finest-level token starts from; doubles per level.
    """

    in_channels: int | tuple[int, ...]
    input_kind: Literal["single_map_pyramid", "levels"] = "single_map_pyramid"
    hidden_size: int = 256
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    ffn_size: int = 1024
    num_points: int = 4
    decoder_heads: int | None = None
    decoder_ffn_size: int | None = None
    decoder_points: int | None = None
    num_levels: int = 1
    num_queries: int = 300
    dropout: float = 0.1
    box_head_size: int = 256
    score_heads: tuple[str, ...] = ("coco", "sa1b")
    score_exponents: tuple[float, ...] = (0.4, 0.6)
    initial_box_scale: float = 0.05

    def __post_init__(self) -> None:
        if self.input_kind not in ("single_map_pyramid", "levels"):
            raise ConfigError(
                f"input_kind is {self.input_kind!r}; allowed: 'single_map_pyramid', 'levels'."
            )
        heads = {self.num_heads, self.decoder.heads}
        if self.hidden_size % 4 or any(self.hidden_size % number for number in heads):
            raise ConfigError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of 4 (sine positions) "
                f"and of num_heads and decoder_heads ({sorted(heads)})."
            )
        if len(self.score_heads) != len(self.score_exponents) or not self.score_heads:
            raise ConfigError(
                f"score_heads {self.score_heads} and score_exponents {self.score_exponents} must "
                "name at least one head and have the same length."
            )
        if self.input_kind == "single_map_pyramid" and not 1 <= self.num_levels <= 4:
            raise ConfigError(
                f"num_levels is {self.num_levels}; a pyramid from one map has 1 to 4. Use "
                "input_kind='levels' to pass your own maps."
            )
        if len(self.channels) != self.num_maps:
            raise ConfigError(
                f"in_channels {self.in_channels} names {len(self.channels)} maps, input_kind "
                f"{self.input_kind!r} with {self.num_levels} levels takes {self.num_maps}."
            )

    @property
    def encoder(self) -> LayerSizes:
        """Sizes of an encoder layer."""
        return LayerSizes(
            self.hidden_size, self.num_heads, self.num_levels, self.num_points, self.ffn_size
        )

    @property
    def decoder(self) -> LayerSizes:
        """Sizes of a decoder layer."""
        own = {
            "heads": self.decoder_heads,
            "points": self.decoder_points,
            "ffn_size": self.decoder_ffn_size,
        }
        given = {name: value for name, value in own.items() if value is not None}
        return replace(self.encoder, **given)

    @property
    def num_maps(self) -> int:
        """How many maps `forward` expects."""
        return self.num_levels if self.input_kind == "levels" else 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each input map."""
        if isinstance(self.in_channels, int):
            return (self.in_channels,) * self.num_maps
        return tuple(self.in_channels)
