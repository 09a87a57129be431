"""Wordings: files of sentences, read strictly."""

from __future__ import annotations

import json

import pytest

from parfocal.data.views import VIEWS, QuestionView
from parfocal.data.views.wording import FOLDER, Wording, read_wordings
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef
from parfocal.errors import DataError

SLOTS = {"question": ("phrase",)}


def test_filling_keeps_spans():
    wording = Wording("Is {first} near {second}?")
    assert wording.slots == ("first", "second")
    inside = GroundedText.of("the ", Phrase("dog"))
    filled = wording.fill(first=inside, second=RegionRef(2))
    assert filled == GroundedText.of("Is the ", Phrase("dog"), " near ", RegionRef(2), "?")
    assert Wording("{phrase}").fill(phrase="{second}").plain == "{second}"


def test_published_sentences_are_word_for_word():
    # specs of the papers: Groma's official loaders, TinyGroundingGPT Fig. 10 and section 4.2
    published = {
        ("groma_rec", "question", "phrase"): (0, "Locate {} in the image."),
        ("groma_all", "question", "phrase"): (5, "What is the position of each {} in the image?"),
        ("groma_detail", "question", "region"): (1, "Please describe {} in details."),
        ("groma_short", "question", "region"): (
            3,
            "Please give a concise description of region {}.",
        ),
    }
    sizes = {"groma_rec": 6, "groma_all": 6, "groma_detail": 5, "groma_short": 4}
    for (name, key, slot), (index, text) in published.items():
        found = read_wordings(name, {key: (slot,)})[key]
        assert len(found) == sizes[name]
        assert found[index].text == text.replace("{}", f"{{{slot}}}")
    assert len(read_wordings("groma_grounded_caption", {"question": ()})["question"]) == 7
    views = {name: VIEWS[name]().wordings for name in ("text_coordinates", "image_coordinates")}
    firsts = {key: texts[0].text for found in views.values() for key, texts in found.items()}
    assert firsts == {
        "to_text": "Describe the object located within the region {region}.",
        "to_coordinates": "What is the location of {object}?",
        "to_image": "Which is the item in region {region}? {options}",
        "answer": "The answer is {letter}.",
    }
    to_coordinates = [item.text for item in views["text_coordinates"]["to_coordinates"]]
    assert to_coordinates[:2] == [
        "In this image, where is {phrase} located?", "Output the coordinate of {phrase}"
    ]  # fmt: skip


def test_every_shipped_file_is_read_by_some_view():
    used = {view().wording for view in VIEWS.values() if issubclass(view, QuestionView)}
    used |= {"groma_detail"}  # RegionCaption(wording="groma_detail"), for RefCOCOg
    assert {path.stem for path in FOLDER.glob("*.json")} == used


def test_several_phrasings_of_every_question():
    for view in VIEWS.values():
        if issubclass(view, QuestionView):
            for key, wordings in view().wordings.items():
                assert len(wordings) >= (1 if key == "answer" else 4), (view.name, key)


@pytest.fixture
def write(tmp_path):
    def run(content) -> str:
        path = tmp_path / "own.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return str(path)

    return run


def test_a_file_of_ones_own(write, annotate, make):
    own = {"version": 1, "source": "me", "wordings": {"question": ["Wo ist {phrase}?"]}}
    view = VIEWS["rec"](wording=write(own))
    (made,), _ = make(annotate([("der Hund", [10, 10, 60, 60])]), view)
    assert made.turns[0].text.plain == "Wo ist der Hund?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ([], "must be an object with exactly"),
        ({"version": 1, "wordings": {}}, "must be an object with exactly"),
        (
            {"version": 1, "source": "x", "wordings": {}, "extra": 1},
            "must be an object with exactly",
        ),
        ({"version": 0, "source": "x", "wordings": {"question": ["{phrase}"]}}, "version is 0"),
        (
            {"version": True, "source": "x", "wordings": {"question": ["{phrase}"]}},
            "version is True",
        ),
        ({"version": 1, "source": " ", "wordings": {"question": ["{phrase}"]}}, "source is"),
        ({"version": 1, "source": "x", "wordings": {}}, "object of lists"),
        ({"version": 1, "source": "x", "wordings": {"question": []}}, "list of sentences"),
        ({"version": 1, "source": "x", "wordings": {"question": "{phrase}"}}, "list of sentences"),
        ({"version": 1, "source": "x", "wordings": {"question": [3]}}, r"question\[0\] is 3"),
        ({"version": 1, "source": "x", "wordings": {"question": [" "]}}, "must be a sentence"),
        ({"version": 1, "source": "x", "wordings": {"question": ["{phrase} {}"]}}, "brace"),
        ({"version": 1, "source": "x", "wordings": {"question": ["{Phrase}"]}}, "brace"),
        ({"version": 1, "source": "x", "wordings": {"question": ["{phrase}"] * 2}}, "second time"),
        ({"version": 1, "source": "x", "wordings": {"question": ["Where?"]}}, "must have {phrase}"),
        (
            {"version": 1, "source": "x", "wordings": {"question": ["{phrase} {region}"]}},
            "must have {phrase}, each exactly once",
        ),
        (
            {"version": 1, "source": "x", "wordings": {"question": ["{phrase} {phrase}"]}},
            "each exactly once",
        ),
        (
            {"version": 1, "source": "x", "wordings": {"questions": ["{phrase}"]}},
            "has the lists questions; this view needs exactly question",
        ),
    ],
)
def test_faults_are_named_with_their_file(write, content, message):
    path = write(content)
    with pytest.raises(DataError, match=message) as caught:
        read_wordings(path, SLOTS)
    assert path in str(caught.value)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(DataError, match=r"groma_all, .*text_image"):
        read_wordings("groma_wreck", SLOTS)
    with pytest.raises(DataError, match="this view needs exactly"):
        VIEWS["rec"](wording="relation_qa")
