"""Mixtures through real DataLoaders: every row once over ranks and workers, and exact resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from parfocal.data import Sample, Turn
from parfocal.data.mixing import OpenMixture, open_mixture
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.dialects import GroundedText
from parfocal.errors import ConfigError, DataError
from parfocal.train.grouping import group, rough_length
from parfocal.train.mixture_data import (
    EndlessBatches,
    MixtureDataset,
    MixtureLoader,
    rank_and_world,
)
from parfocal.train.samples import UnreadableError
from tests.unit.data.mixed import flat, make_samples, write_rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",  # more workers than cores
)
SIZES = {"a": 11, "b": 6}
NAMES = sorted(f"{name}{row}" for name, size in SIZES.items() for row in range(size))


def triple(sample: Sample) -> Iterator[Sample]:
    for number in range(int(str(sample.meta["n"])) % 3):
        yield replace(sample, id=f"{sample.id}.{number}")


def ids(samples: Sequence[Sample]) -> list[str]:
    return [sample.id for sample in samples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    for name, size in SIZES.items():
        write_rows(root, name, make_samples(name, size))
    return root


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_samples_whose_pictures_cannot_be_opened_are_left_out(folder, window, batch_size) -> None:
    mixed = Mixture((MixtureSource("a", str(folder / "a.jsonl")),), seed=4, skip_bad=2)

    def collate(samples: Sequence[Sample]) -> list[str]:
        for sample in samples:
            if sample.id in ("a3", "a8"):
                raise UnreadableError("no picture", sample)
        return ids(samples)

    def load(mixture: Mixture = mixed) -> MixtureLoader:
        found = open_mixture(mixture)
        return MixtureLoader(found, batch_size, collate, rank=0, world=1, window=window)

    loader, batches, states = load(), [], []
    for batch in loader:
        batches.append(batch)
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert sorted(flat(batches)) == sorted({f"a{row}" for row in range(11)} - {"a3", "a8"})
    for place, state in enumerate(states, 1):
        again = load()
        again.load_state_dict(state)
        assert list(again) == batches[place:]
    with pytest.raises(DataError, match="no picture"):
        list(load(replace(mixed, skip_bad=1)))
    last = load()  # what was left out before counts
    last.load_state_dict(states[-1])
    assert last.state_dict()["marks"][0][2] >= 1


def opened(folder: Path, *views: str) -> OpenMixture:
    sources = [MixtureSource(name, str(folder / f"{name}.jsonl"), views=views) for name in SIZES]
    return open_mixture(Mixture(tuple(sources), seed=4), {"triple": triple})


@pytest.fixture(scope="module")
def plain(folder: Path) -> OpenMixture:
    return opened(folder)


@pytest.fixture(scope="module")
def expanded(folder: Path) -> OpenMixture:
    return opened(folder, "triple")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_dataset_gives_each_row_once(plain: OpenMixture, world: int, workers: int) -> None:
    found = []
    for rank in range(world):
        dataset = MixtureDataset(plain, rank, world)
        dataset.set_epoch(1)
        found.append(flat(DataLoader(dataset, 4, num_workers=workers, collate_fn=ids)))
    assert sorted(flat(found)) == NAMES
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("views", [(), ("triple",)], ids=["rows", "expanded"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_loader_gives_each_row_once(folder: Path, views, world: int, workers: int) -> None:
    mixture = opened(folder, *views)
    loaders = [MixtureLoader(mixture, 3, ids, workers, rank=r, world=world) for r in range(world)]
    for epoch in range(2 if world == 1 else 1):
        assert {loader.epoch for loader in loaders} == {epoch}
        found = flat(flat(loader) for loader in loaders)
        assert sorted(found) == sorted(sample.id for sample in mixture.iterate(epoch))


def test_batches_are_the_same_for_any_number_of_workers(plain: OpenMixture) -> None:
    batches = [list(MixtureLoader(plain, 2, ids, workers)) for workers in (0, 1, 2, 3)]
    assert batches == [batches[0]] * 4
    assert flat(batches[0]) == [sample.id for sample in plain.iterate(0)]


SECOND = {"rank": 1, "world": 2}


def killed_and_resumed(mixture: OpenMixture, workers: int, stop: int) -> list[list[str]]:
    """The batches of an epoch, by a program that is killed and one that goes on."""
    first = MixtureLoader(mixture, 2, ids, workers, **SECOND)
    before = list(islice(first, stop))
    state = json.loads(json.dumps(first.state_dict()))
    second = MixtureLoader(mixture, 2, ids, workers, **SECOND)
    second.load_state_dict(state)
    return [*before, *(second if second.epoch == 0 else ())]


@pytest.fixture(scope="module")
def epochs(plain: OpenMixture, expanded: OpenMixture) -> dict[tuple[str, int], list]:
    """The batches of an epoch, by mixture and workers."""
    mixtures = {"plain": plain, "expanded": expanded}
    return {
        (kind, workers): list(MixtureLoader(mixture, 2, ids, workers, **SECOND))
        for kind, mixture in mixtures.items()
        for workers in (0, 2)
    }


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize("kind", ["plain", "expanded"])
def test_killed_after_any_batch_the_rest_is_identical(request, epochs, kind, stop: int) -> None:
    assert killed_and_resumed(request.getfixturevalue(kind), 2, stop) == epochs[kind, 2]


@settings(max_examples=40)
@given(st.integers(0, 12), st.sampled_from(["plain", "expanded"]))
def test_killed_after_any_batch_without_workers(plain, expanded, epochs, stop, kind) -> None:
    mixture = plain if kind == "plain" else expanded
    assert killed_and_resumed(mixture, 0, stop) == epochs[kind, 0]


@pytest.fixture(scope="module")
def lopsided(folder: Path) -> OpenMixture:
    """In batches of one row the first of two workers has all the Samples, after the other's end."""
    source = MixtureSource("a", str(folder / "a.jsonl"), views=("even",))
    return open_mixture(Mixture((source,), interleave="sequential"), {"even": three_if_even})


