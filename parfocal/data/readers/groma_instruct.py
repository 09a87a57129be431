"""Groma Instruct: conversations about Visual Genome pictures, in Groma's own markup.

A row has `boxes` [x, y, width, height] in pixels and a `conversation` whose turns alternate,
whatever they say they are `from`. A turn's `box_inds` lists, in order, the box behind each of its
`<ground_box>` or `<refer_box>`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from parfocal.boxes import Boxes, Frame
from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.groma_format import check_xywh, find_picture
from parfocal.data.readers.pictures import Placed
from parfocal.data.readers.stream import json_items, require
from parfocal.data.sample import Sample, Turn
from parfocal.dialects.base import View
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef, Span, Text
from parfocal.dialects.region_tokens import RegionTokens
from parfocal.errors import DataError

_REFER = r"(?:<roi>\s*)?<refer_box>(?:\s*</roi>)?(?:\s*<refer_feat>)?"
_PLACEHOLDER = re.compile(rf"<ground_box>|{_REFER}")
_REGION_TOKEN = re.compile(r"<r\d+>")


@dataclass
class GromaInstructReader(Reader):
    """A Sample a conversation; what the user points at are its regions."""

    source: ClassVar[str] = "groma_instruct"
    licence: ClassVar[str] = "text by GPT-4V; pictures CC-BY-4.0 (Visual Genome)"
    files: ClassVar[tuple[str, ...]] = ("groma_instruct.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield conversations in the order of the file."""
        path = self.paths[0]
        for index, row in enumerate(json_items(path)):
            where = f"{path}: row {index} (from 0)"
            name, width, height, boxes, turns = require(
                row, where, file_name=str, width=int, height=int, boxes=list, conversation=list
            )
            names, key = find_picture(name)
            placed = self.pictures.place(names, (width, height))
            if isinstance(placed, str):
                self.skip(placed)
                continue
            corners = [xywh_to_xyxy(check_xywh(box, where)) for box in boxes]
            talk = _Conversation(self, corners, placed, where)
            texts = [talk.read(number, turn) for number, turn in enumerate(turns)]
            regions = talk.regions()
            if not texts or not all(text.plain.strip() or text.phrases for text in texts):
                self.skip("conversations with an empty turn")
                continue
            if len(regions) < len(talk.referred):
                self.skip("conversations about a region outside their picture")
                continue
            yield self.sample(
                index,
                (placed.ref,),
                turns=tuple(
                    Turn("assistant" if number % 2 else "user", text)
                    for number, text in enumerate(texts)
                ),
                regions=regions,
                meta={"image_key": key},
            )


@dataclass
class _Conversation:
    """Reads the turns of one row.

    Attributes:
        reader: counts what is left out.
        corners: the row's boxes, xyxy.
        placed: its picture.
        where: file and row, for errors.
        referred: index of each box that was referred to -> the region that it became.
    """

    reader: Reader
    corners: Sequence[list[float]]
    placed: Placed
    where: str

    def __post_init__(self) -> None:
        self.referred: dict[int, int] = {}

    def read(self, number: int, turn: Any) -> GroundedText:
        """Read turn `number`."""
        where = f"{self.where}, turn {number}"
        (value,) = require(turn, where, value=str)
        indices = turn.get("box_inds") or []
        if not isinstance(indices, list):
            raise DataError(f"{where} has the box_inds {indices!r}, must be a list of numbers.")
        structure, count = _read_markup(value.replace("[grounding]", ""), where)
        if len(indices) != count:
            raise DataError(
                f"{where} has {count} box placeholders and {len(indices)} box_inds, must be as "
                "many. Drop the row or mend it."
            )
        for index in indices:
            if type(index) is not int or not 0 <= index < len(self.corners):
                raise DataError(
                    f"{where}: box_inds has {index!r}, the row has {len(self.corners)} boxes "
                    "(from 0). Drop the row or mend it."
                )
        return GroundedText(tuple(self._place(span, indices) for span in structure.spans))

    def regions(self) -> Boxes:
        """The boxes that were referred to, without those outside the picture."""
        return self.reader.upright([self.corners[index] for index in self.referred], self.placed)[0]

    def _place(self, span: Span, indices: list[int]) -> Span:
        """Give a span of `_read_markup` the boxes that its placeholders stand for."""
        if isinstance(span, RegionRef):
            index = indices[span.index]
            return RegionRef(self.referred.setdefault(index, len(self.referred)))
        if not isinstance(span, Phrase) or not len(span.boxes):
            return span
        used = [indices[int(x1)] for x1 in span.boxes.xyxy[:, 0]]
        boxes, _ = self.reader.upright([self.corners[index] for index in used], self.placed)
        return Phrase(span.text, boxes) if len(boxes) else Text(span.text)


def _read_markup(value: str, where: str) -> tuple[GroundedText, int]:
    """Read a turn's markup with the dialect it is written in.

    Placeholders are numbered to become region tokens, and region n is made a box that starts at
    x = n, which tells the placeholders of a Phrase.

    Returns:
        Spans: a Phrase's boxes and a RegionRef's index say the numbers of their placeholders. And
        how many placeholders there are.
    """
    numbers = itertools.count()

    def name(match: re.Match[str]) -> str:
        token = f"<r{next(numbers)}>"
        return token if match[0] == "<ground_box>" else f"<roi>{token}</roi><refer_feat>"

    taken = _REGION_TOKEN.search(value)
    if taken:
        raise DataError(f"{where} holds {taken[0]}, a region of a model's run, not of the row.")
    numbered = _PLACEHOLDER.sub(name, value)
    count = next(numbers)
    frame = Frame("placeholders", count + 1, 1)
    rows = [[number, 0, number + 1, 1] for number in range(count)]
    parsed = RegionTokens().parse(numbered, View(frame, regions=Boxes(rows, frame)))
    problems = [problem.detail for problem in parsed.problems if problem.kind != "token_spacing"]
    if any(isinstance(span, Nothing) for span in parsed.text.spans):
        problems.append("'<roi></roi>' holds no box")
    if problems:
        raise DataError(f"{where} has markup that cannot be read: {problems[0]}.")
    return parsed.text, count
