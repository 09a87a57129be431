"""The Molmo dialects: points only, `<point x="61.5" y="40.4" alt="cat">cat</point>`.

A point is a box without extent; of a box that has one, its centre is written. Molmo counts in
percent with one decimal, Molmo2 in thousandths of three digits at least, each after the number of
its picture (from 1) and its own running number: `<points coords="1 1 990 800">cat</points>`. Points
in the pictures after the first need `View.others`. What lies outside the picture is left out.

Source: Molmo2's repository, LegacyPointFormatting and UnifiedPointFormatter (html-v1).
Deviates: numbers of two digits are read in Molmo2 (its reader drops them). Video points and tracks
are not read. Questions for descriptions are ours.
"""

from __future__ import annotations

import html
import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.dialects.base import View
from parfocal.dialects.grid import Grid
from parfocal.dialects.grounded import Phrase, Span, Text
from parfocal.dialects.listing import SEPARATOR
from parfocal.dialects.peer import Peer, Questions
from parfocal.dialects.points import POINT_TAG, PointTag, read_point_tag, tag_spans
from parfocal.dialects.reader import Reader

NONE = "There are none."

_CLICK = re.compile(r"(?:Click)?\(\s*([0-9]+\.[0-9]+)\s*,\s*([0-9]+\.[0-9]+)\s*\)")
_TRIPLET = re.compile(r"([0-9]+)\s+([0-9]+)\s+([0-9]+)")


class PointsOnly(Peer):
    """What the two families share; see the module."""

    has_points = True
    overshoot: ClassVar[float] = 0.0

    @abstractmethod
    def write_points(
        self, points: list[tuple[str, ...]], label: str, image: int, start: int
    ) -> str:
        """A tag.

        Args:
            points: (x, y) of each.
            label: its words.
            image: which picture, from 0.
            start: how many points have been written before.
        """

    def append(self, written: str, span: Span, view: View) -> str:
        """What has been written, and one more span."""
        if not isinstance(span, Phrase) or not len(span.boxes):
            return super().append(written, span, view)
        return written + self._tag(span.boxes, span.text, view, written)

    def write_region(self, boxes: Boxes, view: View) -> str:
        """A point without words."""
        return self._tag(boxes, "", view, "")

    def write_nothing(self, phrase: str) -> str:
        """The family's sentence."""
        return NONE

    def says_none(self, output: str) -> bool:
        """True for the family's sentence, and for the word."""
        return output.strip().casefold() == NONE.casefold() or super().says_none(output)

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """A point in the words of a person."""
        return f"({', '.join(numbers)})"

    def _tag(self, boxes: Boxes, label: str, view: View, written: str) -> str:
        frames = (view.image, *view.others)
        image = frames.index(boxes.frame) if boxes.frame in frames else 0
        seen = view if image == 0 else View(frames[image])
        x, y = boxes.cxcywh[:, 0], boxes.cxcywh[:, 1]
        centres = Boxes([[*p, *p] for p in zip(x.tolist(), y.tolist(), strict=True)], boxes.frame)
        points = list(dict.fromkeys(self.encode(centres, seen)))
        return self.write_points(points, html.escape(label), image, _count(written))


