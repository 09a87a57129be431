"""The record of a run: what it was made with, and what differs from another."""

from __future__ import annotations

import json

import numpy as np

from parfocal.train.record import differences, run_record


def test_differences_name_the_path_and_both_values():
    before = {"seed": 1, "stages": [{"name": "a", "lr": 2, "parts": [1, 2]}], "old": None}
    now = {"seed": 1, "stages": [{"name": "a", "lr": 3, "parts": [1]}], "new": "x" * 99}
    found = list(differences(before, now))
    assert found[:2] == ["stages.a.lr: 2 -> 3", "stages.a.parts: [1, 2] -> [1]"]
    assert found[2] == "old: None -> unset"
    assert found[3].startswith("new: unset -> xxx")
    assert len(found[3]) < 80
    assert not list(differences(before, before))


def test_the_record_is_json_and_says_which_versions():
    record = run_record({"talk": {"count": 3}})
    assert json.loads(json.dumps(record)) == record
    assert record["libraries"]["numpy"] == np.__version__
    assert record["data"] == {"talk": {"count": 3}}
    code = record["code"]
    assert code is None or len(code["commit"]) == 40
