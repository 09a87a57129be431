"""Refusals that every metric of whole files shares: nothing to score, or lists that do not pair."""

from __future__ import annotations

from collections.abc import Sized

from parfocal.errors import DataError, ShapeError


def check_pairs(what: str, values: Sized, partner: str, partners: Sized) -> None:
    """Refuse lists of different lengths, and empty ones.

    Raises:
        ShapeError: if the lengths differ.
        DataError: if there is nothing.
    """
    if len(values) != len(partners):
        raise ShapeError(
            f"there are {len(values)} {what} for {len(partners)} {partner}. Give one each, in the "
            'same order, with "" where the model said nothing.'
        )
    check_some(what, values)


def check_some(what: str, values: Sized) -> None:
    """Refuse an empty list.

    Raises:
        DataError: if there is nothing.
    """
    if not len(values):
        raise DataError(f"there are no {what} to score. Give at least one.")
