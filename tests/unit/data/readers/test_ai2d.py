"""AI2D: a folder of questions, options as lines, letters painted into pictures, the test ids."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from parfocal.data.readers.ai2d import Ai2dReader
from parfocal.errors import ConfigError, DataError

SIZES = {
    "images/1.png": (40, 30), "images/2.png": (41, 30), "images/10.png": (42, 30),
    "images/23.png": (43, 30), "images/100.png": (44, 30),
    "abc_images/1.png": (50, 31), "abc_images/100.png": (51, 31),
}  # fmt: skip


@pytest.fixture
def folder(datasets, tmp_path):
    """The dataset with its pictures."""
    root = tmp_path / "ai2d"
    shutil.copytree(datasets / "ai2d", root)
    for name, size_wh in SIZES.items():
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size_wh).save(root / name)
    return root


def test_options_are_lines_and_the_answer_is_a_letter(folder, read_all):
    reader = Ai2dReader([folder])
    samples = {sample.id: sample for sample in read_all(reader)}
    assert list(samples) == [
        f"ai2d:{n}" for n in ("1.png-0", "1.png-1", "2.png-0", "2.png-1", "10.png-0", "23.png-0",
                              "23.png-1", "100.png-0", "100.png-1")
    ]  # fmt: skip
    said = [(turn.role, turn.text.plain) for turn in samples["ai2d:2.png-0"].turns]
    assert said == [("user", "What eats grass?\nA. fox\nB. hare\nC. owl\nD. hawk"),
                    ("assistant", "B")]  # fmt: skip
    assert (
        samples["ai2d:23.png-1"].turns[0].text.plain
        == "True or false: it rains.\nA. true\nB. false"
    )
    assert samples["ai2d:23.png-0"].turns[1].text.plain == "D"
    assert samples["ai2d:23.png-0"].meta == {
        "image_key": "ai2d:23", "question": "What is the colour of \u201cGr\u00f6\u00dfe\u201d?",
        "options": ["red", "bl\u00fc", "none", "all of the above"], "answer": 3,
        "about_letters": False,
    }  # fmt: skip


def test_questions_about_letters_see_them(folder):
    reader = Ai2dReader([folder / "questions"])
    found = {sample.id: sample for sample in reader}
    refs = {name: (s.images[0].path, s.images[0].width) for name, s in found.items()}
    assert refs["ai2d:1.png-0"] == ("abc_images/1.png", 50)
    assert refs["ai2d:1.png-1"] == ("images/1.png", 40)
    assert found["ai2d:1.png-0"].meta["about_letters"] is True
    assert found["ai2d:1.png-0"].meta["image_key"] == "ai2d:1"
    # the letters of diagram 10 were never painted
    assert reader.skipped == {"pictures that are not in the folder, with letters painted on": 1}
    painted = {sample.id for sample in Ai2dReader([folder], lettered="images")}
    assert painted == {*found, "ai2d:10.png-1"}


def test_parts_need_the_list_of_test_ids(folder, tmp_path):
    tested = {
        "ai2d:test:2.png-0",
        "ai2d:test:2.png-1",
        "ai2d:test:100.png-0",
        "ai2d:test:100.png-1",
    }
    assert {sample.id for sample in Ai2dReader([folder], split="test")} == tested
    trained = [sample.id for sample in Ai2dReader([folder / "questions"], split="train")]
    assert len(trained) == 5
    assert not {name.replace("train", "test") for name in trained} & tested
    other = tmp_path / "ids.csv"
    other.write_text("1.png\n10\n")
    found = {s.meta["image_key"] for s in Ai2dReader([folder], split="test", test_ids=other)}
    assert found == {"ai2d:1", "ai2d:10"}
    with pytest.raises(ConfigError, match="split is '' and test_ids is given"):
        Ai2dReader([folder], test_ids=other)
    (folder / "ai2d_test_ids.csv").unlink()
    with pytest.raises(ConfigError, match="needs the list of test ids"):
        Ai2dReader([folder], split="train")


def test_pictures_may_be_elsewhere(folder, make_pictures, tmp_path):
    root = make_pictures({"ai2d/images/2.png": (7, 8), "23.png": (9, 8)})
    found = {s.images[0].path: s.images[0].width for s in Ai2dReader([folder], images=root)}
    assert found == {"ai2d/images/2.png": 7, "23.png": 9}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no `imageName` and `questions`"),
        ('{"imageName": "1.png", "questions": {"q": {"answerTexts": ["a"]}}}', "the options"),
        (
            '{"imageName": "1.png", "questions": {"q": {"answerTexts": ["a", "b"], '
            '"correctAnswer": 2}}}',
            "right answer 2, must be an index from 0 to 1",
        ),
        (
            '{"imageName": "1.png", "questions": {"q": {"answerTexts": ["a", "b"], '
            '"correctAnswer": 1}}}',
            "no `questionId`",
        ),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    (tmp_path / "questions").mkdir()
    with pytest.raises(DataError, match="holds no questions"):
        list(Ai2dReader([tmp_path]))
    (tmp_path / "questions" / "1.png.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list(Ai2dReader([tmp_path]))


def test_there_are_two_splits(folder):
    for split in ("val", "Test"):
        with pytest.raises(ConfigError, match=f"split is '{split}'; AI2D has 'train' and 'test'"):
            Ai2dReader([folder], split=split)
