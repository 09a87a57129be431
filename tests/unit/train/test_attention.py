"""Lean attention is eager attention to the bit, forwards and backwards, or is not chosen."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from parfocal.models.packing import additive, packed_attention
from parfocal.train.attention import LEAN, attention_of


def language_model(head_width: int = 16) -> torch.nn.Module:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50, hidden_size=4 * head_width, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def step(model: torch.nn.Module, attention: str, *, bf16: bool, masked: bool = True) -> list:
    """Logits, and the gradients of all parameters."""
    model.set_attn_implementation(attention)
    model.zero_grad()
    turn = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 2, -1, -1]])
    live = torch.tensor([[1, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]])
    allowed, positions = packed_attention(turn, live)
    mask = {"attention_mask": additive(allowed, torch.float32)} if masked else {}
    ids = torch.arange(16).view(2, 8) * 3
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(input_ids=ids, position_ids=positions, use_cache=False, **mask).logits
    (logits.float() ** 2).mean().backward()
    return [logits.detach(), *(value.grad.clone() for value in model.parameters())]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_lean_attention_is_eager_attention_to_the_bit(bf16, masked):
    model = language_model()
    eager = step(model, "eager", bf16=bf16, masked=masked)
    lean = step(model, LEAN, bf16=bf16, masked=masked)
    assert all(torch.equal(a, b) for a, b in zip(eager, lean, strict=True))


def test_heads_of_other_widths_differ_by_rounding():
    model = language_model(head_width=12)
    eager, lean = (step(model, name, bf16=False) for name in ("eager", LEAN))
    for a, b in zip(eager, lean, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_checkpointed_layer_has_the_same_gradients():
    model = language_model().train()
    plain = step(model, LEAN, bf16=True)
    switch = "activation_checkpointing_enable"  # its name before was another
    getattr(model, switch, model.gradient_checkpointing_enable)()
    again = step(model, LEAN, bf16=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_what_it_cannot_do_stays_eager(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = language_model().config
    assert attention_of(config) == LEAN
    config.attention_dropout = 0.1
    assert attention_of(config) == "eager"
    config.attention_dropout, config.model_type = 0.0, "gemma2"  # caps its scores
    assert attention_of(config) == "eager"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert attention_of(config) == "sdpa"
