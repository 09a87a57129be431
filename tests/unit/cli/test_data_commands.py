"""`parfocal data`: what its verbs print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

COCO = Path(__file__).parents[2] / "fixtures" / "datasets" / "coco" / "instances_train2017.json"


def test_readers_are_listed(run):
    shown = run("data", "readers")
    assert "instances_*.json" in shown.out
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
        (["cocoa", str(COCO), out], "no reader 'cocoa'"),
        (["coco", out], "then the file to write"),
        (["coco", str(COCO), str(COCO), out], "takes 1 sources"),
        (["coco", str(tmp_path / "none.json"), out], "does not exist"),
        (["coco", str(COCO), out, "--option", "crowd=true"], "no option 'crowd'"),
        (["coco", str(COCO), str(tmp_path / "out.csv")], ".jsonl or .parquet"),
    ):
        shown = run("data", "convert", *words)
        assert shown.code == 1, words
        assert message in shown.err
        assert "Traceback" not in shown.err
    assert not Path(out).exists()
