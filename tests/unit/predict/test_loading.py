"""load(): what is loaded equals what was saved; everything else is one clear refusal."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import parfocal
from parfocal.boxes import Boxes
from parfocal.errors import CheckpointError, ConfigError
from parfocal.images import image_frame
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.predict import load
from parfocal.predict.loading import check_finder, model_folder
from parfocal.train.weights import load_parts
from tests.unit.models.builders import build_mg_llava


@pytest.fixture(scope="module")
def saved(tiny_pair, tmp_path_factory):
    """The tiny model on disk; tests must not change it."""
    folder = tmp_path_factory.mktemp("tiny")
    for part in tiny_pair:
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the saved model to break."""
    return shutil.copytree(saved, tmp_path / "model")


def rewrite(path, **changes):
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def test_a_saved_model_answers_as_before(saved, tiny_predictor, pictures):
    loaded = parfocal.load(saved, device="cpu")
    assert loaded.name == str(saved)
    assert not loaded.model.training
    assert {value.dtype for value in loaded.model.parameters()} == {torch.float32}
    one, other = (p.ask(pictures[1], "Where?", max_new_tokens=8) for p in (loaded, tiny_predictor))
    assert str(one) == str(other)
    assert one.proposals == other.proposals


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16], ids=["name", "torch"])
def test_dtype_is_as_asked(saved, dtype, pictures):
    loaded = load(saved, device="cpu", dtype=dtype)
    assert loaded.model.dtype == torch.bfloat16
    assert len(loaded.ask(pictures[0], "Where?", max_new_tokens=2).proposals) > 0


@pytest.mark.parametrize(
    "change",
    [{"vision": 3}, {"text_config": {"model_type": "qwen2", "hidden_size": "a"}}],
    ids=["number", "text"],
)
def test_values_of_other_types_in_a_config_are_refused_at_every_door(copy, tiny_pair, change):
    rewrite(copy / "config.json", **change)
    with pytest.raises(CheckpointError, match=str(copy)):
        load(copy, device="cpu")
    with pytest.raises(CheckpointError, match=f"{copy} could not be loaded"):
        load_parts(tiny_pair[0], {"model": str(copy)})


def test_the_code_of_a_tokenizer_is_not_run(copy):
    (copy / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    evil = {"AutoTokenizer": ["evil.Tok", "evil.Tok"]}
    rewrite(copy / "tokenizer_config.json", auto_map=evil, tokenizer_class="Tok")
    with pytest.raises(CheckpointError, match="contains custom code"):
        load(copy, device="cpu")


def test_weights_that_are_missing_are_refused_at_every_door(copy):
    values = load_file(copy / "model.safetensors")
    name = next(name for name in values if name.startswith("projector"))
    values.pop(name)
    save_file(values, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing"):
        ParfocalForConditionalGeneration.from_pretrained(copy)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(CheckpointError, match=r"no model 'maxi'.*bundled \(mini\)"):
        load("maxi")


def test_the_folder_of_a_user_who_is_not_there_is_no_folder():
    with pytest.raises(CheckpointError, match=r"no model '~nosuchuser/x'"):
        load("~nosuchuser/x")
    with pytest.raises(CheckpointError, match="no model 'xxx"):
        load("x" * 300)  # longer than a file's name can be


def test_the_bundled_name_is_a_folder_of_the_package():
    assert (model_folder("mini") / "README.md").is_file()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no parfocal_processor\.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.split(".")[0]):
        load(copy, device="cpu")


def test_a_model_of_another_kind_is_refused(copy):
    rewrite(copy / "config.json", model_type="llava")
    with pytest.raises(CheckpointError, match="model_type 'llava'"):
        load(copy)


def test_a_model_that_wants_its_own_code_is_refused(copy):
    rewrite(copy / "config.json", auto_map={"AutoModel": "modeling_evil.Evil"})
    (copy / "modeling_evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(CheckpointError, match="auto_map"):
        load(copy)


def test_pickled_weights_are_never_read(copy):
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="could not be loaded"):
        load(copy, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "parfocal_processor.json"])
