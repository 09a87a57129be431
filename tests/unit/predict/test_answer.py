from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef, Text
from parfocal.errors import ConfigError, DataError
from parfocal.predict import answer as answer_module
from parfocal.predict.answer import Answer

FRAME = Frame("image", 80, 60)


def make_answer(**changes):
    text = GroundedText.of(
        "I see ",
        Phrase("a dog", Boxes([[10.123456, 20, 30, 40]], FRAME, scores=[0.98765432])),
        " and ",
        Phrase("two cats", Boxes([[1, 2, 3, 4], [5, 6, 7, 8]], FRAME, scores=[0.5, 0.25])),
        ", ",
        Nothing("bird"),
    )
    answer = Answer(
        question="What is <there>?",
        text=text,
        image=Image.new("RGB", (80, 60), "#336699"),
        proposals=Boxes([[0, 0, 9, 9], [1, 1, 20, 20]], FRAME, scores=[0.9, 0.1]),
        problems=(Problem("no_box", "example"),),
        timing={"encode": 0.0512345678, "generate": 0.2},
        model="mini",
    )
    return dataclasses.replace(answer, **changes)


def test_reads_like_its_text():
    answer = make_answer()
    assert str(answer) == "I see a dog and two cats, no bird"
    assert [phrase.text for phrase in answer.phrases] == ["a dog", "two cats"]
    assert answer.boxes.frame == FRAME
    assert answer.boxes.scores.tolist() == [0.98765432, 0.5, 0.25]


def test_json_is_exactly_this():
    problems = [{"kind": "no_box", "detail": "example"}]
    assert make_answer().to_json() == {
        "schema": "parfocal.answer/1",
        "image": {"width": 80, "height": 60},
        "question": "What is <there>?",
        "text": "I see a dog and two cats, no bird",
        "spans": [
            {"type": "text", "text": "I see "},
            {
                "type": "phrase",
                "text": "a dog",
                "boxes": [[10.12, 20.0, 30.0, 40.0]],
                "scores": [0.9877],
            },
            {"type": "text", "text": " and "},
            {
                "type": "phrase",
                "text": "two cats",
                "boxes": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
                "scores": [0.5, 0.25],
            },
            {"type": "text", "text": ", "},
            {"type": "nothing", "phrase": "bird"},
        ],
        "results": [
            {
                "phrase": "a dog",
                "boxes": [{"xyxy": [10.12, 20.0, 30.0, 40.0], "score": 0.9877}],
                "problems": problems,
            },
            {
                "phrase": "two cats",
                "boxes": [
                    {"xyxy": [1.0, 2.0, 3.0, 4.0], "score": 0.5},
                    {"xyxy": [5.0, 6.0, 7.0, 8.0], "score": 0.25},
                ],
                "problems": problems,
            },
            {"phrase": "bird", "boxes": [], "problems": problems},
        ],
        "problems": problems,
        "proposals": 2,
        "timing": {"encode": 0.0512, "generate": 0.2},
        "model": "mini",
    }


def test_boxes_without_scores_have_a_null_score():
    text = GroundedText.of(Phrase("a dog", Boxes([[1, 2, 3, 4]], FRAME)))
    (result,) = make_answer(text=text).to_json()["results"]
    assert result["boxes"] == [{"xyxy": [1.0, 2.0, 3.0, 4.0], "score": None}]


def test_json_comes_back(tmp_path):
    answer = make_answer()
    path = answer.save(tmp_path / "a.json")
    loaded = json.loads(path.read_text(encoding="utf-8"))
    assert loaded == answer.to_json()
    text = GroundedText.from_json(loaded["spans"], [FRAME])
    assert text.plain == answer.text.plain
    assert text.boxes(FRAME).to_json()[0] == [10.12, 20.0, 30.0, 40.0]


def test_png_is_the_drawing(tmp_path):
    answer = make_answer()
    answer.save(tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as saved:
        assert saved.format == "PNG"
        assert saved.tobytes() == answer.draw().tobytes()
        assert saved.width == 8 * 80


def test_html_is_one_page(tmp_path):
    answer = make_answer()
    html = answer.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "<title>What is &lt;there&gt;?</title>" in html
    for words in ("two cats", "0.99", "mini  |  0.25 s", "show 2 proposals", "no box"):
        assert words in html
    notebook = answer._repr_html_()
    assert notebook.startswith("<div")
    assert "<html" not in notebook


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.json.gz"])
def test_other_suffixes_are_refused_with_the_list(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.png .*\.html .*\.json"):
        make_answer().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = make_answer().save(tmp_path / "a.png")
    before = path.read_bytes()

    def fail(self, file, *args):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(DataError, match="the disk is full"):
        make_answer(question="another").save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        make_answer().save(tmp_path / "no" / "a.html")


def test_the_users_regions_are_drawn():
    question = GroundedText.of("What is ", RegionRef(0), "?")
    regions = Boxes([[5, 5, 70, 50]], FRAME)
    answer = make_answer(question=question, regions=regions)
    assert answer.draw() != make_answer(question=question).draw()
    assert "pf-region" in answer._repr_html_().partition("</style>")[2]
    assert answer.to_json()["question"] == "What is [region 0]?"


@pytest.mark.parametrize(
    ("asked", "said"),
    [("[grounding]Where?", "Where?"), ("[note] Where?", "[note] Where?")],
    ids=["a dialect's mark", "words of the user"],
)
def test_the_question_is_told_as_it_was_asked(asked, said):
    assert make_answer(question=asked).to_json()["question"] == said


def test_show_opens_the_drawing(monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self, title: shown.append((self, title)))
    answer = make_answer()
    answer.show()
    assert shown == [(answer.draw(), "What is <there>?")]


def test_frozen_and_equal_by_value():
    assert make_answer() == make_answer(timing={})
    assert make_answer() != make_answer(text=GroundedText((Text("other"),)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_answer().model = "other"


def test_needs_no_torch():
    """Everything the module imports loads without torch, and it does not name torch itself."""
    imports = [
        node.module or ""
        for node in ast.walk(ast.parse(Path(answer_module.__file__).read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    needed = [name for name in imports if name.startswith("parfocal")]
    assert {name.split(".")[1] for name in needed} <= {
        "boxes",
        "images",
        "dialects",
        "data",
        "errors",
    }
    code = f"import sys, {', '.join(needed)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
