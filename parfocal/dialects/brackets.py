"""Dialects whose boxes follow the words in square brackets: `a dog [0.120, 0.300, 0.450, 0.800]`.

The text does not mark where a phrase starts, so reading takes the words back to the first article
or number word (failing that, to the first word) after the box or punctuation mark before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grounded import Span, Text
from parfocal.dialects.peer import Peer
from parfocal.dialects.reader import Reader, read_numbers

# A comma, semicolon or decimal point among the digits, so that "[3]" stays a citation.
_BRACKET = re.compile(r"(?<!\[)\[++(?P<body>[0-9.,;+\-\s]*+)(?P<close>\]++|\Z)")
LIKE_BOX = re.compile(r"(?<!\[)\[+(?=[^\]]*[.,;])(?=[^\]]*[0-9])[0-9.,;+\-\s]*+(?:\]|\Z)")
_CLAUSE_END = re.compile(r"[,;:!?\n]|\.(?=\s|$)")
_LEAD = re.compile(r"\s*(?:(?:and|or)\s+)?")
_ARTICLE = re.compile(
    r"\b(?:a|an|the|his|her|its|their|my|your|our|each|every|another|some|several|both|one|two|three|four|five|six|seven"
    r"|eight|nine|ten|[0-9]+)\b",
    re.IGNORECASE,
)


def phrase_start(words: str) -> int:
    """Where the phrase at the end of `words` starts; len(words) if there is none.

    >>> "Yes, I see a dog"[phrase_start("Yes, I see a dog"):]
    'a dog'
    """
    clause = max((match.end() for match in _CLAUSE_END.finditer(words)), default=0)
    if not words[clause:].strip():
        return len(words)
    start = _ARTICLE.search(words, clause)
    if start:
        return start.start()
    lead = _LEAD.match(words, clause)
    return lead.end() if lead else clause


def read_phrase(words: str, found: Sequence[Boxes], reader: Reader) -> Iterator[Span]:
    """The words before boxes, split where the phrase starts; the boxes may be none."""
    start = phrase_start(words)
    yield Text(words[:start])
    if words[start:] or found:
        yield reader.phrase(words[start:].rstrip(), found)


class Brackets(Peer):
    """A dialect with boxes in brackets; see the module.

    Attributes:
        comma: what is written between numbers.
        opening: before boxes.
        closing: after boxes.
        joiner: between boxes inside one pair of brackets; None if each box has its own.
        official: what the family's own reader takes; boxes read from anything else are noted.
    """

    comma: ClassVar[str] = ", "
    opening: ClassVar[str] = "["
    closing: ClassVar[str] = "]"
    joiner: ClassVar[str | None] = None
    official: ClassVar[re.Pattern[str]]
    markup = LIKE_BOX

    def find_markup(self, words: str) -> re.Match[str] | None:
        """The first piece that would be read as markup: lists of other numbers are words."""
        found = self.markup.finditer(words)
        return next((match for match in found if self._is_markup(match[0])), None)

    def _is_markup(self, whole: str) -> bool:
        """False for a closed bracket without as many numbers in a row as a box or point has."""
        if not LIKE_BOX.fullmatch(whole) or not whole.endswith("]"):
            return True
        rows = map(read_numbers, whole.strip("[]").split(";"))
        return any(row is not None and len(row) in self.arities for row in rows)

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """One box, without brackets where several share a pair."""
        inside = self.comma.join(numbers)
        return inside if self.joiner is not None else f"{self.opening}{inside}{self.closing}"

    def join(self, boxes: Sequence[str]) -> str:
        """Adjacent brackets, or all boxes in one pair."""
        if self.joiner is None:
            return "".join(boxes)
        return f"{self.opening}{self.joiner.join(boxes)}{self.closing}"

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Words, and phrases with the boxes after them; adjacent brackets belong to one phrase."""
        position = 0
        pending: list[re.Match[str]] = []
        for match in _BRACKET.finditer(output):
            if not re.search(r"[.,;]", match["body"]) or not re.search(r"[0-9]", match["body"]):
                continue
            if pending and output[pending[-1].end() : match.start()].strip():
                yield from self._phrase(output[position : pending[0].start()], pending, reader)
                position, pending = pending[-1].end(), []
            pending.append(match)
        if pending:
            yield from self._phrase(output[position : pending[0].start()], pending, reader)
            position = pending[-1].end()
        yield Text(output[position:])

    def _phrase(self, words: str, brackets: list[re.Match[str]], reader: Reader) -> Iterator[Span]:
        found: list[Boxes] = []
        kept: list[str] = []  # brackets that are no boxes stay readable
        for bracket in brackets:
            boxes = self._boxes(bracket, reader)
            if boxes is None:
                kept.append(bracket[0])
            else:
                found.extend(boxes)
        if kept and not found:
            yield Text(words + "".join(kept))
            return
        yield from read_phrase(words, found, reader)
        yield Text("".join(kept))

    def _boxes(self, bracket: re.Match[str], reader: Reader) -> list[Boxes] | None:
        """Boxes of one bracket, image pixels; [] if none is left, None if it holds no box."""
        whole, parts = bracket[0], bracket["body"].split(";")
        if not bracket["close"]:
            reader.note("truncated_box", f"{whole!r} ends before its bracket")
            last = read_numbers(parts[-1])
            final = re.split(r"[,\s]+", parts[-1])[-1]
            if last is None or len(last) != 4 or not self.grid.is_complete(final):
                parts.pop()  # the last number may have lost digits
        rows = [read_numbers(part) for part in parts]
        if any(row is None or len(row) not in self.arities for row in rows):
            reader.note("wrong_arity", f"{whole!r} is not four numbers")
            return None
        if bracket["close"] and not self.official.fullmatch(whole):
            reader.note("format_drift", f"{whole!r} is not spaced as the family writes boxes")
        boxes = (self.place(row, whole, reader) for row in rows)
        return [box for box in boxes if box is not None]