def three_if_even(sample: Sample) -> list[Sample]:
    return [sample] * (0 if int(str(sample.meta["n"])) % 2 else 3)


def test_workers_that_end_early_do_not_disturb_the_turns(lopsided: OpenMixture) -> None:
    whole = [[f"a{row}"] for row in range(0, 11, 2) for _ in range(3)]
    assert list(MixtureLoader(lopsided, 1, ids, 2)) == whole
    first = MixtureLoader(lopsided, 1, ids, 2)
    before = list(islice(first, 7))
    second = MixtureLoader(lopsided, 1, ids, 2)
    second.load_state_dict(first.state_dict())
    assert [*before, *islice(second, 4)] == whole[:11]
    third = MixtureLoader(lopsided, 1, ids, 2)
    third.load_state_dict(second.state_dict())
    assert list(third) == whole[11:]


def test_a_stream_that_was_begun_before_the_workers_started(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "t", make_samples("t", 300), "tar.gz")
    source = MixtureSource("t", str(path), streaming=True, buffer=20)
    mixture = open_mixture(Mixture((source,)))
    begun = mixture.iterate(0)
    names = ids(list(islice(begun, 30)))
    found = flat(MixtureLoader(mixture, 30, ids, 2))
    names += ids(list(begun))
    assert found == names


def test_breaking_off_and_iterating_again_goes_on(plain: OpenMixture) -> None:
    loader = MixtureLoader(plain, 2, ids, 2)
    found = []
    for batch in loader:
        found.append(batch)
        if len(found) == 3:
            break
    assert [*found, *loader] == list(MixtureLoader(plain, 2, ids))


@pytest.mark.parametrize(("world", "workers", "size"), [(3, 0, 2), (1, 2, 3), (2, 0, 5)])
def test_other_numbers_go_on_with_what_was_not_seen(plain, world, workers, size) -> None:
    before, states = [], []
    for rank in range(2):
        loader = MixtureLoader(plain, 2, ids, 0, rank=rank, world=2)
        before += flat(islice(loader, 3))
        states.append(loader.state_dict())
    after = []
    for rank in range(world):
        loader = MixtureLoader(plain, size, ids, workers, rank=rank, world=world)
        loader.load_state_dict(states[rank % 2])
        after += flat(loader)
    assert len(before) == 12 and sorted(before + after) == NAMES
    order = [sample.id for sample in plain.iterate(0)]
    assert sorted(before) == sorted(order[:12])


def test_expanded_rows_are_resumed_with_the_same_numbers_only(expanded: OpenMixture) -> None:
    loader = MixtureLoader(expanded, 2, ids)
    next(iter(loader))
    other = MixtureLoader(expanded, 3, ids)
    with pytest.raises(ConfigError, match=r"'batch_size': 2.* resume with the same"):
        other.load_state_dict(loader.state_dict())


