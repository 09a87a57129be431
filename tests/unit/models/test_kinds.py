"""What a model of Transformers is expected to do, asked of every kind of model.

Kinds differ in their towers, fusion, proposer, region encoder, merge and dialect. What does not
depend on the vision side is asked of one kind of each family only.
"""

from __future__ import annotations

import copy
import importlib.util
import re
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
)
from transformers.integrations import bitsandbytes as integration
from transformers.quantizers.auto import AutoHfQuantizer

from parfocal.models.modeling import ParfocalForConditionalGeneration
from tests.unit.models.builders import FAMILIES, KINDS, inputs_of, pictures

OPTIONS = {"max_new_tokens": 6, "do_sample": False}
IDLE = (
    r"pyramid\.layer_blocks\.[1-9]",  # level_scales: only the finest level is read
    r"towers\.0\.backbone\.encoder\.layers\.1\.",  # token_layer -2: CLIP's last layer is not
    r"backbone\.(post_)?layernorm\.",  # a token_layer that is a number: nor is the final norm
    r"embeddings\.mask_token",
)
VARIED = (*FAMILIES, "concat", "mining b2f", "resampler f2b")  # every fusion, every merge
BITS = {"8 bit": {"load_in_8bit": True}, "4 bit": {"load_in_4bit": True}}


@cache
def kind(name: str):
    """A kind's model and processor; only copies of the model may change."""
    with torch.inference_mode(False):  # its weights serve tests that learn, too
        return KINDS[name]()


def fresh(name: str):
    model, processor = kind(name)
    return copy.deepcopy(model), processor


@cache
def rows(with_boxes: bool):
    first, second, third = pictures()
    boxes = [[3, 4, 20, 25], [0, 0, 40, 30]] if with_boxes else []
    return [
        ("what is it?", [(first, boxes)]),
        ("?", [(second, [])]),
        ("is it what it is, or what?", [(third, boxes[:1])]),
    ]


def rows_for(model):
    return rows(model.num_slots > 0)


def logits_of(model, values) -> Tensor:
    with torch.inference_mode():
        return model(**values).logits


def loss_of(model, processor) -> Tensor:
    """The loss of words, and something for what only boxes teach."""
    values = inputs_of(model, processor, rows_for(model))
    ids, tokens = values["input_ids"], model.config.token_ids
    unlearned = (values["attention_mask"] == 0) | (ids == tokens.image) | (ids == tokens.region)
    loss = model(**values, labels=ids.masked_fill(unlearned, -100)).loss
    if model.proposer is None:
        return loss
    pixels, _ = processor.pixel_values(pictures())
    levels, candidates = model.vision(pixels).levels, model.encode(pixels).candidates
    found = list(vars(candidates.training).values())
    found += [value for named in found if isinstance(named, dict) for value in named.values()]
    for value in found:
        if isinstance(value, Tensor):
            loss = loss + value.square().mean()
    if model.refiner is not None:
        loss = loss + model.refiner.refine(levels, candidates.boxes).square().mean()
    return loss


def gradients(model, processor) -> tuple[Tensor, dict[str, Tensor]]:
    model.train()
    torch.manual_seed(0)
    loss = loss_of(model, processor)
    loss.backward()
    named = {name: value.grad for name, value in model.named_parameters()}
    return loss.detach(), {name: grad for name, grad in named.items() if grad is not None}


@pytest.mark.parametrize("name", VARIED)
@torch.inference_mode()
def test_a_batch_in_any_order_says_what_its_rows_say_alone(name):
    model, processor = kind(name)
    asked = rows_for(model)
    alone = []
    for row in asked:
        values = inputs_of(model, processor, [row])
        alone.append(model.generate(**values, **OPTIONS)[0, values["input_ids"].shape[1] :])
    for order in ([0, 1, 2], [2, 0, 1]):
        values = inputs_of(model, processor, [asked[row] for row in order])
        said = model.generate(**values, **OPTIONS)[:, values["input_ids"].shape[1] :]
        for place, row in enumerate(order):
            own = alone[row]
            assert said[place, : len(own)].tolist() == own.tolist()
            assert (said[place, len(own) :] == processor.tokenizer.pad_token_id).all()


