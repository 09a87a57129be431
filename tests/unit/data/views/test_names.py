"""Names: which words may mean which thing."""

from __future__ import annotations

import pytest

from parfocal.data.views.names import (
    category_name,
    may_be_same,
    mentioned,
    says_nothing,
    words_of,
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("dog", "The DOG.", True),  # case, article, punctuation
        ("dog", "brown dog", True),  # any dog may be called so
        ("dog", "a dog on the beach", True),
        ("dog", "beach with a dog", False),  # the beach
        ("dog", "dog house", False),  # the house
        ("wheel", "front wheel of the bike", True),
        ("bike", "front wheel of the bike", False),
        ("man on bike", "man on bike", True),
        ("man on bike", "man", True),  # the man may be on a bike
        ("red hat", "blue hat", False),
        ("dog", "dogs", False),
        ("tall building", "building", True),  # no word in -ing that is a link
        ("left", "left man", False),
    ],
)
def test_what_may_be_the_same(one, other, same):
    assert may_be_same(one, other) is same
    assert may_be_same(other, one) is same


def test_words():
    assert words_of("A man's T-shirt, no. 7") == ("man's", "t-shirt", "no", "7")
    assert words_of("caf\u00e9 \u732b") == ("caf\u00e9", "\u732b")
    assert words_of("the") == ("the",)
    assert words_of("?!") == ()


@pytest.mark.parametrize(
    "text", ["", "  ", "...", "object", "the object", "it", "She", "another one"]
)
def test_words_that_say_nothing(text):
    assert says_nothing(text)


@pytest.mark.parametrize("text", ["objects on a shelf", "her hat", "7", "\u732b"])
def test_words_that_say_something(text):
    assert not says_nothing(text)


@pytest.mark.parametrize(
    ("name", "text", "there"),
    [
        ("glass", "two glasses", True),
        ("glasses", "a glass of beer", True),
        ("person", "some people", True),
        ("woman", "women in hats", True),
        ("berry", "berries", True),
        ("bear", "a teddy bear", True),
        ("teddy bear", "a bear", False),
        ("hat", "that hatch", False),
        ("hot dog", "a dog in the hot sun", False),
        ("s", "a bus", False),
    ],
)
def test_mentions(name, text, there):
    assert mentioned(name, ["nothing", text]) is there


def test_categories_are_written_as_groma_writes_them():
    assert category_name("bow_(decorative_ribbons)") == "bow (decorative ribbons)"
    assert category_name(" Street  Light") == "street light"
