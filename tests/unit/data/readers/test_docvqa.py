"""DocVQA: several answers, none in the test split, pages in several folders."""

from __future__ import annotations

import pytest

from parfocal.data.readers.docvqa import DocVqaReader
from parfocal.dialects import GroundedText
from parfocal.errors import DataError

FILE = "docvqa/val_v1.0.json"
PAGES = {
    "documents/abcd0001_1.png": (60, 80),
    "ffbf0023_4.png": (61, 80),
    "spdocvqa_images/kxyz0000_12.png": (62, 80),
    "docvqa/images/lmno0001_2.png": (63, 80),
    "images/pqrs0001_9.png": (64, 80),
}


def test_questions_with_their_first_answer(datasets, make_pictures, read_all):
    reader = DocVqaReader([datasets / FILE], images=make_pictures(PAGES), split="val")
    samples = {sample.meta["questionId"]: sample for sample in read_all(reader)}
    assert list(samples) == [n for n in range(49153, 49163) if n != 49161]
    assert reader.skipped == {"pictures that are not in the folder": 1}
    first = samples[49153]
    assert first.id == "docvqa:val:49153"
    assert [(turn.role, turn.text.plain) for turn in first.turns] == [
        ("user", "What is the date?"), ("assistant", "1/8/93")
    ]  # fmt: skip
    assert first.meta["answers"] == ["1/8/93", "1/8/1993"]
    assert first.meta["image_key"] == "docvqa:abcd0001_1"
    assert first.meta["ucsf_document_page_no"] == "1"
    assert samples[49154].meta["question_types"] == ["handwritten", "form"]
    assert samples[49159].turns[1].text.plain == "Ann"  # the empty answer before it is none
    paths = {sample.images[0].path: sample.images[0].width for sample in samples.values()}
    assert paths == {name: size[0] for name, size in PAGES.items()}


def test_answers_are_words_whatever_they_look_like(datasets, make_pictures):
    reader = DocVqaReader([datasets / FILE], images=make_pictures(PAGES))
    said = {sample.meta["questionId"]: sample.turns[1].text for sample in reader}
    assert said[49154] == GroundedText.of("J. M\u00fcller")
    assert said[49155] == GroundedText.of("[0.25, 0.4, 0.75, 0.8]")
    assert said[49158] == GroundedText.of("None")


def test_the_test_split_is_questions(datasets, make_pictures, read_all):
    root = make_pictures(PAGES)
    reader = DocVqaReader([datasets / "docvqa/test_v1.0.json"], images=root, split="test")
    for sample in read_all(reader):
        assert [turn.role for turn in sample.turns] == ["user"]
        assert "answers" not in sample.meta


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rows": []}', "has no questions under `data`"),
        ('{"data": [{"questionId": 1, "image": "a.png"}]}', "row 0 has no question"),
        ('{"data": [3]}', "row 0 has no questionId and no question and no image"),
        (
            '{"data": [{"questionId": 1, "image": "a.png", "question": "q", "answers": "a"}]}',
            "`answers` is 'a'",
        ),
        ('{"data": [{"questionId": 1, "image": 3, "question": "q"}]}', "`image` is 3, must be"),
        ('{"data": [{"questionId": 1, "image": "a", "question": [1]}]}', "`question` is .1., must"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(DocVqaReader([tmp_path / "a.json"], images=tmp_path))
