"""Peer: what the dialects of families that write numbers have in common.

A subclass says how the family counts (`grid`), writes one box (`write_box`, `join`) and a phrase
(`write_phrase`), which words would be taken for markup (`markup`), how to read an output (`read`),
and the family's questions as data. Rendering, ranges, corners, padding, questions and problems are
written once, here and in `reader`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects.base import END_TOKENS, Parsed, View, finish, is_none, strip_end
from parfocal.dialects.grid import Grid
from parfocal.dialects.grounded import (
    GroundedText,
    Nothing,
    ObjectRef,
    Phrase,
    RegionRef,
    Span,
    Text,
)
from parfocal.dialects.reader import OVERSHOOT, Reader
from parfocal.errors import DialectError

Row = tuple[float, ...]  # x1, y1, x2, y2 as fractions of the frame of the numbers

_SLOT = re.compile(r"(\{\}|\{words\})")
_END = re.compile("|".join(map(re.escape, END_TOKENS)))


@dataclass(frozen=True)
class Questions:
    """A family's words for each task.

    `{}` stands for the phrase as the family marks it (in `describe_region`: for the region),
    `{words}` for the phrase as bare words.
    """

    locate: str
    locate_all: str
    describe: str
    describe_region: str


def build_question(template: str, subject: Phrase | RegionRef) -> GroundedText:
    """Fill a template of `Questions`.

    >>> build_question("Find {}.", Phrase("a cat")).plain
    'Find a cat.'
    """
    words = subject.text if isinstance(subject, Phrase) else ""
    fill: dict[str, str | Span] = {"{}": subject, "{words}": words}
    return GroundedText.of(*(fill.get(part, part) for part in _SLOT.split(template)))


class Peer(ABC):
    """A dialect whose text holds numbers; see the module.

    A box without extent is a point; families that have a form for points (`has_points`) write it
    so, and read their points as such boxes.
    """

    name: str
    special_tokens: tuple[str, ...] = ()
    questions: Questions
    grid: Grid
    markup: re.Pattern[str]
    y_first: ClassVar[bool] = False
    has_points: ClassVar[bool] = False
    writes_boxes: ClassVar[bool] = True
    overshoot: ClassVar[float] = OVERSHOOT
    # True where settings of the preprocessor decide the frame, so that only the caller knows it.
    needs_coordinates: ClassVar[bool] = False

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> fractions of the picture itself, unless the family says otherwise."""
        return Warp.to_unit(image)

    def render(self, text: GroundedText, view: View) -> str:
        """Write `text`; a RegionRef is written as the region's box.

        Raises:
            DialectError: if a box leaves the frame of the numbers, words hold what would be read
                as markup, a region is referred to that the view does not have, or the frame of the
                numbers must be given and is not.
        """
        written = ""
        for span in text.spans:
            written = self.append(written, span, view)
        return written

    def parse(self, output: str, view: View, expects_boxes: bool = False) -> Parsed:
        """Read spans and problems; see `Dialect.parse`.

        Raises:
            DialectError: if the frame of the numbers must be given and is not (never because of
                the output).
        """
        warp = self.warp(view)
        slack = max(grid.error for grid in self.grids(warp))
        reader = Reader(view.image, warp, slack, self.overshoot)
        whole, output = output, strip_end(output)
        if self.says_none(output):
            return Parsed(GroundedText.of(Nothing()))
        spans = tuple(self.read(output, reader, view, ended=output != whole))
        return finish(GroundedText(spans), reader.problems, expects_boxes)

    def locate(self, phrase: str) -> GroundedText:
        """The family's question for one thing."""
        return build_question(self.questions.locate, Phrase(phrase))

    def locate_all(self, phrase: str) -> GroundedText:
        """The family's question for every instance."""
        return build_question(self.questions.locate_all, Phrase(phrase))

    def describe(self) -> GroundedText:
        """The family's question for a caption."""
        return GroundedText.of(self.questions.describe)

    def describe_region(self, index: int) -> GroundedText:
        """The family's question for a region."""
        return build_question(self.questions.describe_region, RegionRef(index))

    @property
    def arities(self) -> tuple[int, ...]:
        """How many numbers a box has, or a box and a point."""
        return (2, 4) if self.has_points else (4,)

    # what a family may change

    @abstractmethod
    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Spans of an output without its end tokens; `ended` if it had any."""

    @abstractmethod
    def write_box(self, numbers: tuple[str, ...]) -> str:
        """One box (four numbers) or point (two), in the family's order."""

    def join(self, boxes: Sequence[str]) -> str:
        """The boxes of one phrase, one or more, as one piece."""
        return "".join(boxes)

    def write_phrase(self, words: str, boxes: str) -> str:
        """A phrase; `boxes` is "" if it has none."""
        return f"{words} {boxes}" if words and boxes else words + boxes

    def write_nothing(self, phrase: str) -> str:
        """The family's "there is none"."""
        return "none"

    def write_region(self, boxes: Boxes, view: View) -> str:
        """A region of the user, inside a question."""
        return self.write_boxes(boxes, view)

    def write_object(self, image: int) -> str:
        """An object shown as a picture of its own, inside a question.

        Raises:
            DialectError: by families that have no form for it.
        """
        raise DialectError(
            f"the {self.name} dialect has no form for object images such as [object {image}]; "
            "give the object as a box: RegionRef or Phrase."
        )

    def find_markup(self, words: str) -> re.Match[str] | None:
        """The first piece of words that would be read as markup."""
        return self.markup.search(words)

    def says_none(self, output: str) -> bool:
        """True if the output says that there is none."""
        return is_none(output)

    def grids(self, warp: Warp) -> tuple[Grid, Grid]:
        """How the family counts along x and along y."""
        return self.grid, self.grid

    # shared work

    def warp(self, view: View) -> Warp:
        """Image pixels -> the frame of the numbers, of this view."""
        if view.coordinates is None and self.needs_coordinates:
            raise DialectError(
                f"the {self.name} dialect needs View.coordinates, the Warp from image pixels to "
                "the frame of the numbers: settings of the preprocessor decide it. With those of "
                f"the published checkpoints it is get_dialect({self.name!r}).coordinate_frame("
                "image)."
            )
        return view.coordinates or self.coordinate_frame(view.image)

    def append(self, written: str, span: Span, view: View) -> str:
        """What has been written so far, and one more span."""
        if isinstance(span, Text):
            return written + self.words(span.text)
        if isinstance(span, Nothing):
            return written + self.write_nothing(self.words(span.phrase))
        if isinstance(span, RegionRef):
            return written + self.write_region(self.region(span.index, view), view)
        if isinstance(span, ObjectRef):
            return written + self.write_object(span.image)
        boxes = self.write_boxes(span.boxes, view) if len(span.boxes) else ""
        return written + self.write_phrase(self.words(span.text), boxes)

    def words(self, text: str) -> str:
        """The words, if nothing in them would be read as markup."""
        found = self.find_markup(text) or _END.search(text)
        if found:
            raise DialectError(
                f"words hold {found[0]!r}, which would be read as a box or a mark of the "
                f"{self.name} dialect. Give boxes as Phrase spans, in image pixels, or take it out."
            )
        return text

    def region(self, index: int, view: View) -> Boxes:
        """The user's region, image pixels."""
        regions = view.user_regions if view.regions is None else view.regions
        known = 0 if regions is None else len(regions)
        if regions is None or index >= known:
            raise DialectError(
                f"region {index} is referred to, the view has {known} regions. The {self.name} "
                "dialect writes a region as its box: pass View.regions or View.user_regions."
            )
        return regions[index]

    def write_boxes(self, boxes: Boxes, view: View) -> str:
        """Boxes as the family writes them; two that have the same numbers are written once."""
        return self.join(list(dict.fromkeys(map(self.write_box, self.encode(boxes, view)))))

    def encode(self, boxes: Boxes, view: View) -> Iterable[tuple[str, ...]]:
        """The numbers of each box, in the family's order."""
        x_grid, y_grid = self.grids(self.warp(view))
        for x1, y1, x2, y2 in self.fractions(boxes, view):
            corners = (
                [(x1, y1)] if self.has_points and (x1, y1) == (x2, y2) else [(x1, y1), (x2, y2)]
            )
            pairs = [(x_grid.write(x), y_grid.write(y)) for x, y in corners]
            yield tuple(n for pair in pairs for n in (pair[::-1] if self.y_first else pair))

    def fractions(self, boxes: Boxes, view: View) -> list[Row]:
        """Corners as fractions of the frame of the numbers, 0 to 1.

        Raises:
            DialectError: if a box leaves the frame by more than rounding may.
        """
        warp = self.warp(view)
        unit = warp.apply(boxes).unit
        slack = max(grid.step for grid in self.grids(warp)) / 2
        if np.any(unit < -slack) or np.any(unit > 1 + slack):
            raise DialectError(
                f"boxes {boxes.to_json()} leave the frame {warp.target} that numbers are written "
                "in. Clip them to the picture first: boxes.clip()."
            )
        # abs: no "-0.000"
        return [tuple(row) for row in np.abs(np.clip(unit, 0.0, 1.0)).tolist()]

    def place(self, numbers: Sequence[float] | None, whole: str, reader: Reader) -> Boxes | None:
        """One box or point from the numbers of `whole`, image pixels; None if there is none."""
        if numbers is None or len(numbers) not in self.arities:
            wanted = " or ".join(map(str, self.arities))
            reader.note("wrong_arity", f"{whole!r} is not {wanted} numbers")
            return None
        grids = self.grids(reader.warp)
        if all(number <= 1 for number in numbers) and any(map(grids[0].is_fraction, numbers)):
            reader.note("wrong_frame", f"{whole!r} holds fractions, it is left out")
            return None
        pairs = [
            numbers[i : i + 2][:: -1 if self.y_first else 1] for i in range(0, len(numbers), 2)
        ]
        fractions = [grid.read(n) for pair in pairs for grid, n in zip(grids, pair, strict=True)]
        read = reader.point if len(numbers) == 2 else reader.box
        return read(fractions, whole)
