"""Dialects: GroundedText to and from the text of a family of models; a file a dialect."""

from __future__ import annotations

from parfocal.dialects.base import Dialect, Parsed, Problem, View
from parfocal.dialects.coordinates import Coordinates, padded_unit_square
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef, Span, Text
from parfocal.dialects.plain import Plain
from parfocal.dialects.region_tokens import RegionTokens, parse_region_token, region_token
from parfocal.errors import DialectError

DIALECTS: dict[str, Dialect] = {
    "coordinates": Coordinates(),
    "region_tokens": RegionTokens(),
    "plain": Plain(),
}


def get_dialect(name: str) -> Dialect:
    """The dialect called `name`.

    Raises:
        DialectError: if there is none; the message lists the names.
    """
    if name not in DIALECTS:
        raise DialectError(f"dialect {name!r} is not known. Dialects: {', '.join(DIALECTS)}.")
    return DIALECTS[name]


__all__ = [
    "DIALECTS",
    "Dialect",
    "GroundedText",
    "Nothing",
    "Parsed",
    "Phrase",
    "Problem",
    "RegionRef",
    "Span",
    "Text",
    "View",
    "get_dialect",
    "padded_unit_square",
    "parse_region_token",
    "region_token",
]
