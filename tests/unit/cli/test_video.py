"""`parfocal ask` of a video: models that watch, models that do not, files that are broken."""

from __future__ import annotations

import json

import pytest

import parfocal.predict
from parfocal.predict.predictor import Predictor
from tests.unit.clips import write_clip
from tests.unit.models.builders import build_mg_llava


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4")


@pytest.fixture
def models(monkeypatch, tiny_predictor):
    """Replaces loading by a table of two models, one of which takes videos."""
    table = {"watcher": Predictor(*build_mg_llava(), "watcher"), "mini": tiny_predictor}
    monkeypatch.setattr(parfocal.predict, "load", lambda name, **_: table[name])


def test_a_model_that_watches_answers(run, models, clip):
    done = run("ask", clip, "what is it?", "--model", "watcher", "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert answer["image"] == {"width": 96, "height": 64}
    assert answer["question"] == "what is it?"


@pytest.mark.parametrize("name", ["clip.mp4", "clip"], ids=["by suffix", "by content"])
def test_a_model_that_does_not_says_what_to_do(run, models, clip, name):
    file = clip.rename(clip.parent / name)
    done = run("ask", file, "what is it?")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: tiny reads one picture at a time")
    assert done.err.count("\n") == 1


def test_a_broken_video_is_explained(run, models, clip):
    clip.write_bytes(clip.read_bytes()[:300])
    done = run("ask", clip, "what is it?", "--model", "watcher")
    assert (done.code, done.out) == (1, "")
    assert "cannot be read as a video" in done.err
