"""Reading mixtures: each row once an epoch over all processes, and resuming anywhere."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.boxes import Boxes
from parfocal.data import ImageRef, Sample
from parfocal.data.mixing import AHEAD, OpenMixture, open_mixture, task_views
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.schedule import Interleave
from parfocal.data.shard import Shard
from parfocal.errors import ConfigError, DataError
from tests.unit.data.mixed import flat, make_samples, write_rows

INTERLEAVES = get_args(Interleave)
SIZES = {"a": 7, "b": 12, "c": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    for name, size in SIZES.items():
        write_rows(root, name, make_samples(name, size))
    write_rows(root, "t", make_samples("t", 9), "tar.gz")
    return root


def mixture(folder: Path, interleave: Interleave = "shuffle", **more: Any) -> Mixture:
    weights = {"a": 1.0, "b": 2.0, "c": 0.5} if interleave == "weighted" else {}
    sources = [
        MixtureSource(name, str(folder / f"{name}.jsonl"), weight=weights.get(name, 1))
        for name in SIZES
    ]
    return Mixture(tuple(sources), interleave=interleave, **more)


def with_source(mixed: Mixture, number: int, **values: Any) -> Mixture:
    sources = list(mixed.sources)
    sources[number] = replace(sources[number], **values)
    return replace(mixed, sources=tuple(sources))


def triple(sample: Sample) -> Iterator[Sample]:
    """No Sample, one or two, by the row."""
    for number in range(int(str(sample.meta["n"])) % 3):
        yield replace(sample, id=f"{sample.id}.{number}")


def same(sample: Sample) -> list[Sample]:
    return [sample]


VIEWS = {"triple": triple, "same": same}


def viewed(folder: Path, interleave: Interleave = "shuffle") -> OpenMixture:
    mixed = with_source(mixture(folder, interleave), 1, views=("triple", "same"), epochs=1.5)
    tar = MixtureSource("t", str(folder / "t.tar.gz"), streaming=True, buffer=4)
    return open_mixture(replace(mixed, sources=(*mixed.sources, tar)), VIEWS)


def ids(samples: Iterator[Sample]) -> list[str]:
    return [sample.id for sample in samples]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_each_row_comes_once_an_epoch(folder: Path, interleave, world: int, workers: int) -> None:
    opened = open_mixture(mixture(folder, interleave))
    names = sorted(f"{name}{row}" for name, size in SIZES.items() for row in range(size))
    for epoch in (0, 1):
        shards = [
            ids(opened.iterate(epoch, rank, world, worker, workers))
            for rank in range(world)
            for worker in range(workers)
        ]
        assert sorted(flat(shards)) == names
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
        # The order of all is one: the shards take its rows in turn.
        whole = ids(opened.iterate(epoch))
        for rank in range(world):
            for worker in range(workers):
                own = whole[rank::world][worker::workers]
                assert shards[rank * workers + worker] == own


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 40),
            st.sampled_from([1.0, 0.5, 0.3]),
            st.sampled_from([1.0, 0.5, 0.3, 2.5]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(INTERLEAVES),
    st.sampled_from(["all", "first"]),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 5),
    st.data(),
)
def test_exactly_once_over_any_split(
    tmp_path_factory, parts, interleave, stop, epoch, world, workers, block, data
) -> None:
    folder = tmp_path_factory.getbasetemp() / "split"
    folder.mkdir(exist_ok=True)
    sources = []
    for number, (size, ratio, epochs) in enumerate(parts):
        (folder / f"{number}.jsonl").write_text("x\n" * size)  # only numbers of rows are looked at
        sources.append(
            MixtureSource(str(number), str(folder / f"{number}.jsonl"), ratio=ratio, epochs=epochs)
        )
    if interleave != "weighted":
        stop = "all"
    opened = open_mixture(Mixture(tuple(sources), 3, interleave, stop, leaks="allow"))
    whole = list(opened.places(epoch))
    assert [place.position for place in whole] == list(range(opened.rows(epoch)))
    assert len({place[1:] for place in whole}) == len(whole), "no row twice in a pass"
    counts = opened.schedule(epoch).counts(len(whole))
    if stop == "all":
        assert counts.tolist() == [source.span(epoch)[1] for source in opened.sources]
    start = data.draw(st.integers(0, len(whole)))
    shards = [
        Shard(rank, world, worker, workers, block, start)
        for rank in range(world)
        for worker in range(workers)
    ]
    taken = [list(opened.places(epoch, shard)) for shard in shards]
    assert sorted(flat(taken)) == whole[start:]
    skip = data.draw(st.integers(0, 5))
    assert list(opened.places(epoch, shards[-1], skip)) == taken[-1][skip:]
    # A batch of `block` rows is the same for any number of workers.
    for rank in range(world):
        own = taken[rank * workers : (rank + 1) * workers]
        batches = [[w[i : i + block] for i in range(0, len(w), block)] for w in own]
        in_turn = [batches[b % workers][b // workers] for b in range(sum(map(len, batches)))]
        assert flat(in_turn) == whole[start + rank :: world]


def test_two_passes_and_half_ones_show_every_row_as_often(folder: Path) -> None:
    opened = open_mixture(with_source(mixture(folder), 0, epochs=2.5))
    both = [ids(opened.iterate(epoch)) for epoch in (0, 1)]
    assert opened.rows(0) + opened.rows(1) == 5 * 7 + 2 * 15
    for row in range(7):
        assert sum(epoch.count(f"a{row}") for epoch in both) == 5
        assert all(2 <= epoch.count(f"a{row}") <= 3 for epoch in both)
    halves = open_mixture(with_source(mixture(folder), 1, epochs=0.5))
    first, second = ({n for n in ids(halves.iterate(epoch)) if n[0] == "b"} for epoch in (0, 1))
    assert len(first) == len(second) == 6 and not first & second


def test_epochs_and_seeds_differ_and_sources_do_not_disturb_each_other(folder: Path) -> None:
    opened = open_mixture(mixture(folder))
    assert ids(opened.iterate(0)) == ids(open_mixture(mixture(folder)).iterate(0))
    assert ids(opened.iterate(0)) != ids(opened.iterate(1))
    assert ids(opened.iterate(0)) != ids(open_mixture(mixture(folder, seed=1)).iterate(0))
    fewer = open_mixture(replace(mixture(folder), sources=mixture(folder).sources[1:]))
    own = [name for name in ids(opened.iterate(0)) if name[0] == "b"]
    assert [name for name in ids(fewer.iterate(0)) if name[0] == "b"] == own


def test_sequential_keeps_the_order_of_the_files(folder: Path) -> None:
    opened = open_mixture(mixture(folder, "sequential"))
    names = [f"{name}{row}" for name, size in SIZES.items() for row in range(size)]
    assert ids(opened.iterate(0)) == ids(opened.iterate(3)) == names


def test_weighted_may_stop_with_the_first_source(folder: Path) -> None:
    opened = open_mixture(mixture(folder, "weighted", stop="first"))
    found = ids(opened.iterate(0))
    assert len(found) == opened.rows(0) < sum(SIZES.values())
    assert len(set(found)) == len(found)
    assert any(sum(n[0] == name for n in found) == size for name, size in SIZES.items())


def test_the_order_is_the_same_on_every_platform(folder: Path) -> None:
    opened = open_mixture(mixture(folder, seed=11))
    order = "a4 b11 a3 a6 b2 b8 c0 b1 b0 a5 c2 b10 b6 a0 b5 a2 b9 c1 b3 a1 b7 b4"
    assert ids(opened.iterate(2)) == order.split()


@pytest.fixture(scope="module")
def pairs(folder: Path) -> dict[str, tuple[OpenMixture, OpenMixture]]:
    """Each interleave opened twice: before a program was killed, and after."""
    return {kind: (viewed(folder, kind), viewed(folder, kind)) for kind in INTERLEAVES}


@settings(max_examples=30)
@given(st.sampled_from(INTERLEAVES), st.integers(0, 3), st.integers(0, 60), st.data())
def test_killed_anywhere_the_rest_is_identical(pairs, interleave, epoch, stop, data) -> None:
    opened, again = pairs[interleave]
    world, workers = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    rank, worker = data.draw(st.integers(0, world - 1)), data.draw(st.integers(0, workers - 1))
    start = data.draw(st.integers(0, 10))
    words = (rank, world, worker, workers)
    whole = list(opened.iterate(epoch, *words, start=start, block=2))
    stream = opened.iterate(epoch, *words, start=start, block=2)
    before = list(islice(stream, stop))
    state = json.loads(json.dumps(stream.state_dict()))
    del stream
    resumed = again.iterate(0, *words, start=start, block=2)
    next(resumed, None)  # where it stood before does not matter
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert before + rest == whole
    assert [sample.seen for sample in before + rest] == [sample.seen for sample in whole]
    assert next(resumed, None) is None


@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_a_sample_knows_how_often_its_row_came(folder: Path, interleave) -> None:
    mixed = with_source(mixture(folder, interleave), 0, epochs=0.4, views=("same",))
    opened = open_mixture(with_source(mixed, 2, epochs=2.5), VIEWS)
    counts = dict[str, list[int]]()
    for sample in flat([list(opened.iterate(epoch)) for epoch in range(4)]):
        counts.setdefault(sample.id, []).append(sample.seen)
    assert all(found == list(range(len(found))) for found in counts.values())
    assert {len(counts[name]) for name in ("c0", "c1", "c2")} == {10}
    assert {len(counts.get(f"a{number}", [])) for number in range(7)} == {1, 2}


def test_views_may_draw_anew_each_time(tmp_path: Path) -> None:
    image = ImageRef("a.png", 64, 48)
    boxes = Boxes([[1, 2, 30, 40], [5, 5, 20, 30]], image.frame(), labels=["a dog", "a hat"])
    path = write_rows(tmp_path, "a", [Sample("1", (image,), (), boxes)])
    mixed = Mixture((MixtureSource("a", str(path), views=("rec",)),), seed=5)
    epochs = [
        [list(open_mixture(mixed, task_views(mixed)).iterate(epoch)) for epoch in range(6)]
        for _ in range(2)
    ]
    assert epochs[0] == epochs[1]
    assert len({samples[0].turns[0].text.plain for samples in epochs[0]}) > 2
    (row,) = open_mixture(mixed, task_views(mixed)).rows_once().iterate()
    assert (row.id, row.regions, row.turns) == ("1", boxes, ())


def test_all_rows_come_once_whatever_an_epoch_shows(folder: Path) -> None:
    mixed = with_source(mixture(folder, "weighted", stop="first"), 0, views=("triple",), epochs=0.5)
    opened = open_mixture(mixed, VIEWS)
    assert opened.rows() < sum(SIZES.values())
    rows = [opened.rows_once().iterate(0, rank, 2) for rank in range(2)]
    assert sorted(flat(map(ids, rows))) == sorted(
        f"{name}{number}" for name, size in SIZES.items() for number in range(size)
    )


def test_views_come_one_after_the_other_and_may_drop_rows(folder: Path) -> None:
    mixed = with_source(mixture(folder, "sequential"), 0, views=("triple", "same"))
    opened = open_mixture(with_source(mixed, 2, views=("triple",)), VIEWS)
    assert opened.expands and not open_mixture(mixture(folder)).expands
    found = ids(opened.iterate(0))
    assert found[:6] == ["a0", "a1.0", "a1", "a2.0", "a2.1", "a2"]
    assert found[-3:] == ["c1.0", "c2.0", "c2.1"]


def test_task_views_by_their_names(tmp_path: Path) -> None:
    image = ImageRef("a.png", 64, 48)
    boxes = Boxes([[1, 2, 30, 40], [5, 5, 20, 30]], image.frame(), labels=["a dog", "a hat"])
    path = write_rows(tmp_path, "a", [Sample("1", (image,), (), boxes)])
    mixed = Mixture((MixtureSource("a", str(path), views=("rec", "detect")),), seed=5)
    views = pickle.loads(pickle.dumps(task_views(mixed)))
    found = list(open_mixture(mixed, views).iterate(0))
    assert [sample.id for sample in found] == ["1#rec-0", "1#rec-1", "1#detect-0"]
    assert [sample.meta["view"] for sample in found] == ["rec", "rec", "detect"]
    other = Mixture((MixtureSource("a", str(path), views=("dream",)),))
    with pytest.raises(ConfigError, match="no view 'dream'; there are absent, conv"):
        task_views(other)
    one = Mixture((MixtureSource("a", str(path), views=("rec(limit=1)",)),), seed=5)
    assert [sample.id for sample in open_mixture(one, task_views(one)).iterate(0)] == ["1#rec-0"]


def test_a_view_that_was_not_given_is_named(folder: Path) -> None:
    opened = open_mixture(with_source(mixture(folder), 0, views=("rec",)), VIEWS)
    with pytest.raises(ConfigError, match=r"'a' wants the view 'rec', .* there are same, triple"):
        list(opened.iterate(0))


def test_a_view_that_is_not_pure_is_noticed(folder: Path) -> None:
    calls: list[str] = []

    def moody(sample: Sample) -> list[Sample]:
        calls.append(sample.id)
        return [sample] * (3 if len(calls) == 1 else 1)

    mixed = with_source(mixture(folder, "sequential"), 0, views=("moody",))
    stream = open_mixture(mixed, {"moody": moody}).iterate(0)
    list(islice(stream, 2))
    with pytest.raises(DataError, match="gives fewer than the 2 samples"):
        stream.load_state_dict(stream.state_dict())


CHANGES = {
    "seed": (lambda mixed: replace(mixed, seed=1), "changed since.*: seed"),
    "interleave": (lambda mixed: replace(mixed, interleave="proportional"), ": interleave"),
    "ratio": (lambda mixed: with_source(mixed, 0, ratio=0.5), "used of 'a', used_rows of 'a'"),
    "epochs": (lambda mixed: with_source(mixed, 1, epochs=2), ": epochs of 'b'"),
    "views": (lambda mixed: with_source(mixed, 1, views=("same",)), ": views of 'b'"),
    "fewer": (lambda mixed: replace(mixed, sources=mixed.sources[:2]), ": the number of sources"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_the_state_of_another_mixture_is_refused(folder: Path, change, message: str) -> None:
    state = open_mixture(mixture(folder)).iterate(0).state_dict()
    stream = open_mixture(change(mixture(folder)), VIEWS).iterate(0)
    with pytest.raises(ConfigError, match=message):
        stream.load_state_dict(state)


def test_the_state_of_another_shard_or_program_is_refused(folder: Path) -> None:
    opened = open_mixture(mixture(folder))
    with pytest.raises(ConfigError, match="Resume with the same ranks and workers"):
        opened.iterate(0, 0, 2).load_state_dict(opened.iterate(0, 1, 2).state_dict())
    with pytest.raises(ConfigError, match="no state of a mixture"):
        opened.iterate(0).load_state_dict({"epoch": 1})


def test_impossible_shards_are_refused(folder: Path) -> None:
    opened = open_mixture(mixture(folder))
    for words in ((0, 2, 2), (0, -1, 2), (0, 0, 1, 3, 3)):
        with pytest.raises(ConfigError, match="count from 0"):
            opened.iterate(*words)
    for more in ({"start": -1}, {"block": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            opened.iterate(0, **more)
    with pytest.raises(ConfigError, match="epoch is -1"):
        next(opened.iterate(-1))
    assert list(opened.iterate(0, start=1000)) == []


def test_bad_rows_are_passed_over_up_to_a_limit(tmp_path: Path, caplog) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 6))
    lines = path.read_text("utf-8").splitlines()
    lines[1] = lines[4] = "{]"
    path.write_text("\n".join(lines), "utf-8")
    mixed = Mixture((MixtureSource("a", str(path)),), interleave="sequential")
    with pytest.raises(DataError, match=r"a.jsonl:2: not JSON"):
        list(open_mixture(mixed).iterate(0))
    stream = open_mixture(replace(mixed, skip_bad=1)).iterate(0)
    with pytest.raises(DataError, match=r"a.jsonl:5: not JSON"):
        list(stream)
    opened = open_mixture(replace(mixed, skip_bad=2))
    stream = opened.iterate(0)
    assert opened.expands and next(stream).id == "a0" and next(stream).id == "a2"
    state = stream.state_dict()
    assert (state["rows"], state["skipped"]) == (2, 1)
    stream = opened.iterate(0)
    stream.load_state_dict(state)
    assert ids(stream) == ["a3", "a5"]
    assert stream.skipped == 2 and "left out, number 2 of this process" in caplog.text


def test_samples_are_those_that_an_epoch_gives(folder: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", make_samples("a", 6))
    path.write_text(path.read_text("utf-8").replace('{"', "{]", 1), "utf-8")
    bad = Mixture((MixtureSource("a", str(path)),), skip_bad=1)
    assert open_mixture(bad).samples() == 5
    mixed = with_source(mixture(folder, "weighted", stop="first"), 1, views=("same",))
    opened = open_mixture(mixed, VIEWS)
    assert opened.samples() == opened.rows() < sum(SIZES.values())


def test_streams_of_one_mixture_do_not_disturb_each_other(folder: Path) -> None:
    opened = viewed(folder)
    whole = ids(opened.iterate(0))
    pairs = list(zip(opened.iterate(0), opened.iterate(0), strict=True))
    assert [left.id for left, _ in pairs] == [right.id for _, right in pairs] == whole
    assert ids(pickle.loads(pickle.dumps(opened)).iterate(0)) == whole


def test_long_epochs_are_computed_in_pieces(tmp_path: Path, monkeypatch) -> None:
    sources = []
    for name, count in (("a", 1500), ("b", 700)):
        (tmp_path / f"{name}.jsonl").write_text("x\n" * count)
        sources.append(MixtureSource(name, str(tmp_path / f"{name}.jsonl"), epochs=1.1))
    opened = open_mixture(Mixture(tuple(sources)))
    whole = list(opened.places(1))
    assert len(whole) == 1650 + 770 < AHEAD
    monkeypatch.setattr("parfocal.data.mixing.AHEAD", 64)
    assert list(opened.places(1)) == whole
    shards = [Shard(rank, 3, worker, 2, 5) for rank in range(3) for worker in range(2)]
    assert sorted(p for shard in shards for p in opened.places(1, shard)) == whole
