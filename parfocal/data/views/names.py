"""Names: which words may name which thing, judged by the words alone and on the safe side.

"dog" also names a "brown dog" and a "dog on the beach", but not the "house of the dog". A question
about "the dog" is clear only if nothing else in the picture may be named so, and a thing is absent
only if nothing that is said of the picture may mean it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

Words = tuple[str, ...]

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_ARTICLES = frozenset({"a", "an", "the"})
# What ends the part of a phrase that says what the thing is.
_LINKS = frozenset({
    "above", "across", "against", "along", "among", "and", "are", "around", "at", "behind", "below",
    "beside", "between", "by", "carrying", "covered", "covering", "doing", "down", "during",
    "eating", "facing", "filled", "for", "from", "hanging", "has", "having", "held", "holding",
    "in", "inside", "into", "is", "laying", "leaning", "looking", "lying", "made", "near", "next",
    "of", "off", "on", "onto", "or", "out", "outside", "over", "parked", "playing", "reading",
    "resting", "riding", "running", "showing", "sitting", "standing", "that", "to", "towards",
    "under", "up", "using", "walking", "watching", "wearing", "where", "which", "while", "who",
    "with", "without",
})  # fmt: skip
_PRONOUNS = frozenset({
    "another", "each", "he", "her", "hers", "herself", "him", "himself", "his", "i", "it", "its",
    "itself", "me", "my", "one", "ones", "other", "others", "our", "she", "some", "that", "their",
    "theirs", "them", "themselves", "these", "they", "this", "those", "us", "we", "what", "which",
    "who", "you", "your",
})  # fmt: skip
_PLURALS = {
    "children": "child", "feet": "foot", "geese": "goose", "knives": "knife", "leaves": "leaf",
    "loaves": "loaf", "men": "man", "mice": "mouse", "people": "person", "shelves": "shelf",
    "teeth": "tooth", "women": "woman",
}  # fmt: skip


@lru_cache(maxsize=1 << 14)
def words_of(text: str) -> Words:
    """The words of a phrase, lower case, without its article.

    >>> words_of("The ice-cream_cone!")
    ('ice-cream', 'cone')
    """
    words = tuple(_WORD.findall(text.casefold()))
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


@lru_cache(maxsize=1 << 14)
def names_of(text: str) -> frozenset[Words]:
    """Every phrase, as words, that may name the same thing.

    >>> sorted(" ".join(name) for name in names_of("a brown dog on the beach"))
    ['brown dog', 'brown dog on the beach', 'dog']
    """
    words = words_of(text)
    end = next((at for at, word in enumerate(words) if at and word in _LINKS), len(words))
    return frozenset({words} | {words[start:end] for start in range(end)})


def may_be_same(one: str, other: str) -> bool:
    """Whether either phrase may name what the other names.

    >>> may_be_same("a dog", "the brown dog"), may_be_same("dog", "dog house")
    (True, False)
    """
    return words_of(one) in names_of(other) or words_of(other) in names_of(one)


def says_nothing(text: str) -> bool:
    """Whether words do not tell what a thing is: none, a pronoun, or the name of any thing.

    >>> [says_nothing(text) for text in ("?!", "He", "object", "the hat")]
    [True, True, True, False]
    """
    words = words_of(text)
    return not words or words == ("object",) or set(words) <= _PRONOUNS


def mentioned(name: str, texts: Iterable[str]) -> bool:
    """Whether the words of `name` stand anywhere in texts, in one or in many.

    >>> mentioned("hat", ["two men in hats"]), mentioned("hat", ["a hatch"])
    (True, False)
    """
    wanted = [_forms(word) for word in words_of(name)]
    size = len(wanted)
    for text in texts:
        there = [_forms(word) for word in words_of(text)]
        for start in range(len(there) - size + 1):
            if all(a & b for a, b in zip(wanted, there[start : start + size], strict=True)):
                return True
    return False


def clean(text: str) -> str:
    """The same words with single blanks between them and none around.

    >>> clean("  the red  hat ")
    'the red hat'
    """
    return " ".join(text.split())


def category_name(label: str) -> str:
    """A category as it is written in a question: lower case, blanks for underscores.

    Source: Groma's official loaders of COCO and LVIS.
    Deviates: no.

    >>> category_name("bow_(decorative_ribbons)")
    'bow (decorative ribbons)'
    """
    return clean(label.replace("_", " ").lower())


@lru_cache(maxsize=1 << 14)
def _forms(word: str) -> frozenset[str]:
    """A word and what may be its singular."""
    forms = {word, _PLURALS.get(word, word)}
    forms |= {word.removesuffix(end) for end in ("s", "es")}
    if word.endswith("ies"):
        forms.add(word.removesuffix("ies") + "y")
    return frozenset(forms - {""})
