"""Kosmos-2: a text model that goes on writing; grounded phrases carry pairs of cell tokens.

It continues a text rather than answering: `<grounding><phrase> a dog</phrase>` is continued with
the dog's box, `<grounding>An image of` with a caption. What is located is complete with the token
that closes its boxes; what follows would be about other things.

Footgun: after the first token Transformers counts positions with the padding in them, so that a
padded row would go on elsewhere than the same row alone. Only prompts of one length share a batch.

Source: Transformers' Kosmos-2 page for the layout of questions; the dialect for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import PIL.Image

from parfocal.dialects.base import View
from parfocal.dialects.grounded import GroundedText
from parfocal.predict.asking import read_question
from parfocal.predict.peers.confidence import Said
from parfocal.predict.peers.generation import GenerativePeer
from parfocal.predict.peers.verbs import Ask, Task

GROUNDING = "<grounding>"


class Kosmos2Peer(GenerativePeer):
    """Kosmos-2; see the module."""

    family = "Kosmos-2"
    can = frozenset({"ask", "locate", "describe", "describe regions", "chat"})
    hint = "Boxes come from locate(image, phrase) and describe(image)."
    dialect_name = "kosmos2"

    def prompt(self, ask: Ask, view: View) -> str:
        """The text to go on from; the processor puts the picture before it."""
        return self.dialect.render(ask.question, view)

    def understand(self, question: str | GroundedText, num_boxes: int) -> GroundedText:
        """A question in the layout for grounded answers; a text that has its mark stays so."""
        if isinstance(question, GroundedText):
            return read_question(question, num_boxes, self.separator)
        words = question.removeprefix(GROUNDING)
        asked = super().understand(words, num_boxes)
        if words != question:
            blank = words[: len(words) - len(words.lstrip())]
            return GroundedText.of(GROUNDING, blank, *asked.spans)
        return GroundedText.of(f"{GROUNDING} Question: ", *asked.spans, " Answer:")

    def stops(self, task: Task) -> tuple[int, ...]:
        """A located phrase is complete with its boxes."""
        if task not in ("locate", "locate all"):
            return ()
        return (self.processor.tokenizer.convert_tokens_to_ids("</object>"),)

    def generate(
        self,
        images: list[PIL.Image.Image],
        prompts: list[str],
        task: Task = "ask",
        options: Mapping[str, Any] | None = None,
    ) -> list[Said]:
        """Write one text a row, prompts of one length at a time; see the module."""
        lengths = [len(self.processor.tokenizer(prompt)["input_ids"]) for prompt in prompts]
        found: dict[int, Said] = {}
        for length in dict.fromkeys(lengths):
            rows = [row for row, other in enumerate(lengths) if other == length]
            part = [images[row] for row in rows], [prompts[row] for row in rows]
            found.update(zip(rows, super().generate(*part, task, options), strict=True))
        return [found[row] for row in range(len(prompts))]

    def whole_output(self, ask: Ask, view: View, text: str) -> str:
        """A caption starts with the words that it was asked with."""
        return self.prompt(ask, view) + text if ask.task == "describe" else text
