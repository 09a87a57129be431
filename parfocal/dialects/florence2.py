"""The Florence-2 dialect: labels before their boxes, `car<loc_52><loc_332><loc_932><loc_774>`.

Bins 0 to 999, of which the middle is read; polygons are read as their bounds. Questions are task
tokens, which the family's processor turns into sentences. OCR with regions answers with the corners
of each text line, eight tokens that look like two boxes: who knows the task calls `bound_quads`.

Source: Transformers Florence2PostProcessor and the remote code of the model.
Deviates: boxes stay fractions of a pixel (the native post-processing cuts them to whole ones),
labels keep all characters, and an unlabelled run starts at its first token. "none" for absence is
ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grid import Grid
from parfocal.dialects.grounded import Phrase, Span, Text
from parfocal.dialects.listing import SEPARATOR, Item, list_spans
from parfocal.dialects.loc_tokens import DIGITS, LocTokens
from parfocal.dialects.peer import Questions
from parfocal.dialects.reader import Reader

_QUAD = re.compile(r"(?:<loc_[0-9]+>){8}")


def bound_quads(output: str) -> str:
    """The output with every four corners of a text line as the box around them.

    >>> bound_quads("EXIT<loc_10><loc_22><loc_90><loc_20><loc_91><loc_40><loc_11><loc_42>")
    'EXIT<loc_10><loc_20><loc_91><loc_42>'
    """

    def bound(quad: re.Match[str]) -> str:
        numbers = [int(digits) for digits in DIGITS.findall(quad[0])]
        xs, ys = numbers[::2], numbers[1::2]
        return "".join(f"<loc_{number}>" for number in (min(xs), min(ys), max(xs), max(ys)))

    return _QUAD.sub(bound, output)


class Florence2(LocTokens):
    """Florence-2's dialect; see the module."""

    name = "florence2"
    special_tokens = (*(f"<loc_{index}>" for index in range(1000)), "<poly>", "</poly>", "<sep>")
    grid = Grid(1000, top=999, cut=True, shift=0.5)
    overshoot = 0.25
    token = "<loc_{}>"
    markup = re.compile(r"<loc_[0-9]+>|</?poly>|<sep>")
    questions = Questions(
        locate="<CAPTION_TO_PHRASE_GROUNDING>{}",
        locate_all="<OPEN_VOCABULARY_DETECTION>{}",
        describe="<DENSE_REGION_CAPTION>",
        describe_region="<REGION_TO_DESCRIPTION>{}",
    )
    _run = re.compile(
        r"(?P<poly><poly>\s*)?(?P<run><loc_[0-9]+>(?:\s*+(?:<loc_[0-9]+>|<sep>))*+)(?:\s*</poly>)?"
    )
    _start = re.compile(r"(?:\s*(?:</s>|<s>|<pad>))+")

    def write_list(self, phrases: Sequence[Phrase], view: View) -> str:
        """Label, boxes, label, boxes."""
        return "".join(
            self.words(phrase.text) + self.write_boxes(phrase.boxes, view) for phrase in phrases
        )

    def write_phrase(self, words: str, boxes: str) -> str:
        """The boxes touch their label."""
        return words + boxes

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Labels and their boxes."""
        start = self._start.match(output)
        output = output[start.end() :] if start else output
        items: list[Item] = []
        position = 0
        for match in self._run.finditer(output):
            label = output[position : match.start()].strip()
            position = match.end()
            if match["poly"]:
                items.append((label, self._bounds(match, reader)))
                continue
            cut = not ended and position == len(output)
            dangling = "wrong_arity" if label else "unlabelled_box"
            items.append((label, self.read_run(match["run"], reader, cut, dangling)))
        yield from list_spans(items, reader)
        rest = output[position:]
        yield Text(SEPARATOR + rest.strip() if items and rest.strip() else rest)

    def _bounds(self, match: re.Match[str], reader: Reader) -> list[Boxes]:
        """The box around the polygons of one thing."""
        numbers = [float(digits) for digits in DIGITS.findall(match["run"])]
        if len(numbers) < 4 or len(numbers) % 2:
            reader.note("wrong_arity", f"{match[0]!r} is no polygon")
            return []
        xs, ys = numbers[::2], numbers[1::2]
        box = self.place([min(xs), min(ys), max(xs), max(ys)], match[0], reader)
        return [] if box is None else [box]