def test_the_state_of_another_mixture_is_refused(plain, expanded) -> None:
    with pytest.raises(ConfigError, match="views of 'a'"):
        MixtureLoader(expanded, 2).load_state_dict(MixtureLoader(plain, 2).state_dict())


def test_samples_come_through_workers_unchanged(plain: OpenMixture) -> None:
    assert flat(MixtureLoader(plain, 4, workers=2)) == list(plain.iterate(0))


def test_a_dataset_has_a_state_where_it_is_read(plain: OpenMixture) -> None:
    dataset = MixtureDataset(plain)
    with pytest.raises(ConfigError, match="use MixtureLoader"):
        dataset.state_dict()
    before = ids(list(islice(iter(dataset), 5)))
    state = dataset.state_dict()
    resumed = MixtureDataset(plain)
    resumed.load_state_dict(state)
    assert before + ids(list(resumed)) == ids(list(plain.iterate(0)))
    assert len(list(resumed)) == len(NAMES), "the state holds for one iteration"


def test_loading_leaves_the_numbers_of_the_training_alone(plain: OpenMixture) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(MixtureLoader(plain, 2, ids, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_rank_and_world(monkeypatch: pytest.MonkeyPatch, plain: OpenMixture) -> None:
    assert rank_and_world(None, None) == (0, 1)
    assert rank_and_world(1, 3) == (1, 3)
    with pytest.raises(ConfigError, match="give both or neither"):
        rank_and_world(1, None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 5)
    assert (MixtureDataset(plain).rank, MixtureLoader(plain, 1).world) == (2, 5)
    for words in ((plain, 0), (plain, 1, None, -1)):
        with pytest.raises(ConfigError, match="at least"):
            MixtureLoader(*words)
    with pytest.raises(ConfigError, match="window -1 at least 0"):
        MixtureLoader(plain, 1, window=-1)


def test_workers_read_all_of_a_stream_of_datasets(folder: Path) -> None:
    """Asked row by row, the library would split its files over the workers once more."""
    pytest.importorskip("datasets")
    source = MixtureSource(
        "a", "json", "hub", files=(str(folder / "a.jsonl"),), streaming=True, buffer=4, rows=11
    )
    mixture = open_mixture(Mixture((source,), seed=4))
    names = [sample.id for sample in mixture.iterate(0)]
    assert flat(MixtureLoader(mixture, 2, ids, 2)) == names
    assert sorted(names) == [name for name in NAMES if name[0] == "a"]


def test_batches_without_end_go_on_from_the_very_end_of_an_epoch(plain: OpenMixture) -> None:
    first, second = (MixtureLoader(plain, 2, ids) for _ in range(2))
    count = (len(NAMES) + 1) // 2
    *before, after = islice(EndlessBatches(first), count + 1)
    assert sorted(flat(before)) == NAMES
    first.set_epoch(0)
    list(islice(EndlessBatches(first), count))
    second.load_state_dict(first.state_dict())
    assert second.epoch == 0  # nothing of it is left
    assert next(iter(EndlessBatches(second))) == after


def test_a_mixture_that_gives_nothing_is_no_endless_loop(folder: Path) -> None:
    source = MixtureSource("a", str(folder / "a.jsonl"), views=("none",))
    nothing = open_mixture(Mixture((source,)), {"none": lambda sample: iter(())})
    with pytest.raises(DataError, match="of the mixture gives this process no Sample"):
        next(iter(EndlessBatches(MixtureLoader(nothing, 2, ids))))


# Windows of rows sorted by length

LONG = sorted(f"w{row}" for row in range(31))


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OpenMixture]:
    """Rows of 1 to 400 characters, every third without a picture; as they are, and expanded."""
    root, rows = tmp_path_factory.mktemp("wordy"), []
    for row, sample in enumerate(make_samples("w", 31)):
        turns = (Turn("user", GroundedText.of("x" * (1 + row * 97 % 400))),)
        images = () if row % 3 == 0 else sample.images
        rows.append(Sample(sample.id, images, turns, meta=sample.meta))
    write_rows(root, "w", rows)
    source = MixtureSource("w", str(root / "w.jsonl"))
    viewed = replace(source, views=("triple",))
    return {
        "rows": open_mixture(Mixture((source,), seed=4)),
        "expanded": open_mixture(Mixture((viewed,), seed=4), {"triple": triple}),
    }


def windowed(mixture: OpenMixture, size: int = 2, workers: int = 0, window: int = 4, **rank):
    return MixtureLoader(mixture, size, ids, workers, window=window, **rank)


@pytest.mark.parametrize("kind", ["rows", "expanded"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_windows_give_each_row_once(wordy, kind: str, world: int) -> None:
    loaders = [windowed(wordy[kind], rank=rank, world=world) for rank in range(world)]
    orders = []
    for epoch in range(2):
        batches = [list(loader) for loader in loaders]
        found = flat(flat(own) for own in batches)
        assert sorted(found) == sorted(sample.id for sample in wordy[kind].iterate(epoch))
        assert all(len(batch) == 2 for own in batches for batch in own[:-1])
        orders.append(batches)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("kind", ["rows", "expanded"])
def test_windows_are_the_same_for_any_number_of_workers(wordy, kind: str) -> None:
    batches = [list(windowed(wordy[kind], workers=workers)) for workers in (0, 1, 2, 3)]
    assert batches == [batches[0]] * 4


def broken_off(mixture: OpenMixture, workers: int, stops: Sequence[int]) -> list[list[str]]:
    """The batches of an epoch by programs that are each killed after so many of them."""
    found, state = [], None
    for stop in (*stops, 1000):
        loader = windowed(mixture, workers=workers, **SECOND)
        if state is not None:
            loader.load_state_dict(state)
        if loader.epoch:
            break
        found += islice(loader, stop)
        state = json.loads(json.dumps(loader.state_dict()))
        assert len(json.dumps(state["marks"])) < 40, "a state holds no Samples"
    return found


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), max_size=4), st.sampled_from(["rows", "expanded"]))
def test_windows_go_on_after_any_batch(wordy, stops: list[int], kind: str) -> None:
    assert broken_off(wordy[kind], 0, stops) == list(windowed(wordy[kind], **SECOND))


