"""The PaliGemma dialect: `<loc0256><loc0128><loc0768><loc0512> cat`, y first, label behind.

Positions 0 to 1023 with four digits. Masks of `segment` answers are passed over.

Source: big_vision refcoco_mask2str and its evaluator; PaliGemma's prompt page.
Deviates: numbers are divided by 1023, as the authors do; demos of others divide by 1024, up to one
pixel in a thousand less. Silence is read as "there is none".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from parfocal.dialects.base import View
from parfocal.dialects.grid import Grid
from parfocal.dialects.grounded import Phrase, Span, Text
from parfocal.dialects.listing import Item, list_spans
from parfocal.dialects.loc_tokens import DIGITS, LocTokens
from parfocal.dialects.peer import Questions
from parfocal.dialects.reader import Reader
from parfocal.errors import DialectError


class PaliGemma(LocTokens):
    """PaliGemma's dialect; see the module. The processor adds the line end that prompts need."""

    name = "paligemma"
    special_tokens = (
        *(f"<loc{index:04d}>" for index in range(1024)),
        *(f"<seg{index:03d}>" for index in range(128)),
    )
    grid = Grid(1023, width=4)
    y_first = True
    token = "<loc{}>"
    markup = re.compile(r"<loc[0-9]+>|<seg[0-9]+>")
    questions = Questions(
        locate="detect {}",
        locate_all="detect {}",
        describe="caption en",
        describe_region="caption {}",
    )
    _item = re.compile(
        r"(?P<run><loc[0-9]+>(?:\s*+<loc[0-9]+>)*+)(?:\s*<seg[0-9]+>)*+(?P<label>[^;<]*)"
    )

    def write_list(self, phrases: Sequence[Phrase], view: View) -> str:
        """Box, label; an item for every box."""
        return " ; ".join(
            f"{box} {label}".rstrip()
            for phrase in phrases
            for label in [self._label(phrase.text)]
            for box in dict.fromkeys(map(self.write_box, self.encode(phrase.boxes, view)))
        )

    def write_nothing(self, phrase: str) -> str:
        """Silence."""
        return ""

    def says_none(self, output: str) -> bool:
        """True for silence too."""
        return not output.strip() or super().says_none(output)

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Boxes and the labels behind them."""
        items: list[Item] = []
        position = 0
        for match in self._item.finditer(output):
            words = output[position : match.start()].strip("; \n")
            if words:
                items.append((words, []))
            position = match.end()
            cut = not ended and match.end("run") == len(output)
            if any(len(digits) != 4 for digits in DIGITS.findall(match["run"])):
                reader.note_once("format_drift", f"{match['run']!r} has tokens without four digits")
            boxes = self.read_run(match["run"], reader, cut, "wrong_arity")
            items.append((match["label"].strip(), boxes))
        yield from list_spans(items, reader)
        yield Text(output[position:])

    def _label(self, text: str) -> str:
        if re.search("[;<]", text):
            raise DialectError(
                f"label {text!r} holds ';' or '<', which end a label of the {self.name} dialect. "
                "Take it out."
            )
        return self.words(text)
