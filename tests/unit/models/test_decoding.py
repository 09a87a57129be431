"""LiveRegions: names of regions that do not exist cannot be said."""

from __future__ import annotations

import torch

from parfocal.models.decoding import LiveRegions

FIRST, SLOTS, VOCABULARY = 3, 4, 9
MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])


def barred(scores: torch.Tensor) -> list[list[int]]:
    """The ids that cannot be chosen, row by row."""
    return [torch.nonzero(row == float("-inf"))[:, 0].tolist() for row in scores]


def test_dead_names_are_impossible_and_nothing_else_changes():
    scores = torch.randn(2, VOCABULARY)
    before = scores.clone()
    found = LiveRegions(FIRST, MASK, prompt_length=1)(torch.zeros(2, 1, dtype=torch.long), scores)
    assert barred(found) == [[5, 6], []]
    assert torch.equal(scores, before)
    finite = found.isfinite()
    assert torch.equal(found[finite], scores[finite])


def test_names_may_be_repeated_unless_asked_otherwise():
    said = torch.tensor([[0, 3, 3], [0, 4, 5]])
    scores = torch.zeros(2, VOCABULARY)
    assert barred(LiveRegions(FIRST, MASK, 1)(said, scores)) == [[5, 6], []]
    assert barred(LiveRegions(FIRST, MASK, 1, unique=True)(said, scores)) == [[3, 5, 6], [4, 5]]


def test_names_of_the_question_may_be_said():
    asked = torch.tensor([[3, 4, 0], [3, 4, 6]])  # prompt of two tokens
    found = LiveRegions(FIRST, MASK, 2, unique=True)(asked, torch.zeros(2, VOCABULARY))
    assert barred(found) == [[5, 6], [6]]


def test_words_around_the_names_are_not_names():
    said = torch.tensor([[0, FIRST - 1, FIRST + SLOTS], [0, 1, 8]])
    found = LiveRegions(FIRST, MASK, 1, unique=True)(said, torch.zeros(2, VOCABULARY))
    assert barred(found) == [[5, 6], []]


def test_memory_is_of_one_step_only():
    processor = LiveRegions(FIRST, MASK, 1, unique=True)
    scores = torch.zeros(2, VOCABULARY)
    processor(torch.tensor([[0, 3], [0, 3]]), scores)
    assert barred(processor(torch.tensor([[0, 4], [0, 0]]), scores)) == [[4, 5, 6], []]


def test_beams_of_a_row_share_its_regions_and_keep_their_own_names():
    said = torch.tensor([[0, 3], [0, 4], [0, 0], [0, 5], [0, 6], [0, 1]])  # 2 rows x 3 beams
    found = LiveRegions(FIRST, MASK, 1, unique=True)(said, torch.zeros(6, VOCABULARY))
    assert barred(found) == [[3, 5, 6], [4, 5, 6], [5, 6], [5], [6], []]


def test_without_names_nothing_is_forbidden():
    scores = torch.zeros(2, VOCABULARY)
    assert LiveRegions(-1, MASK, 1)(torch.zeros(2, 1, dtype=torch.long), scores) is scores
