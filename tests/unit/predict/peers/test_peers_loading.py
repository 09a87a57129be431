"""Loading peers: a folder that is not whole, or not safe, is refused with what is wrong with it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import parfocal
from parfocal.boxes import Warp
from parfocal.errors import CheckpointError
from parfocal.images import image_frame
from parfocal.predict.peers import PEERS, load_peer
from parfocal.predict.peers.confidence import TokenProbabilities
from parfocal.predict.peers.files import Checkpoint

LOADING = "parfocal.predict.loading"


@pytest.fixture
def copy(peer_folder, tmp_path):
    """A function that copies the folder of a family, to break it."""
    return lambda family: shutil.copytree(peer_folder(family), tmp_path / family)


def rewrite(path, **changes):
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


@pytest.mark.parametrize("family", ["paligemma", "owlv2"])
def test_dtype_and_device_are_as_asked(family, peer_folder):
    loaded = parfocal.load(peer_folder(family), device="cpu", dtype="bfloat16")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.device.type == "cpu"


@pytest.mark.parametrize(
    ("family", "dtype", "wanted"),
    [
        ("owlv2", "auto", torch.float32),
        ("grounding-dino", "auto", torch.float32),
        ("owlv2", "bfloat16", torch.bfloat16),
        ("paligemma", "auto", torch.bfloat16),
    ],
)
def test_detectors_are_not_halved_on_a_gpu_unless_asked(
    family, dtype, wanted, peer_folder, monkeypatch
):
    """Boxes come out of their networks in the precision of the weights: 8 bits are pixels off."""
    monkeypatch.setattr(f"{LOADING}.resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(f"{LOADING}.load_peer", lambda checkpoint: checkpoint.dtype)
    assert parfocal.load(peer_folder(family), dtype=dtype) == wanted


@pytest.mark.parametrize("family", ["paligemma", "owlv2"])
def test_pickled_weights_are_never_read(family, copy):
    folder = copy(family)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no weights as safetensors"):
        parfocal.load(folder, device="cpu")


def test_code_of_a_model_is_never_run(copy):
    folder = copy("florence2")
    rewrite(folder / "config.json", auto_map={"AutoModel": "modeling_evil.Evil"})
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"auto_map.*format of Transformers itself"):
        parfocal.load(folder, device="cpu")


@pytest.mark.parametrize("change", ["missing", "of another shape"])
def test_weights_must_fit(change, copy):
    folder = copy("paligemma")
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("o_proj.weight"))
    if change == "missing":
        weights.pop(name)
    else:
        weights[name] = torch.zeros(2, 2)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"1 weights .*{change.split()[-1]}.*o_proj"):
        parfocal.load(folder, device="cpu")


def test_weights_that_are_not_used_are_warned_of(copy, caplog):
    folder = copy("paligemma")
    weights = load_file(folder / "model.safetensors")
    extra = {**weights, "ema.decay": torch.zeros(1)}
    save_file(extra, folder / "model.safetensors", metadata={"format": "pt"})
    parfocal.load(folder, device="cpu")
    assert "1 weights are not used, such as ema.decay" in caplog.text


def test_a_folder_without_its_processor_is_refused(copy):
    folder = copy("paligemma")
    for path in folder.glob("*processor_config.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match="paligemma"):
        parfocal.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("processor_config.json", "[]"),
        ("tokenizer_config.json", "null"),
        ("tokenizer.json", '"x"'),
        ("tokenizer.json", '{"version": "9.9", "model": {"type": "none"}}'),
    ],
)
def test_a_damaged_processor_is_refused(name, content, copy):
    folder = copy("qwen2_5_vl")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{folder} holds no processor that"):
        parfocal.load(folder, device="cpu")


def test_a_chat_model_without_its_template_is_refused(copy):
    folder = copy("qwen3_vl")
    for path in folder.glob("chat_template*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"no chat template.*Qwen3-VL"):
        parfocal.load(folder, device="cpu")


@pytest.mark.parametrize("content", ["{% for %}", "{{ messages[0].text[7] }}", "{{ nothing() }}"])
def test_a_damaged_template_is_refused_before_the_first_question(content, copy):
    folder = copy("qwen3_vl")
    (folder / "chat_template.jinja").write_text(content, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"template that cannot lay out .*chat_template\.jinja"
    ):
        parfocal.load(folder, device="cpu")


def test_a_processor_that_resizes_otherwise_than_it_says_is_refused(peer, street, monkeypatch):
    """Boxes of Qwen2.5-VL are pixels of the resized picture: a wrong size is a wrong box."""
    one = peer("qwen2_5_vl")
    half = Warp.resize(image_frame(street), 56, 28)
    monkeypatch.setattr(type(one), "coordinates", lambda self, image: half)
    with pytest.raises(CheckpointError, match="resized 150x90 to 112x56, its settings say 56x28"):
        one.locate(street, "car", max_new_tokens=1)


def test_another_family_is_named_with_those_that_are_known(copy, tmp_path):
    folder = copy("paligemma")
    rewrite(folder / "config.json", model_type="whisper")
    with pytest.raises(CheckpointError, match=r"model_type 'whisper'.*qwen2_5_vl"):
        load_peer(Checkpoint(folder, "x", torch.device("cpu"), torch.float32))
    with pytest.raises(CheckpointError, match="qwen2_5_vl, qwen3_vl"):
        parfocal.load(folder)


def test_a_hub_id_that_is_not_in_the_cache_says_so_offline():
    with pytest.raises(CheckpointError, match=r"'nobody/nothing' is not in the local .* cache"):
        parfocal.load("nobody/nothing")


def test_a_hub_id_in_the_cache_is_not_fetched_again(monkeypatch, peer_folder):
    asked = []

    def snapshot_download(hub_id, allow_patterns, local_files_only=False):
        asked.append((hub_id, local_files_only))
        assert "*.bin" not in allow_patterns
        assert "*.py" not in allow_patterns
        return str(peer_folder("paligemma"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = parfocal.load("google/paligemma2-3b-mix-224", device="cpu")
    assert asked == [("google/paligemma2-3b-mix-224", True)]
    assert loaded.name == "google/paligemma2-3b-mix-224"
    assert type(loaded).__name__ in PEERS["paligemma"]


def test_probabilities_are_those_of_the_chosen_tokens():
    keeper = TokenProbabilities()
    even, sure = torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 0.0, 50.0]])
    keeper(torch.tensor([[9]]), even)
    keeper(torch.tensor([[9, 1]]), sure)
    found = keeper.of(torch.tensor([[9, 1, 3]]))
    torch.testing.assert_close(found, torch.tensor([[0.25, 1.0]]))
    assert TokenProbabilities().of(torch.tensor([[9]])) is None
