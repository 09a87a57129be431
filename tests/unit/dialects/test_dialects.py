"""What holds for every dialect in the table, and the plain one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.boxes import Boxes, Frame, Warp
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
from parfocal.dialects.base import END_TOKENS, strip_end
from parfocal.dialects.brackets import Brackets
from parfocal.dialects.listing import Listing
from parfocal.dialects.molmo import PointsOnly
from parfocal.dialects.peer import Peer
from parfocal.errors import DialectError

FRAME = Frame("image", 320, 240)
DOG = Boxes([[32, 24, 160, 120]], FRAME)
CAT = Boxes([[200, 100, 300, 220]], FRAME)
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


PEERS = [name for name, dialect in DIALECTS.items() if isinstance(dialect, Peer)]
MARKS = [
    "<p>", "</p>", "<ref>", "</ref>", "<box>", "</box>", "<|box_start|>", "<|det|>", "<object>",
    "<phrase>", "<|object_ref_start|>", "<points", "<point ", 'x="', 'coords="', '"', "'", "{",
    "}", '{"bbox_2d": ', '"box_2d"', '"point_2d": ', "[", "[[", "]", "]]", "(", "),", "<loc_7>",
    "<loc0007>", "<patch_index_0040>", "<7>", "[SEG]", "<delim>", "<think>", "</think>", "1",
    "```json\n", "9" * 400, "0.5", "-", ".", ",", ";", " ", "\n", "NaN", "None", "null", "\\",
    "a dog", "</s>", "<|im_end|>",
]  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=25)
@given(st.one_of(st.text(), st.lists(st.sampled_from(MARKS), max_size=12).map("".join)))
def test_any_output_is_read(name: str, output: str) -> None:
    parsed = get_dialect(name).parse(output, VIEW, expects_boxes=True)
    boxes = parsed.text.boxes(FRAME)
    assert boxes == boxes.clip()


@pytest.mark.slow
@pytest.mark.parametrize("name", DIALECTS)
def test_reading_takes_time_in_proportion_to_the_output(name: str) -> None:
    # Quadratic reading would take minutes here.
    for mark in MARKS:
        get_dialect(name).parse(mark * (20000 // len(mark)) + "x", VIEW)


# What may be done to a picture before a model sees it.
SHAPES = {
    "as it is": Warp.identity,
    "turned": lambda frame: Warp.exif(frame, 6, "turned"),
    "flipped": Warp.flip,
    "cropped": lambda frame: Warp.crop(frame, (40, 20, 300, 190)),
    "squashed": lambda frame: Warp.resize(frame, 448, 448),
    "padded": lambda frame: Warp.pad(frame, 5, 30, 10, 0),
}
UNIT = st.floats(0, 1)
INSIDE = st.lists(st.tuples(UNIT, UNIT, UNIT, UNIT), min_size=1, max_size=3)


def _seen(name: str, shape: str) -> View:
    made = SHAPES[shape](FRAME)
    return View(FRAME, made.then(get_dialect(name).coordinate_frame(made.target)))


def _in_picture(rows: np.ndarray, shape: str) -> Boxes:
    """Boxes in image pixels from fractions of the picture as it was shaped; never outside it."""
    made = SHAPES[shape](FRAME)
    return made.inverse().apply(Boxes.from_unit(rows, made.target)).clip()


def _error(peer: Peer, warp: Warp) -> np.ndarray:
    """float64[4]: what a corner may be off, as fractions of the frame of the numbers."""
    x, y = (grid.error for grid in peer.grids(warp))
    # Kosmos-2 takes outer edges instead of centres where corners share a row or a column of cells.
    return np.array([x, y, x, y]) * (2 if peer.name == "kosmos2" else 1)


WITH_BOXES = [n for n in PEERS if not isinstance(DIALECTS[n], PointsOnly) and n != "glamm"]


@pytest.mark.parametrize("name", WITH_BOXES)
@settings(max_examples=25)
@given(INSIDE, st.sampled_from(list(SHAPES)))
def test_boxes_survive_writing_to_within_the_grid(
    name: str, corners: list[tuple[float, ...]], shape: str
) -> None:
    peer, view = DIALECTS[name], _seen(name, shape)
    assert isinstance(peer, Peer)
    array = np.array(corners).reshape(-1, 2, 2)
    boxes = _in_picture(np.hstack([array.min(axis=1), array.max(axis=1)]), shape)
    parsed = peer.parse(peer.render(GroundedText.of(Phrase("the dog", boxes)), view), view)
    assert [phrase.text for phrase in parsed.text.phrases] == ["the dog"]
    assert {problem.kind for problem in parsed.problems} <= {"degenerate", "repetition"}
    warp = peer.warp(view)
    wrote, read = warp.apply(boxes).unit, warp.apply(parsed.text.boxes(FRAME)).unit
    assert 0 < len(read) <= len(wrote)  # boxes of the same numbers are written once
    off = np.abs(wrote[:, None] - read[None]) - _error(peer, warp)  # [N, M, 4]
    assert (off.max(axis=2).min(axis=1) < 1e-9).all()


@pytest.mark.parametrize("name", [n for n in PEERS if getattr(DIALECTS[n], "has_points", False)])
@settings(max_examples=15)
@given(st.tuples(UNIT, UNIT), st.sampled_from(list(SHAPES)))
def test_points_survive_writing_to_within_the_grid(
    name: str, point: tuple[float, float], shape: str
) -> None:
    peer, view = DIALECTS[name], _seen(name, shape)
    assert isinstance(peer, Peer)
    boxes = _in_picture(np.array([[*point, *point]]), shape)
    parsed = peer.parse(peer.render(GroundedText.of(Phrase("the nose", boxes)), view), view)
    read = parsed.text.boxes(FRAME)
    assert (len(read), read.area.tolist(), parsed.problems) == (1, [0.0], ())
    warp = peer.warp(view)
    off = np.abs(warp.apply(boxes).unit - warp.apply(read).unit)
    assert (off <= _error(peer, warp) + 1e-9).all()


def test_only_families_that_cut_or_leave_out_the_last_number_err_by_more_than_half_a_step() -> None:
    more = set()
    for name in PEERS:
        peer = DIALECTS[name]
        assert isinstance(peer, Peer)
        grids = peer.grids(peer.coordinate_frame(FRAME))
        if any(grid.error > 0.5001 * grid.step for grid in grids):
            more.add(name)
        assert all(grid.error < 1.0001 * grid.step for grid in grids)
    # Their authors' encoders cut, or never write the far edge; see docs/dialects.md.
    assert more == {"qwen2_5_vl", "ferret", "cogvlm_grounding", "minigpt_v2", "rex_omni"}


@pytest.mark.parametrize("name", PEERS)
def test_a_list_of_phrases_survives(name: str) -> None:
    view = View(FRAME, get_dialect(name).coordinate_frame(FRAME), Boxes.concat([DOG, CAT, CAT]))
    text = GroundedText.of(Phrase("a dog", DOG), ", ", Phrase("two cats", CAT))
    parsed = get_dialect(name).parse(get_dialect(name).render(text, view), view)
    assert parsed.text.plain == "a dog, two cats"
    assert [len(phrase.boxes) for phrase in parsed.text.phrases] == [1, 1]
    assert parsed.problems == ()


@pytest.mark.parametrize("name", PEERS)
def test_grounded_phrases_among_words_survive_or_are_refused(name: str) -> None:
    dialect = get_dialect(name)
    view = View(FRAME, dialect.coordinate_frame(FRAME), Boxes.concat([DOG, CAT]))
    text = GroundedText.of("I see ", Phrase("a dog", DOG), " and ", Phrase("two cats", CAT), ".")
    if isinstance(dialect, Listing) and not dialect.inline:
        with pytest.raises(DialectError, match="list of phrases"):
            dialect.render(text, view)
        return
    parsed = dialect.parse(dialect.render(text, view), view)
    assert [getattr(span, "text", None) for span in parsed.text.spans] == [
        "I see ", "a dog", " and ", "two cats", "."
    ]  # fmt: skip
    assert parsed.problems == ()


@pytest.mark.parametrize("name", [n for n in PEERS if n not in ("glamm", "molmo", "molmo2")])
def test_a_box_outside_the_frame_of_the_numbers_is_refused(name: str) -> None:
    dialect = get_dialect(name)
    view = View(FRAME, dialect.coordinate_frame(FRAME))
    with pytest.raises(DialectError, match="Clip them"):
        dialect.render(GroundedText.of(Phrase("", Boxes([[0, 0, 400, 400]], FRAME))), view)


@pytest.mark.parametrize("name", PEERS)
def test_what_a_dialect_writes_is_refused_as_words(name: str) -> None:
    dialect = get_dialect(name)
    view = View(FRAME, dialect.coordinate_frame(FRAME), DOG)
    written = dialect.render(GroundedText.of(Phrase("dog", DOG)), view)
    with pytest.raises(DialectError, match="would be read as"):
        dialect.render(GroundedText.of("words " + written), view)


@pytest.mark.parametrize("name", [n for n in PEERS if isinstance(DIALECTS[n], Brackets)])
def test_lists_of_other_numbers_are_words(name: str) -> None:
    dialect = get_dialect(name)
    assert isinstance(dialect, Brackets)
    view = View(FRAME, dialect.coordinate_frame(FRAME))
    lists = ["sorted([3, 1, 2])", "a[1:3] is [0.5, 1, 2, 3, 4]", "see [1; 2]"]
    if not dialect.has_points:
        lists.append("[1,000] of them")
    for words in lists:
        assert dialect.render(GroundedText.of(words), view) == words
        assert dialect.parse(words, view).text.plain == words
    for words in ("[1, 2, 3, 4]", "x[0.1,0.2,0.3,0.4", "cut at [1, 2", "[1, 2, 3, 4; 5]"):
        with pytest.raises(DialectError, match="would be read as"):
            dialect.render(GroundedText.of(words), view)


@pytest.mark.parametrize("name", PEERS)
def test_regions_must_be_there(name: str) -> None:
    dialect = get_dialect(name)
    with pytest.raises(DialectError, match="the view has 1 regions"):
        dialect.render(dialect.describe_region(1), VIEW)


@pytest.mark.parametrize("name", PEERS)
def test_the_frame_is_the_familys_unless_the_preprocessor_decides_it(name: str) -> None:
    peer, text = DIALECTS[name], GroundedText.of(Phrase("the dog", DOG))
    assert isinstance(peer, Peer)
    if peer.needs_coordinates:
        with pytest.raises(DialectError, match=r"needs View\.coordinates"):
            peer.render(text, View(FRAME))
    else:
        own = View(FRAME, peer.coordinate_frame(FRAME))
        assert peer.render(text, View(FRAME)) == peer.render(text, own)


@pytest.mark.parametrize("name", PEERS)
def test_missing_boxes_are_a_problem_where_asked_for(name: str) -> None:
    view = View(FRAME, get_dialect(name).coordinate_frame(FRAME))
    for asked, kinds in ((True, ["no_box"]), (False, [])):
        parsed = get_dialect(name).parse("It is on the left.", view, expects_boxes=asked)
        assert parsed.text.plain == "It is on the left."
        assert [problem.kind for problem in parsed.problems] == kinds


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
        pytest.param("a" + "".join(END_TOKENS), "a", id="of every family"),
    ],
)
def test_strip_end(output: str, text: str) -> None:
    assert strip_end(output) == text
