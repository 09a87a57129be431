"""Checkpoints are whole or not there; the last ones and the best stay."""

from __future__ import annotations

import json
import logging

import pytest

from parfocal.train.checkpoints import (
    best,
    is_whole,
    newest,
    part_folder,
    prune,
    publish,
    step_of,
)


def write(out, *steps: int, best: int | None = None) -> None:
    part = part_folder(out)
    for step in steps:
        inner = part / f"checkpoint-{step}" / "inner"
        inner.mkdir(parents=True)
        (inner / "weights.bin").write_bytes(bytes(step))
        state = json.dumps({"best_global_step": best})
        (inner.parent / "trainer_state.json").write_text(state, encoding="utf-8")
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
        (last / "trainer_state.json").unlink()
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
    write(tmp_path, 2, 9, 10)
    write(tmp_path, 11, best=2)
    prune(tmp_path, keep=2)
    assert sorted(map(step_of, tmp_path.iterdir())) == [2, 10, 11]
    assert best(tmp_path) == tmp_path / "checkpoint-2"
    prune(tmp_path, keep=9)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_was_cut_off_goes_and_never_pushes_a_whole_one_out(tmp_path):
    write(tmp_path, 50, 60, 100)
    (tmp_path / "checkpoint-100" / "inner" / "weights.bin").unlink()
    prune(tmp_path, keep=1)
    assert sorted(map(step_of, tmp_path.iterdir())) == [60]


def test_a_stage_that_is_not_scored_has_no_best(tmp_path):
    assert best(tmp_path) is None
    write(tmp_path, 3)
    assert best(tmp_path) is None
