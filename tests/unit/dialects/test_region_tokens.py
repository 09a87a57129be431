import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.boxes import Boxes, Frame
from parfocal.dialects import (
    GroundedText,
    Nothing,
    Phrase,
    RegionRef,
    Text,
    View,
    get_dialect,
    parse_region_token,
    region_token,
)
from parfocal.errors import DialectError

FRAME = Frame("image", 640, 480)
REGIONS = Boxes(
    [[0, 0, 100, 100], [200, 0, 300, 100], [0, 200, 100, 300], [200, 200, 300, 300]], FRAME
)
VIEW = View(FRAME, regions=REGIONS)
DIALECT = get_dialect("region_tokens")


def boxes(*indices: int) -> Boxes:
    return REGIONS[list(indices)]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param(GroundedText.of("hi"), "hi", id="words"),
        pytest.param(
            GroundedText.of(Phrase("a dog", boxes(3)), " runs."),
            "<p>a dog</p><roi><r3></roi> runs.",
            id="phrase",
        ),
        pytest.param(GroundedText.of(Phrase("", boxes(2))), "<roi><r2></roi>", id="bare box"),
        pytest.param(
            GroundedText.of(Phrase("dogs", boxes(3, 1))),
            "<p>dogs</p><roi><r3><r1></roi>",
            id="several boxes keep their order",
        ),
        pytest.param(GroundedText.of(Phrase("dog")), "<p>dog</p>", id="phrase to be located"),
        pytest.param(
            GroundedText.of("See ", RegionRef(1)),
            "See <roi><r1></roi><refer_feat>",
            id="the user's region",
        ),
        pytest.param(GroundedText.of(Nothing()), "<roi></roi>", id="nothing"),
        pytest.param(
            GroundedText.of(Nothing("dog")), "<p>dog</p><roi></roi>", id="nothing, with its phrase"
        ),
    ],
)
def test_render_and_parse(text: GroundedText, written: str) -> None:
    assert DIALECT.render(text, VIEW) == written
    parsed = DIALECT.parse(written, VIEW)
    assert parsed.text == text
    assert parsed.problems == ()


def test_boxes_are_ground_box_tokens_while_regions_are_unknown() -> None:
    text = GroundedText.of(Phrase("dogs", boxes(0, 1)), RegionRef(2))
    written = DIALECT.render(text, View(FRAME))
    assert written == "<p>dogs</p><roi><ground_box><ground_box></roi><roi><r2></roi><refer_feat>"


def test_a_box_takes_the_region_that_overlaps_it_best() -> None:
    near = Boxes([[210, 0, 300, 100]], FRAME)
    assert DIALECT.render(GroundedText.of(Phrase("", near)), VIEW) == "<roi><r1></roi>"


def test_two_boxes_of_one_region_are_written_once() -> None:
    near = Boxes([[0, 0, 100, 100], [0, 0, 100, 90]], FRAME)
    assert DIALECT.render(GroundedText.of(Phrase("", near)), VIEW) == "<roi><r0></roi>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            GroundedText.of(Phrase("x", Boxes([[400, 300, 500, 400]], FRAME))),
            "no region matches",
            id="a box without a region",
        ),
        pytest.param(GroundedText.of(RegionRef(4)), "region 4", id="region that is not there"),
        pytest.param(GroundedText.of("a <roi> b"), "'<roi>'", id="markup in words"),
        pytest.param(GroundedText.of(Phrase("<r3>")), "'<r3>'", id="markup in a phrase"),
        pytest.param(GroundedText.of("the end</s>"), "'</s>'", id="end token in words"),
        pytest.param(
            GroundedText.of(Phrase("dog"), " ", Phrase("", boxes(0))),
            "bare boxes follow",
            id="bare boxes would become the phrase's",
        ),
        pytest.param(
            GroundedText.of(Phrase("dog"), Nothing()), "bare boxes follow", id="nothing likewise"
        ),
        pytest.param(GroundedText.of(Phrase(" ")), "neither words nor boxes", id="empty phrase"),
    ],
)
def test_what_cannot_be_written_is_refused(text: GroundedText, message: str) -> None:
    with pytest.raises(DialectError, match=message):
        DIALECT.render(text, VIEW)


