import pickle

import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.dialects import GroundedText, Nothing, ObjectRef, Phrase, RegionRef, Text
from parfocal.errors import DataError, DialectError, FrameError

FRAME = Frame("image", 640, 480)
SECOND = Frame("image1", 100, 50)
DOG = Boxes([[10, 20, 110, 220]], FRAME)
BALLS = Boxes([[1, 2, 3, 4], [5, 6, 7, 8]], FRAME, scores=[0.5, 0.25])


def test_neighbouring_texts_merge_and_empty_ones_vanish() -> None:
    text = GroundedText.of("a", Text(""), Text("b"), Phrase("c", DOG), "", "d")
    assert text.spans == (Text("ab"), Phrase("c", DOG), Text("d"))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        pytest.param(
            GroundedText.of("I see ", Phrase("a dog", DOG), "."), "I see a dog.", id="phrase"
        ),
        pytest.param(
            GroundedText.of("Describe ", RegionRef(0)), "Describe [region 0]", id="region"
        ),
        pytest.param(GroundedText.of("a. ", ObjectRef(1)), "a. [object 1]", id="object image"),
        pytest.param(GroundedText.of(Nothing()), "none", id="nothing"),
        pytest.param(GroundedText.of(Nothing("dog")), "no dog", id="nothing with its phrase"),
        pytest.param(GroundedText.of(Phrase("", DOG)), "", id="bare boxes have no words"),
        pytest.param(GroundedText(), "", id="no spans"),
    ],
)
def test_plain_is_what_a_person_reads(text: GroundedText, plain: str) -> None:
    assert text.plain == plain


def test_boxes_are_all_phrases_in_order() -> None:
    text = GroundedText.of(Phrase("dog", DOG), " and ", Phrase("cat"), Phrase("balls", BALLS))
    assert text.boxes(FRAME).to_json() == DOG.to_json() + BALLS.to_json()
    assert [phrase.text for phrase in text.phrases] == ["dog", "cat", "balls"]


def test_boxes_keep_scores_only_if_every_phrase_has_them() -> None:
    assert GroundedText.of(Phrase("a", BALLS), Phrase("b", BALLS)).boxes(FRAME).scores is not None
    assert GroundedText.of(Phrase("a", BALLS), Phrase("b", DOG)).boxes(FRAME).scores is None


def test_no_boxes_are_empty_boxes_of_the_asked_frame() -> None:
    assert GroundedText.of("words").boxes(FRAME) == Boxes.empty(FRAME)


def test_boxes_of_another_picture_are_refused() -> None:
    with pytest.raises(FrameError, match="image1"):
        GroundedText.of(Phrase("dog", DOG)).boxes(SECOND)


@pytest.mark.parametrize(
    ("text", "is_nothing"),
    [
        pytest.param(GroundedText.of(Nothing("dog")), True, id="only nothing"),
        pytest.param(GroundedText.of("There is ", Nothing(), "."), True, id="nothing among words"),
        pytest.param(
            GroundedText.of(Nothing(), Phrase("cat", DOG)), False, id="but something else"
        ),
        pytest.param(GroundedText.of("none"), False, id="words are not a statement"),
        pytest.param(GroundedText(), False, id="silence is not a statement"),
    ],
)
def test_is_nothing(text: GroundedText, is_nothing: bool) -> None:
    assert text.is_nothing is is_nothing


def test_phrases_without_boxes_are_equal_whatever_the_frame() -> None:
    assert Phrase("dog", Boxes.empty(FRAME)) == Phrase("dog", Boxes.empty(SECOND)) == Phrase("dog")


def test_json_round_trip_keeps_pictures_scores_and_order() -> None:
    second = Boxes([[0, 0, 100, 50]], SECOND)
    text = GroundedText.of(
        "a ",
        Phrase("dog", DOG),
        Phrase("", BALLS),
        Phrase("cat", second),
        RegionRef(2),
        Phrase("sky"),
        Nothing(),
        Nothing("fox"),
    )
    rows = text.to_json()
    assert rows[3] == {"type": "phrase", "text": "cat", "boxes": [[0, 0, 100, 50]], "image": 1}
    assert GroundedText.from_json(rows, [FRAME, SECOND]) == text


def test_json_needs_pixels_of_a_picture() -> None:
    boxes = Boxes([[0, 0, 1, 1]], Frame("unit", 1, 1))
    with pytest.raises(FrameError, match="'unit'"):
        GroundedText.of(Phrase("dog", boxes)).to_json()


@pytest.mark.parametrize(
    ("span", "message"),
    [
        pytest.param({"type": "txt", "text": "a"}, "no known type", id="unknown type"),
        pytest.param({"text": "a"}, "no known type", id="no type"),
        pytest.param("a dog", "no known type", id="not an object"),
        pytest.param({"type": "text"}, "lacks the field 'text'", id="missing field"),
        pytest.param({"type": "text", "text": 3}, "must be a string", id="wrong type"),
        pytest.param({"type": "region", "index": -1}, "from 0", id="negative region"),
        pytest.param(
            {"type": "phrase", "text": "a", "boxes": [[5, 0, 1, 1]]}, "not valid", id="swapped"
        ),
        pytest.param(
            {"type": "phrase", "text": "a", "boxes": [[0, 0, 1, 1]], "image": 2},
            "image 2",
            id="no such picture",
        ),
    ],
)
def test_bad_json_names_the_span(span: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        GroundedText.from_json([span], [FRAME])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: Text(3), id="text is a number"),
        pytest.param(lambda: Phrase("dog", [[0, 0, 1, 1]]), id="boxes without a frame"),
        pytest.param(lambda: RegionRef(True), id="region is a flag"),
        pytest.param(lambda: GroundedText.of(3), id="span is a number"),
    ],
)
def test_wrong_types_are_refused(build: object) -> None:
    with pytest.raises(DialectError):
        build()  # type: ignore[operator]


def test_grounded_text_can_be_pickled_for_data_workers() -> None:
    text = GroundedText.of("a ", Phrase("dog", DOG), Nothing(), RegionRef(1))
    assert pickle.loads(pickle.dumps(text)) == text


def test_object_images_survive_json_and_must_be_there() -> None:
    text = GroundedText.of("Is it ", ObjectRef(1), "?")
    assert GroundedText.from_json(text.to_json(), [FRAME, SECOND]) == text
    with pytest.raises(DataError, match="object image 1 is referred to, there are 1 images"):
        GroundedText.from_json(text.to_json(), [FRAME])


@pytest.mark.parametrize("image", [0, -1, True, "1", 1.0])
def test_an_object_image_is_a_further_picture(image: object) -> None:
    with pytest.raises(DialectError, match="an integer from 1"):
        ObjectRef(image)  # type: ignore[arg-type]
