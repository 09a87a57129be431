import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects import (
    GroundedText,
    Nothing,
    ObjectRef,
    Phrase,
    RegionRef,
    Text,
    View,
    get_dialect,
    padded_unit_square,
)
from parfocal.errors import DialectError

SQUARE = Frame("image", 1000, 1000)
WIDE = Frame("image", 640, 480)  # 80 pixels of padding above and below: y from 0.125 to 0.875
VIEW = View(SQUARE, padded_unit_square(SQUARE))
DIALECT = get_dialect("coordinates")


def phrase(text: str, *rows: list[float]) -> Phrase:
    return Phrase(text, Boxes(list(rows), SQUARE))


BOX = [100.0, 200.0, 300.0, 400.0]
OTHER = [500.0, 500.0, 900.0, 900.0]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param(
            GroundedText.of("I see ", phrase("a dog", BOX), "."),
            "I see a dog [0.100, 0.200, 0.300, 0.400].",
            id="three decimals always",
        ),
        pytest.param(
            GroundedText.of(phrase("Two dogs", BOX, OTHER), " play."),
            "Two dogs [0.100, 0.200, 0.300, 0.400][0.500, 0.500, 0.900, 0.900] play.",
            id="several boxes are adjacent",
        ),
        pytest.param(
            GroundedText.of("At: ", phrase("", BOX)), "At: [0.100, 0.200, 0.300, 0.400]", id="bare"
        ),
        pytest.param(GroundedText.of(Nothing()), "none", id="nothing"),
    ],
)
def test_render_and_parse(text: GroundedText, written: str) -> None:
    assert DIALECT.render(text, VIEW) == written
    parsed = DIALECT.parse(written, VIEW)
    assert parsed.text.to_json() == text.to_json()
    assert parsed.problems == ()


def test_numbers_are_fractions_of_the_padded_square() -> None:
    view = View(WIDE, padded_unit_square(WIDE))
    text = GroundedText.of(Phrase("", Boxes([[0, 0, 640, 480]], WIDE)))
    assert DIALECT.render(text, view) == "[0.000, 0.125, 1.000, 0.875]"


def test_a_region_is_written_as_its_box() -> None:
    view = View(SQUARE, padded_unit_square(SQUARE), Boxes([BOX, OTHER], SQUARE))
    written = DIALECT.render(DIALECT.describe_region(1), view)
    assert written == "Describe the object at [0.500, 0.500, 0.900, 0.900]."


def test_locate_is_the_question_of_the_paper() -> None:
    assert DIALECT.render(DIALECT.locate("the red cup"), VIEW) == (
        "Output the coordinate of the red cup"
    )


@pytest.mark.parametrize(
    ("text", "view", "message"),
    [
        pytest.param(
            GroundedText.of(phrase("a", BOX)), View(SQUARE), "View.coordinates", id="no warp"
        ),
        pytest.param(
            GroundedText.of(phrase("a", [0, 0, 1200, 10])), VIEW, "leave the frame", id="outside"
        ),
        pytest.param(
            GroundedText.of("see [0.1, 0.2, 0.3, 0.4]"),
            VIEW,
            "read as a box",
            id="numbers in words",
        ),
        pytest.param(GroundedText.of(RegionRef(0)), VIEW, "region 0", id="no such region"),
    ],
)
def test_what_cannot_be_written_is_refused(text: GroundedText, view: View, message: str) -> None:
    with pytest.raises(DialectError, match=message):
        DIALECT.render(text, view)


def test_parse_without_a_warp_is_the_callers_mistake() -> None:
    with pytest.raises(DialectError, match="coordinate_frame"):
        DIALECT.parse("a dog", View(SQUARE))