@pytest.mark.parametrize(
    ("output", "spans", "problems"),
    [
        pytest.param("<roi><r1></roi></s>", [Phrase("", boxes(1))], [], id="end token is not text"),
        pytest.param(
            "<roi> <r1> </roi> </s>",
            [Phrase("", boxes(1))],
            ["token_spacing"],
            id="blanks between tokens",
        ),
        pytest.param(
            "<p> A man </p> <roi> <r0> </roi> stands",
            [Phrase("A man", boxes(0)), Text(" stands")],
            ["token_spacing"],
            id="blanks everywhere are noted once",
        ),
        pytest.param(
            "<p>A man</p><roi><r0>",
            [Phrase("A man", boxes(0))],
            ["truncated_box"],
            id="cut after an index",
        ),
        pytest.param(
            "<p>A man</p><roi>", [Phrase("A man")], ["truncated_box"], id="cut before an index"
        ),
        pytest.param(
            "Look: <p>A ma",
            [Text("Look: "), Phrase("A ma")],
            ["truncated_box"],
            id="cut in a phrase",
        ),
        pytest.param(
            "<p>A man</p><roi><r0> stands",
            [Phrase("A man", boxes(0)), Text(" stands")],
            ["format_drift"],
            id="roi never closed",
        ),
        pytest.param(
            "<roi><r0><r57></roi>",
            [Phrase("", boxes(0))],
            ["unknown_region_index"],
            id="unknown index beside a good one",
        ),
        pytest.param(
            "<p>it</p><roi><r9></roi>",
            [Phrase("it")],
            ["unknown_region_index"],
            id="only unknown indices is not nothing",
        ),
        pytest.param(
            "<roi><r2><r2><r0></roi>",
            [Phrase("", boxes(2, 0))],
            ["repetition"],
            id="repeated index",
        ),
        pytest.param(
            "a dog <r2> there",
            [Text("a dog "), Phrase("", boxes(2)), Text(" there")],
            ["format_drift"],
            id="index outside roi is recovered",
        ),
        pytest.param("a</roi>b", [Text("ab")], ["format_drift"], id="lone closing tag"),
        pytest.param(
            "<roi>dog</roi>", [Text("dog")], ["format_drift"] * 2, id="words in roi are kept"
        ),
        pytest.param(
            "<roi><ground_box></roi>", [], ["unknown_region_index"], id="training token is no box"
        ),
        pytest.param(
            "<p>it</p> <roi><r1></roi><refer_feat>",
            [Phrase("it"), Text(" "), RegionRef(1)],
            [],
            id="a reference after a phrase stays a reference",
        ),
        pytest.param(
            "<roi><r8></roi><refer_feat>", [], ["unknown_region_index"], id="unknown reference"
        ),
        pytest.param("<r007> a < b", [Text("<r007> a < b")], [], id="not a token"),
        pytest.param("", [], [], id="silence"),
    ],
)
def test_parse_recovers_and_reports(output: str, spans: list[object], problems: list[str]) -> None:
    parsed = DIALECT.parse(output, VIEW)
    assert list(parsed.text.spans) == spans
    assert [problem.kind for problem in parsed.problems] == problems


@pytest.mark.parametrize(
    ("output", "problems"),
    [
        pytest.param("A man stands.", ["no_box"], id="words only"),
        pytest.param("", ["no_box"], id="silence"),
        pytest.param("<roi></roi>", [], id="an explicit none is an answer"),
        pytest.param("<roi><r9></roi>", ["unknown_region_index"], id="already explained"),
    ],
)
def test_missing_boxes_are_a_problem_only_where_asked_for(output: str, problems: list[str]) -> None:
    kinds = [problem.kind for problem in DIALECT.parse(output, VIEW, expects_boxes=True).problems]
    assert kinds == problems
    assert "no_box" not in [problem.kind for problem in DIALECT.parse(output, VIEW).problems]


