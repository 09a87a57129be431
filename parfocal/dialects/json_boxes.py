"""Dialects whose boxes are JSON: `[{"bbox_2d": [147, 134, 619, 407], "label": "bowl"}]`.

An answer is a list of objects, usually in a fence; one object alone is as good. Among words a
phrase is an object in its place. Thinking is not part of an answer, and where it does not end there
is none. What a family's own reader would fail on, such as other keys or a bare list of numbers, is
read and noted. An answer that holds no box, such as code or other JSON, is words as it stands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grounded import Phrase, Span, Text
from parfocal.dialects.json_scan import Found, find_objects, walk_objects
from parfocal.dialects.listing import Item, Listing, list_spans
from parfocal.dialects.reader import Reader, read_numbers

_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
_POINT_KEYS = ("point_2d", "point")
_LABEL_KEYS = ("label", "text_content", "name", "category")

_THINKING = re.compile(r"\A(?:(?!</think>).)*+</think>\s*|\A\s*<think>.*\Z|</?answer>", re.DOTALL)
_FENCE = re.compile(r"```(?:json)?[ \t]*\n?")
_EMPTY = re.compile(r"\s*\[\s*\]\s*")
_LIST_START = re.compile(r"\[\s*\Z")
_LIST_END = re.compile(r"\s*,?\s*\](?:\s*\Z)?")
_BETWEEN = re.compile(r"[\s,\[\]]*")
_BARE = re.compile(r"\[\s*([0-9.+\-]+(?:\s*,\s*[0-9.+\-]+){3})\s*\]")
_KEYED = re.compile(rf"""["'](?:{"|".join(_BOX_KEYS)})["']\s*:\s*\[([^\[\]]*)\]""")
_ANY_KEY = rf"""["'](?:{"|".join(_BOX_KEYS + _POINT_KEYS)})["']\s*"""
_KEY = re.compile(rf"{_ANY_KEY}(?::|\Z)")  # the end: where an answer may be cut off
_MARKUP = re.compile(rf"{_ANY_KEY}:|{_BARE.pattern}")


class JsonBoxes(Listing):
    """A dialect of JSON; see the module.

    Attributes:
        box_key, point_key: what the family calls a box and a point.
        fence: what is written around a list.
        indent: what is written before each object of a list.
    """

    box_key: ClassVar[str]
    point_key: ClassVar[str]
    fence: ClassVar[tuple[str, str]] = ("```json\n", "\n```")
    indent: ClassVar[str] = "\t"
    inline = True
    has_points = True
    markup = _MARKUP

    def write_box(self, numbers: tuple[str, ...], label: str = "") -> str:
        """An object."""
        key = self.point_key if len(numbers) == 2 else self.box_key
        said = f', "label": {json.dumps(self.words(label), ensure_ascii=False)}' if label else ""
        return f'{{"{key}": [{", ".join(numbers)}]{said}}}'

    def append(self, written: str, span: Span, view: View) -> str:
        """What has been written, and one more span; a phrase with boxes is their label."""
        if not isinstance(span, Phrase) or not len(span.boxes):
            return super().append(written, span, view)
        rows = self._objects(span, view)
        return written + (rows[0] if len(rows) == 1 else f"[{', '.join(rows)}]")

    def write_list(self, phrases: Sequence[Phrase], view: View) -> str:
        """A fenced list, an object a box, with the phrase as its label."""
        rows = [self.indent + row for phrase in phrases for row in self._objects(phrase, view)]
        return f"{self.fence[0]}[\n" + ",\n".join(rows) + f"\n]{self.fence[1]}"

    def write_nothing(self, phrase: str) -> str:
        """An empty list."""
        return f"{self.fence[0]}[]{self.fence[1]}"

    def says_none(self, output: str) -> bool:
        """True for an empty list, and for the word."""
        bare = _FENCE.sub("", _THINKING.sub("", output))
        return _EMPTY.fullmatch(bare) is not None or super().says_none(bare)

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Words and labelled boxes, in order."""
        whole = _THINKING.sub("", output)
        output = _FENCE.sub("", whole)
        found, opened = find_objects(output) if _KEY.search(output) else ([], [])
        found = [item for item in found if _KEY.search(output, item.start, item.end)]
        if not found and not opened:
            yield from self._without_objects(whole, reader)
            return
        if not found:
            yield from self._cut_object(output, opened[0], reader)
            return
        after = [place for place in opened if place >= found[-1].end]
        end = min(after, default=found[-1].end if opened else len(output))
        position, listed = 0, False
        for group in _runs(output, found):
            # What wraps a list and is not closed is not words.
            start = min([group[0].start, *(place for place in opened if place >= position)])
            before, begins = _strip(_LIST_START, output[position:start])
            yield Text(before if before.strip() or position else "")
            items = [item for part in group for item in self._items(part, output, reader)]
            yield from list_spans(items, reader)
            closing = _LIST_END.match(output, group[-1].end, end)
            position = closing.end() if closing else group[-1].end
            listed = begins and not closing
        if opened or listed:
            reader.note("truncated_json", f"the list is cut off after {output[-40:]!r}")
        rest = output[position:end]
        yield Text("" if _BETWEEN.fullmatch(rest) else rest)

    def _without_objects(self, output: str, reader: Reader) -> Iterator[Span]:
        """Words as they are; lists of four numbers among them are boxes where they can be."""
        matches = list(_BARE.finditer(output))
        found = [self.place(read_numbers(match[1]), match[0], reader) for match in matches]
        if all(box is None for box in found):
            yield Text(output)
            return
        position = 0
        for match, box in zip(matches, found, strict=True):
            yield Text(_FENCE.sub("", output[position : match.start()]))
            if box is None:
                yield Text(match[0])
            else:
                reader.note_once("format_drift", f"{match[0]!r} is a box in no object")
                yield Phrase("", box)
            position = match.end()
        yield Text(_FENCE.sub("", output[position:]))

    def _cut_object(self, output: str, opened: int, reader: Reader) -> Iterator[Span]:
        """Words, and boxes of an object that opens there and is not closed."""
        words, _ = _strip(_LIST_START, output[:opened])
        reader.note("truncated_json", f"the list is cut off after {output[-40:]!r}")
        yield Text(words)
        yield from list_spans(self._keyed(output[len(words) :], reader), reader)

    def _items(self, part: Found, output: str, reader: Reader) -> Iterator[Item]:
        """Labelled boxes of one object, in image pixels."""
        whole = output[part.start : part.end]
        if part.value is None:
            reader.note("format_drift", f"{whole[:200]!r} is not JSON, only its numbers are read")
            yield from self._keyed(whole, reader)
            return
        for value in walk_objects(part.value):
            for key in (*_BOX_KEYS, *_POINT_KEYS):
                if key in value:
                    yield _label(value), self._values(key, value[key], reader)

    def _keyed(self, text: str, reader: Reader) -> Iterator[Item]:
        """Boxes behind their keys, where nothing else can be read."""
        for match in _KEYED.finditer(text):
            box = self.place(read_numbers(match[1]), match[0], reader)
            yield "", [] if box is None else [box]

    def _values(self, key: str, value: Any, reader: Reader) -> list[Boxes]:
        whole = json.dumps({key: value}, ensure_ascii=False)[:200]
        if key not in (self.box_key, self.point_key):
            reader.note("format_drift", f"{key!r} stands for {self.box_key!r}")
        rows = (
            value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
        )
        arity = 2 if key in _POINT_KEYS else 4
        found = []
        for row in rows:
            numbers = _numbers(row)
            if numbers is None or len(numbers) != arity:
                reader.note("wrong_arity", f"{whole} is not {arity} numbers")
                continue
            box = self.place(numbers, whole, reader)
            found.extend([] if box is None else [box])
        return found

    def _objects(self, phrase: Phrase, view: View) -> list[str]:
        rows = dict.fromkeys(self.encode(phrase.boxes, view))
        return [self.write_box(numbers, phrase.text) for numbers in rows]


def _strip(pattern: re.Pattern[str], text: str) -> tuple[str, bool]:
    """The text without what the pattern finds at its edge, and whether it found something."""
    stripped, count = pattern.subn("", text, count=1)
    return stripped, count > 0


def _runs(output: str, found: Sequence[Found]) -> Iterator[list[Found]]:
    """Objects with nothing but commas, blanks and brackets between them, together."""
    run = [found[0]]
    for item in found[1:]:
        if _BETWEEN.fullmatch(output, run[-1].end, item.start):
            run.append(item)
        else:
            yield run
            run = [item]
    yield run


def _label(value: Mapping[str, Any]) -> str:
    label = next((value[key] for key in _LABEL_KEYS if value.get(key) is not None), "")
    return label.strip() if isinstance(label, str) else json.dumps(label, ensure_ascii=False)


def _numbers(row: Any) -> list[float] | None:
    """Finite numbers of a JSON list; None for anything else."""
    if not isinstance(row, list):
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in row):
        return None
    try:
        numbers = [float(v) for v in row]
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
