"""A class-agnostic two-stage deformable DETR that proposes object boxes.

Feature maps become tokens; a deformable encoder mixes them; the tokens that score best become
initial boxes; a deformable decoder refines them with learned query contents. Only `grid_sample` is
needed, no compiled operator. Boxes, sampling positions and scores are computed in float32 whatever
the type of the weights or of an autocast region.

Reading order: settings, output, geometry, attention, layers, the proposer.

Shapes: B pictures, Q queries, L decoder layers, T encoder tokens (all levels, row-major, finest
first), D width. Boxes are cxcywh in the unit frame (0 to 1 of the model input).

Source: Groma (arXiv:2404.13013), section 3.1, official model/ddetr.py; Deformable DETR
(arXiv:2010.04159); mixed query selection and look forward twice are DINO's (arXiv:2203.03605).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parfocal.errors import ConfigError, ShapeError

PRIOR_PROBABILITY = 0.01
"""Score that an untrained head gives to every box, so that early focal losses stay small."""


@dataclass(frozen=True)
class DetrSettings:
    """Everything that decides the shape and the maths of a `DeformableDetrProposer`.

    Attributes:
        in_channels: channels of the input maps: one number for all, or one per level.
        input_kind: "single_map_pyramid" makes every level from one map by strided and transposed
            convolutions (1 to 4 levels); "levels" takes one map per level, finest first.
        hidden_size: D, a multiple of 4 and of num_heads.
        num_encoder_layers, num_decoder_layers: how many layers; the decoder's is L.
        num_heads: attention heads, in both.
        ffn_size: inner width of the feed-forward blocks.
        num_points: sampling points per head and level.
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
        if self.hidden_size % 4 or self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of 4 (sine positions) "
                f"and of num_heads ({self.num_heads})."
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
    def num_maps(self) -> int:
        """How many maps `forward` expects."""
        return self.num_levels if self.input_kind == "levels" else 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each input map."""
        if isinstance(self.in_channels, int):
            return (self.in_channels,) * self.num_maps
        return tuple(self.in_channels)


@dataclass(frozen=True)
class ProposerOutput:
    """What the proposer says about a batch; everything is float32.

    Attributes:
        boxes: float[B, Q, 4], cxcywh, unit frame, from the last layer, in query order (not sorted).
        scores: float[B, Q], 0 to 1, the fused score of each box.
        layer_boxes: float[L, B, Q, 4], the boxes of every decoder layer.
        layer_logits: head name -> float[L, B, Q], the scores of every decoder layer before sigmoid.
        token_boxes: float[B, T, 4], cxcywh, unit frame, one box per encoder token.
        token_logits: float[B, T], the encoder's score before sigmoid.
    """

    boxes: Tensor
    scores: Tensor
    layer_boxes: Tensor
    layer_logits: dict[str, Tensor]
    token_boxes: Tensor
    token_logits: Tensor


SizesHW = Sequence[tuple[int, int]]


def sine_features(values: Tensor, num_features: int) -> Tensor:
    """Write each number as interleaved sines and cosines.

    Args:
        values: float[...], 0 to 1.
        num_features: even; feature k uses wavelength 10000^(2*floor(k/2)/num_features).

    Returns:
        float[..., num_features], float32.
    """
    exponent = torch.arange(0, num_features, 2, device=values.device) / num_features
    angle = values.float()[..., None] * 2 * math.pi / 10000.0**exponent
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def inverse_sigmoid(values: Tensor) -> Tensor:
    """Turn 0..1 into logits, at most about 11.5 in size (clamped 1e-5 from both ends)."""
    values = values.float().clamp(0, 1)
    return torch.log(values.clamp(min=1e-5) / (1 - values).clamp(min=1e-5))


def sine_positions(size_hw: tuple[int, int], hidden_size: int, device: torch.device) -> Tensor:
    """Positions of one level: float[H * W, D], D/2 features of y, then D/2 of x."""
    height, width = size_hw
    y = (torch.arange(height, device=device) + 0.5) / (height + 1e-6)
    x = (torch.arange(width, device=device) + 0.5) / (width + 1e-6)
    y_features = sine_features(y, hidden_size // 2)[:, None].expand(-1, width, -1)
    x_features = sine_features(x, hidden_size // 2)[None].expand(height, -1, -1)
    return torch.cat((y_features, x_features), dim=-1).flatten(0, 1)


def initial_token_boxes(sizes_hw: SizesHW, scale: float, device: torch.device) -> Tensor:
    """Boxes the encoder tokens start from.

    Args:
        sizes_hw: rows and columns of each level, finest first.
        scale: side of a finest-level box; level l has scale * 2^l.
        device: where to build them.

    Returns:
        float[T, 4], cxcywh, unit frame, centred on the token's cell.
    """
    boxes = []
    for level, (height, width) in enumerate(sizes_hw):
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centre = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
        side = torch.full_like(centre, scale * 2.0**level)
        boxes.append(torch.cat((centre, side), dim=-1).flatten(0, 1))
    return torch.cat(boxes)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of float[B, C, H, W], separately at every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise float[B, C, H, W]."""
        last = x.movedim(1, -1)
        return F.layer_norm(last, last.shape[-1:], self.weight, self.bias, 1e-6).movedim(-1, 1)


