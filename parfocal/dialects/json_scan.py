"""Finding JSON objects in what a model wrote: among prose, cut off, or in Python's style.

One pass over the text, so that long and broken outputs cost no more than good ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MARK = re.compile(r"""\{(?=\s*["'}])|\}|["']""")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"|' + r"'(?:[^'\\]|\\.)*+'", re.DOTALL)
_LITERALS = {"True": "true", "False": "false", "None": "null"}
_LITERAL = re.compile(r"\b(?:True|False|None)\b")
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


@dataclass(frozen=True)
class Found:
    """One outermost complete object.

    Attributes:
        start, end: where it stands.
        value: what it holds; None if it is balanced but not readable.
    """

    start: int
    end: int
    value: Mapping[str, Any] | None


def find_objects(text: str) -> tuple[list[Found], list[int]]:
    """Complete objects of a text, in order, and where objects start that the text does not close.

    Complete objects inside an open one are found.

    >>> found, opened = find_objects('see [{"a": 1}, {"a": 2')
    >>> found[0].value, opened
    ({'a': 1}, [15])
    """
    spans: list[tuple[int, int]] = []
    stack: list[int] = []
    position = 0
    while mark := _MARK.search(text, position):
        position = mark.end()
        if mark[0] == "{":
            stack.append(mark.start())
        elif mark[0] == "}" and stack:
            start = stack.pop()
            while spans and spans[-1][0] > start:
                spans.pop()  # inside this one
            spans.append((start, mark.end()))
        elif mark[0] != "}" and stack:
            string = _STRING.match(text, mark.start())
            if string is None:
                break  # a string without an end
            position = string.end()
    found = [Found(start, end, _load(text[start:end])) for start, end in spans]
    return found, stack


def walk_objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """An object and all objects inside it, from the outside in, in order.

    >>> [list(part) for part in walk_objects({"items": [{"a": 1}, {"b": 2}]})]
    [['items'], ['a'], ['b']]
    """
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
            waiting.extend(reversed(list(part.values())))
        elif isinstance(part, list):
            waiting.extend(reversed(part))


def _load(text: str) -> Mapping[str, Any] | None:
    """An object in JSON or Python style; None if it is neither."""
    for candidate in (text, _as_json(text)):
        try:
            value = json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, Mapping) else None
    return None


def _as_json(text: str) -> str:
    """Python's quotes and names as JSON's, and no commas before closing brackets."""
    parts, position = [], 0
    for string in _STRING.finditer(text):
        parts.append(_plain_json(text[position : string.start()]))
        inside = string[0]
        if inside[0] == "'":
            inside = json.dumps(inside[1:-1].replace("\\'", "'"), ensure_ascii=False)
        parts.append(inside)
        position = string.end()
    parts.append(_plain_json(text[position:]))
    return "".join(parts)


def _plain_json(text: str) -> str:
    text = _LITERAL.sub(lambda match: _LITERALS[match[0]], text)
    return _TRAILING_COMMA.sub(r"\1", text)
