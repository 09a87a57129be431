"""Dialects that mark phrases and boxes: `<ref>a dog</ref><box>[[243, 469, 558, 746]]</box>`.

A phrase stands between two tags, the boxes follow it, in one group for all of them or a group a
box. Decoders that skip special tokens take the tags away; what is left of a box is then read after
bare words, as in `brackets`.

Blanks at the start of a marked phrase belong to the words before it: some families write
`and<ref> her dog</ref>`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.brackets import read_phrase
from parfocal.dialects.grounded import Nothing, Phrase, Span, Text
from parfocal.dialects.peer import Peer
from parfocal.dialects.reader import Reader


class Tags:
    """The marks of a family, as one pattern.

    Args:
        phrase: the tags around a phrase.
        box: the tags around a group of boxes; ("", "") if a group has none.
        bare: pattern of a group that has lost its tags, or never has any.
        between: pattern of what may stand between the groups of one phrase.
        open_ended: questions may end in the tag that opens a group, for the answer to go on.
    """

    def __init__(
        self,
        phrase: tuple[str, str],
        box: tuple[str, str],
        bare: str,
        between: str = r"\s*",
        open_ended: bool = False,
    ) -> None:
        self.phrase, self.box = phrase, box
        p_open, p_close, b_open, b_close = map(re.escape, (*phrase, *box))
        any_tag = "|".join(filter(None, (p_open, p_close, b_open, b_close)))
        inside = rf"(?:(?!{any_tag}).)*+"
        group = rf"{b_open}{inside}(?:{b_close})?+" if b_open else bare
        # Possessive quantifiers (*+, ?+) never go back, so that reading stays linear.
        self.unit = re.compile(
            rf"(?:{p_open}(?P<phrase>{inside}){p_close}\s*+(?={group}))?+"
            rf"(?P<groups>{group}(?:{between}{group})*+)"
            rf"|{p_open}(?P<alone>{inside})(?P<end>{p_close}|\Z)"
            rf"|(?P<bare>{bare})(?:\s*{b_close})?+"
            rf"|(?P<stray>{any_tag})",
            re.DOTALL,
        )
        self.group = re.compile(group, re.DOTALL)
        at_end = rf"(?!{b_open}\Z)" if open_ended else ""
        self.markup = re.compile(rf"{at_end}(?:{any_tag}|{bare})", re.DOTALL)

    def unwrap(self, group: str) -> tuple[str, bool]:
        """What is inside a group, and whether the group is closed."""
        opening, closing = self.box
        inside = group.removeprefix(opening)
        closed = not closing or inside.endswith(closing)
        return (inside.removesuffix(closing) if closing else inside), closed


class Tagged(Peer):
    """A dialect with marked phrases; see the module.

    Attributes:
        tags: the family's marks.
        prefix: what an output may start with, taken away before it is read.
        blank_inside: the blank before a phrase is written inside its tag.
        leading_blank: so is one at the very start, where there is none to move.
    """

    tags: ClassVar[Tags]
    prefix: ClassVar[str] = ""
    leading_blank: ClassVar[bool] = False
    blank_inside: ClassVar[bool] = False

    @abstractmethod
    def read_group(
        self, inside: str, whole: str, cut: bool, reader: Reader, view: View
    ) -> list[Boxes] | None:
        """Boxes of one group, image pixels; None if it says that there is none.

        Args:
            inside: the group without its tags.
            whole: the group, for problems.
            cut: True if the output ends inside the group.
            reader: takes numbers and problems.
            view: of the forward pass.
        """

    def write_phrase(self, words: str, boxes: str) -> str:
        """The phrase between its tags, if it has words, and its boxes."""
        if not words:
            return boxes
        opening, closing = self.tags.phrase
        return f"{opening}{words}{closing}{boxes}"

    def append(self, written: str, span: Span, view: View) -> str:
        """What has been written, and one more span; blanks move into a phrase where that is usual.

        Outer blanks of a phrase are not written.
        """
        if not isinstance(span, Phrase) or not span.text.strip():
            return super().append(written, span, view)
        blank = ""
        if self.blank_inside and written.endswith(" "):
            written, blank = written[:-1], " "
        elif self.leading_blank and written in ("", self.prefix):
            blank = " "
        boxes = self.write_boxes(span.boxes, view) if len(span.boxes) else ""
        return written + self.write_phrase(blank + self.words(span.text.strip()), boxes)

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Words, phrases and their boxes, in order."""
        if self.prefix and output.lstrip().startswith(self.prefix):
            output = output.lstrip().removeprefix(self.prefix).lstrip()
        position = 0
        for match in self.tags.unit.finditer(output):
            words = output[position : match.start()]
            position = match.end()
            if match["bare"] is None:
                phrase, before = match["phrase"] or match["alone"] or "", match.start() - 1
                parted = before < 0 or output[before].isspace() or not phrase[:1].isspace()
                yield Text(words if parted else words + " ")
            yield from self._unit(match, words, reader, view)
        yield Text(output[position:])

    def _unit(self, match: re.Match[str], words: str, reader: Reader, view: View) -> Iterator[Span]:
        """Spans of one piece of markup; `words` come before it."""
        if match["stray"]:
            reader.note("format_drift", f"{match[0]!r} stands alone and is left out")
        elif match["bare"]:
            found = self.read_group(match["bare"], match["bare"], False, reader, view)
            if found:
                yield from read_phrase(words, found, reader)
            else:
                yield Text(words + match["bare"])  # no box, such as "[1, 2, 3]", stays readable
        elif match["groups"]:
            yield from self._groups(match, reader, view)
        else:
            if not match["end"]:
                reader.note("truncated_box", f"{match[0]!r} ends inside the phrase")
            if match["alone"].strip():
                yield Phrase(match["alone"].strip())

    def _groups(self, match: re.Match[str], reader: Reader, view: View) -> Iterator[Span]:
        text = (match["phrase"] or "").strip()
        found: list[Boxes] = []
        for group in self.tags.group.finditer(match.string, *match.span("groups")):
            inside, closed = self.tags.unwrap(group[0])
            cut = not closed and not match.string[group.end() :].strip()
            if not closed:
                kind = "truncated_box" if cut else "format_drift"
                reader.note(kind, f"{group[0]!r} lacks its {self.tags.box[1]}")
            boxes = self.read_group(inside, group[0], cut, reader, view)
            if boxes is None:
                yield Nothing(text)
                return
            found.extend(boxes)
        if text or found:
            yield reader.phrase(text, found)