@pytest.mark.parametrize(
    ("output", "rows", "problems"),
    [
        pytest.param("[0.1, 0.2, 0.3, 0.4]", [BOX], [], id="one decimal"),
        pytest.param("[0.1000, 0.20001, 0.3, 0.4]", [[100, 200.01, 300, 400]], [], id="more"),
        pytest.param("[.1, .2, .3, .4]", [BOX], [], id="no leading zero"),
        pytest.param("[0.1,0.2,0.3,0.4]", [BOX], ["format_drift"], id="no spaces"),
        pytest.param("[ 0.1 0.2 0.3 0.4 ]", [BOX], ["format_drift"], id="spaces only"),
        pytest.param(
            "[0.1,0.2,0.3,0.4;0.5,0.5,0.9,0.9]", [BOX, OTHER], ["format_drift"], id="semicolon"
        ),
        pytest.param("[0.3, 0.4, 0.1, 0.2]", [BOX], ["inverted"], id="corners swapped"),
        pytest.param("[0.3, 0.2, 0.1, 0.4]", [BOX], ["inverted"], id="only x swapped"),
        pytest.param(
            "[0.5, 0.5, 1.05, 0.9]", [[500, 500, 1000, 900]], ["out_of_range"], id="slip is clipped"
        ),
        pytest.param(
            "[-0.05, 0.5, 0.2, 0.9]",
            [[0, 500, 200, 900]],
            ["format_drift", "out_of_range"],
            id="negative slip",
        ),
        pytest.param("[0.5, 0.5, 1.2, 0.9]", [], ["out_of_range"], id="beyond 1.1 is dropped"),
        pytest.param("[100, 200, 300, 400]", [], ["out_of_range"], id="pixels are not guessed"),
        pytest.param(
            "[0.1, 0.2, 0.1, 0.4]", [[100, 200, 100, 400]], ["degenerate"], id="no area is kept"
        ),
        pytest.param("[0.1, 0.2, 0.3]", [], ["wrong_arity"], id="three numbers"),
        pytest.param("[0.1, 0.2, 0.3, 0.4, 0.5]", [], ["wrong_arity"], id="five numbers"),
        pytest.param("[0.1, 0..2, 0.3, 0.4]", [], ["wrong_arity"], id="not a number"),
        pytest.param("a dog [0.1, 0.2, 0.3", [], ["truncated_box"], id="cut in a box"),
        pytest.param("[0.1, 0.2, 0.3, 0.4", [], ["truncated_box"], id="last digits may be missing"),
        pytest.param(
            "[0.100, 0.200, 0.300, 0.400",
            [BOX],
            ["truncated_box"],
            id="only the bracket is missing",
        ),
        pytest.param("as in [3] and []", [], [], id="citations are words"),
        pytest.param("[0.1, 0.2, 0.3, 0.4]</s>", [BOX], [], id="end token"),
    ],
)
def test_parse_recovers_and_reports(
    output: str, rows: list[list[float]], problems: list[str]
) -> None:
    parsed = DIALECT.parse(output, VIEW)
    np.testing.assert_allclose(parsed.text.boxes(SQUARE).xyxy, np.reshape(rows, (-1, 4)), atol=1e-9)
    assert [problem.kind for problem in parsed.problems] == problems


@pytest.mark.parametrize(
    ("output", "rows", "problems"),
    [
        pytest.param("[0.2, 0.0, 0.4, 0.1]", [], ["in_padding"], id="wholly in the padding"),
        pytest.param("[0.2, 0.0, 0.4, 0.125]", [], ["in_padding"], id="touches the picture"),
        pytest.param("[0.2, 0.0, 0.4, 0.25]", [[128, 0, 256, 80]], [], id="partly: clipped"),
    ],
)
def test_padding_is_not_picture(output: str, rows: list[list[float]], problems: list[str]) -> None:
    parsed = DIALECT.parse(output, View(WIDE, padded_unit_square(WIDE)))
    np.testing.assert_allclose(parsed.text.boxes(WIDE).xyxy, np.reshape(rows, (-1, 4)), atol=1e-9)
    assert [problem.kind for problem in parsed.problems] == problems


@pytest.mark.parametrize(
    ("output", "texts"),
    [
        pytest.param(
            "There is a red dog #.", ["There is ", "a red dog", "."], id="from the article"
        ),
        pytest.param("Two dogs##play", ["Two dogs", "play"], id="number word"),
        pytest.param(
            "dogs # and cats #", ["dogs", " and ", "cats"], id="no article: after the last box"
        ),
        pytest.param("A man # in a hat #", ["A man", " in ", "a hat"], id="after the last box"),
        pytest.param("Yes, dog #", ["Yes, ", "dog"], id="after punctuation"),
        pytest.param(
            "About 2.5 m: dog #", ["About 2.5 m: ", "dog"], id="a decimal point ends nothing"
        ),
        pytest.param("#", [""], id="bare box"),
    ],
)
def test_phrases_are_found_before_their_boxes(output: str, texts: list[str]) -> None:
    spans = DIALECT.parse(output.replace("#", "[0.1, 0.2, 0.3, 0.4]"), VIEW).text.spans
    assert [span.text for span in spans if isinstance(span, Text | Phrase)] == texts


