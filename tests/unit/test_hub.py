"""Checkpoints of the hub: what is fetched, and what is said before."""

from __future__ import annotations

import pytest

from parfocal import hub
from parfocal.errors import CheckpointError


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


def test_what_is_in_the_cache_is_not_asked_for_again(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", None)
    assert hub.fetch("a/b") == tmp_path


def test_the_first_line_of_an_error_that_says_nothing_is_its_kind():
    assert hub.first_line(OSError("one\ntwo")) == "one"
    assert hub.first_line(KeyError()) == "KeyError"
