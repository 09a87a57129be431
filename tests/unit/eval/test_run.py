"""A run leaves two files that belong together, and can be scored again without a model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parfocal.dialects import get_dialect
from parfocal.errors import ConfigError, DataError
from parfocal.eval.benchmarks import scenes as scenes_benchmark
from parfocal.eval.predictions import read_predictions, write_predictions
from parfocal.eval.run import rescore, run_benchmark
from parfocal.eval.scenes import SceneSet, load_scenes


@pytest.fixture(autouse=True)
def tiny_scenes(scenes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_tiny(limit: int | None = None) -> SceneSet:
        return load_scenes(scenes_folder, limit)

    monkeypatch.setattr(scenes_benchmark, "load_scenes", load_tiny)


def test_run_writes_predictions_and_report(oracle: Any, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    told: list[tuple[int, int]] = []
    report = run_benchmark(
        "scenes", oracle, out, batch_size=2, on_progress=lambda *step: told.append(step)
    )
    assert told == [(1, 2), (2, 2)]
    assert json.loads((out / "report.json").read_text()) == report
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "report.json"]
    assert (report["schema"], report["rec_acc_50"]) == ("parfocal.report/1", 100.0)


def test_protocol_says_what_the_numbers_depend_on(oracle: Any, tmp_path: Path) -> None:
    protocol = run_benchmark("scenes", oracle, tmp_path, limit=1, batch_size=7)["protocol"]
    assert protocol["benchmark"] == "scenes"
    assert (protocol["model"], protocol["dialect"]) == ("oracle", None)
    assert protocol["batch_size"] == 7
    assert (protocol["scenes"], protocol["scenes_available"]) == (1, 2)
    assert protocol["predictions"] == 10
    assert len(protocol["split_sha256"]) == 64
    assert protocol["prompt_examples"]["count"] == "How many apples are there?"
    assert protocol["libraries"]["numpy"]


def test_protocol_says_what_the_model_was_asked_in(oracle: Any, tmp_path: Path) -> None:
    """The same checkpoint in another dialect is another result."""
    oracle.dialect = get_dialect("rex_omni")  # as peers have it
    report = run_benchmark("scenes", oracle, tmp_path, limit=1)
    assert report["protocol"]["dialect"] == "rex_omni"
    assert rescore("scenes", tmp_path, limit=1) == report
    del oracle.dialect
    oracle.processor = SimpleNamespace(dialect=get_dialect("plain"))  # as our own models have it
    protocol = run_benchmark("scenes", oracle, tmp_path, limit=1)["protocol"]
    assert protocol["dialect"] == "plain"


def test_protocol_says_what_found_the_boxes_that_nobody_gave(oracle: Any, tmp_path: Path) -> None:
    assert run_benchmark("scenes", oracle, tmp_path, limit=1)["protocol"]["finder"] is None
    oracle.finder = SimpleNamespace(identity={"tagger": {"kind": "fixed"}})
    report = run_benchmark("scenes", oracle, tmp_path, limit=1)
    assert report["protocol"]["finder"] == {"tagger": {"kind": "fixed"}}
    assert rescore("scenes", tmp_path, limit=1) == report
    oracle.finder = object()  # one of a user's own, which says nothing
    assert run_benchmark("scenes", oracle, tmp_path, limit=1)["protocol"]["finder"] == "object"


def test_predictions_survive_the_file(oracle: Any, tmp_path: Path) -> None:
    run_benchmark("scenes", oracle, tmp_path)
    path = tmp_path / "predictions.jsonl"
    predictions = list(read_predictions(path))
    copy = tmp_path / "copy.jsonl"
    assert write_predictions(predictions, copy) == len(predictions) == 17
    assert copy.read_bytes() == path.read_bytes()
    row = json.loads(path.read_text().splitlines()[1])
    assert set(row) == {
        *("id", "image", "task", "input", "prompt"),
        *("output", "phrases", "nothing", "problems"),
    }
    assert row["phrases"] == [
        {"text": "the red car", "boxes": [{"xyxy": [30.0, 50.0, 50.0, 70.0], "score": None}]}
    ]


def test_a_finished_run_is_not_written_over(oracle: Any, tmp_path: Path) -> None:
    run_benchmark("scenes", oracle, tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in ("predictions.jsonl", "report.json")}
    for _ in range(2):
        run_benchmark("scenes", oracle, tmp_path, limit=1)
    assert {name: (tmp_path / f"{name}.1").read_bytes() for name in whole} == whole
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == [
        *("predictions.jsonl", "predictions.jsonl.1", "predictions.jsonl.2"),
        *("report.json", "report.json.1", "report.json.2"),
    ]


def test_rescore_gives_the_same_report(oracle: Any, tmp_path: Path) -> None:
    report = run_benchmark("scenes", oracle, tmp_path)
    assert rescore("scenes", tmp_path) == report
    (tmp_path / "report.json").unlink()
    again = rescore("scenes", tmp_path)
    assert again["protocol"]["model"] is None
    assert again["rec_acc_50"] == report["rec_acc_50"]


def test_rescore_needs_readable_files(oracle: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no prediction file"):
        rescore("scenes", tmp_path)
    run_benchmark("scenes", oracle, tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(DataError, match="is not a report"):
        rescore("scenes", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":1 is not JSON"),
        ("\udcff", ":1 is not JSON"),
        ("[]", ":1 is not a prediction"),
        ('{"id": "a"}', ":1 is not a prediction .*input"),
    ],
)
def test_broken_prediction_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(DataError, match=message):
        list(read_predictions(path))


def test_what_was_answered_before_a_failure_is_kept(
    oracle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    describe_batch, told, out = oracle.describe_batch, [], tmp_path / "out"

    def interrupted(*words: Any) -> Any:
        if told:
            raise KeyboardInterrupt
        return describe_batch(*words)

    monkeypatch.setattr(logging.getLogger("parfocal"), "propagate", True)  # the CLI turns it off
    monkeypatch.setattr(oracle, "describe_batch", interrupted)
    with caplog.at_level("WARNING", "parfocal"), pytest.raises(KeyboardInterrupt):
        run_benchmark(
            "scenes", oracle, out, batch_size=1, on_progress=lambda *step: told.append(step)
        )
    partial = out / "predictions.jsonl.partial"
    assert [path.name for path in out.iterdir()] == [partial.name]
    assert len(list(read_predictions(partial))) == 10
    assert f"10 answers so far are in {partial}" in caplog.text
    with pytest.raises(KeyboardInterrupt):  # at once
        run_benchmark("scenes", oracle, out, batch_size=1)
    (kept,) = out.iterdir()
    assert kept.name == "predictions.jsonl.partial.1"
    assert len(list(read_predictions(kept))) == 10


def test_a_failure_before_any_answer_leaves_no_file(tmp_path: Path) -> None:
    def refused() -> Any:
        raise DataError("no")
        yield

    with pytest.raises(DataError):
        write_predictions(refused(), tmp_path / "predictions.jsonl")
    assert not list(tmp_path.glob("predictions*"))


def test_bad_options_are_refused_before_anything_is_asked(garbage: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch size is 0"):
        run_benchmark("scenes", garbage, tmp_path / "out", batch_size=0)
    with pytest.raises(ConfigError, match="bundled and take no data"):
        run_benchmark("scenes", garbage, tmp_path / "out", data=tmp_path)
    with pytest.raises(ConfigError, match="no benchmark 'x'"):
        run_benchmark("x", garbage, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        run_benchmark("scenes", garbage, tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists()
