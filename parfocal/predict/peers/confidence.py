"""How sure a model was of a box: the probabilities of the tokens that write its numbers.

The confidence of a box is the geometric mean of those probabilities, so that families that write a
coordinate as one token and as four digits are comparable. It says how firmly the model chose the
numbers, not how likely the thing is there, and is not calibrated.

Shapes: B rows, N new tokens, V the vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import LogitsProcessor

from parfocal.boxes import Boxes
from parfocal.dialects.base import Dialect, View
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.predict.peers.forms import BOX_FORMS, BoxForm


class TokenProbabilities(LogitsProcessor):
    """Keeps the probability that each chosen token had, without keeping any other.

    Rows must stay in place from step to step: greedy search and sampling, not beams.
    """

    def __init__(self) -> None:
        self._logs: list[Tensor] = []
        self._last: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Look up the token that the last step chose; change nothing.

        Args:
            input_ids: int[B, L], all tokens so far.
            scores: float[B, V].
        """
        self._take(input_ids)
        self._last = scores.float().log_softmax(dim=-1)
        return scores

    def of(self, sequences: Tensor) -> Tensor | None:
        """Probabilities float[B, N] of the new tokens of the finished int[B, L]; None if none."""
        self._take(sequences)
        self._last = None
        return torch.stack(self._logs, dim=-1).exp() if self._logs else None

    def _take(self, input_ids: Tensor) -> None:
        if self._last is not None:
            self._logs.append(self._last.gather(-1, input_ids[:, -1:])[:, 0])


@dataclass(frozen=True)
class Said:
    """What a model wrote in one row.

    Attributes:
        text: decoded, without its end token.
        ended: it had one.
        tokens: ids of `text`.
        probabilities: of the tokens; empty where they are not known.
        decode: ids -> text.
        complete: it is not cut off: it had its end token, or one that completes its task.
    """

    text: str
    ended: bool = False
    tokens: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    decode: Callable[[Sequence[int]], str] = field(default=lambda ids: "", compare=False)
    complete: bool = True

    def token_spans(self) -> list[tuple[int, int]]:
        """First and past-the-last character of each token in `text`."""
        ends = [len(self.decode(self.tokens[:count])) for count in range(1, len(self.tokens) + 1)]
        return list(zip([0, *ends[:-1]], ends, strict=True))


def score_boxes(text: GroundedText, said: Said, dialect: Dialect, view: View) -> GroundedText:
    """Give the boxes of a parsed output their confidences.

    A box that is said twice has the confidence of its first mention. Phrases with a box whose
    tokens are not found keep their boxes without scores.
    """
    form = BOX_FORMS.get(dialect.name)
    if not said.probabilities or not text.phrases or form is None:
        return text
    found = _confidences(said, form, dialect, view)
    spans = []
    for span in text.spans:
        rows = [row.tobytes() for row in span.boxes.xyxy] if isinstance(span, Phrase) else []
        if isinstance(span, Phrase) and rows and all(row in found for row in rows):
            span = Phrase(span.text, span.boxes.replace(scores=[found[row] for row in rows]))
        spans.append(span)
    return GroundedText(tuple(spans))


def _confidences(said: Said, form: BoxForm, dialect: Dialect, view: View) -> dict[bytes, float]:
    """Confidence by the corners of a box, pixels of the picture."""
    matches = list(form.pattern.finditer(said.text))
    token_spans = said.token_spans() if matches else []
    found: dict[bytes, float] = {}
    for match in matches:
        first, last = match.span(1)
        chosen = [
            probability
            for (start, end), probability in zip(token_spans, said.probabilities, strict=True)
            if start < last and end > first and re.search(r"\d", said.text[start:end])
        ]
        for boxes in _boxes(form.around[0] + match[0] + form.around[1], dialect, view):
            if chosen:
                found.setdefault(boxes.xyxy[0].tobytes(), geometric_mean(chosen))
    return found


def _boxes(output: str, dialect: Dialect, view: View) -> list[Boxes]:
    """The boxes of an output, one by one."""
    phrases = dialect.parse(output, view).text.phrases
    return [boxes for phrase in phrases for boxes in phrase.boxes]


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of probabilities.

    >>> round(geometric_mean([0.5, 0.125]), 6)
    0.25
    """
    tiny = math.ulp(0.0)
    return math.exp(sum(math.log(max(value, tiny)) for value in values) / len(values))