class Molmo(PointsOnly):
    """Molmo's dialect; see the module."""

    name = "molmo"
    grid = Grid(100, decimals=1)
    markup = re.compile(rf"<points?\b|{_CLICK.pattern}")
    questions = Questions(
        locate="Point to {}.",
        locate_all='Point to all occurrences of "{}"',
        describe="Describe this image.",
        describe_region="What is at {}?",
    )

    def write_points(
        self, points: list[tuple[str, ...]], label: str, image: int, start: int
    ) -> str:
        """`point` for one, `points` for more."""
        if len(points) == 1:
            x, y = points[0]
            return f'<point x="{x}" y="{y}" alt="{label}">{label}</point>'
        sides = " ".join(f'x{i}="{x}" y{i}="{y}"' for i, (x, y) in enumerate(points, start=1))
        return f'<points {sides} alt="{label}">{label}</points>'

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Words and labelled points; `Click(x, y)` and `(x, y)` are points without words."""
        for span in tag_spans(output, reader, self.place):
            if isinstance(span, Text):
                yield from self._clicks(span.text, reader)
            else:
                yield span

    def _clicks(self, text: str, reader: Reader) -> Iterator[Span]:
        position = 0
        for match in _CLICK.finditer(text):
            yield Text(text[position : match.start()])
            position = match.end()
            point = self.place([float(match[1]), float(match[2])], match[0], reader)
            yield from [] if point is None else [Phrase("", point)]
        yield Text(text[position:])


class Molmo2(PointsOnly):
    """Molmo2's dialect; see the module."""

    name = "molmo2"
    grid = Grid(1000, width=3)
    markup = re.compile(r"<points?\b")
    questions = Questions(
        locate="Point to {}\nPlease say 'There are none.' if it is not in the image.",
        locate_all='Point to all occurrences of "{}"',
        describe="Describe this image.",
        describe_region="What is at {}?",
    )

    def write_points(
        self, points: list[tuple[str, ...]], label: str, image: int, start: int
    ) -> str:
        """Sorted by x, then y, as the family writes them."""
        ordered = sorted(points, key=lambda point: tuple(map(int, point)))
        rows = " ".join(f"{n} {x} {y}" for n, (x, y) in enumerate(ordered, start=start + 1))
        return f'<points coords="{image + 1} {rows}">{label}</points>'

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """Words and labelled points; a phrase for each picture that a tag points into."""
        position = 0
        for match in POINT_TAG.finditer(output):
            yield Text(output[position : match.start()])
            position = match.end()
            tag = read_point_tag(match)
            if tag.cut:
                reader.note("truncated_box", f"{match[0]!r} ends inside the tag")
            if tag.pairs:
                reader.note("wrong_frame", f"{match[0]!r} is of the first Molmo, it is left out")
            yield from self._tag_spans(tag, match[0], reader, view)
        yield Text(output[position:])

    def _tag_spans(self, tag: PointTag, whole: str, reader: Reader, view: View) -> Iterator[Span]:
        parts = re.split(r"[\t:;,]", tag.values.get("coords", ""))
        placed = False
        for part in parts:
            found = self._points(part, whole, reader, view, cut=tag.cut and part is parts[-1])
            if found:
                yield Text(SEPARATOR if placed else "")
                yield reader.phrase(tag.label, found)
                placed = True
        if tag.label and not placed:
            yield Phrase(tag.label)

    def _points(self, part: str, whole: str, reader: Reader, view: View, cut: bool) -> list[Boxes]:
        """Points of one picture: its number, then number, x and y of each."""
        head, _, rest = part.strip().partition(" ")
        frames = (view.image, *view.others)
        if not head:
            return []
        if not head.isdecimal() or not 1 <= int(head[:9]) <= len(frames):
            reader.note("wrong_frame", f"{whole!r} names picture {head!r}, there are {len(frames)}")
            return []
        if int(head) > 1:
            frame = frames[int(head) - 1]
            warp = self.coordinate_frame(frame)
            reader = Reader(frame, warp, reader.slack, reader.overshoot, reader.problems)
        triplets = _TRIPLET.findall(rest)
        if len(rest.split()) != 3 * len(triplets) and not cut:
            reader.note("wrong_arity", f"{whole!r} is not number, x and y of each point")
        if cut and triplets and len(triplets[-1][2]) < 3:
            triplets.pop()  # the last number may have lost digits
        if any(len(number) < 3 for _, *pair in triplets for number in pair):
            reader.note_once("format_drift", f"{whole!r} has numbers of less than three digits")
        points = (self.place([float(x), float(y)], whole, reader) for _, x, y in triplets)
        return [point for point in points if point is not None]


def _count(written: str) -> int:
    """How many points the tags of a text hold."""
    tags = (read_point_tag(match) for match in POINT_TAG.finditer(written))
    coords = (re.split(r"[\t:;,]", tag.values.get("coords", "")) for tag in tags)
    return sum(len(_TRIPLET.findall(part.partition(" ")[2])) for parts in coords for part in parts)
