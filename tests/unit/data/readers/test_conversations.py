"""Turns as people collected them: marks anywhere, sides out of order, turns that lead nowhere."""

from __future__ import annotations

import pytest

from parfocal.data.readers.conversations import read_conversation, without_marks
from parfocal.errors import DataError


def turns(*said: str) -> list[dict[str, str]]:
    """Turns from "h: ..." and "g: ..."."""
    sides = {"h": "human", "g": "gpt", "s": "system", "u": "user", "a": "assistant"}
    return [{"from": sides[words[0]], "value": words[3:]} for words in said]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param("<image>\nWhat?", "What?", id="first line"),
        pytest.param("What?\n<image>", "What?", id="last line"),
        pytest.param("<video>\nWhat?", "What?", id="video"),
        pytest.param("A\n<image>\nB", "A\nB", id="a line between"),
        pytest.param("A\n<image>\n<image>\nB", "A\nB", id="two lines between"),
        pytest.param("Look at <image> here.", "Look at here.", id="within a sentence"),
        pytest.param("one<image>two", "onetwo", id="within a word"),
        pytest.param("<image>", "", id="nothing else"),
        pytest.param("a  b\n\nc <Image>", "a  b\n\nc <Image>", id="nothing to take out"),
    ],
)
def test_marks_leave_no_trace(words, expected):
    assert without_marks(words) == expected


@pytest.mark.parametrize(
    ("said", "rounds", "dropped"),
    [
        pytest.param(["h: Q", "g: A", "u: R", "a: B"], [("Q", "A"), ("R", "B")], {}, id="as it is"),
        pytest.param(
            ["g: Hi", "g: you", "h: Q", "g: A"],
            [("Q", "A")],
            {"answers before the first question": 2},
            id="answers first",
        ),
        pytest.param(["h: Q", "h: R", "g: A", "g: B"], [("Q\nR", "A\nB")], {}, id="twice a side"),
        pytest.param(
            ["h: Q", "g: A", "h: R"],
            [("Q", "A")],
            {"questions without an answer": 1},
            id="no last answer",
        ),
        pytest.param(
            ["h: Q", "g:  ", "h: R", "g: B"],
            [("R", "B")],
            {"questions with an empty answer": 1},
            id="empty answer",
        ),
        pytest.param(["h: <image>\n", "g: A"], [("", "A")], {}, id="only the picture is asked"),
        pytest.param(["h: Q", "g: A", "h: <image>", "g: B"], [("Q", "A\nB")], {}, id="and later"),
        pytest.param(["s: S", "h: Q", "g: A"], [("Q", "A")], {"system turns": 1}, id="system"),
        pytest.param([], [], {}, id="none"),
        pytest.param(["g: <image> is a tag"], [], {"answers before the first question": 1}, id="g"),
    ],
)
def test_questions_meet_their_answers(said, rounds, dropped):
    found = read_conversation(turns(*said), True, "x")
    assert found.rounds == rounds
    assert +found.dropped == dropped


def test_without_a_picture_the_mark_is_a_word():
    said = turns("h: What is <image> in SVG?", "g: A tag: <image>.")
    assert read_conversation(said, False, "x").rounds == [
        ("What is <image> in SVG?", "A tag: <image>.")
    ]
    assert read_conversation(said, True, "x").rounds == [("What is in SVG?", "A tag: <image>.")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"^a.json: row 3 has no list `conversations`"),
        ({}, "no list `conversations`"),
        (["Q"], "turn 0 is from None"),
        ([{"from": ["human"], "value": "A"}], r"turn 0 is from \['human'\]"),
        ([{"from": "bard", "value": "A"}], "turn 0 is from 'bard', must be from one of human"),
        ([{"from": "gpt", "value": "A"}, {"from": "human"}], "turn 1 has the value None"),
    ],
)
def test_what_is_no_conversation_is_refused(given, message):
    with pytest.raises(DataError, match=message):
        read_conversation(given, True, "a.json: row 3")
