"""Boxes on disk: what is written comes back exactly, and damage is noticed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.detectors.cache import BoxCache, fingerprint_of
from parfocal.errors import ConfigError, DataError

FRAME = Frame("image", 640, 427)
BOXES = Boxes(
    [[0.1, 1 / 3, 100.7, 200.0], [-3, 0, 5, 7]], FRAME, scores=[0.123456789, 0.5], labels=["a", "b"]
)
DIGEST = "ab" + 62 * "0"


@pytest.mark.parametrize(
    "boxes", [BOXES, Boxes.empty(FRAME), Boxes([[1, 2, 3, 4]], FRAME)], ids=["full", "none", "bare"]
)
def test_boxes_come_back_to_the_last_bit(tmp_path: Path, boxes: Boxes) -> None:
    cache = BoxCache(tmp_path)
    cache.write("key", DIGEST, boxes)
    assert cache.read("key", DIGEST, FRAME) == boxes


def test_what_was_never_written_is_not_there(tmp_path: Path) -> None:
    cache = BoxCache(tmp_path / "later")
    assert cache.read("key", DIGEST, FRAME) is None
    cache.write("key", DIGEST, BOXES)
    assert cache.read("other", DIGEST, FRAME) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"size": [640, 427], "boxes": [[9, 0, 1, 1]], "scores": null}',
        "\udcff",
    ],
    ids=["empty", "cut off", "a list", "no keys", "impossible box", "not UTF-8"],
)
def test_a_damaged_entry_is_reported_and_made_again(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BoxCache(tmp_path)
    cache.write("key", DIGEST, BOXES)
    [entry] = tmp_path.rglob(f"{DIGEST}.json")
    entry.write_bytes(text.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING):
        assert cache.read("key", DIGEST, FRAME) is None
    assert str(entry) in caplog.text
    cache.write("key", DIGEST, BOXES)
    assert cache.read("key", DIGEST, FRAME) == BOXES


def test_an_entry_of_another_picture_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BoxCache(tmp_path)
    cache.write("key", DIGEST, BOXES)
    assert cache.read("key", DIGEST, Frame("image", 427, 640)) is None
    assert "640x427" in caplog.text.replace(".0", "")


def test_nothing_but_finished_entries_is_left_behind(tmp_path: Path) -> None:
    cache = BoxCache(tmp_path)
    key = cache.register({"a": 1})
    cache.write(key, DIGEST, BOXES)
    cache.write(key, DIGEST, BOXES)
    names = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    )
    assert names == [f"{key}/ab/{DIGEST}.json", f"{key}/settings.json"]
    assert json.loads((tmp_path / key / "settings.json").read_text()) == {"a": 1}


def test_the_fingerprint_follows_values_not_order() -> None:
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
    with pytest.raises(ConfigError, match="plain JSON"):
        fingerprint_of({"a": {1, 2}})


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        BoxCache(tmp_path / "file").write("key", DIGEST, BOXES)
