"""`parfocal data`: what its verbs print, write and refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer
from PIL import Image

from parfocal.cli.data import app

COCO = Path(__file__).parents[2] / "fixtures" / "datasets" / "coco" / "instances_train2017.json"


def test_readers_are_listed(run, monkeypatch):
    shown = run("data", "readers")
    assert "instances_*.json" in shown.out
    monkeypatch.setenv("COLUMNS", "80")
    words = run("data", "readers").out.split()
    for name in ("groma_region_caption", "share-captioner_coco_lcs_sam_1246k_1107.json"):
        assert words.count(name) == 1, "what is to be typed is whole"
    assert {"lettered=abc_images", "instances_*.json"} <= set(words)
    listed = json.loads(run("data", "readers", "--json").out)["readers"]
    (coco,) = [card for card in listed if card["name"] == "coco"]
    assert coco["options"] == {"crowds": "False"}


def test_a_dataset_is_converted_and_counted(run, tmp_path):
    out, picture = tmp_path / "coco.parquet", tmp_path / "coco.png"
    shown = run("data", "convert", "coco", str(COCO), str(out), "--split", "train")
    assert shown.code == 0
    assert "10 rows, 0 turns, 9 boxes" in shown.out
    assert "left out: 1 crowds" in shown.out
    counted = run("data", "stats", str(out), "--save", str(picture), "--json")
    stats = json.loads(counted.out)
    assert (stats["rows"], stats["totals"]["boxes"]) == (10, 9)
    assert list(stats["sources"]) == [
        "coco / train / CC-BY-4.0 (annotations); pictures under Flickr terms"
    ]
    with Image.open(picture) as drawn:
        assert drawn.size == (1904, 918)
    assert "person" in run("data", "stats", str(out)).out


def test_what_is_wrong_is_said(run, tmp_path):
    out = str(tmp_path / "out.jsonl")
    for words, message in (
        (["cocoa", str(COCO), out], "no reader 'cocoa'; did you mean 'coco'? There are ai2d"),
        (["coco", str(COCO), str(tmp_path / "no" / "out.jsonl")], "the folder"),
        (["coco", out], "then the file to write"),
        (["coco", str(COCO), str(COCO), out], "takes 1 sources"),
        (["coco", str(tmp_path / "none.json"), out], "does not exist"),
        (["coco", str(tmp_path), out], "`parfocal data readers` says which files"),
        (["coco", str(COCO), out, "--option", "crowd=true"], "no option 'crowd'"),
        (["coco", str(COCO), str(tmp_path / "out.csv")], ".jsonl or .parquet"),
    ):
        shown = run("data", "convert", *words)
        assert shown.code == 1, words
        assert message in shown.err
        assert "Traceback" not in shown.err
    assert not Path(out).exists()


def test_a_file_is_not_written_over_itself(run, tmp_path):
    rows = tmp_path / "REC.jsonl"
    rows.write_text("{}")
    shown = run("data", "convert", "refcoco_jsonl", str(rows), str(rows))
    assert (shown.code, rows.read_text()) == (1, "{}")
    assert "give another name" in shown.err
    shown = run("data", "preview", str(rows), "--out", str(rows))
    assert (shown.code, rows.read_text()) == (1, "{}")
    assert "must end in .html" in shown.err


def test_a_dataset_that_gives_nothing_is_an_error(run, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("what was there before")
    shown = run("data", "convert", "coco", str(COCO), str(out), "--images", str(tmp_path))
    assert shown.code == 1
    assert "would have no rows. Everything was left out (" in shown.err
    assert "10 pictures that are not in the folder" in shown.err
    assert out.read_text() == "what was there before"
    (tmp_path / "none.jsonl").write_text("\n")
    shown = run("data", "convert", "refcoco_jsonl", str(tmp_path / "none.jsonl"), str(out))
    assert (shown.code, "Nothing was found in the files" in shown.err) == (1, True)


def test_what_check_advises_fits_what_is_wrong(run, tmp_path):
    rows = tmp_path / "rows.jsonl"
    run("data", "convert", "coco", str(COCO), str(rows), "--limit", "2")
    for words, message in (
        ([rows], "Say where the pictures are: --images DIR."),
        ([rows, "--images", tmp_path / "none"], "none is not a folder"),
        ([COCO], "`parfocal data convert` makes samples of it"),
        ([tmp_path], "Give a .jsonl or .parquet file"),
    ):
        shown = run("data", "check", *map(str, words))
        assert shown.code == 1
        assert message in shown.err


def test_an_empty_file_is_told(run, tmp_path):
    (tmp_path / "e.jsonl").write_text("")
    for words in (["check"], ["stats"], ["preview", "--out", str(tmp_path / "e.html")]):
        shown = run("data", *words, str(tmp_path / "e.jsonl"))
        assert shown.code == 0
        assert "e.jsonl has no rows" in shown.err


def test_the_example_of_convert_works_in_a_checkout(run, tmp_path, monkeypatch):
    text = typer.main.get_command(app).commands["convert"].help
    words = re.search(r"Example: parfocal (.+) out\.jsonl", text)[1].split()
    monkeypatch.chdir(Path(__file__).parents[3])
    shown = run(*words, str(tmp_path / "out.jsonl"))
    assert shown.code == 0
    assert int(shown.out.split()[0]) > 0
