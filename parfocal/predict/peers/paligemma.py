"""PaliGemma 1 and 2: prompts are a literal, lower-case verb and its input.

The processor puts the picture's tokens and the start mark before a prompt and a line end behind it.
`pt` checkpoints know the verbs of pretraining only, `mix` checkpoints also `answer`.

Source: the prompt page of the PaliGemma documentation; the dialect for boxes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import PIL.Image
from torch import Tensor

from parfocal.dialects.base import View
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError
from parfocal.predict.peers.generation import GenerativePeer
from parfocal.predict.peers.verbs import Ask

VERBS: Final = ("cap", "caption", "describe", "ocr", "answer", "question", "detect", "segment")
_VERB = re.compile(rf"(?:{'|'.join(VERBS)})(?:\s|\Z)")


class PaliGemmaPeer(GenerativePeer):
    """PaliGemma; see the module. `ask` puts `answer en` before what starts with no verb."""

    family = "PaliGemma"
    can = frozenset({"ask", "locate", "describe", "describe regions"})
    hint = "Its verbs, such as 'detect cat ; dog' and 'segment cat', go through ask."
    dialect_name = "paligemma"

    def prompt(self, ask: Ask, view: View) -> str:
        """The verb and its input."""
        return self.dialect.render(ask.question, view)

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Mapping[str, Tensor]:
        """Model inputs; the place of the picture is said, as the processor wants it."""
        texts = [self.processor.image_token + text for text in prompts]
        inputs = self.processor(images=images, text=texts, padding=True)
        inputs.pop("labels", None)  # of training; it makes them from lists, not from tensors
        tensors: Mapping[str, Tensor] = inputs.convert_to_tensors("pt")
        return tensors

    def understand(self, question: str | GroundedText, num_boxes: int) -> GroundedText:
        """The user's words behind a verb.

        Raises:
            ConfigError: if boxes are given to a free question.
        """
        text = super().understand(question, num_boxes)
        if isinstance(question, GroundedText) or _VERB.match(question.strip()):
            return text
        if num_boxes:
            raise ConfigError(
                f"PaliGemma answers no questions about boxes such as {question!r}: it was taught "
                "regions in captions alone. Use describe(image, boxes)."
            )
        return GroundedText.of("answer en ", *text.spans)
