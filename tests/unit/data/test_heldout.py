"""The held-out set: the bundled one is true, and a new one is written byte for byte."""

from __future__ import annotations

import json
import re
import zipfile

import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.heldout import NUM_SCENES, SIDE, write_heldout
from parfocal.eval.scenes import load_scenes
from parfocal.eval.scenes.load import SCENES_FOLDER

PLURALS = {kind.name: kind.plural for kind in KINDS}


def read(folder) -> list[dict]:
    text = (folder / "scenes.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return read(SCENES_FOLDER)


@pytest.fixture(scope="module")
def toy_rows(toy_bank, tmp_path_factory) -> list[dict]:
    """A small set written from drawn shapes."""
    folder = tmp_path_factory.mktemp("heldout")
    write_heldout(folder, toy_bank, 5)
    return read(folder)


def layout(row: dict) -> tuple[list[str], Boxes]:
    names = [item["name"] for item in row["objects"]]
    frame = Frame("image", row["width"], row["height"])
    return names, Boxes([item["xyxy"] for item in row["objects"]], frame)


def check_row(row: dict, meanings) -> None:
    """Everything that is said about a scene follows from its objects."""
    names, boxes = layout(row)
    assert len(names) >= 2
    assert set(names) <= set(PLURALS)
    assert boxes == boxes.clip()
    assert boxes.area.min() > 0
    assert all(item["visible"] >= 0.4 for item in row["objects"])
    known = meanings(names, boxes)
    for item in row["expressions"]:
        assert known[item["text"].removeprefix("the ")] == [item["target"]], item
        twin = names.count(names[item["target"]]) > 1
        assert item["kind"] == ("twin" if twin else "unique"), item
        assert item["relation"] == "name" or item["relation"] in item["text"]
    assert len({item["text"] for item in row["expressions"]}) == len(row["expressions"])
    assert row["absent"]
    for item in row["absent"]:
        name = item["text"].removeprefix("the ")
        assert name in PLURALS
        assert name not in names, item
    for item in row["counts"]:
        assert names.count(item["name"]) == item["n"], item
        assert item["text"] == PLURALS[item["name"]]
    assert row["regions"] == sorted(set(row["regions"]))
    assert all(0 <= index < len(names) for index in row["regions"])


def test_bundled_set_is_large_and_of_one_split(rows):
    assert len(rows) == NUM_SCENES >= 600
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"heldout-\d{5}", identity) for identity in ids)
    assert ids == sorted(ids)
    assert all(row["file"] == f"{row['id']}.webp" for row in rows)
    assert {max(row["width"], row["height"]) for row in rows} == {SIDE}


def test_bundled_set_has_its_pictures(rows):
    with zipfile.ZipFile(SCENES_FOLDER / "scenes.zip") as archive:
        assert archive.namelist() == [row["file"] for row in rows]
    found = load_scenes()
    assert [scene.id for scene in found.scenes] == [row["id"] for row in rows]
    found.open(found.scenes[::40])


def test_bundled_set_asks_for_twins_and_everything_else(rows):
    asked = [item for row in rows for item in row["expressions"]]
    twins = sum(item["kind"] == "twin" for item in asked)
    assert twins / len(asked) >= 0.4
    assert 1 - twins / len(asked) >= 0.25
    with_twins = sum(any(item["kind"] == "twin" for item in row["expressions"]) for row in rows)
    assert with_twins / len(rows) >= 0.4
    relations = {item["relation"] for item in asked}
    assert len(relations) == 13
    assert {item["kind"] for row in rows for item in row["absent"]} == {"colour twin", "other kind"}
    numbers = {item["n"] for row in rows for item in row["counts"]}
    assert {0, 1, 2, 3} <= numbers


def test_every_claim_of_the_bundled_set_is_true(rows, meanings):
    for row in rows:
        check_row(row, meanings)


def test_every_claim_of_a_new_set_is_true(toy_rows, meanings):
    assert len(toy_rows) == 5
    for row in toy_rows:
        check_row(row, meanings)


def test_the_check_notices_lies(toy_rows, meanings):
    lies = 0
    for row in toy_rows:
        names, _ = layout(row)
        for change in (
            {"counts": [{"text": PLURALS[names[0]], "name": names[0], "n": 9}]},
            {"absent": [{"text": f"the {names[0]}", "kind": "other kind"}]},
            {"expressions": [{**row["expressions"][0], "text": "the leftmost nobody"}]},
        ):
            with pytest.raises((AssertionError, KeyError)):
                check_row({**row, **change}, meanings)
            lies += 1
    assert lies == 15


def test_writing_twice_gives_the_same_bytes(toy_bank, tmp_path):
    for name in ("one", "other"):
        size = write_heldout(tmp_path / name, toy_bank, 3)
        files = sorted((tmp_path / name).iterdir())
        assert [file.name for file in files] == ["scenes.jsonl", "scenes.zip"]
        assert size == sum(file.stat().st_size for file in files)
    for name in ("scenes.jsonl", "scenes.zip"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "other"))
        assert one == other
    found = load_scenes(tmp_path / "one")
    assert len(found.scenes) == 3
    pictures = found.open(found.scenes)
    assert {max(picture.size) for picture in pictures.values()} == {SIDE}


def test_scenes_with_hidden_or_too_few_objects_are_passed_over(toy_bank, tmp_path, monkeypatch):
    from parfocal.data.scenes import heldout

    painted = []
    original = heldout.make_scene

    def spy(bank, split, index, style):
        scene = original(bank, split, index, style)
        if index == 0:
            scene = heldout.Scene(split, 0, scene.pixels, scene.objects, (3,))
        if index == 1:
            scene = heldout.Scene(split, 1, scene.pixels, scene.objects[:1], ())
        painted.append(split)
        return scene

    monkeypatch.setattr(heldout, "make_scene", spy)
    write_heldout(tmp_path, toy_bank, 1)
    (row,) = read(tmp_path)
    assert row["id"] not in ("heldout-00000", "heldout-00001")
    assert set(painted) == {"heldout"}
