"""What is drawn for a Sample: another thing in every epoch, and the same in every run."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch

from parfocal.data.mixing import open_mixture
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.train.augment import DetectionAugment
from parfocal.train.data import DetectionCollator, seed_of
from parfocal.train.mixture_data import EndlessBatches, MixtureLoader
from tests.unit.train.drawn import drawn_sample, write_drawn

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",  # more workers than cores
)
SMALL = DetectionAugment(short_sides=(60, 80, 100), crop_sides=(50, 90))
ROWS = 6


class Named:
    """The collated batch, and whose it is."""

    def __init__(self, collate: DetectionCollator) -> None:
        self.collate = collate

    def __call__(self, samples):
        batch = self.collate(samples)
        return [
            (sample.id, sample.seen, batch["pixel_values"][0][row], batch["boxes"][row][live])
            for row, (sample, live) in enumerate(zip(samples, batch["mask"], strict=True))
        ]


@pytest.fixture
def batches(processor, tmp_path):
    """Read a mixture of drawn pictures, changed, from the start or a state."""
    path = tmp_path / write_drawn(tmp_path, ROWS)
    collate = Named(DetectionCollator(processor, {"": "object"}, SMALL, seed=3))

    def begin(workers: int = 0) -> EndlessBatches:
        opened = open_mixture(Mixture((MixtureSource("rows", str(path)),), seed=1))
        return EndlessBatches(MixtureLoader(opened, 2, collate, workers, rank=0, world=1))

    return begin


def first(batches: EndlessBatches, count: int) -> list:
    return [row for batch in islice(batches, count) for row in batch]


def same(one, other) -> bool:
    return one[:2] == other[:2] and all(map(torch.equal, one[2:], other[2:]))


def test_a_picture_is_another_one_in_the_next_epoch_and_the_same_in_another_run(batches):
    both = first(batches(), ROWS)
    assert [seen for _, seen, *_ in both] == [0] * ROWS + [1] * ROWS
    epochs = [{row[0]: row for row in both[start : start + ROWS]} for start in (0, ROWS)]
    for name, row in epochs[0].items():
        assert not torch.equal(row[2], epochs[1][name][2])
    assert all(map(same, both, first(batches(), ROWS)))
    assert all(map(same, both, first(batches(workers=2), ROWS)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_goes_on_in_the_second_epoch_sees_the_same(batches, tmp_path, workers):
    whole, begun = first(batches(), ROWS), batches(workers)
    before = first(begun, 4)  # three steps are the first epoch
    begun.save(tmp_path, 0)
    again = batches(workers)
    again.load(tmp_path, 0)
    rest = first(again, 2)
    assert [seen for _, seen, *_ in rest] == [1] * 4
    assert all(map(same, whole, before + rest))


def test_slots_are_drawn_anew_as_well():
    sample = drawn_sample(0)
    seeds = [seed_of(replace(sample, seen=times), 7) for times in range(5)]
    assert len(set(seeds)) == 5
    assert seeds[0] == seed_of(sample, 7)
    assert seed_of(replace(sample, seen=1), 8) not in seeds
