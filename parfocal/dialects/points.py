"""Point tags: `<point x="61.5" y="40.4" alt="cat">cat</point>`, `<points x1= y1= x2= y2= ...>`.

Molmo writes them in percent, Qwen2.5-VL in pixels of the resized picture.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from parfocal.boxes import Boxes
from parfocal.dialects.grounded import Span, Text
from parfocal.dialects.reader import Reader

POINT_TAG = re.compile(
    r"<points?\b(?P<attributes>[^<>]*+)(?:(?<=/)>|>(?P<label>[^<]*+)(?:</points?>)?+|\Z)"
)
_ATTRIBUTE = re.compile(r"""\b([a-z]++)([0-9]*+)\s*+=\s*+(?:"([^"]*)"|'([^']*)')""")
_OPEN = re.compile(r"""\b([a-z]++)\s*+=\s*+["']([^"']*)\Z""")
_NUMBER = re.compile(r"\s*-?[0-9]+\.?[0-9]*\s*")

Place = Callable[[Sequence[float], str, Reader], Boxes | None]


@dataclass(frozen=True)
class PointTag:
    """What a tag says.

    Attributes:
        label: its words.
        pairs: (x, y) as written; None for each point that lacks one of the two or is no number.
        values: all other attributes, one that is cut off among them.
        cut: the output ends inside the tag.
    """

    label: str
    pairs: tuple[tuple[float, float] | None, ...]
    values: Mapping[str, str]
    cut: bool


def read_point_tag(match: re.Match[str]) -> PointTag:
    """Take a match of `POINT_TAG` apart.

    >>> read_point_tag(POINT_TAG.search('<point x="61.5" y="40.4" alt="cat">cat</point>')).pairs
    ((61.5, 40.4),)
    """
    sides: dict[str, dict[str, str]] = {}
    values: dict[str, str] = {}
    for name, index, double, single in _ATTRIBUTE.findall(match["attributes"]):
        if name in ("x", "y"):
            sides.setdefault(index, {})[name] = double or single
        else:
            values[name + index] = html.unescape(double or single)
    if unfinished := _OPEN.search(match["attributes"]):
        values.setdefault(unfinished[1], unfinished[2])
    label = html.unescape(match["label"] or "").strip() or values.get("alt", "").strip()
    return PointTag(label, tuple(_pairs(sides)), values, not match[0].endswith(">"))


def tag_spans(output: str, reader: Reader, place: Place) -> Iterator[Span]:
    """Words, and the labelled points of each tag.

    Args:
        output: holds tags.
        reader: takes problems.
        place: reads one pair of numbers, such as `Peer.place`.
    """
    position = 0
    for match in POINT_TAG.finditer(output):
        yield Text(output[position : match.start()])
        position = match.end()
        tag, found = read_point_tag(match), []
        if tag.cut:
            reader.note("truncated_box", f"{match[0]!r} ends inside the tag")
        for pair in tag.pairs:
            if pair is None and not tag.cut:
                reader.note("wrong_arity", f"{match[0]!r} has a point without x or y")
            point = None if pair is None else place(pair, match[0], reader)
            found.extend([] if point is None else [point])
        if tag.label or found:
            yield reader.phrase(tag.label, found)
    yield Text(output[position:])


def _pairs(sides: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[float, float] | None]:
    for side in sides.values():
        x, y = side.get("x", ""), side.get("y", "")
        both = _NUMBER.fullmatch(x) and _NUMBER.fullmatch(y)
        yield (float(x), float(y)) if both else None