@pytest.mark.parametrize("output", ["none", "None.", " none </s>"])
def test_none_is_an_answer(output: str) -> None:
    parsed = DIALECT.parse(output, VIEW, expects_boxes=True)
    assert (parsed.text.is_nothing, parsed.problems) == (True, ())


def test_a_bracket_that_is_no_box_stays_readable() -> None:
    parsed = DIALECT.parse("a dog [0.2, 0.3, 0.4] here", VIEW, expects_boxes=True)
    assert parsed.text.plain == "a dog [0.2, 0.3, 0.4] here"


PIECES = ["[", "]", "0.1", "0.25", "1.05", "7", "-", ", ", ",", ";", " ", "a dog", "none", "</s>"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_parse_never_raises_and_boxes_stay_in_the_picture(output: str) -> None:
    parsed = DIALECT.parse(output, View(WIDE, padded_unit_square(WIDE)), expects_boxes=True)
    found = parsed.text.boxes(WIDE)
    assert found == found.clip()
    assert parsed.text.plain.count("dog") == output.count("dog")


def _exif(image: Frame, orientation: int) -> Warp:
    turned = Warp.exif(image, orientation)
    return turned.then(padded_unit_square(turned.target))


def _resized(image: Frame) -> Warp:
    resized = Warp.resize(image, 336, 200)
    return resized.then(padded_unit_square(resized.target))


def _cropped(image: Frame) -> Warp:
    crop = Warp.crop(image, (0, 0, image.width * 0.75, image.height * 0.5))
    return crop.then(padded_unit_square(crop.target))


def _bottom_padded(image: Frame) -> Warp:
    padded = Warp.pad_to_square(image, centre=False)
    return padded.then(Warp.to_unit(padded.target))


WARPS = {
    "pad": padded_unit_square,
    "pad at the bottom": _bottom_padded,
    "squash": Warp.to_unit,
    "resize": _resized,
    "crop": _cropped,
    **{f"exif {turn}": lambda image, turn=turn: _exif(image, turn) for turn in range(1, 9)},
}


@pytest.mark.parametrize("name", WARPS)
@settings(max_examples=50)
@given(data=st.data())
def test_a_box_survives_writing_to_half_a_step(name: str, data: st.DataObject) -> None:
    image = Frame("image", data.draw(st.integers(1, 4000)), data.draw(st.integers(1, 4000)))
    warp = WARPS[name](image)
    share = 0.5 if name == "crop" else 1.0  # a crop can only name what it shows
    ends = st.floats(0, share).flatmap(lambda a: st.tuples(st.just(a), st.floats(a, share)))
    (x1, x2), (y1, y2) = data.draw(ends), data.draw(ends)
    box = Boxes.from_unit([[x1, y1, x2, y2]], image)
    view = View(image, warp)
    written = DIALECT.render(GroundedText.of(Phrase("", box)), view)
    again = DIALECT.parse(written, view).text.boxes(image)
    assert len(again) == 1, written
    # Half a step in the frame of the numbers, carried back to pixels of the picture.
    step = warp.inverse().apply(Boxes([[0, 0, 0.0005, 0.0005]], warp.target)).xywh[0, 2:]
    error = np.abs(again.xyxy - box.xyxy).max(axis=0)
    assert np.all(error <= np.tile(step, 2) * (1 + 1e-6) + 1e-9 * max(image.width, image.height))


@pytest.mark.parametrize("name", ["coordinates", "plain", "region_tokens"])
def test_an_object_image_leaves_a_mark_for_the_processor(name: str) -> None:
    text = GroundedText.of("a. ", ObjectRef(1), "; b. ", ObjectRef(2))
    assert get_dialect(name).render(text, VIEW) == "a. <object1>; b. <object2>"


@pytest.mark.parametrize("name", ["coordinates", "region_tokens"])
def test_words_that_look_like_an_object_image_are_refused(name: str) -> None:
    with pytest.raises(DialectError, match="<object1>"):
        get_dialect(name).render(GroundedText.of("what is <object1>?"), VIEW)


def test_families_without_object_images_say_so() -> None:
    with pytest.raises(DialectError, match="shikra dialect has no form for object images"):
        get_dialect("shikra").render(GroundedText.of(ObjectRef(1)), VIEW)