def test_without_regions_no_box_is_invented() -> None:
    parsed = DIALECT.parse("<p>dog</p><roi><r0></roi>", View(FRAME))
    assert parsed.text == GroundedText.of(Phrase("dog"))
    assert [problem.kind for problem in parsed.problems] == ["unknown_region_index"]


def test_parsed_boxes_keep_the_scores_of_their_regions() -> None:
    scored = View(FRAME, regions=REGIONS.replace(scores=[0.1, 0.2, 0.3, 0.4]))
    found = DIALECT.parse("<roi><r3><r0></roi>", scored).text.boxes(FRAME)
    assert found.scores is not None
    assert found.scores.tolist() == [0.4, 0.1]


def test_special_tokens_are_in_the_order_of_the_released_vocabulary() -> None:
    # Groma ids 32001..32013; [PAD] 32000 is the tokenizer's own affair.
    assert DIALECT.special_tokens == (
        "<sep>",
        "<img>",
        "</img>",
        "<roi>",
        "</roi>",
        "<p>",
        "</p>",
        "<image>",
        "<region>",
        "<refer_box>",
        "<ground_box>",
        "<refer_feat>",
        "[grounding]",
    )


def test_region_tokens_name_their_index() -> None:
    assert [parse_region_token(region_token(index)) for index in (0, 7, 99)] == [0, 7, 99]
    assert [parse_region_token(token) for token in ("<r>", "<r07>", "r7", "<roi>")] == [None] * 4


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (DIALECT.locate("a dog"), "Locate <p>a dog</p> in the image."),
        (DIALECT.locate_all("dog"), "Locate all <p>dog</p> in this image."),
        (DIALECT.describe(), "[grounding]Give me a concise description of the image."),
        (
            DIALECT.describe_region(2),
            "Please describe <roi><r2></roi><refer_feat> in details.",
        ),
    ],
    ids=["locate", "locate_all", "describe", "describe_region"],
)
def test_questions_are_the_official_ones(text: GroundedText, written: str) -> None:
    assert DIALECT.render(text, VIEW) == written


WORDS = st.text(st.sampled_from("ab c<>/pr1.\n[]"), max_size=8).filter(
    lambda s: "<r1>" not in s and "<p>" not in s and "</p>" not in s
)
PHRASES = WORDS.map(str.strip)
PLACES = st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True).map(lambda i: boxes(*i))
SPANS = st.one_of(
    WORDS.map(Text),
    st.builds(Phrase, PHRASES, PLACES),
    st.builds(Phrase, PHRASES.filter(bool)),
    st.builds(RegionRef, st.integers(0, 3)),
    st.builds(Nothing, PHRASES),
)


@given(st.lists(SPANS, max_size=6))
def test_parse_undoes_render(spans: list[object]) -> None:
    text = GroundedText(tuple(spans))  # type: ignore[arg-type]
    try:
        written = DIALECT.render(text, VIEW)
    except DialectError:
        return  # neighbours that would be read differently, or markup made by merging words
    parsed = DIALECT.parse(written, VIEW)
    assert parsed.text == text
    assert parsed.problems == ()


MARKS = [*DIALECT.special_tokens, "<r0>", "<r3>", "<r9>", "</s>", " ", "dog", "<", "r1>"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(MARKS)).map("".join)), st.booleans())
def test_parse_never_raises_and_keeps_the_words(output: str, known: bool) -> None:
    parsed = DIALECT.parse(output, VIEW if known else View(FRAME), expects_boxes=True)
    assert parsed.text.plain.count("dog") == output.count("dog")
    found = parsed.text.boxes(FRAME).to_json()
    assert all(box in REGIONS.to_json() for box in found)
