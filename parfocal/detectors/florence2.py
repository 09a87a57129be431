"""Florence-2 as a tagger: the names of what its object detection task finds (Transformers).

Its boxes are not used: they come without scores, and suppression would not know which to keep.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from parfocal.detectors.base import in_parts
from parfocal.detectors.weights import device_of, digest_of

TASK: Final = "<OD>"


class Florence2Tagger:
    """Florence-2 behind the `Tagger` protocol.

    Args:
        model: the network.
        processor: its processor.
        num_beams: of the search; the published examples use 3.
        max_new_tokens: of the answer, about nine an object.
        batch_size: pictures a forward pass.

    Example:
        >>> tagger = load_tagger("florence2")  # doctest: +SKIP
        >>> tagger.tag([load_image("street.jpg")])  # doctest: +SKIP
        [('bus', 'person', 'wheel')]
    """

    HUB_ID: Final = "florence-community/Florence-2-base"
    MODEL_TYPES: Final = ("florence2",)
    NETWORK: Final = Florence2ForConditionalGeneration

    def __init__(
        self,
        model: Florence2ForConditionalGeneration,
        processor: Florence2Processor,
        num_beams: int = 3,
        max_new_tokens: int = 1024,
        batch_size: int = 4,
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.num_beams, self.max_new_tokens = num_beams, max_new_tokens
        self.batch_size = batch_size

    @property
    def identity(self) -> dict[str, Any]:
        """What the tags depend on."""
        return {
            "kind": "florence2",
            "weights": digest_of(self.model),
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
        }

    def tag(self, images: Sequence[Image.Image]) -> list[tuple[str, ...]]:
        """The names of each picture's objects, each once, in the order in which they came."""
        parts = in_parts(images, self.batch_size)
        return [tags for part in parts for tags in self._tag(list(part))]

    @torch.inference_mode()
    def _tag(self, images: list[Image.Image]) -> list[tuple[str, ...]]:
        inputs = self.processor(images=images, text=[TASK] * len(images), return_tensors="pt")
        inputs = inputs.to(device_of(self.model), self.model.dtype)
        ids = self.model.generate(
            **inputs,
            num_beams=self.num_beams,
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
        )
        texts = self.processor.batch_decode(ids, skip_special_tokens=False)
        return [read_names(text) for text in texts]


def read_names(text: str) -> tuple[str, ...]:
    """The names in an answer of the detection task, each once; those without a box are left out.

    >>> read_names("</s><s>car<loc_1><loc_2><loc_3><loc_4>wheel<loc_5><loc_6><loc_7><loc_8></s>")
    ('car', 'wheel')
    """
    names = (name.strip() for name in re.findall(r"([^<>]+)(?:<loc_\d+>){4}", text))
    return tuple(dict.fromkeys(name for name in names if name))