@pytest.mark.parametrize("stops", [(1, 2), (3, 1), (4,), (7,)])
def test_windows_go_on_after_any_batch_with_workers(wordy, stops) -> None:
    assert broken_off(wordy["rows"], 2, stops) == list(windowed(wordy["rows"], **SECOND))


def test_windows_go_on_with_another_number_of_workers_only(wordy, plain) -> None:
    first = windowed(wordy["rows"])
    before = list(islice(first, 6))
    state = first.state_dict()
    second = windowed(wordy["rows"], workers=2)
    second.load_state_dict(state)
    assert [*before, *second] == list(windowed(wordy["rows"]))
    for other in ({"size": 3}, {"window": 5}, {"window": 0}, {"rank": 0, "world": 2}):
        with pytest.raises(ConfigError, match=r"sorted in windows.* resume with the same"):
            windowed(wordy["rows"], **other).load_state_dict(state)
    ordered = MixtureLoader(plain, 2, ids)
    with pytest.raises(ConfigError, match="sorted in windows"):
        windowed(plain).load_state_dict(ordered.state_dict())


def padding(batches: Sequence[Sequence[Sample]]) -> float:
    """Share of a batch's characters that are padding."""
    lengths = [[rough_length(sample)[1] for sample in batch] for batch in batches]
    whole = sum(max(own) * len(own) for own in lengths)
    return 1 - sum(map(sum, lengths)) / whole


def test_padding_falls(wordy) -> None:
    mixture = wordy["rows"]
    shuffled = padding(list(MixtureLoader(mixture, 4)))
    assert shuffled > 0.3
    assert padding(list(MixtureLoader(mixture, 4, window=8))) < shuffled / 2


def test_a_window_parts_pictures_from_words_and_shuffles_its_batches(wordy) -> None:
    samples = list(wordy["rows"].iterate(0))
    batches = group(samples, 3, (0, 0, 0))
    kinds = [{len(sample.images) for sample in batch} for batch in batches]
    assert sum(len(kind) > 1 for kind in kinds) <= 1
    assert sorted(flat(map(ids, batches))) == LONG
    lengths = [rough_length(batch[0]) for batch in batches]
    assert lengths[:-1] != sorted(lengths[:-1]) and len(batches[-1]) == 1
    others = [group(samples, 3, (0, 0, window)) for window in (0, 1)]
    assert others[0] == batches
    assert sorted(map(ids, others[1])) == sorted(map(ids, batches)) and others[1] != batches


def test_processes_have_long_batches_at_the_same_time(wordy) -> None:
    orders = []
    for rank in range(2):
        loader = MixtureLoader(wordy["rows"], 2, window=7, rank=rank, world=2)
        longest = [max(map(rough_length, batch)) for batch in islice(loader, 7)]
        orders.append([sorted(longest).index(length) for length in longest])
    assert orders[0] == orders[1] != sorted(orders[0])
