"""Reading tensors from every layout of weights, and what is refused."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.sources import joined, local_folder, open_tensors

STATE = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "b.bias": torch.tensor([1, 2, 3]),
    "c": torch.ones(4, dtype=torch.bfloat16),
}


def shard(folder: Path, state: dict[str, torch.Tensor], suffix: str) -> Path:
    """Write one tensor a file, and the index."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = {}
    for number, (name, value) in enumerate(state.items()):
        names[name] = f"{stem}-{number}.{suffix}"
        write = save_file if suffix == "safetensors" else torch.save
        write({name: value}, folder / names[name])
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def legacy(folder: Path) -> None:
    torch.save(STATE, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def framework(folder: Path) -> None:
    content = {"state_dict": STATE, "hub": argparse.Namespace(losses=[1.0]), "meta": {"epoch": 1}}
    torch.save(content, folder / "iter_21000.pth")


LAYOUTS = {
    "one safetensors": lambda folder: save_file(STATE, folder / "model.safetensors"),
    "sharded safetensors": lambda folder: shard(folder, STATE, "safetensors"),
    "one bin": lambda folder: torch.save(STATE, folder / "pytorch_model.bin"),
    "sharded bin": lambda folder: shard(folder, STATE, "bin"),
    "a bin of the format before PyTorch 1.6": legacy,
    "open_clip": lambda folder: torch.save(STATE, folder / "open_clip_pytorch_model.bin"),
    "a state dict inside a pth": lambda folder: torch.save(
        {"state_dict": STATE, "epoch": 3}, folder / "last.pth"
    ),
    "a pth with objects of a framework": framework,
}


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_tensors(write, tmp_path):
    write(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"not weights")
    tensors = open_tensors(tmp_path)
    assert set(tensors) == set(STATE)
    for name, value in STATE.items():
        assert torch.equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype


def test_a_file_can_be_named_itself(tmp_path):
    framework(tmp_path)
    save_file(STATE, tmp_path / "model.safetensors")
    for name in ("iter_21000.pth", "model.safetensors"):
        assert set(open_tensors(tmp_path / name)) == set(STATE)


def test_tensors_can_be_cut_out_and_renamed(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    tensors = open_tensors(tmp_path)
    assert list(tensors.under("a.")) == ["weight"]
    renamed = tensors.renamed("llm.")
    assert torch.equal(renamed["llm.a.weight"], STATE["a.weight"])
    assert len(joined([tensors, renamed])) == 6


def test_two_sources_of_one_tensor_are_refused(tmp_path):
    for name in ("one.safetensors", "two.safetensors"):
        save_file({"a": STATE["a.weight"]}, tmp_path / name)
    parts = [open_tensors(tmp_path / name) for name in ("one.safetensors", "two.safetensors")]
    with pytest.raises(CheckpointError, match=r"one\.safetensors and .*two\.safetensors both.*'a'"):
        joined(parts)


def test_missing_shards_are_named(tmp_path):
    shard(tmp_path, STATE, "safetensors")
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of 3 shards: model-1\.safetensors"):
        open_tensors(tmp_path)


def test_a_tensor_that_only_the_index_knows_is_named(tmp_path):
    index = shard(tmp_path, STATE, "bin")
    content = json.loads(index.read_text())
    content["weight_map"]["lost.weight"] = "pytorch_model-0.bin"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"names 1 tensors.*'lost\.weight'"):
        open_tensors(tmp_path)


def test_a_shard_outside_the_folder_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"outside its folder: '\.\./secret"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_refused(text, tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="no index of weights"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("place", [".", "global_step100"])
def test_deepspeed_shards_are_refused_with_the_remedy(place, tmp_path):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"x")
    (folder / "mp_rank_00_model_states.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"DeepSpeed.*zero_to_fp32\.py"):
        open_tensors(tmp_path)


class Evil:
    """Would make a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_nothing_that_is_pickled_is_run(tmp_path):
    torch.save({"state_dict": STATE, "x": Evil(tmp_path / "made")}, tmp_path / "evil.pth")
    assert set(open_tensors(tmp_path)) == set(STATE)
    torch.save({**STATE, "x": Evil(tmp_path / "made")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError):
        open_tensors(tmp_path)
    assert not (tmp_path / "made").exists()


REFUSED = {
    "no weights": (lambda folder: None, "no weights"),
    "several to choose from": (
        lambda folder: [torch.save(STATE, folder / f"{name}.pth") for name in "ab"],
        r"\['a\.pth', 'b\.pth'\]",
    ),
    "a cut safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x10\0\0\0"),
        "no readable safetensors",
    ),
    "a cut bin": (
        lambda folder: (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04rubbish"),
        "pytorch_model",
    ),
    "numbers instead of tensors": (
        lambda folder: torch.save({"epoch": 3}, folder / "pytorch_model.bin"),
        "other things than weights, such as 'epoch'",
    ),
    "a list": (
        lambda folder: torch.save([torch.ones(1)], folder / "pytorch_model.bin"),
        "holds no weights, but a list",
    ),
}


@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_weights_is_refused(write, message, tmp_path):
    write(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        open_tensors(tmp_path)


def test_names_that_are_nowhere_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder nor a file"):
        open_tensors(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CheckpointError, match="no file of weights"):
        open_tensors(tmp_path / "a.txt")
    with pytest.raises(CheckpointError, match=r"hf download some/model"):
        local_folder("some/model")
    assert local_folder(tmp_path) == tmp_path
