"""Wordings: the sentences of a task, as data files in `templates/`, with slots for what varies.

A file is `{"version": 1, "source": "...", "wordings": {"question": ["Where is {phrase}?", ...]}}`.
It is read strictly: a view says which lists it needs and which slots their sentences have, and
every sentence has each slot exactly once. What is filled in stays a span, so no sentence ever holds
a box or a model's markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from parfocal.dialects.grounded import GroundedText, Span
from parfocal.errors import DataError

FOLDER = Path(__file__).parent / "templates"
_SLOT = re.compile(r"\{([a-z_]+)\}")
_FIELDS = ("source", "version", "wordings")

Slots = Mapping[str, tuple[str, ...]]  # name of a list -> the slots of each of its sentences
Wordings = dict[str, tuple["Wording", ...]]


@dataclass(frozen=True)
class Wording:
    """A sentence with slots.

    Example:
        >>> from parfocal.dialects import Phrase
        >>> Wording("Where is {phrase}?").fill(phrase=Phrase("the dog")).plain
        'Where is the dog?'
    """

    text: str

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots, in order."""
        return tuple(_SLOT.findall(self.text))

    def fill(self, **values: str | Span | GroundedText) -> GroundedText:
        """The sentence as grounded text.

        Args:
            values: what stands in each slot.
        """
        spans: list[str | Span] = []
        for index, piece in enumerate(_SLOT.split(self.text)):
            value = values[piece] if index % 2 else piece
            spans += value.spans if isinstance(value, GroundedText) else (value,)
        return GroundedText.of(*spans)


def read_wordings(name: str, slots: Slots) -> Wordings:
    """Read the sentences of a task.

    Args:
        name: of a file in `templates/`, or the path of a file of one's own, ending in ".json".
        slots: the lists that the file must have, and the slots of their sentences.

    Raises:
        DataError: if the file is not there, or anything in it is not as it must be.
    """
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    found = _read_file(path)
    if set(found) != set(slots):
        raise DataError(
            f"{path} has the lists {', '.join(sorted(found)) or 'none'}; this view needs exactly "
            f"{', '.join(sorted(slots))}."
        )
    for key, wordings in found.items():
        for wording in wordings:
            if sorted(wording.slots) != sorted(slots[key]):
                needed = ", ".join(f"{{{slot}}}" for slot in slots[key]) or "no slot"
                raise DataError(
                    f"{path}: {wording.text!r} of {key!r} must have {needed}, each exactly once."
                )
    return found


@cache
def _read_file(path: Path) -> Wordings:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as err:
        shipped = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise DataError(
            f"{path} does not exist. Name one of {shipped}, or the path of a .json file."
        ) from err
    except ValueError as err:
        raise DataError(f"{path} is not JSON in UTF-8: {err}") from err
    problem = next(_problems(content), None)
    if problem:
        raise DataError(f"{path}: {problem}. See {FOLDER / 'groma_rec.json'} for the form.")
    return {key: tuple(map(Wording, texts)) for key, texts in content["wordings"].items()}


def _problems(content: Any) -> Iterator[str]:
    """What is wrong with the form of a file."""
    if not isinstance(content, dict) or sorted(content) != sorted(_FIELDS):
        yield f"it must be an object with exactly {', '.join(_FIELDS)}"
        return
    version, source, lists = content["version"], content["source"], content["wordings"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        yield f"version is {version!r}, must be a whole number from 1"
    if not isinstance(source, str) or not source.strip():
        yield f"source is {source!r}, must say where the sentences come from"
    if not isinstance(lists, dict) or not lists:
        yield "wordings must be an object of lists"
        return
    for key, texts in lists.items():
        if isinstance(texts, list) and texts:
            yield from _sentence_problems(texts, f"wordings.{key}")
        else:
            yield f"wordings.{key} must be a list of sentences"


def _sentence_problems(texts: list[Any], at: str) -> Iterator[str]:
    for index, text in enumerate(texts):
        here = f"{at}[{index}] is {text!r}"
        if not isinstance(text, str) or not text.strip():
            yield f"{here}, must be a sentence"
        elif re.search(r"[{}]", _SLOT.sub("", text)):
            yield f"{here} and has a brace that is no slot; slots are {{lower_case}}"
        elif text in texts[:index]:
            yield f"{here} for the second time"