@pytest.mark.parametrize("name", KINDS)
def test_what_is_saved_is_loaded_bit_by_bit(name, tmp_path):
    model, processor = kind(name)
    model.save_pretrained(tmp_path)
    classes = [ParfocalForConditionalGeneration]
    if name in FAMILIES:
        classes += [AutoModelForImageTextToText, AutoModelForCausalLM]
    expected = logits_of(model, inputs_of(model, processor, rows_for(model)))
    for loader in classes:
        again = loader.from_pretrained(tmp_path).eval()
        assert type(again) is ParfocalForConditionalGeneration
        assert again.state_dict().keys() == model.state_dict().keys()
        values = inputs_of(again, processor, rows_for(model))
        assert torch.equal(logits_of(again, values), expected)


@pytest.mark.parametrize("name", KINDS)
def test_gradient_reaches_all_that_trains_and_nothing_else(name):
    model, processor = fresh(name)
    parts = {key.split(".")[0] for key, _ in model.named_parameters()}
    _, found = gradients(model, processor)
    missing = {key for key, _ in model.named_parameters()} - found.keys()
    assert not {key for key in missing if not idle(key)}
    assert {key.split(".")[0] for key, grad in found.items() if grad.any()} == parts
    model.zero_grad(set_to_none=True)
    model.vision.requires_grad_(False)
    model.text.requires_grad_(False)
    _, found = gradients(model, processor)
    assert {key.split(".")[0] for key, grad in found.items() if grad.any()} == parts - {
        "vision", "text",
    }  # fmt: skip


def idle(key: str) -> bool:
    """Whether nothing reads what the weight computes, and the config says why."""
    return any(re.search(pattern, key) for pattern in IDLE)


@pytest.mark.parametrize("name", VARIED)
def test_checkpointing_changes_neither_loss_nor_gradient(name):
    plain, processor = fresh(name)
    saving = copy.deepcopy(plain)
    saving.activation_checkpointing_enable()
    assert saving.text.model.layers[0].gradient_checkpointing
    loss, expected = gradients(plain, processor)
    again, found = gradients(saving, processor)
    torch.testing.assert_close(again, loss, atol=1e-5, rtol=1e-5)
    assert found.keys() == expected.keys()
    for key, grad in expected.items():
        torch.testing.assert_close(found[key], grad, atol=1e-5, rtol=1e-4, msg=key)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("name", VARIED)
def test_lora_attaches_to_every_part_learns_and_merges(name):
    peft = pytest.importorskip("peft")
    model, processor = fresh(name)
    asked, head = rows_for(model), model.get_output_embeddings()
    targets = [
        key
        for key, module in model.named_modules()
        if type(module) is nn.Linear and module is not head
    ]
    before = logits_of(model, inputs_of(model, processor, asked))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets)).eval()
    torch.testing.assert_close(
        logits_of(wrapped, inputs_of(wrapped, processor, asked)), before, atol=1e-5, rtol=1e-5
    )
    _, found = gradients(wrapped, processor)
    assert found
    assert all(".lora_" in key for key in found)
    wrapped.eval()
    with torch.no_grad():
        for key, value in wrapped.named_parameters():
            if ".lora_B." in key:
                nn.init.normal_(value, std=0.02)
    attached = inputs_of(wrapped, processor, asked)
    logits = logits_of(wrapped, attached)
    assert not torch.allclose(logits, before, atol=1e-3)
    said = wrapped.generate(**attached, **OPTIONS)
    merged = wrapped.merge_and_unload()
    assert type(merged) is ParfocalForConditionalGeneration
    values = inputs_of(merged, processor, asked)
    torch.testing.assert_close(logits_of(merged, values), logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.generate(**values, **OPTIONS), said)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("name", FAMILIES)
