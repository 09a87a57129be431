"""Names of things: what counts as the same name, and which number a sentence states.

Two names are the same when they are equal after lower-casing, collapsing spaces, and dropping a
leading article and a final full stop. Nothing else is forgiven: no plurals, no synonyms.
"""

from __future__ import annotations

import re

_ARTICLES = ("a ", "an ", "the ")
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
_NUMBERS: dict[str, int] = {word: value for value, word in enumerate(_NUMBER_WORDS)} | {
    "no": 0,
    "none": 0,
    "nothing": 0,
}
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[a-z]+(?:-[a-z]+)*")


def normalise_name(text: str) -> str:
    """The form in which names are compared.

    Example:
        >>> normalise_name("  The red   Apple. ")
        'red apple'
    """
    words = " ".join(text.lower().split()).removesuffix(".").rstrip()
    for article in _ARTICLES:
        if words.startswith(article):
            return words[len(article) :]
    return words


def names_equal(predicted: str, expected: str) -> bool:
    """Whether two names are the same after normalisation; an empty name equals nothing.

    Example:
        >>> names_equal("A cat.", "cat"), names_equal("cats", "cat"), names_equal("", "")
        (True, False, False)
    """
    name = normalise_name(predicted)
    return name != "" and name == normalise_name(expected)


def parse_count(text: str) -> int | None:
    """The first whole number that a sentence states, in digits or in words up to twenty.

    "no", "none" and "nothing" say zero. A number that is not whole is no count, and neither is a
    sentence without one.

    Example:
        >>> [parse_count(text) for text in ("There are three apples.", "none", "12", "many")]
        [3, 0, 12, None]
    """
    for token in _TOKEN.findall(text.lower()):
        if token[0].isdigit():
            return int(token) if token.isdigit() else None
        if token in _NUMBERS:
            return _NUMBERS[token]
    return None
