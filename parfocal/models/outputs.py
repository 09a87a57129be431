"""What the steps of the model give: to each other, to who keeps them, and to the caller.

Shapes: B pictures, T image tokens, G x G cells of a map, D text width; of an answer B rows, L
tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.utils import ModelOutput

from parfocal.models.proposer import Candidates
from parfocal.models.vision import VisionFeatures


@dataclass
class ImageFeatures:
    """Everything that depends on the picture alone; compute it once, ask many questions.

    Attributes:
        image: float[B, T, D], projected tokens.
        levels: float[B, C_l, G_l, G_l] each, prepared for the region encoder.
        candidates: the proposer's suggestions, or None without a proposer.
        tokens: float[B, C, G, G], the map that regions read or are read by (`regions.merge`), or
            None where the two do not meet before the text.
    """

    image: Tensor
    levels: list[Tensor]
    candidates: Candidates | None
    tokens: Tensor | None = None

    def __getitem__(self, rows: Any) -> ImageFeatures:
        """Select rows (for several questions about one picture: repeat its row)."""
        candidates = self.candidates and Candidates(
            self.candidates.boxes[rows], self.candidates.scores[rows], None
        )
        tokens = None if self.tokens is None else self.tokens[rows]
        levels = [level[rows] for level in self.levels]
        return ImageFeatures(self.image[rows], levels, candidates, tokens)


@dataclass
class Perception:
    """What towers and proposer make of pictures, before anything is fitted to a language model.

    Where they are frozen, it can be computed once and kept.

    Attributes:
        vision: maps of the towers.
        candidates: the proposer's suggestions, or None without a proposer.
    """

    vision: VisionFeatures
    candidates: Candidates | None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Perception:
        """Return the same on another device, without what a proposer's loss needs."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        maps = {
            item.name: [move(value) for value in getattr(self.vision, item.name)]
            for item in fields(self.vision)
        }
        candidates = self.candidates
        if candidates is not None:
            candidates = Candidates(move(candidates.boxes), move(candidates.scores), None)
        return Perception(VisionFeatures(**maps), candidates)


@dataclass
class ParfocalOutput(ModelOutput):
    """Output of `forward`.

    Attributes:
        loss: float[], mean cross entropy over labels that are not -100, when labels were given.
        logits: float[B, L, V].
        past_key_values: the language model's cache.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