def test_a_file_that_is_not_json_is_named(copy, name):
    (copy / name).write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=name):
        load(copy, device="cpu")


@pytest.mark.parametrize("content", ["[]", "null", '"x"'])
def test_a_config_that_is_no_mapping_is_refused(copy, content):
    (copy / "config.json").write_text(content, encoding="utf-8")
    for door in (lambda: load(copy), lambda: check_finder(copy)):
        with pytest.raises(CheckpointError, match=r"config\.json is no mapping"):
            door()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vision": {}}, r"vision\.towers\[0\]\."),
        ({"dialect": "qwen3_vl"}, "dialect 'qwen3_vl', .* needs 'region_tokens'"),
        ({"token_ids": {}}, "token_ids.image -1"),
        ({"num_slots": 1}, "num_slots 1,"),
        ({"num_image_tokens": 12}, "num_image_tokens 12,"),
        ({"layout": "bare"}, "layout 'bare'"),
        ({"num_object_tokens": 4}, "num_object_tokens 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_processor_of_another_model_is_refused(copy, change, named):
    """Its boxes would be those of other slots, or of a picture that entered otherwise."""
    rewrite(copy / "parfocal_processor.json", **change)
    with pytest.raises(CheckpointError, match=rf"the processor \(parf.*json\) has {named}"):
        load(copy, device="cpu")


@pytest.mark.parametrize("content", ["{}", '{"added_tokens": [], "model": 3}'])
def test_a_damaged_tokenizer_is_refused(copy, content):
    (copy / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{copy} holds no tokenizer that"):
        load(copy, device="cpu")


def test_weights_that_were_cut_short_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="could not be loaded"):
        load(copy, device="cpu")


@pytest.mark.parametrize("change", ["missing", "unexpected", "of another shape"])
def test_weights_must_fit_exactly(copy, change):
    """A weight that is not in the file would stay random, and the model would answer nonsense."""
    path, name = copy / "model.safetensors", "regions.lift.weight"
    weights = load_file(path)
    if change == "missing":
        weights.pop(name)
    elif change == "unexpected":
        name = "regions.extra.weight"
        weights[name] = torch.zeros(2)
    else:
        weights[name] = torch.zeros(2, 2)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=name):
        load(copy, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu7"}, "device 'gpu7' is not known"),
        ({"device": "cuda"}, "sees no GPU"),
        ({"device": "cpu", "dtype": "int4"}, "dtype 'int4'.*float32"),
    ],
    ids=["unknown device", "no GPU", "unknown dtype"],
)
def test_what_is_not_possible_here_is_refused(saved, monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        load(saved, **options)


def test_auto_is_the_cpu_without_a_gpu(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load(saved).model.device.type == "cpu"


# finders


class Finder:
    """Finds the same box in every picture."""

    def find(self, images):
        return [Boxes([[8, 8, 40, 48]], image_frame(image), [0.5], ["it"]) for image in images]


def test_a_model_that_reads_detections_takes_a_finder(tmp_path, pictures):
    for part in build_mg_llava():
        part.save_pretrained(tmp_path)
    finder = Finder()
    check_finder(tmp_path)
    loaded = load(tmp_path, device="cpu", finder=finder)
    assert loaded.finder is finder
    answer = loaded.ask(pictures[0], "what is it?", max_new_tokens=2)
    assert answer.proposals.xyxy == pytest.approx(np.array([[8.0, 8, 40, 48]]), abs=1)


def test_other_models_refuse_a_finder_before_weights_are_read(saved, copy, monkeypatch):
    (copy / "model.safetensors").unlink()
    for door in (lambda: load(copy, device="cpu", finder=Finder()), lambda: check_finder(saved)):
        with pytest.raises(ConfigError, match="does not read the boxes of a detector"):
            door()


@pytest.mark.parametrize("config", ["groma", "owlv2"])
def test_families_that_ask_no_detector_say_so_by_their_config(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": config}), encoding="utf-8")
    with pytest.raises(ConfigError, match="--detector and --tagger"):
        check_finder(tmp_path)
