"""A class-agnostic two-stage deformable DETR that proposes object boxes.

Feature maps become tokens; a deformable encoder mixes them; the tokens that score best become
initial boxes; a deformable decoder refines them with learned query contents. Boxes and scores are
computed in float32 whatever the type of the weights or of an autocast region.

Shapes: B pictures, Q queries, L decoder layers, T encoder tokens (all levels, row-major, finest
first), D width. Boxes are cxcywh in the unit frame (0 to 1 of the model input).

Source: Groma (arXiv:2404.13013), section 3.1, official model/ddetr.py; Deformable DETR
(arXiv:2010.04159); mixed query selection and look forward twice are DINO's (arXiv:2203.03605).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parfocal.errors import ShapeError
from parfocal.models.deformable_attention import (
    DecoderLayer,
    DeformableAttention,
    EncoderLayer,
    SizesHW,
    initial_token_boxes,
    inverse_sigmoid,
    sine_features,
    sine_positions,
)
from parfocal.models.detr_settings import DetrSettings

PRIOR_PROBABILITY = 0.01
"""Score that an untrained head gives to every box, so that early focal losses stay small."""


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
            EncoderLayer(settings.encoder, settings.dropout)
            for _ in range(settings.num_encoder_layers)
        )
        self.token_projection = nn.Linear(width, width)
        self.token_norm = nn.LayerNorm(width)
        self.token_score = nn.Linear(width, 1)
        self.token_box = box_head(settings)
        self.query_content = nn.Parameter(torch.empty(settings.num_queries, width))
        self.query_position = nn.Linear(2 * width, 2 * width)
        self.query_position_norm = nn.LayerNorm(2 * width)
        self.decoder = nn.ModuleList(
            DecoderLayer(settings.decoder, settings.dropout) for _ in range(num_layers)
        )
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
