"""The catalogue of drawn objects: its table, its words and its look-ups."""

from __future__ import annotations

import re

import pytest

from parfocal.data.scenes.catalogue import CATEGORIES, FAMILIES, KINDS, article, kind_by_name
from parfocal.errors import DataError

_NAMES = [kind.name for kind in KINDS]


def test_there_are_enough_kinds_and_categories() -> None:
    assert len(KINDS) >= 200
    assert len(CATEGORIES) >= 7
    assert {kind.category for kind in KINDS} == set(CATEGORIES)


@pytest.mark.parametrize("field", ["name", "plural", "asset"])
def test_no_two_kinds_share_a_name_plural_or_picture(field: str) -> None:
    values = [getattr(kind, field) for kind in KINDS]
    assert len(set(values)) == len(values)


def test_kinds_are_sorted_by_category_then_name() -> None:
    keys = [(kind.category, kind.name) for kind in KINDS]
    assert keys == sorted(keys)


def test_names_are_one_to_three_lower_case_words() -> None:
    bad = [name for name in _NAMES if not re.fullmatch(r"[a-z]+( [a-z]+){0,2}", name)]
    assert bad == []


def test_assets_are_code_point_sequences() -> None:
    pattern = r"[0-9a-f]{4,5}(-[0-9a-f]{4,5})*"
    assert [kind.asset for kind in KINDS if not re.fullmatch(pattern, kind.asset)] == []


def test_no_plural_is_also_a_singular() -> None:
    assert {kind.plural for kind in KINDS} & set(_NAMES) == set()


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("dog", "dogs"),
        ("fox", "foxes"),
        ("peach", "peaches"),
        ("green bus", "green buses"),
        ("butterfly", "butterflies"),
        ("monkey", "monkeys"),
        ("box of fries", "boxes of fries"),
        ("loaf of bread", "loaves of bread"),
        ("pair of scissors", "pairs of scissors"),
        ("white mouse", "white mice"),
        ("kitchen knife", "kitchen knives"),
        ("die", "dice"),
    ],
)
def test_plural_is_the_common_english_one(name: str, plural: str) -> None:
    assert kind_by_name(name).plural == plural


def test_families_hold_existing_kinds_of_their_noun_in_two_or_more_colours() -> None:
    assert len(FAMILIES) >= 8
    for noun, members in FAMILIES.items():
        assert len(members) >= 2
        assert list(members) == sorted(set(members))
        assert noun not in _NAMES
        for member in members:
            assert member.split(" ", 1)[1] == noun
            assert kind_by_name(member).name == member


def test_each_family_stays_in_one_category() -> None:
    for members in FAMILIES.values():
        assert len({kind_by_name(member).category for member in members}) == 1


def test_every_kind_is_found_by_its_name() -> None:
    assert [kind_by_name(name) for name in _NAMES] == list(KINDS)


@pytest.mark.parametrize(
    ("wrong", "suggestion"), [("elefant", "elephant"), ("Red Apple", "red apple")]
)
def test_unknown_name_is_refused_with_a_close_match(wrong: str, suggestion: str) -> None:
    with pytest.raises(DataError, match=f"{wrong}.*'{suggestion}'"):
        kind_by_name(wrong)


def test_a_family_noun_is_refused_with_its_members() -> None:
    with pytest.raises(DataError, match="'green apple', 'red apple'"):
        kind_by_name("apple")


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(DataError) as caught:
        kind_by_name("qqqqqqq")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red apple", "a"),
        ("orange cat", "an"),
        ("elephant", "an"),
        ("umbrella", "an"),
        ("unicorn", "a"),
        ("hourglass", "an"),
        ("horse", "a"),
    ],
)
def test_article_follows_the_sound(name: str, expected: str) -> None:
    assert article(name) == expected
