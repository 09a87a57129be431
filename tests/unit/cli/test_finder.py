"""MG-LLaVA from the command line: a tagger and a detector find the boxes that nobody gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parfocal.detectors.owlv2 import Owlv2Detector
from tests.unit import tiny_folders
from tests.unit.models.builders import build_mg_llava, build_tiny_grounding_gpt

QUESTION = "what is it?"


def folder_of(pair, folder: Path) -> Path:
    for part in pair:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Folders of tiny models, and a list of names."""
    root = tmp_path_factory.mktemp("models")
    (root / "names.txt").write_text("cat\nred car\n", encoding="utf-8")
    return {
        "mg": folder_of(build_mg_llava(), root / "mg"),
        "objects": folder_of(build_tiny_grounding_gpt(), root / "objects"),
        "owlv2": tiny_folders.save(root / "owlv2", *tiny_folders.tiny_owlv2()),
        "names": root / "names.txt",
    }


@pytest.fixture
def finder(models) -> tuple:
    """The options that every verb takes."""
    parts = ("--tagger", models["names"], "--detector", models["owlv2"])
    return ("--model", models["mg"], *parts, "--device", "cpu")


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """The number of names that the detector was asked for, of every picture."""
    seen: list[int] = []
    detect = Owlv2Detector.detect

    def spy(self, images, labels, *options):
        seen.extend(map(len, labels))
        return detect(self, images, labels, *options)

    monkeypatch.setattr(Owlv2Detector, "detect", spy)
    return seen


def test_one_picture_and_a_question_are_enough(run, scene, finder, asked) -> None:
    done = run("ask", scene, QUESTION, *finder, "--json")
    assert done.code == 0, done.err
    assert asked == [2]
    found = json.loads(done.out)
    alone = run("ask", scene, QUESTION, *finder[:2], "--device", "cpu", "--json")
    assert "reads the boxes of a detector" in alone.err.replace("\n", " ")
    assert found["proposals"] > json.loads(alone.out)["proposals"]
    assert "reads the boxes" not in done.err


@pytest.mark.parametrize("verb", ["locate", "describe", "chat"])
def test_every_verb_that_reads_boxes_finds_them(run, scene, finder, asked, verb) -> None:
    words = {"locate": ("the car",)}.get(verb, ())
    done = run(verb, scene, *words, *finder, stdin=QUESTION + "\n")
    assert done.code == 0, done.err
    assert asked == [2]


def test_found_boxes_are_kept_where_asked(run, scene, finder, asked, tmp_path) -> None:
    cache = ("--boxes-cache", tmp_path / "boxes", "--json")
    first, again = (json.loads(run("ask", scene, QUESTION, *finder, *cache).out) for _ in range(2))
    assert asked == [2]
    assert (first["text"], first["proposals"]) == (again["text"], again["proposals"])
    assert list((tmp_path / "boxes").rglob("settings.json"))


def test_a_benchmark_is_asked_with_boxes_and_says_what_found_them(
    run, tiny_scenes, finder, asked, tmp_path
) -> None:
    words = ("eval", "scenes", *finder, "--boxes-cache", tmp_path / "boxes", "--json")
    done = run(*words, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert asked == [2]  # one picture, looked at once
    assert "reads the boxes of a detector" not in done.err
    told = json.loads((tmp_path / "out" / "report.json").read_text())["protocol"]["finder"]
    assert told == json.loads(done.out)["protocol"]["finder"]
    assert told["tagger"] == {"kind": "fixed", "tags": ["cat", "red car"]}
    assert (told["detector"]["kind"], told["settings"]["threshold"]) == ("owlv2", 0.2)


@pytest.mark.parametrize("verb", ["ask", "eval"])
def test_a_model_that_finds_regions_itself_takes_no_finder(run, scene, finder, tmp_path, verb):
    words = (scene, QUESTION) if verb == "ask" else ("scenes", "--out", tmp_path / "out")
    done = run(verb, *words, "--model", "mini", *finder[2:])
    assert (done.code, done.out) == (1, "")
    assert "mini does not read the boxes of a detector" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--detector", "nothing", "there is no 'nothing'"),
        ("--detector", "mg", "model_type 'parfocal', which is none of owlv2, grounding-dino"),
        ("--tagger", "owlv2", "model_type 'owlv2', which is none of florence2"),
        ("--tagger", "gone.txt", "gone.txt"),
    ],
)
def test_a_part_that_is_not_there_is_named(
    run, scene, finder, models, option, value, message
) -> None:
    words = list(finder)
    words[words.index(option) + 1] = models.get(value, value)
    done = run("ask", scene, QUESTION, *words)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_model_that_reads_objects_is_shown_them(run, scene, models) -> None:
    words = ("--model", models["objects"], "--device", "cpu", "--json")
    options = ("--object", "10,20,60,70", "--object", scene)
    done = run("ask", scene, "Which is it? a. [object 1]; b. [object 2]", *options, *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["question"] == "Which is it? a. [object 1]; b. [object 2]"
    missing = run("ask", scene, "Is it [object 3]?", *options, *words)
    assert (missing.code, missing.out) == (1, "")
    assert "names [object 3] but 2 object images were given" in missing.err


def test_a_model_that_reads_no_objects_says_so(run, scene, models) -> None:
    words = ("--model", models["mg"], "--device", "cpu")
    done = run("ask", scene, QUESTION, "--object", "10,20,60,70", *words)
    assert (done.code, done.out) == (1, "")
    assert "reads no object images" in done.err


def test_a_dialect_that_a_model_does_not_speak_is_refused(run, scene, models) -> None:
    words = ("--model", models["mg"], "--device", "cpu")
    done = run("ask", scene, QUESTION, *words, "--dialect", "qwen")
    assert (done.code, done.out) == (1, "")
    assert "dialect 'qwen' is not known. Dialects: " in done.err
    done = run("ask", scene, QUESTION, *words, "--dialect", "rex_omni")
    assert "was trained in the dialect 'plain'" in done.err
