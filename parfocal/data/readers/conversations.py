"""LLaVA-style conversations: from the turns as they were collected to questions with answers.

The marks `<image>` and `<video>` say that there is a picture, which a Sample says itself, so they
are taken out of the words, wherever people put them. Nothing else in the words is touched.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from parfocal.errors import DataError

_ASKS, _ANSWERS, _SYSTEM = "human", "gpt", "system"
_ROLES = {
    "human": _ASKS, "user": _ASKS, "gpt": _ANSWERS, "assistant": _ANSWERS, "system": _SYSTEM
}  # fmt: skip
_MARKS = re.compile(r"\s*(?:<(?:image|video)>\s*)+")


@dataclass
class Conversation:
    """Questions and their answers, in order.

    Attributes:
        rounds: (question, answer); the first question may be "", where all that was asked was the
            picture itself.
        dropped: what was left out, by reason.
    """

    rounds: list[tuple[str, str]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def read_conversation(turns: object, shown: bool, where: str) -> Conversation:
    r"""Pair questions and answers up.

    Answers before the first question are dropped, as ShareGPT's rows begin with some; so are
    questions without an answer, rounds whose answer is empty, and what the system says. Several
    turns of one side in a row are one turn of several lines.

    Args:
        turns: `conversations` of a row: [{"from": "human", "value": "..."}, ...].
        shown: the row has a picture or video, so that marks in questions stand for it; in a row of
            words alone `<image>` is a word like any other.
        where: file and row, for error messages.

    Raises:
        DataError: if this is no list of such turns.

    >>> said = [{"from": "human", "value": "Is\n<image>\nit?"}, {"from": "gpt", "value": "No"}]
    >>> read_conversation(said, True, "a.json: row 0").rounds
    [('Is\nit?', 'No')]
    """
    found = Conversation()
    asked: list[str] = []
    for side, words in _turns(turns, where):
        if side == _SYSTEM:
            found.dropped["system turns"] += 1
        elif side == _ASKS:
            asked.append(without_marks(words) if shown else words.strip())
        else:
            _answer(found, asked, words.strip())
            asked = []
    found.dropped["questions without an answer"] += bool(asked)
    empty = [index for index, (_, answer) in enumerate(found.rounds) if not answer]
    found.dropped["questions with an empty answer"] += len(empty)
    found.rounds = [pair for index, pair in enumerate(found.rounds) if index not in empty]
    return found


def without_marks(words: str) -> str:
    r"""Take `<image>` and `<video>` out of words, with the blanks around them.

    >>> without_marks("<image>\nWhat?"), without_marks("Look at <image> and tell.")
    ('What?', 'Look at and tell.')
    """
    return _MARKS.sub(_gap, words).strip()


def _gap(match: re.Match[str]) -> str:
    if "\n" in match[0]:
        return "\n"
    return " " if any(map(str.isspace, match[0])) else ""


def _answer(found: Conversation, asked: list[str], words: str) -> None:
    """Note an answer to what was asked since the last one, which may be nothing."""
    question = "\n".join(filter(None, asked))
    if asked and (question or not found.rounds):
        found.rounds.append((question, words))
    elif found.rounds:
        before, answer = found.rounds[-1]
        found.rounds[-1] = (before, "\n".join(filter(None, (answer, words))))
    else:
        found.dropped["answers before the first question"] += 1


def _turns(turns: object, where: str) -> list[tuple[str, str]]:
    if not isinstance(turns, list):
        raise DataError(f"{where} has no list `conversations`. Is it a LLaVA-style file?")
    return [_turn(turn, f"{where}: turn {number}") for number, turn in enumerate(turns)]


def _turn(turn: Any, where: str) -> tuple[str, str]:
    side = turn.get("from") if isinstance(turn, dict) else None
    if not isinstance(side, str) or side not in _ROLES:
        raise DataError(f"{where} is from {side!r}, must be from one of {', '.join(_ROLES)}.")
    words = turn.get("value")
    if not isinstance(words, str):
        raise DataError(f"{where} has the value {words!r}, must be text.")
    return _ROLES[side], words
