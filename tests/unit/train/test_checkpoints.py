"""Checkpoints are whole or not there; the last ones and the best stay."""

from __future__ import annotations

import logging

import pytest

from parfocal.train.checkpoints import (
    is_whole,
    mark_best,
    newest,
    part_folder,
    prune,
    publish,
    step_of,
)


def write(out, *steps: int) -> None:
    part = part_folder(out)
    for step in steps:
        inner = part / f"checkpoint-{step}" / "inner"
        inner.mkdir(parents=True)
        (inner / "weights.bin").write_bytes(bytes(step))
        (inner.parent / "state.json").write_text("{}")
    publish(part, out)


def test_what_is_published_is_whole_and_nothing_else_is_left(tmp_path):
    write(tmp_path, 9, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    assert newest(tmp_path) == tmp_path / "checkpoint-10"  # ten is after nine
    write(tmp_path, 10)  # again, after a crash between writing and going on
    assert is_whole(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("fault", ["cut", "missing", "unlisted", "garbled"])
def test_broken_checkpoints_are_passed_over_and_named(tmp_path, caplog, fault):
    write(tmp_path, 9, 10)
    last = tmp_path / "checkpoint-10"
    if fault == "cut":
        (last / "inner" / "weights.bin").write_bytes(bytes(7))
    elif fault == "missing":
        (last / "state.json").unlink()
    elif fault == "unlisted":
        (last / "files.json").unlink()
    else:
        (last / "files.json").write_text('{"inner/wei')
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == tmp_path / "checkpoint-9"
    assert "checkpoint-10 was cut off" in caplog.text


def test_without_checkpoints_there_is_none(tmp_path):
    assert newest(tmp_path) is None
    half = part_folder(tmp_path) / "checkpoint-3"
    half.mkdir(parents=True)
    (half / "weights.bin").write_bytes(b"123")
    assert newest(tmp_path) is None  # not published
    part_folder(tmp_path, clear=True)
    write(tmp_path, 4)
    assert not (tmp_path / "checkpoint-3").exists()  # what a crash left is never published


def test_the_last_and_the_best_stay(tmp_path):
    write(tmp_path, 2, 9, 10, 11)
    assert mark_best(tmp_path, 2, score=5.0)
    prune(tmp_path, keep=2)
    assert sorted(map(step_of, tmp_path.glob("checkpoint-*"))) == [2, 10, 11]
    prune(tmp_path, keep=9)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 3
