"""What decides a processor's numbers and words, saved beside the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from parfocal.models.config import TokenIds
from parfocal.models.config_part import PartConfig
from parfocal.models.config_vision import VisionConfig


@dataclass(frozen=True)
class PromptTemplate(PartConfig):
    """The fixed words around pictures and turns.

    Attributes:
        opening: before the image tokens.
        between: after the image tokens, before the region slots.
        ready: after the region slots.
        user: before a question.
        assistant: before an answer.
        turn_end: after a question.
        end: after an answer.
        independent_turns: the model was trained on single turns; a chat then shows it no earlier
            ones.
        bos: the tokenizer's start token: nowhere, before everything (`once`), or before every later
            question as well (`turns`).
        first: before the first question instead of `user`, when a picture stands before it; None:
            `user`.
        separator: after an answer and its end; not learned.
        stops: more strings that end an answer.
        packing: how the turns of a sample share a row in training: in `parallel`, none seeing
            another, or in `sequence`, as a conversation.
    """

    opening: str = ""
    between: str = ""
    ready: str = ""
    user: str = ""
    assistant: str = ""
    turn_end: str = ""
    end: str = ""
    independent_turns: bool = False
    bos: Literal["none", "once", "turns"] = "none"
    first: str | None = None
    separator: str = ""
    stops: tuple[str, ...] = ()
    packing: Literal["parallel", "sequence"] = "parallel"


@dataclass(frozen=True)
class ProcessorSettings(PartConfig):
    """Everything that decides the processor's numbers, saved beside the tokenizer.

    Attributes:
        vision: how pictures enter the towers.
        dialect: key of `DIALECTS`.
        template: the fixed words around pictures and turns.
        num_image_tokens: placeholders a picture takes in the text.
        num_slots: region slots in the text.
        layout: `RegionsConfig.layout`, how a slot is written.
        token_ids: the placeholders.
        num_object_tokens: placeholders an object image takes; 0 where the model reads none.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    dialect: str = "plain"
    template: PromptTemplate = field(default_factory=PromptTemplate)
    num_image_tokens: int = 1
    num_slots: int = 0
    layout: str = "interleaved"
    token_ids: TokenIds = field(default_factory=TokenIds)
    num_object_tokens: int = 0

    def __post_init__(self) -> None:
        parts: dict[str, type[PartConfig]] = {
            "vision": VisionConfig,
            "template": PromptTemplate,
            "token_ids": TokenIds,
        }
        for name, part in parts.items():
            object.__setattr__(self, name, part.from_dict(getattr(self, name)))
        super().__post_init__()
