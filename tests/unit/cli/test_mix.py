"""`parfocal data mix`: the account, the file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parfocal.data.files import read_samples
from parfocal.data.leaks import Benchmark, LeakIndex
from tests.unit.data.mixed import make_sample, write_rows


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """Twelve rows of two files, one of which shows a benchmark's picture, and an index beside."""
    for name, size in (("a", 8), ("b", 4)):
        rows = [make_sample(f"{name}{n}", n, image_key=f"coco:{n}{size}") for n in range(size)]
        write_rows(tmp_path, name, rows)
    LeakIndex({"refcoco_val": Benchmark(1, frozenset(["coco:38"]))}).save(tmp_path / "i.json")
    path = tmp_path / "mix.toml"
    path.write_text(
        'seed = 3\n[[sources]]\nname = "a"\npath = "a.jsonl"\n'
        '[[sources]]\nname = "b"\npath = "b.jsonl"\nepochs = 2.5\n'
    )
    return path


def test_a_dry_run_says_what_will_come(run, mixture: Path) -> None:
    done = run("data", "mix", mixture, "--dry-run")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["a", "8", "8", "1", "1", "8", "44.4", "%"] in lines
    assert ["b", "4", "4", "2.5", "1", "10", "55.6", "%"] in lines
    assert "18 rows in the first epoch, shuffle, seed 3" in done.out
    assert "leaks (refuse): no benchmarks named" in done.out
    found = json.loads(run("data", "mix", mixture, "--dry-run", "--json").out)
    assert (found["schema"], found["rows"], found["file"]) == ("parfocal.mix/1", 18, str(mixture))
    assert [source["expected"] for source in found["sources"]] == [8, 10]
    assert f"first: {', '.join(found['first'])}\n" in done.out and len(found["first"]) == 10


def test_an_epoch_is_written(run, mixture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = run("data", "mix", mixture, "--out", out)
    assert (done.code, done.err) == (0, f"wrote {out}\n")
    found = list(read_samples(out))
    assert len(found) == 18 and sum("#" in sample.id for sample in found) == 6


def test_pictures_inside_tar_files_come_along(run, tmp_path: Path) -> None:
    write_rows(tmp_path, "t", [make_sample("t0"), make_sample("t1", 1)], "tar")
    (tmp_path / "mix.toml").write_text('[[sources]]\nname = "t"\npath = "t.tar"\n')
    out = tmp_path / "out.parquet"
    done = run("data", "mix", tmp_path / "mix.toml", "--out", out)
    assert (done.code, done.err) == (0, f"wrote {out}\nwrote {tmp_path / 'out.images'}\n")
    assert run("data", "check", out).code == 0


def test_leaks_are_shown_refused_and_excluded(run, mixture: Path, tmp_path: Path) -> None:
    index = ("--benchmarks", tmp_path / "i.json")
    out = tmp_path / "out.jsonl"
    dry = run("data", "mix", mixture, "--dry-run", *index)
    assert dry.code == 1 and "a has 1 of refcoco_val" in dry.out
    assert f"{tmp_path / 'a.jsonl'}:4 shows coco:38" in dry.err
    refused = run("data", "mix", mixture, "--out", out, *index)
    assert (refused.code, refused.out) == (1, "") and "--leaks exclude" in refused.err
    assert not out.exists()
    assert run("data", "mix", mixture, "--out", out, *index, "--leaks", "exclude").code == 0
    assert len(list(read_samples(out))) == 17
    assert run("data", "mix", mixture, "--out", out, *index, "--leaks", "allow").code == 0
    assert len(list(read_samples(out))) == 18


def test_what_is_wrong_is_told_in_one_line(run, mixture: Path, tmp_path: Path) -> None:
    for words, message in (
        ((mixture,), "give --out FILE"),
        ((mixture, "--dry-run", "--out", tmp_path / "o.jsonl"), "a dry run writes nothing"),
        ((mixture, "--out", tmp_path / "a.jsonl"), "a.jsonl is read to make the file"),
        ((mixture, "--out", tmp_path / "no" / "o.jsonl"), "no does not exist"),
        ((tmp_path / "a.jsonl", "--dry-run"), "names its sources in [[sources]]"),
        ((mixture, "--dry-run", "--benchmarks", tmp_path / "no.json"), "(No such file or"),
        ((mixture, "--dry-run", "--leaks", "ignore"), "must be one of refuse, allow, exclude"),
        ((mixture, "--out", tmp_path / "out.csv"), "must end in .jsonl or .parquet"),
        ((tmp_path / "no.toml", "--dry-run"), "cannot be opened"),
    ):
        done = run("data", "mix", *words)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert message in done.err, words
