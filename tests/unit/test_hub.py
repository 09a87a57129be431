"""Checkpoints of the hub: what is fetched, and what is said before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError

from parfocal import hub
from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.sources import local_folder


def test_a_download_is_announced_with_its_size(monkeypatch, caplog, tmp_path):
    class File:
        def __init__(self, rfilename, size):
            self.rfilename, self.size = rfilename, size

    class Info:
        siblings = (
            File("model.safetensors", 3_000_000_000),
            File("pytorch_model.bin", 7),
            File("x.py", 1),
        )

    def snapshot_download(hub_id, allow_patterns, local_files_only=False):
        if local_files_only:
            raise OSError("not there")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: Info)
    assert hub.fetch("a/b") == tmp_path
    assert "downloading a/b: 1 files, 3.00 GB" in caplog.text
    monkeypatch.setattr(Info, "siblings", Info.siblings[1:])
    with pytest.raises(CheckpointError, match="'a/b' has no weights as safetensors"):
        hub.fetch("a/b")


WHOLE = ("config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors")


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def index(folder: Path, stem: str, suffix: str, shards: int = 2) -> Path:
    """An index of weights, with so many of its two shards."""
    names = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    put(folder, *names[:shards])
    values = {"weight_map": dict(zip("ab", names, strict=True))}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache that holds a folder, with no network; gives the folder."""

    class NoConnectionError(HfHubHTTPError.__mro__[1]):  # of the HTTP client: no OSError
        """What a client raises without a network."""

    def model_info(*_, **__):
        raise NoConnectionError("Name or service not known.")

    assert not issubclass(NoConnectionError, OSError)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    return tmp_path


def test_what_is_in_the_cache_is_not_asked_for_again(cache, caplog):
    put(cache, *WHOLE)
    assert hub.fetch("a/b") == cache
    (cache / "model.safetensors").unlink()
    index(cache, "model", "safetensors")
    assert hub.fetch("a/b") == cache
    assert not caplog.text


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_no_network_is_an_error_of_ours(error, cache, monkeypatch):
    def nothing(*_, **__):
        raise error("not there")

    with pytest.raises(CheckpointError, match=r"only in part .*fetched: Name or service not known"):
        hub.fetch("a/b")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", nothing)
    monkeypatch.setattr("huggingface_hub.snapshot_download", _only(OSError("no such folder")))
    with pytest.raises(CheckpointError, match=r"'a/b' is not in the local .*fetched: not there"):
        hub.fetch("a/b")


def _only(error: Exception):
    def snapshot_download(*_, **__):
        raise error

    return snapshot_download


@pytest.mark.parametrize("missing", WHOLE)
def test_a_cache_that_lacks_a_file_is_not_whole(missing, cache, monkeypatch):
    """A plain `from_pretrained` has brought the rest."""
    put(cache, *(name for name in WHOLE if name != missing))
    asked = []
    monkeypatch.setattr(hub, "_download", lambda name, folder: asked.append(name) or folder)
    hub.fetch("a/b")
    assert asked == ["a/b"]


def test_a_cache_that_lacks_a_shard_is_not_whole(cache):
    index(put(cache, *WHOLE[:-1]), "model", "safetensors", shards=1)
    with pytest.raises(CheckpointError, match="only in part"):
        hub.fetch("a/b")
    put(cache, "model.safetensors.index.json")  # an index that names nothing
    with pytest.raises(CheckpointError, match="only in part"):
        hub.fetch("a/b")


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: index(folder, "pytorch_model", "bin"),
        lambda folder: put(folder, "iter_21000.pth"),
        lambda folder: put(folder, "model.safetensors"),
    ],
    ids=["Groma's shards", "MG-LLaVA's file", "safetensors without a tokenizer"],
)
def test_what_cannot_be_fetched_is_read_as_it_is_in_the_cache(write, cache, caplog):
    write(put(cache, "config.json"))
    assert hub.fetch("a/b") == cache
    assert "Name or service not known" in caplog.text
    assert f"Now reading what is in the cache: {cache}" in caplog.text


def test_a_snapshot_that_is_known_to_be_partial_is_still_a_folder(monkeypatch, tmp_path):
    """A download of some files leaves a list of all of them in the cache."""
    error = OSError("12 files are missing")
    error.snapshot_path = str(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", _only(error))
    assert local_folder("a/b") == hub.cached_folder("a/b") == tmp_path
    put(tmp_path, *WHOLE)
    asked = []
    monkeypatch.setattr(hub, "_download", lambda name, folder: asked.append(name) or folder)
    hub.fetch("a/b")
    assert asked == ["a/b"]


def test_an_error_is_told_in_a_line():
    assert hub.first_line(OSError("one\ntwo")) == "one"
    assert hub.first_line(OSError("field 'a':\n    wants b\nthree")) == "field 'a': wants b"
    assert hub.first_line(KeyError()) == "KeyError"