def test_lora_on_the_words_beside_parts_that_train_whole(name):
    peft = pytest.importorskip("peft")
    model, processor = fresh(name)
    whole = ["projector", "regions"] if model.regions is not None else ["projector"]
    config = peft.LoraConfig(r=2, target_modules=r"text\..*_proj", modules_to_save=whole)
    wrapped = peft.get_peft_model(model, config)
    _, found = gradients(wrapped, processor)
    learned = {key.split("model.", 2)[2].split(".")[0] for key, grad in found.items() if grad.any()}
    assert learned == {"text", *whole}
    with torch.no_grad():
        for value in wrapped.parameters():
            if value.requires_grad:
                value.add_(0.01)
    wrapped.eval()
    logits = logits_of(wrapped, inputs_of(wrapped, processor, rows_for(wrapped)))
    merged = wrapped.merge_and_unload()
    values = inputs_of(merged, processor, rows_for(merged))
    torch.testing.assert_close(logits_of(merged, values), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_bfloat16_is_finite_and_close(name):
    model, processor = kind(name)
    exact = inputs_of(model, processor, rows_for(model))
    half = copy.deepcopy(model).to(torch.bfloat16)
    values = inputs_of(half, processor, rows_for(model))  # its own regions: near ties may differ
    assert values["image_features"].dtype == torch.bfloat16
    assert logits_of(half, values).isfinite().all()
    said = half.generate(**values, **OPTIONS)
    assert said.shape[1] > values["input_ids"].shape[1]
    far = (values["image_features"] - exact["image_features"]).abs().mean()
    assert far < 0.1 * exact["image_features"].abs().mean()
    shared = {**exact, "image_features": values["image_features"]}
    far = (logits_of(half, shared) - logits_of(model, exact))[exact["attention_mask"].bool()]
    assert far.abs().mean() < 0.1 * logits_of(model, exact).abs().mean()


@pytest.mark.parametrize("name", ["dense", "conv_gate"])
@torch.inference_mode()
def test_forward_compiles_in_one_piece(name):
    model, processor = kind(name)
    values = inputs_of(model, processor, rows_for(model))
    torch._dynamo.reset()
    compiled = torch.compile(model.forward, backend="eager", fullgraph=True)
    compiled_logits = compiled(**values, use_cache=False).logits
    torch.testing.assert_close(compiled_logits, logits_of(model, values), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_forward_compiles_to_machine_code(name):
    model, processor = kind(name)
    values = inputs_of(model, processor, rows_for(model))
    torch._dynamo.reset()
    compiled = torch.compile(model.forward, fullgraph=True)
    compiled_logits = compiled(**values, use_cache=False).logits
    torch.testing.assert_close(compiled_logits, logits_of(model, values), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_a_cache_of_fixed_size_says_the_same(name):
    model, processor = kind(name)
    values = inputs_of(model, processor, rows_for(model))
    said = model.generate(**values, **OPTIONS)
    fixed = model.generate(**values, **OPTIONS, cache_implementation="static")
    assert torch.equal(fixed, said)


class SmallLinear(nn.Linear):
    """Stands where bitsandbytes would put its own layer."""

    def __init__(self, inputs: int, outputs: int, bias: bool, *args, **kwargs) -> None:
        super().__init__(inputs, outputs, bias)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", FAMILIES)
def test_quantisers_take_the_language_model_and_leave_its_head_and_the_rest(
    name, bits, monkeypatch
):
    model, _ = fresh(name)
    layers = SimpleNamespace(Linear4bit=SmallLinear, Linear8bitLt=SmallLinear)
    monkeypatch.setattr(integration, "bnb", SimpleNamespace(nn=layers), raising=False)
    head = model.get_output_embeddings()
    wanted = {
        key
        for key, module in model.text.named_modules()
        if type(module) is nn.Linear and module is not head
    }
    config = BitsAndBytesConfig(**BITS[bits], llm_int8_skip_modules=None)
    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(model, device_map=None)
    replaced = {key for key, module in model.named_modules() if type(module) is SmallLinear}
    assert replaced == {f"text.{key}" for key in wanted}


@pytest.mark.parametrize("bits", BITS)
def test_a_quantised_config_is_saved_and_read(bits, tmp_path):
    config = copy.deepcopy(kind("groma")[0].config)
    config.quantization_config = BitsAndBytesConfig(**BITS[bits])
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.quantization_config == config.quantization_config.to_dict()
    assert again.proposer == config.proposer


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_models_load_and_speak(name, bits, tmp_path):
    model, processor = kind(name)
    model.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(**BITS[bits])
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(ImportError, match="bitsandbytes"):
            ParfocalForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config)
        return
    small = ParfocalForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config)
    assert small.text.model.layers[0].mlp.up_proj.weight.dtype in (torch.int8, torch.uint8)
    if bits == "4 bit":
        return  # kernels for 4 bit take no matrices as small as these
    values = inputs_of(small, processor, rows_for(model))
    assert logits_of(small, values).isfinite().all()
    assert small.generate(**values, **OPTIONS).shape[1] > values["input_ids"].shape[1]
