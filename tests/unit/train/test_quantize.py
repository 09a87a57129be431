"""QLoRA: rounded layers stay as they are, adapters learn, and the end is on the whole weights."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util

import pytest
import torch
from safetensors.torch import load_file, save_file

from parfocal.errors import CheckpointError, ConfigError
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import vary
from parfocal.train import quantize as quantizing
from parfocal.train import run
from parfocal.train.adapters import add_adapters, is_adapter, merged
from parfocal.train.data import ConversationCollator
from parfocal.train.language import LanguageObjective
from parfocal.train.parameters import check_divisible, freeze, load_whole, trainable_counts
from parfocal.train.quantize import (
    check_layers,
    linear_layers,
    num_weights,
    quantize,
    quantized_names,
)
from parfocal.train.recipe import Lora, Optim, Recipe, Stage
from parfocal.train.run import start_run
from parfocal.train.runtime import Runtime
from parfocal.train.stages import build_language_objective

QLORA = Lora(rank=2, alpha=4.0, quantize="nf4")
TALK = Stage(
    "talk", "language", ("projector", "text"), samples=20, batch_size=4, lora=QLORA,
    optim=Optim(lr=3e-3, warmup_steps=1, weight_decay=0.01), eval_samples=0,
)  # fmt: skip
RECIPE = Recipe("demo", "tiny", (TALK,), sides=(64,), seed=5, bf16=False)

missing = importlib.util.find_spec("bitsandbytes") is None
installed = pytest.mark.skipif(missing, reason="bitsandbytes is installed apart")


@pytest.fixture(scope="session")
def wide_parts(tiny_parts):
    """The tiny preset with a language model whose rows are whole blocks, and its processor."""
    config = vary(tiny_parts[0], {"text_config": {"hidden_size": 64}})
    config.token_ids = tiny_parts[0].token_ids
    return config, tiny_parts[1]


@pytest.fixture
def wide(wide_parts):
    """Such a model; its biases are not zero, as those of trained ones."""
    torch.manual_seed(0)
    model = ParfocalForConditionalGeneration(wide_parts[0])
    for layer in linear_layers(model.text).values():
        if layer.bias is not None:
            torch.nn.init.normal_(layer.bias)
    return model


@pytest.fixture
def quantized(wide, processor):
    """An objective whose language model is held in 4 bits, as a stage begins with it."""
    objective = build_language_objective(copy.deepcopy(wide), processor)
    quantize(objective.model.text, torch.float32)
    torch.manual_seed(0)
    add_adapters(objective.model.text, QLORA)
    freeze(objective, TALK)
    return objective


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


@installed
def test_only_adapters_learn_and_rounded_layers_stay(quantized, processor, toy_talk):
    batch = ConversationCollator(processor)(toy_talk)
    before, frozen = copied(quantized.state_dict()), quantized_names(quantized)
    trained = [value for value in quantized.parameters() if value.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=0.05), []
    for _ in range(10):
        loss = quantized.train()(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        with torch.no_grad():
            quantized.eval()(**batch)
    assert losses[-1] < losses[0] - 0.4
    after = quantized.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not moved & frozen
    text = {name for name in moved if name.startswith("model.text.")}
    assert text and all(map(is_adapter, text))
    assert all(name in moved for name in before if "lora_B" in name)


@installed
def test_what_is_quantised_and_how_large_it_is(wide, quantized):
    plain, text = wide, quantized.model.text
    layers = linear_layers(plain.text)
    assert "lm_head" not in layers and "model.layers.0.mlp.down_proj" in layers
    held = {name.removeprefix("model.text.").partition(".base_layer")[0]
            for name in quantized_names(quantized)}  # fmt: skip
    assert held == set(layers)
    weight = text.get_submodule("model.layers.1.mlp.down_proj").base_layer.weight
    whole = layers["model.layers.1.mlp.down_proj"].weight
    assert (weight.dtype, weight.numel()) == (torch.uint8, whole.numel() // 2)
    assert num_weights(weight) == whole.numel()
    add_adapters(plain.text, QLORA)
    freeze(LanguageObjective(plain), TALK)
    assert trainable_counts(quantized.model) == trainable_counts(plain)


@installed
def test_rounding_is_that_of_the_paper(wide):
    from bitsandbytes.functional import dequantize_4bit

    text, name = wide.text, "model.layers.0.mlp.down_proj"
    whole = text.get_submodule(name).weight.detach().clone()
    quantize(text, torch.float32)
    held = text.get_submodule(name).weight
    state = held.quant_state
    assert (state.quant_type, state.blocksize, state.nested) == ("nf4", 64, True)
    assert state.state2.blocksize == 256
    blocks, found = whole.view(-1, 64), dequantize_4bit(held, state).view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    # half of the widest gap between two values of NF4, and the rounding of the scale
    assert float(((blocks - found) / scale).abs().max()) < 0.152 + 0.01


@installed
def test_biases_of_quantised_layers_are_the_starts(wide):
    text, name = wide.text, "model.layers.0.self_attn.q_proj.bias"
    start = copied(text.state_dict())
    quantize(text, torch.bfloat16)
    text(torch.arange(8)[None])
    assert text.state_dict()[name].dtype == torch.bfloat16  # what would not be the start's
    left = quantized_names(text)
    state = {key: value for key, value in text.state_dict().items() if key not in left}
    found = merged(state, QLORA, {key: start[key] for key in left if key in start})
    assert found.keys() == start.keys()
    assert all(torch.equal(found[key], start[key]) for key in start)


@installed
@pytest.mark.usefixtures("in_process")
def test_a_stage_leaves_its_start_with_the_adapters_added(wide_parts, tmp_path):
    out = tmp_path / "out"
    start_run(RECIPE, *wide_parts, out, runtime=Runtime(processes=1))
    left = load_file(out / "talk" / "model.safetensors")
    saved = load_file(out / "talk" / "checkpoint-5" / "model.safetensors")
    start = run._model(out, RECIPE, None).state_dict()
    names = [f"text.{name}" for name in linear_layers(run._model(out, RECIPE, None).text)]
    assert not any(f"{name}.base_layer" in key for name in names for key in saved)
    for name in names:
        down = saved[f"model.{name}.lora_A.default.weight"]
        up = saved[f"model.{name}.lora_B.default.weight"]
        expected = start[f"{name}.weight"] + 2.0 * (up @ down)
        assert torch.equal(left[f"{name}.weight"], expected)
        assert not torch.equal(expected, start[f"{name}.weight"])
    others = [key for key in left if key.removesuffix(".weight") not in names]
    moved = {key.split(".")[0] for key in others if not torch.equal(left[key], start[key])}
    assert moved == {"projector"}


class CrashError(Exception):
    """What stands for a crash."""


@installed
@pytest.mark.usefixtures("in_process")
def test_a_resumed_run_ends_at_the_same_bits(wide_parts, tmp_path, monkeypatch):
    lora = dataclasses.replace(QLORA, dropout=0.2)
    recipe = dataclasses.replace(RECIPE, stages=(dataclasses.replace(TALK, lora=lora),))
    start_run(recipe, *wide_parts, tmp_path / "whole", runtime=Runtime(processes=1))
    original, calls = LanguageObjective.forward, []

    def forward(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise CrashError
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageObjective, "forward", forward)
        with pytest.raises(CrashError):
            start_run(recipe, *wide_parts, tmp_path / "again", runtime=Runtime(processes=1))
    start_run(recipe, *wide_parts, tmp_path / "again", resume=True, runtime=Runtime(processes=1))
    one, other = (
        load_file(tmp_path / name / "talk" / "model.safetensors") for name in ("whole", "again")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@installed
def test_a_checkpoint_is_loaded_strictly(quantized, tmp_path):
    left, path = quantized_names(quantized), str(tmp_path / "part.safetensors")
    left.add("model.text.lm_head.weight")  # the token table, a second time
    whole = {name: value for name, value in quantized.state_dict().items() if name not in left}
    save_file(whole, path)
    load_whole(quantized, path)
    adapter = next(name for name in whole if is_adapter(name))
    save_file({name: value for name, value in whole.items() if name != adapter}, path)
    with pytest.raises(CheckpointError, match=rf"lacks \['{adapter}'\]"):
        load_whole(quantized, path)
    table = "model.text.model.embed_tokens.weight"
    save_file({name: value for name, value in whole.items() if name != table}, path)
    with pytest.raises(CheckpointError, match=r"lm_head.weight', 'model.text.model.embed_tokens"):
        load_whole(quantized, path)
    save_file({**whole, "model.other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"\['model.other'\] on top"):
        load_whole(quantized, path)


def test_without_bitsandbytes_a_run_does_not_begin(tiny_parts, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizing, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'parfocal\[qlora\]'"):
        start_run(RECIPE, *tiny_parts, tmp_path / "out", runtime=Runtime(processes=1))
    assert not (tmp_path / "out").exists()


def test_rows_of_parts_of_blocks_are_refused(make_model):
    with pytest.raises(ConfigError, match=r"q_proj' has 32 inputs.*multiple of 64"):
        check_layers(make_model().text)


@pytest.mark.parametrize(
    "change",
    [{"first_row": 9, "optim": Optim(weight_decay=0.0)}, {"trainable": ("text.model.layers.1",)}],
    ids=["rows of tables", "weights of the language model"],
)
def test_what_cannot_learn_in_4_bits_is_refused(change):
    with pytest.raises(ConfigError, match=r"'talk' holds the language model in 4 bits"):
        dataclasses.replace(TALK, **change)
    dataclasses.replace(TALK, **change, lora=dataclasses.replace(QLORA, quantize="none"))


def test_4_bits_are_not_divided_among_processes(make_model):
    with pytest.raises(ConfigError, match="held in 4 bits"):
        check_divisible(TALK)


def test_other_kinds_are_not_known():
    with pytest.raises(ConfigError, match=r"lora.quantize is 'int3'; choose one of .*'nf4'"):
        Lora(quantize="int3")
