"""What holds for every dialect in the table, and the plain one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.boxes import Boxes, Frame
from parfocal.dialects import (
    DIALECTS,
    GroundedText,
    Nothing,
    Phrase,
    RegionRef,
    View,
    get_dialect,
    padded_unit_square,
)
from parfocal.dialects.base import strip_end
from parfocal.errors import DialectError

FRAME = Frame("image", 320, 240)
DOG = Boxes([[32, 24, 160, 120]], FRAME)
VIEW = View(FRAME, padded_unit_square(FRAME), DOG)


@pytest.mark.parametrize("name", DIALECTS)
def test_names_are_the_keys(name: str) -> None:
    assert get_dialect(name).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DialectError, match="coordinates, region_tokens, plain"):
        get_dialect("region_token")


@pytest.mark.parametrize("name", DIALECTS)
def test_every_question_can_be_written_and_names_its_subject(name: str) -> None:
    dialect = get_dialect(name)
    assert "the red cup" in dialect.render(dialect.locate("the red cup"), VIEW)
    assert "cup" in dialect.render(dialect.locate_all("cup"), VIEW)
    assert dialect.render(dialect.describe(), VIEW)
    assert RegionRef(0) in dialect.describe_region(0).spans
    assert dialect.render(dialect.describe_region(0), VIEW)


@pytest.mark.parametrize("name", DIALECTS)
def test_nothing_survives_writing(name: str) -> None:
    dialect = get_dialect(name)
    parsed = dialect.parse(dialect.render(GroundedText.of(Nothing()), VIEW), VIEW)
    assert parsed.text == GroundedText.of(Nothing())


@pytest.mark.parametrize("name", DIALECTS)
@given(st.text())
def test_any_output_is_read(name: str, output: str) -> None:
    get_dialect(name).parse(output, VIEW)


def test_plain_writes_words_and_no_boxes() -> None:
    text = GroundedText.of("I see ", Phrase("a dog", DOG), ".")
    assert DIALECTS["plain"].render(text, VIEW) == "I see a dog."


def test_plain_reads_words_and_reports_missing_boxes_where_asked_for() -> None:
    plain = DIALECTS["plain"]
    assert plain.parse("a dog [0.1, 0.2, 0.3, 0.4]</s>", VIEW).text.plain == (
        "a dog [0.1, 0.2, 0.3, 0.4]"
    )
    kinds = [problem.kind for problem in plain.parse("there", VIEW, expects_boxes=True).problems]
    assert kinds == ["no_box"]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        pytest.param("a </s> </s> ", "a", id="several"),
        pytest.param("a ", "a ", id="no end token: blanks are text"),
        pytest.param("a</s>b", "a</s>b", id="in the middle it is not the end"),
        pytest.param("</s>", "", id="nothing else"),
    ],
)
def test_strip_end(output: str, text: str) -> None:
    assert strip_end(output) == text