def pyramid_branch(power: int, channels: int, width: int) -> nn.Sequential:
    """Build the branch that rescales a map by 2^power (-1 to 2) and projects it to `width`.

    Source: official groma model/ddetr.py, input_proj. Deviates: no.
    """
    up = {"kernel_size": 2, "stride": 2}
    layers: list[nn.Module]
    if power == -1:
        layers = [nn.Conv2d(channels, width, 3, stride=2, padding=1), ChannelNorm(width)]
    elif power == 0:
        layers = [nn.Conv2d(channels, width, 1), ChannelNorm(width)]
    elif power == 1:
        layers = [nn.ConvTranspose2d(channels, width // 2, **up)]
        layers += [nn.Conv2d(width // 2, width, 1), ChannelNorm(width)]
        layers += [nn.Conv2d(width, width, 3, padding=1)]
    else:
        layers = [nn.ConvTranspose2d(channels, width // 2, **up), ChannelNorm(width // 2)]
        layers += [nn.GELU(), nn.ConvTranspose2d(width // 2, width // 4, **up)]
        layers += [nn.Conv2d(width // 4, width, 1), ChannelNorm(width)]
        layers += [nn.Conv2d(width, width, 3, padding=1)]
    return nn.Sequential(*layers)


def input_branches(settings: DetrSettings) -> nn.ModuleList:
    """Build one branch per level, finest first."""
    width, levels = settings.hidden_size, settings.num_levels
    if settings.input_kind == "levels":
        return nn.ModuleList(pyramid_branch(0, channels, width) for channels in settings.channels)
    powers = [0] if levels == 1 else [levels - 2 - level for level in range(levels)]
    return nn.ModuleList(pyramid_branch(power, settings.channels[0], width) for power in powers)


class DeformableAttention(nn.Module):
    """Every query looks at a few learned positions around its reference point or box."""

    def __init__(self, settings: DetrSettings) -> None:
        super().__init__()
        width = settings.hidden_size
        self.grid = (settings.num_heads, settings.num_levels, settings.num_points)
        samples = math.prod(self.grid)
        self.offsets = nn.Linear(width, 2 * samples)
        self.weights = nn.Linear(width, samples)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def reset_parameters(self) -> None:
        """Start as uniform attention to points on a ray per head, one cell apart."""
        heads, levels, points = self.grid
        angle = torch.arange(heads) * (2 * math.pi / heads)
        ray = torch.stack((angle.cos(), angle.sin()), dim=-1)
        ray = ray / ray.abs().amax(-1, keepdim=True)  # [heads, 2], on the unit square's edge
        steps = torch.arange(1, points + 1)[:, None]
        bias = (ray[:, None, None] * steps).expand(heads, levels, points, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.reshape(-1))
        for parameter in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(parameter)

    def forward(self, query: Tensor, memory: Tensor, reference: Tensor, sizes: SizesHW) -> Tensor:
        """Attend.

        Args:
            query: float[B, Q, D].
            memory: float[B, T, D], all levels flattened row-major, finest first.
            reference: float32[B, Q, 2] points, or [B, Q, 4] cxcywh boxes; unit frame.
            sizes: rows and columns of each level; their products add up to T.

        Returns:
            float[B, Q, D].
        """
        heads, levels, points = self.grid
        offsets = self.offsets(query).float().unflatten(-1, (heads, levels, points, 2))
        weights = self.weights(query).float().unflatten(-1, (heads, levels * points))
        weights = weights.softmax(-1).unflatten(-1, (levels, points))
        around = reference[:, :, None, None, None]  # [B, Q, 1, 1, 1, 2 or 4]
        if reference.shape[-1] == 2:
            cells_wh = offsets.new_tensor([[width, height] for height, width in sizes])
            where = around + offsets / cells_wh[:, None]
        else:
            where = around[..., :2] + offsets / points * around[..., 2:] * 0.5
        where = (2 * where - 1).transpose(1, 2).flatten(0, 1)  # [B * heads, Q, levels, points, 2]
        weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # [B * heads, 1, Q, L, points]

        value = self.value(memory).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
        maps = value.split([height * width for height, width in sizes], dim=-1)  # [B * heads, d, .]
        result = value.new_zeros((), dtype=torch.float32)
        for level, (flat, size_hw) in enumerate(zip(maps, sizes, strict=True)):
            grid = flat.float().unflatten(-1, size_hw)
            sampled = F.grid_sample(grid, where[:, :, level], align_corners=False)
            result = result + (sampled * weights[:, :, :, level]).sum(-1)  # [B * heads, d, Q]
        result = result.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)
        return self.output(result.to(value.dtype))


class SelfAttention(nn.Module):
    """Multi-head attention among queries; positions join queries and keys, not values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Attend among x, float[B, Q, D], placed by position, float[B, Q, D]."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        placed = x + position
        mixed = F.scaled_dot_product_attention(
            split(self.query(placed)), split(self.key(placed)), split(self.value(x))
        )
        return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with ReLU between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform float[..., D]."""
        return self.down(F.relu(self.up(x)))


class EncoderLayer(nn.Module):
    """Deformable self-attention, then feed-forward; the norm comes after each sum."""

    def __init__(self, settings: DetrSettings) -> None:
        super().__init__()
        width = settings.hidden_size
        self.attention = DeformableAttention(settings)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, settings.ffn_size)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, sizes: SizesHW) -> Tensor:
        """Update x, float[B, T, D]; reference is float32[B, T, 2], unit frame."""
        x = self.attention_norm(x + self.dropout(self.attention(x + position, x, reference, sizes)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention to the memory, feed-forward; norms after sums."""

    def __init__(self, settings: DetrSettings) -> None:
        super().__init__()
        width = settings.hidden_size
        self.self_attention = SelfAttention(width, settings.num_heads)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = DeformableAttention(settings)
        self.cross_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, settings.ffn_size)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self, x: Tensor, position: Tensor, memory: Tensor, reference: Tensor, sizes: SizesHW
    ) -> Tensor:
        """Update x, float[B, Q, D]; reference is float32[B, Q, 4], cxcywh, unit frame."""
        x = self.self_norm(x + self.dropout(self.self_attention(x, position)))
        attended = self.cross_attention(x + position, memory, reference, sizes)
        x = self.cross_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


def box_head(settings: DetrSettings) -> nn.Sequential:
    """Build three linear layers that read box changes, as logits, from a query."""
    inner = settings.box_head_size
    first, second = nn.Linear(settings.hidden_size, inner), nn.Linear(inner, inner)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(inner, 4))


class DeformableDetrProposer(nn.Module):
    """Proposes `num_queries` scored boxes for each picture of a batch.

    Forward results are deterministic: equal scores keep token order. (On CUDA the backward pass of
    `grid_sample` adds in no fixed order.)

    Example:
        >>> proposer = DeformableDetrProposer(DetrSettings(in_channels=64, num_queries=20)).eval()
        >>> proposer([torch.zeros(2, 64, 8, 8)]).boxes.shape
        torch.Size([2, 20, 4])
    """

    def __init__(self, settings: DetrSettings) -> None:
        super().__init__()
        self.settings = settings
        width, num_layers = settings.hidden_size, settings.num_decoder_layers
        self.inputs = input_branches(settings)
        self.level_embedding = nn.Parameter(torch.empty(settings.num_levels, width))
        self.encoder = nn.ModuleList(
            EncoderLayer(settings) for _ in range(settings.num_encoder_layers)
        )
        self.token_projection = nn.Linear(width, width)
        self.token_norm = nn.LayerNorm(width)
        self.token_score = nn.Linear(width, 1)
        self.token_box = box_head(settings)
        self.query_content = nn.Parameter(torch.empty(settings.num_queries, width))
        self.query_position = nn.Linear(2 * width, 2 * width)
        self.query_position_norm = nn.LayerNorm(2 * width)
        self.decoder = nn.ModuleList(DecoderLayer(settings) for _ in range(num_layers))
        self.boxes = nn.ModuleList(box_head(settings) for _ in range(num_layers))
        self.scores = nn.ModuleDict(
            {
                name: nn.ModuleList(nn.Linear(width, 1) for _ in range(num_layers))
                for name in settings.score_heads
            }
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every weight for training from scratch.

        Source: Deformable DETR (arXiv:2010.04159), official code; Deviates: no.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm | ChannelNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()
        for head in (self.token_score, *(head for heads in self.scores.values() for head in heads)):
            nn.init.constant_(head.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
        for head in (self.token_box, *self.boxes):
            nn.init.zeros_(head[-1].weight)  # the first boxes are the initial boxes
        nn.init.normal_(self.level_embedding)
        nn.init.normal_(self.query_content)

    def forward(self, levels: Sequence[Tensor]) -> ProposerOutput:
        """Propose boxes.

        Args:
            levels: float[B, C_l, H_l, W_l] each, finest first; exactly one map for
                "single_map_pyramid".

        Returns:
            ProposerOutput.

        Raises:
            ShapeError: if the number of maps or their channels are not the settings', or they have
                fewer tokens than there are queries.
        """
        maps = self.project(levels)
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        memory = self.encode(maps)
        token_logits, token_box_logits = self.read_tokens(memory, sizes)
        initial = self.select(token_logits, token_box_logits)
        states = self.decode(memory, initial, sizes)
        layer_boxes = self.refine(states, initial)
        layer_logits = {
            name: torch.stack([head(h) for head, h in zip(heads, states, strict=True)])
            .squeeze(-1)
            .float()
            for name, heads in self.scores.items()
        }
        return ProposerOutput(
            boxes=layer_boxes[-1],
            scores=self.fuse_scores({name: x[-1] for name, x in layer_logits.items()}),
            layer_boxes=layer_boxes,
            layer_logits=layer_logits,
            token_boxes=token_box_logits.sigmoid(),
            token_logits=token_logits,
        )

    def project(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Bring the input maps to float[B, D, H_l, W_l], one per level, finest first."""
        expected, found = self.settings.channels, tuple(x.shape[1] for x in levels)
        if found != expected:
            raise ShapeError(
                f"the proposer got maps with channels {found}, it was built for {expected} "
                f"(input_kind {self.settings.input_kind!r}). Pass one map per entry, finest first."
            )
        per_level = list(levels)
        if self.settings.input_kind == "single_map_pyramid":
            per_level = per_level * self.settings.num_levels
        maps = [branch(x) for branch, x in zip(self.inputs, per_level, strict=True)]
        num_tokens = sum(x.shape[-2] * x.shape[-1] for x in maps)
        if num_tokens < self.settings.num_queries:
            raise ShapeError(
                f"the maps have {num_tokens} tokens, fewer than num_queries "
                f"({self.settings.num_queries}). Use larger maps, more levels or fewer queries."
            )
        return maps

    def encode(self, maps: Sequence[Tensor]) -> Tensor:
        """Mix the maps of all levels into the memory, float[B, T, D]."""
        width, device = self.settings.hidden_size, maps[0].device
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        x = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        position = torch.cat(
            [
                sine_positions(size, width, device).to(x.dtype) + embedding
                for size, embedding in zip(sizes, self.level_embedding, strict=True)
            ]
        )
        reference = initial_token_boxes(sizes, self.settings.initial_box_scale, device)[:, :2]
        reference = reference.expand(x.shape[0], -1, -1)
        for layer in self.encoder:
            x = layer(x, position, reference, sizes)
        return x

    def read_tokens(self, memory: Tensor, sizes: SizesHW) -> tuple[Tensor, Tensor]:
        """Score every token and say its box.

        A token whose initial box leaves 0.01 to 0.99 in any number is invalid: it is zeroed before
        the projection and its box logits are +inf. It still has a score and can be selected; its
        box is then (1, 1, 1, 1).

        Returns:
            float32[B, T] logits and float32[B, T, 4] box logits (cxcywh before sigmoid).
        """
        start = initial_token_boxes(sizes, self.settings.initial_box_scale, memory.device)
        valid = ((start > 0.01) & (start < 0.99)).all(-1, keepdim=True)  # [T, 1]
        start = torch.logit(start).masked_fill(~valid, torch.inf)
        tokens = self.token_norm(self.token_projection(memory.masked_fill(~valid, 0.0)))
        logits = self.token_score(tokens).squeeze(-1).float()
        return logits, self.token_box(tokens).float() + start

    def select(self, token_logits: Tensor, token_box_logits: Tensor) -> Tensor:
        """Take the boxes of the best tokens, best first: float32[B, Q, 4], without gradient."""
        order = token_logits.sort(dim=1, descending=True, stable=True).indices
        best = order[:, : self.settings.num_queries, None].expand(-1, -1, 4)
        return token_box_logits.gather(1, best).detach().sigmoid()

    def decode(self, memory: Tensor, initial: Tensor, sizes: SizesHW) -> list[Tensor]:
        """Run the decoder; returns the queries after every layer, float[B, Q, D] each.

        Content row i is learned and goes to the i-th best box; only the position tells the box. All
        layers sample around the initial boxes: references do not move between layers.
        """
        x = self.query_content.expand(memory.shape[0], -1, -1)
        position = self.position_of(initial).to(memory.dtype)
        states = []
        for layer in self.decoder:
            x = layer(x, position, memory, initial, sizes)
            states.append(x)
        return states

    def position_of(self, boxes: Tensor) -> Tensor:
        """Embed boxes, float32[B, Q, 4] cxcywh unit, as query positions float[B, Q, D].

        The projection is twice as wide as needed and its second half is dropped, as in the paper's
        released weights.
        """
        width = self.settings.hidden_size
        features = sine_features(boxes, width // 2).flatten(-2)  # [B, Q, 2 * D]
        features = features.to(self.query_position.weight.dtype)
        return self.query_position_norm(self.query_position(features))[..., :width]

    def refine(self, states: Sequence[Tensor], initial: Tensor) -> Tensor:
        """Read each layer's boxes: float32[L, B, Q, 4].

        Layer l changes the box that layer l-1 made directly from the initial box, and gradients
        reach both heads ("look forward twice").
        """
        start = inverse_sigmoid(initial)
        previous, boxes = start, []
        for head, state in zip(self.boxes, states, strict=True):
            change = head(state).float()
            boxes.append((change + previous).sigmoid())
            previous = inverse_sigmoid((change + start).sigmoid())
        return torch.stack(boxes)

    def fuse_scores(self, logits: dict[str, Tensor]) -> Tensor:
        """Multiply the heads' probabilities, each to its exponent.

        Source: official groma model/groma.py: sigmoid(coco)^0.4 * sigmoid(sa1b)^0.6.
        """
        fused = torch.ones_like(next(iter(logits.values())))
        for name, exponent in zip(
            self.settings.score_heads, self.settings.score_exponents, strict=True
        ):
            fused = fused * logits[name].sigmoid() ** exponent
        return fused
