"""The text of a batch: a Sample as a row of tokens with labels, and rows as padded tensors.

Shapes: B Samples, L tokens, U user boxes, G boxes of answers, K object images, S input side, R rows
that Samples share, M tokens of these.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from parfocal.boxes import Boxes
from parfocal.data.sample import Sample
from parfocal.dialects import Dialect, View
from parfocal.errors import DataError, DialectError
from parfocal.models.objects import check_objects
from parfocal.models.packing import row_places
from parfocal.models.prompts import Prompt

logger = logging.getLogger(__name__)

IGNORED = -100


@dataclass
class TextBatch:
    """Tokens of a batch.

    Attributes:
        input_ids: int[B, L].
        attention_mask: int[B, L], 0 at padding.
        user_boxes: float[B, U, 4], cxcywh in the unit frame of the model's square input, padded; a
            row a picture, where rows have other numbers of pictures than one.
        user_mask: bool[B, U], False in padding.
        labels: int[B, L], -100 where nothing is learned; None when asking.
        turn: int[B, L], 0 in the prefix all turns share, k in the k-th question and answer, -1 in
            padding; None when asking.
        ground_boxes: float[B, G, 4], the boxes behind `<ground_box>` in order of appearance, in the
            same frame, of each row's first picture; None when asking.
        ground_mask: bool[B, G], False in padding; None when asking.
        object_pixels: one float[B, K, 3, S, S] a tower, the object images that each row shows, in
            order of appearance, padded; None where no row shows any.
        object_mask: bool[B, K], False in padding; likewise.
        places: int[R, M], what the rows hold that the language model reads, where Samples share
            them: indices into the flattened [B, L], -1 in padding. None: a row a Sample.
    """

    input_ids: Tensor
    attention_mask: Tensor
    user_boxes: Tensor
    user_mask: Tensor
    labels: Tensor | None = None
    turn: Tensor | None = None
    ground_boxes: Tensor | None = None
    ground_mask: Tensor | None = None
    object_pixels: list[Tensor] | None = None
    object_mask: Tensor | None = None
    places: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TextBatch:
        """Return the same batch on another device."""

        def move(value: Any) -> Any:
            if isinstance(value, list):
                return [move(item) for item in value]
            return None if value is None else value.to(device, non_blocking=non_blocking)

        return TextBatch(**{item.name: move(getattr(self, item.name)) for item in fields(self)})


@dataclass
class TextRow:
    """A Sample as the language model learns from it.

    Attributes:
        ids: tokens.
        labels: of each token, -100 where nothing is learned.
        turn: of each token, 0 in the prefix.
        boxes: behind `<ground_box>` in order of appearance, pixels of the first picture.
        written: all questions, in the dialect.
    """

    ids: list[int]
    labels: list[int]
    turn: list[int]
    boxes: Boxes
    written: str = ""

    def add(self, asked: list[int], said: list[int], after: list[int], turn: int) -> None:
        """Append a question, its answer, which is learned, and what stands after it."""
        self.ids += asked + said + after
        self.labels += [IGNORED] * len(asked) + said + [IGNORED] * len(after)
        self.turn += [turn] * (len(asked) + len(said) + len(after))


class UnwritableError(DialectError):
    """The words of a sample cannot be written in the model's dialect.

    Attributes:
        sample: the one.
    """

    def __init__(self, message: str, sample: Sample | None = None) -> None:
        super().__init__(message)  # a process that loads data can send no more
        self.sample = sample


def text_row(
    sample: Sample,
    view: View,
    pictures: int,
    room: int,
    *,
    prompt: Prompt,
    dialect: Dialect,
) -> TextRow:
    """Write a Sample as a row: the prefix, then each question with its answer.

    Args:
        sample: questions and answers in turn.
        view: of its first picture, with the regions that its words name.
        pictures: how many it shows.
        room: most tokens behind the prefix: turns that do not fit are left out; of the first one,
            the answer is cut if the question fits.
        prompt: lays it out.
        dialect: writes its words.

    Raises:
        DataError: for a sample whose turns are not question, answer, question, answer.
        DialectError: for object images where they cannot stand.
        UnwritableError: for words that the dialect would read as markup, or boxes that it cannot
            write.
    """
    ids = prompt.prefix(pictures)
    row = TextRow(ids, [IGNORED] * len(ids), [0] * len(ids), Boxes.empty(view.image))
    ground, fits = [row.boxes], True
    parallel = prompt.settings.template.packing == "parallel"
    _check_turns(sample)
    for number in range(0, len(sample.turns), 2):
        question, answer = sample.turns[number].text, sample.turns[number + 1].text
        check_objects(question, readable=prompt.settings.num_object_tokens > 0)
        check_objects(answer, readable=False)
        try:
            asking, answering = dialect.render(question, view), dialect.render(answer, view)
        except DialectError as err:
            raise UnwritableError(f"sample {sample.id!r}, turn {number}: {err}", sample) from err
        asked = prompt.question(asking, number // 2, pictures)
        said, after = prompt.answer(answering)
        fits = len(asked) + len(said) + len(after) <= room
        if not fits:
            logger.info("%s: turn %d and what follows is too long", sample.id, number)
            if number or len(asked) >= room:
                break
            said, after = said[: room - len(asked)], []
        room -= len(asked) + len(said) + len(after)
        row.written += asking
        row.add(asked, said, after, number // 2 + 1 if parallel else 1)
        ground += [
            phrase.boxes.replace(scores=None, labels=None)
            for phrase in (*question.phrases, *answer.phrases)
            if len(phrase.boxes)
        ]
        if not fits:
            break
    row.boxes = Boxes.concat(ground)
    if not fits:  # a cut answer names fewer boxes than it had
        row.boxes = row.boxes[: row.ids.count(prompt.settings.token_ids.ground_box)]
    return row


def _check_turns(sample: Sample) -> None:
    if len(sample.turns) % 2:
        raise DataError(
            f"sample {sample.id!r} has {len(sample.turns)} turns; "
            "questions and answers must alternate."
        )
    for number in range(0, len(sample.turns), 2):
        roles = (sample.turns[number].role, sample.turns[number + 1].role)
        if roles != ("user", "assistant"):
            raise DataError(
                f"sample {sample.id!r}, turn {number}: "
                "expected a user's turn and an assistant's after it."
            )


def padded(rows: Sequence[TextRow], pad: int, row_length: int = 0) -> dict[str, Any]:
    """Return the fields of a `TextBatch` that are one value a token.

    Args:
        rows: one or more.
        pad: token of padding.
        row_length: tokens up to which rows share one, see `share_rows`; 0: none do.
    """
    lengths = [len(row.ids) for row in rows]
    spare = [max(lengths) - length for length in lengths]
    input_ids, labels, turn = (
        torch.tensor([own + [fill] * free for own, free in zip(column, spare, strict=True)])
        for column, fill in (
            ([row.ids for row in rows], pad),
            ([row.labels for row in rows], IGNORED),
            ([row.turn for row in rows], -1),
        )
    )
    return {
        "input_ids": input_ids,
        "attention_mask": (turn >= 0).long(),
        "labels": labels,
        "turn": turn,
        "places": row_places(lengths, row_length) if row_length else None,
    }
