"""Packed turns: who sees whom, and where each turn counts its positions from."""

from __future__ import annotations

import torch

from parfocal.models.packing import additive, turn_mask, turn_positions

# a prefix of three with a dead slot in the middle, two turns, padding
TURN = [0, 0, 0, 1, 1, 2, 2, -1]
LIVE = [1, 0, 1, 1, 1, 1, 1, 0]


def test_mask_is_the_hand_worked_one():
    allowed = turn_mask(torch.tensor([TURN]), torch.tensor([LIVE]))
    assert allowed.shape == (1, 1, 8, 8)
    expected = [
        "x.......",
        "xx......",  # a dead query sees itself, so that its row is defined
        "x.x.....",
        "x.xx....",
        "x.xxx...",
        "x.x..x..",
        "x.x..xx.",
        "x.x....x",
    ]
    found = ["".join("x" if cell else "." for cell in row) for row in allowed[0, 0].tolist()]
    assert found == expected


def test_every_turn_counts_from_the_end_of_the_live_prefix():
    positions = turn_positions(torch.tensor([TURN]), torch.tensor([LIVE]))
    assert positions[0, :7].tolist() == [0, 0, 1, 2, 3, 2, 3]


def test_rows_do_not_touch():
    turn, live = torch.tensor([TURN, [0, 1, 1, 1, 1, 1, -1, -1]]), torch.tensor([LIVE, [1] * 8])
    live[1, 6:] = 0
    for shared in (turn_mask, turn_positions):
        together = shared(turn, live)
        for row in range(2):
            alone = shared(turn[row : row + 1], live[row : row + 1])
            assert torch.equal(together[row : row + 1], alone)


def test_additive_is_zero_where_allowed_and_the_lowest_number_elsewhere():
    values = additive(torch.tensor([[True, False]]), torch.float16)
    assert values.dtype == torch.float16
    assert values.tolist() == [[0.0, torch.finfo(torch.float16).min]]
