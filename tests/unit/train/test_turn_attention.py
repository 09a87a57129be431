"""Attention by turns gives the numbers of the masked row, forward and back."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from parfocal.models.packing import additive, in_rows, row_places, turn_mask, turn_positions
from parfocal.train.turn_attention import FAMILIES, NAME, attention_for, lay_out

WIDTH = 16


def samples(*layouts: tuple[int, ...], dead: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn numbers and liveness of samples: tokens of the prefix, then of each turn."""
    rows = [
        [number for number, count in enumerate(layout) for _ in range(count)] for layout in layouts
    ]
    longest = max(map(len, rows))
    turn = torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
    live = (turn >= 0).long()
    for row in range(len(rows)):
        live[row, 1 : 1 + min(dead, layouts[row][0] - 1)] = 0  # slots without a region
    return turn, live


MANY = samples((5, 3, 9, 2, 4), (5, 2, 2), (3, 7, 1, 1, 1, 1, 1, 1), dead=2)
CASES = {
    "many turns": MANY,
    "one turn": samples((4, 6), (4, 3)),
    "prefixes alone": samples((4,), (2,)),
    "no prefix": samples((0, 3, 2), (0, 4)),
    "prefixes of several lengths": samples((9, 2, 3), (1, 6), (4, 1)),
}


def small(family: str, **changes: int) -> torch.nn.Module:
    config = AutoConfig.for_model(
        family, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=4, vocab_size=11,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def read(model, embeds, positions, **seeing):
    return model.base_model(
        inputs_embeds=embeds, position_ids=positions, use_cache=False, **seeing
    ).last_hidden_state


def gradients(model, embeds, hidden, kept):
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    loss = (hidden * weights)[kept].sum()
    return torch.autograd.grad(loss, [embeds, *model.base_model.parameters()], allow_unused=True)


def check(model, turn, live, row_length=0):
    """Compare both ways of attending on live tokens, and all gradients."""
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(*turn.shape, WIDTH, generator=generator)
    positions, places, block = turn_positions(turn, live), None, None
    masked_turn, masked_live = turn, live
    if row_length:
        places = row_places((turn >= 0).sum(1).tolist(), row_length)
        block = places.div(turn.shape[1], rounding_mode="floor")
        embeds, positions = in_rows(embeds, places), in_rows(positions, places)
        masked_turn, masked_live = in_rows(turn, places, -1), in_rows(live, places)
    embeds.requires_grad_()
    mask = additive(turn_mask(masked_turn, masked_live, block), torch.float32)
    model.set_attn_implementation("eager")
    expected = read(model, embeds, positions, attention_mask=mask)
    layout = lay_out(turn, live, places)
    model.set_attn_implementation(NAME)
    got = read(model, embeds, positions, attention_mask=layout.prefix_mask, turns=layout)
    kept = masked_live.bool()
    torch.testing.assert_close(got[kept], expected[kept], atol=1e-5, rtol=1e-5)
    for left, right in zip(
        gradients(model, embeds, got, kept), gradients(model, embeds, expected, kept), strict=True
    ):
        assert (left is None) == (right is None)
        if left is not None:
            torch.testing.assert_close(left, right, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_reads_what_it_reads_under_the_mask(family):
    check(small(family), *MANY)


@pytest.mark.parametrize("name", sorted(CASES))
def test_any_samples_are_read_as_under_the_mask(name):
    check(small("llama"), *CASES[name])


@pytest.mark.parametrize("row_length", [12, 24, 60])
def test_samples_that_share_rows_are_read_as_under_the_mask(row_length):
    check(small("llama"), *MANY, row_length=row_length)


def test_a_turn_sees_nothing_of_others():
    turn, live = samples((3, 4, 5), (2, 3, 3))
    model = small("llama")
    model.set_attn_implementation(NAME)
    layout, positions = lay_out(turn, live), turn_positions(turn, live)
    embeds = torch.randn(*turn.shape, WIDTH, generator=torch.Generator().manual_seed(3))
    seeing = {"turns": layout, "attention_mask": layout.prefix_mask}
    before = read(model, embeds, positions, **seeing)
    changed = torch.where((turn == 1)[..., None], embeds + 1, embeds)
    after = read(model, changed, positions, **seeing)
    assert torch.equal(before[turn == 2], after[turn == 2])
    assert not torch.allclose(before[turn == 1], after[turn == 1])


def test_groups_waste_little():
    lengths = [(56, 90, *(20,) * 11), (56, 70, *(18,) * 9)]
    layout = lay_out(*samples(*lengths))
    held = sum(map(sum, lengths))
    assert len(layout.tokens) < 1.25 * held
    assert len(layout.tokens) - len(layout.empty) == held


def test_without_a_layout_it_is_ordinary_attention():
    model, ids = small("llama").eval(), torch.tensor([[3, 4, 5, 6]])
    expected = model(ids).logits
    model.set_attn_implementation(NAME)
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 7)


def test_weights_are_dropped_in_training_only():
    turn, live = MANY
    model = small("llama", attention_dropout=0.5)
    model.set_attn_implementation(NAME)
    layout, positions = lay_out(turn, live), turn_positions(turn, live)
    embeds = torch.randn(*turn.shape, WIDTH, generator=torch.Generator().manual_seed(3))
    seeing = {"turns": layout, "attention_mask": layout.prefix_mask}

    def twice():
        return [read(model, embeds, positions, **seeing) for _ in range(2)]

    model.train()
    assert not torch.equal(*twice())
    model.eval()
    assert torch.equal(*twice())


def test_other_families_attend_under_the_mask(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert attention_for("llama") == NAME
    assert attention_for("gemma2") == "eager"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert attention_for("llama") == "sdpa"
