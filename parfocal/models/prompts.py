"""The fixed words around pictures and turns as tokens: the one place that lays out a prompt."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from parfocal.models.objects import expand
from parfocal.models.settings import ProcessorSettings


class Prompt:
    """A template as a tokenizer writes it.

    Args:
        tokenizer: holds the dialect's tokens and the template's marks.
        settings: of the model it serves.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: ProcessorSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings

    def prefix(self, pictures: int = 1) -> list[int]:
        """Return the tokens a conversation starts with: opening, image tokens, region slots.

        Args:
            pictures: how many, one after the other with their slots; without any, only the
                tokenizer's start token is left, where the template has it.
        """
        settings, ids = self.settings, self.settings.token_ids
        row = [] if settings.template.bos == "none" else self._bos()
        if not pictures:
            return row
        row += self.ids(settings.template.opening)
        between, slots = self.ids(settings.template.between), []
        for slot in range(settings.num_slots):
            name = [ids.first_region + slot] if settings.layout == "interleaved" else []
            slots += [*name, ids.region]
        row += ([ids.image] * settings.num_image_tokens + between + slots) * pictures
        return row + self.ids(settings.template.ready)

    def question(self, text: str, number: int = 0, pictures: int = 1) -> list[int]:
        """Tokenise question `number` of a conversation, counting from 0.

        Args:
            text: in the dialect.
            number: which one it is.
            pictures: how many stand before the conversation.
        """
        template, user = self.settings.template, self.settings.template.user
        if number == 0 and pictures and template.first is not None:
            user = template.first
        start = self._bos() if number and template.bos == "turns" else []
        whole = user + text + template.turn_end + template.assistant
        if not self.settings.num_object_tokens:
            return start + self.ids(whole)
        places = [self.settings.token_ids.object] * self.settings.num_object_tokens
        return start + expand(whole, self.ids, places)

    def answer(self, text: str) -> tuple[list[int], list[int]]:
        """Return an answer with its end, and what stands between it and the next question."""
        template = self.settings.template
        return self.ids(text + template.end), self.ids(template.separator)

    def ids(self, text: str) -> list[int]:
        """Tokenise words and markup, nothing added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def _bos(self) -> list[int]:
        token = self.tokenizer.bos_token_id
        return [] if token is None else [token]
