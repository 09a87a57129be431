"""Dialects whose grounded answer is a list: items of a label and its boxes, without words between.

Reading gives a phrase an item, neighbours of the same label as one, with ", " between so that the
text can be read. Writing takes phrases and such separators; words between grounded phrases have no
place in a list.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, Span, Text
from parfocal.dialects.peer import Peer
from parfocal.dialects.reader import Reader
from parfocal.errors import DialectError

SEPARATOR = ", "
_SEPARATOR = re.compile(r"\s*+[,;]?\s*+(?:and\s+)?+\.?\s*+")

Item = tuple[str, list[Boxes]]  # label, boxes in image pixels


def list_spans(items: Iterable[Item], reader: Reader) -> Iterator[Span]:
    """Phrases of a list, equal neighbours as one."""
    for index, (label, group) in enumerate(groupby(items, key=lambda item: item[0])):
        if index:
            yield Text(SEPARATOR)
        phrase = reader.phrase(label, [box for _, boxes in group for box in boxes])
        if label or len(phrase.boxes):
            yield phrase


def listed(text: GroundedText) -> list[Phrase] | None:
    """The phrases of a text that is nothing but a list of grounded phrases; None for any other."""
    if not any(isinstance(span, Phrase | Nothing) for span in text.spans):
        return None
    phrases = []
    for span in text.spans:
        if isinstance(span, Phrase) and len(span.boxes):
            phrases.append(span)
        elif not isinstance(span, Nothing) and not (
            isinstance(span, Text) and _SEPARATOR.fullmatch(span.text)
        ):
            return None
    return phrases


class Listing(Peer):
    """A dialect of lists; see the module.

    Attributes:
        inline: boxes among words have a form too.
    """

    inline: ClassVar[bool] = False

    @abstractmethod
    def write_list(self, phrases: Sequence[Phrase], view: View) -> str:
        """The list of one or more phrases with boxes."""

    def render(self, text: GroundedText, view: View) -> str:
        """Write a list of grounded phrases, or words; see `Peer.render`.

        Raises:
            DialectError: also if words stand between grounded phrases and the family has no form
                for that.
        """
        phrases = listed(text)
        if phrases is not None:
            return self.write_list(phrases, view) if phrases else self.write_nothing("")
        if not self.inline and any(len(phrase.boxes) for phrase in text.phrases):
            raise DialectError(
                f"the {self.name} dialect writes boxes as a list of phrases, this text has words "
                f"between them: {text.plain!r}. Give Phrase spans alone, or with ', ' between."
            )
        return super().render(text, view)
