"""DVQA: answers that stand in the chart have a box, x, y, width, height, under two keys."""

from __future__ import annotations

import pytest

from parfocal.data.readers.dvqa import DvqaReader
from parfocal.dialects import GroundedText, Phrase
from parfocal.errors import DataError

FILE = "dvqa/val_easy_qa.json"
CHARTS = {
    "bar_val_easy_00000001.png": (100, 100),
    "images/bar_val_easy_00000002.png": (100, 99),
    "dvqa/images/bar_val_easy_00000004.png": (100, 100),
}


def test_answers_in_the_chart_are_phrases(datasets, make_pictures, read_all):
    reader = DvqaReader([datasets / FILE], images=make_pictures(CHARTS), split="val_easy")
    samples = {sample.turns[0].text.plain: sample for sample in read_all(reader)}
    answers = {question: sample.turns[1].text for question, sample in samples.items()}
    expected = {
        "What is the label of the first bar?": ("cat", [12, 80.5, 32, 89.5]),
        "What is the label of the third bar?": ("dog", [95.25, 90, 100, 100]),  # clipped
        "What is the title?": ("Gr\u00f6\u00dfe", [0, 0.5, 33.25, 8.5]),
        "What element does the red colour represent?": ("sky", [60, 10, 75.5, 17.5]),
        "What is the label of the second bar?": ("owl", [1.5, 2.5, 6.75, 9.25]),
    }
    for question, (words, box) in expected.items():
        (phrase,) = answers[question].spans
        assert isinstance(phrase, Phrase)
        assert phrase.text == words
        assert phrase.boxes.to_json() == [pytest.approx(box, abs=1e-6)]
    assert answers["What is the value of the largest bar?"] == GroundedText.of("9")
    assert answers["How many bars are there?"] == GroundedText.of("four")
    assert answers["What is the label of the last bar?"] == GroundedText.of("edge")
    assert len(samples) == 9
    assert reader.skipped == {
        "boxes without area inside their picture": 1, "pictures that are not in the folder": 1
    }  # fmt: skip
    sample = samples["What is the title?"]
    assert sample.id == "dvqa:val_easy:4:bar_val_easy_00000002"
    assert sample.meta == {
        "image_key": "dvqa:bar_val_easy_00000002", "question_id": 5, "question_type": "data"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no list of questions"),
        ('[{"image": "a.png", "question": "q"}]', "row 0 must have"),
        (
            '[{"image": "a.png", "question": "q", "answer": "a", "bbox_answer": [1, 2]}]',
            r"box is \[1, 2\], must be x, y, width, height",
        ),
        (
            '[{"image": "a.png", "question": "q", "answer": "a", "answer_bbox": [1, 2, 3, "4"]}]',
            r"box is \[1, 2, 3, '4'\], must be x, y, width, height",
        ),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, make_pictures, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(DvqaReader([tmp_path / "a.json"], images=make_pictures({"a.png": (9, 9)})))
