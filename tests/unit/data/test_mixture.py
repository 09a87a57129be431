"""Mixtures as values and as TOML files: what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parfocal.data.mixture import Mixture, MixtureSource, read_mixture
from parfocal.errors import ConfigError, DataError

WHOLE = """
seed = 3
interleave = "weighted"
stop = "first"
benchmarks = ["bench/index.json"]
leaks = "exclude"
skip_bad = 2
cache = true

[[sources]]
name = "a"
path = "rows/a.jsonl"
ratio = 0.5
epochs = 2
weight = 3
views = ["rec", "caption"]

[[sources]]
name = "b"
path = "/data/b-*.tar.gz"
images = "pictures"
streaming = true
buffer = 10
rows = 7

[[sources]]
name = "c"
kind = "hub"
path = "owner/name"
streaming = true
split = "val"
revision = "abc"
files = ["x/*.parquet"]

[[sources]]
name = "d"
kind = "hub"
path = "json"
streaming = true
files = ["d.jsonl"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mix.toml"
    path.write_text(text, "utf-8")
    return path


def test_every_key_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    a = MixtureSource("a", str(tmp_path / "rows/a.jsonl"), ratio=0.5, epochs=2, weight=3,
                      views=("rec", "caption"))  # fmt: skip
    b = MixtureSource("b", "/data/b-*.tar.gz", images=str(tmp_path / "pictures"),
                      streaming=True, buffer=10, rows=7)  # fmt: skip
    c = MixtureSource("c", "owner/name", "hub", streaming=True, split="val", revision="abc",
                      files=("x/*.parquet",))  # fmt: skip
    d = MixtureSource("d", "json", "hub", streaming=True, files=(str(tmp_path / "d.jsonl"),))
    assert read_mixture(write(tmp_path, WHOLE)) == Mixture(
        (a, b, c, d),
        seed=3,
        interleave="weighted",
        stop="first",
        benchmarks=(str(tmp_path / "bench/index.json"),),
        leaks="exclude",
        skip_bad=2,
        cache=True,
    )


def test_defaults(tmp_path: Path) -> None:
    found = read_mixture(write(tmp_path, '[[sources]]\nname = "a"\npath = "a.jsonl"'))
    assert found == Mixture((MixtureSource("a", str(tmp_path / "a.jsonl")),))
    assert (found.interleave, found.leaks, found.sources[0].ratio) == ("shuffle", "refuse", 1)


SOURCE = '[[sources]]\nname = "a"\npath = "a.jsonl"\n'
BAD_FILES = {
    "unknown key": ("sed = 1\n" + SOURCE, r"the mixture has no key 'sed'. Did you mean 'seed'\? "
                    "Its keys are sources, seed, interleave, stop"),
    "unknown key of a source": (SOURCE + "wieght = 2", r"source 'a' has no key 'wieght'. Did you "
                                r"mean 'weight'\? Its keys are name, path, kind"),
    "misspelt sources": ('[[source]]\nname = "a"', "no key 'source'. Did you mean 'sources'"),
    "sources as a list": ("sources = [1]", r"must be tables: \[\[sources\]\]"),
    "no path": ('[[sources]]\nname = "a"', "source 'a' has no 'path'"),
    "no name": ('[[sources]]\npath = "a"', "source 1 has no 'name'"),
    "no sources": ("seed = 1", "needs sources of different names.* there are 0"),
    "not TOML": ("seed = = 1", "is not TOML"),
    "path of a wrong type": ('[[sources]]\nname = "a"\npath = 3', "path is 3, must be str"),
    "benchmarks of a wrong type": ("benchmarks = [1]\n" + SOURCE, "must be a list of str"),
    "files as text": ('[[sources]]\nname = "a"\nkind = "hub"\npath = "json"\nfiles = "x"\n'
                      "streaming = true", "files is 'x', must be a list of str"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"mix.toml:? .*{message}"):
        read_mixture(write(tmp_path, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        read_mixture(tmp_path / "no.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_mixture(tmp_path / "a.toml")


BAD_SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, "needs both a name and a path"),
    "ratio above 1": ({"ratio": 1.5}, "ratio is 1.5, must be above 0 and at most 1"),
    "ratio NaN": ({"ratio": float("nan")}, "ratio is nan"),
    "ratio as text": ({"ratio": "0.5"}, "ratio is '0.5', must be float"),
    "ratio as truth": ({"ratio": True}, "ratio is True, must be float"),
    "no epochs": ({"epochs": 0}, "epochs is 0, must be above 0"),
    "endless epochs": ({"epochs": float("inf")}, "epochs is inf"),
    "negative weight": ({"weight": -1}, "weight is -1"),
    "kind": ({"kind": "csv"}, "kind is 'csv', must be one of auto, jsonl, parquet, webdataset"),
    "views as text": ({"views": "rec"}, "views is 'rec', must be a list of str"),
    "a view twice": ({"views": ("rec", "rec")}, "must be different names"),
    "buffer": ({"streaming": True, "buffer": 0}, "buffer is 0, must be at least 1"),
    "hub without streaming": ({"kind": "hub"}, "needs streaming = true: it may read from the net"),
    "split of a file": ({"split": "val"}, "files, split and revision are for kind 'hub' only"),
    "rows of a file": ({"rows": 3}, "rows is for streaming = true only"),
    "streaming as a number": ({"streaming": 1}, "streaming is 1, must be bool"),
}


@pytest.mark.parametrize(("values", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_bad_sources_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MixtureSource(**{"name": "a", "path": "a.jsonl", **values})


BAD_MIXTURES: dict[str, tuple[dict[str, Any], str]] = {
    "a name twice": ({"sources": (MixtureSource("a", "x"),) * 2}, "'a' is there twice"),
    "interleave": ({"interleave": "random"}, "must be one of shuffle, proportional, weighted"),
    "seed": ({"seed": -1}, "must be 0 or more"),
    "stop without weights": ({"stop": "first"}, "for interleave = 'weighted' only"),
    "weight without weights": (
        {"sources": (MixtureSource("a", "x", weight=2),)},
        "raise its epochs",
    ),
    "a list of sources": ({"sources": [MixtureSource("a", "x")]}, "must be a list of"),
}


@pytest.mark.parametrize(("values", "message"), BAD_MIXTURES.values(), ids=BAD_MIXTURES)
def test_bad_mixtures_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixture(**{"sources": (MixtureSource("a", "x"),), **values})


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a.jsonl", "jsonl"), ("A.Parquet", "parquet"), ("a-*.tar", "webdataset"),
     ("a.tar.gz", "webdataset"), ("a.tgz", "webdataset")],
)  # fmt: skip
def test_the_ending_tells_the_kind(path: str, kind: str) -> None:
    assert MixtureSource("a", path).format == kind


def test_a_folder_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    source = MixtureSource("a", str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be told .*Set kind to one of jsonl, parquet"):
        _ = source.format
    (tmp_path / "0.tar").touch()
    assert source.format == "webdataset"
    (tmp_path / "part-0.parquet").touch()
    assert source.format == "parquet"
    assert MixtureSource("a", str(tmp_path), "jsonl").format == "jsonl"
