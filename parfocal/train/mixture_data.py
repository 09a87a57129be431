"""Mixtures for PyTorch: a dataset for any DataLoader, and a loader that resumes between batches.

A DataLoader asks its worker processes for batches ahead of time, so it cannot say itself which
Samples the training has seen. `MixtureLoader` gets with every batch where its worker stood then.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from parfocal.data.mixing import STATE, MixtureStream, OpenMixture, check_state
from parfocal.data.sample import Sample
from parfocal.errors import ConfigError, DataError
from parfocal.train.grouping import group
from parfocal.train.samples import UnreadableError

Collate = Callable[[Sequence[Sample]], Any]
Mark = tuple[int, ...]  # of MixtureStream; in windows also which one, and batches given of it


class MixtureDataset(IterableDataset[Sample]):
    """The Samples of an epoch of a mixture, those of this rank and worker.

    Over all ranks and workers of a DataLoader each row comes exactly once. `state_dict` and
    `load_state_dict` are about the process that iterates: with worker processes use `MixtureLoader`
    or a loader that calls them in its workers.

    Args:
        mixture: from `open_mixture`.
        rank: of this process; None asks torch.distributed.
        world: how many ranks; None asks torch.distributed.
    """

    def __init__(
        self, mixture: OpenMixture, rank: int | None = None, world: int | None = None
    ) -> None:
        self.mixture, self.epoch = mixture, 0
        self.rank, self.world = rank_and_world(rank, world)
        self._stream: MixtureStream | None = None
        self._state: Mapping[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration reads."""
        self.epoch, self._state = epoch, None

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        stream = self.mixture.iterate(self.epoch, self.rank, self.world, worker, workers)
        if self._state is not None:
            stream.load_state_dict(self._state)
            self._state = None
        self._stream = stream
        return stream

    def state_dict(self) -> dict[str, Any]:
        """Where the last iteration in this process stands."""
        if self._stream is None:
            raise ConfigError(
                "this process has read nothing of the mixture yet, so there is no state. With "
                "num_workers > 0 the workers read: use MixtureLoader, which knows where they are."
            )
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on from a state; it is checked then."""
        self.epoch, self._state = int(state["epoch"]), dict(state)


class MixtureLoader:
    """Batches of a mixture's Samples, epoch after epoch, that resume after any batch.

    Iterating once gives the rest of the present epoch; then the next epoch is the present one. If
    no view expands rows, batches are the same for any number of workers, and a state may be loaded
    with other numbers of ranks, workers and Samples a batch: what was not seen yet follows, if all
    ranks had given as many batches. Otherwise these numbers must be those of the state. Ranks may
    differ in the number of batches, by one if no view expands rows: stop by steps, not by epochs,
    where ranks wait for each other.

    With a window, the Samples of so many batches are read, sorted by length and cut into batches,
    which come in a random order that is the mixture's seed's. Batches are then the same for any
    number of workers, as each of them reads all rows of the rank, and what it does not give is not
    collated; the other numbers must be those of a state that is loaded. No state holds Samples: the
    window that it was saved in is read again.

    Args:
        mixture: from `open_mixture`.
        batch_size: Samples a batch; the last one of a worker may have fewer.
        collate: makes a batch of Samples, in the worker; None leaves a list of them. A Sample for
            which it raises an UnreadableError is left out, up to `skip_bad` of the mixture.
        workers: worker processes; 0 reads in this one.
        rank: of this process; None asks torch.distributed.
        world: how many ranks; None asks torch.distributed.
        window: batches that are made of rows sorted by length; 0: rows stay in order.
        options: more arguments of the DataLoader, such as `prefetch_factor` or `pin_memory`.

    Example:
        for batch in loader:
            ...
            torch.save(loader.state_dict(), path)
    """

    def __init__(
        self,
        mixture: OpenMixture,
        batch_size: int,
        collate: Collate | None = None,
        workers: int = 0,
        *,
        rank: int | None = None,
        world: int | None = None,
        window: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1 or workers < 0 or window < 0:
            raise ConfigError(
                f"batch_size {batch_size} must be at least 1, workers {workers} and window "
                f"{window} at least 0."
            )
        self.mixture, self.batch_size, self.collate = mixture, batch_size, collate
        self.workers, self.window, self.options = workers, window, dict(options or {})
        self.rank, self.world = rank_and_world(rank, world)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Go to an epoch.

        Args:
            epoch: 0 or more.
            start: position in the epoch's order at which all ranks begin.
        """
        self.epoch, self._start, self._turns = epoch, start, 0
        # of each worker; in windows one for all, as they read the same rows
        self._marks: list[Mark] = [(0, 0, 0)] * max(1, self.workers)
        if self.window:
            self._marks = [(0, 0, 0, 0, 0)]

    def __iter__(self) -> Iterator[Any]:
        """The batches that are left of the present epoch."""
        loader: DataLoader[Any] = DataLoader(
            _Batches(copy.copy(self)),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            # It draws a seed for the workers; from here, the training's own numbers are left alone.
            generator=torch.Generator().manual_seed(self.mixture.mixture.seed),
            **self.options,
        )
        done = 0
        for found in loader:
            worker = self._turns % len(self._marks)
            self._turns += 1
            if found is None:
                done += 1
                if done == len(self._marks):
                    break
                continue
            done = 0
            batch, self._marks[worker] = found
            if batch is not None:  # all of it was left out
                yield batch
        self.set_epoch(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """What has been given so far, as plain JSON; every rank has its own."""
        return {
            "schema": STATE,
            "mixture": self.mixture.fingerprint(),
            "epoch": self.epoch,
            "start": self._start,
            "split": self._split(),
            "turns": self._turns,
            "marks": [list(mark) for mark in self._marks],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last batch that was given when the state was saved.

        Raises:
            ConfigError: if the mixture is another one, or ranks, workers or batches are others and
                rows can expand to several Samples or are sorted in windows.
        """
        check_state(state, self.mixture)
        saved, present = dict(state["split"]), self._split()
        if saved == present:
            self.set_epoch(int(state["epoch"]), int(state["start"]))
            self._turns = int(state["turns"])
            self._marks = [tuple(map(int, mark)) for mark in state["marks"]]
            return
        if self.window or "window" in saved:
            raise ConfigError(
                f"the state was saved with {saved}, this is {present}. As rows are sorted in "
                "windows, what was seen is not the first of them: resume with the same, or start a "
                "new epoch."
            )
        if self.mixture.expands:
            raise ConfigError(
                f"the state was saved with {saved}, this is {present}. As rows of this mixture may "
                "give any number of Samples, resume with the same, or start a new epoch."
            )
        rows = int(state["turns"]) * saved["batch_size"] * saved["world"]
        self.set_epoch(int(state["epoch"]), int(state["start"]) + rows)

    def _split(self) -> dict[str, int]:
        names = ("rank", "world", "window" if self.window else "workers", "batch_size")
        return {name: getattr(self, name) for name in names}


class _Batches(IterableDataset[Any]):
    """What a worker gives: (batch, mark), and None for ever when it has no more.

    As no worker ever stops, they are asked strictly in turn, and turn t is that of worker t modulo
    their number. A DataLoader whose workers stop at different times does not promise an order.
    """

    def __init__(self, loader: MixtureLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[tuple[Any, Mark] | None]:
        loader, info = self.loader, get_worker_info()
        workers = max(1, loader.workers)
        # After t turns it is the turn of worker t modulo their number; the DataLoader asks 0 first.
        worker = ((info.id if info else 0) + loader._turns) % workers
        read = self._in_windows if loader.window else self._in_order
        yield from read(worker, workers)
        while True:
            yield None

    def _collated(self, samples: list[Sample], stream: MixtureStream) -> Any:
        """The batch of Samples; those whose pictures cannot be opened are left out and counted.

        None if none is left, a list of them without a collator.
        """
        while samples and self.loader.collate:
            try:
                return self.loader.collate(samples)
            except UnreadableError as err:
                stream.leave_out(err)
                samples = [sample for sample in samples if sample is not err.sample]
        return samples or None

    def _in_order(self, worker: int, workers: int) -> Iterator[tuple[Any, Mark]]:
        """A worker's batches of the rows as they come."""
        loader = self.loader
        stream = loader.mixture.iterate(
            loader.epoch,
            loader.rank,
            loader.world,
            worker,
            workers,
            start=loader._start,
            block=loader.batch_size,
        )
        rows, given, skipped = loader._marks[worker]
        stream.go_to((rows, given, skipped))
        while samples := list(islice(stream, loader.batch_size)):
            batch = self._collated(samples, stream)
            yield batch, stream.mark()

    def _in_windows(self, worker: int, workers: int) -> Iterator[tuple[Any, Mark]]:
        """A worker's batches of rows sorted by length; all workers cut the same ones."""
        loader, turn = self.loader, self.loader._turns
        stream = loader.mixture.iterate(
            loader.epoch, loader.rank, loader.world, start=loader._start
        )
        rows, samples_given, skipped, window, given = loader._marks[0]
        stream.go_to((rows, samples_given, skipped))
        while True:
            done, passed, before = stream.mark()
            samples = list(islice(stream, loader.batch_size * loader.window))
            if not samples:
                return
            seed = (loader.mixture.mixture.seed, loader.epoch, window)
            batches, read = group(samples, loader.batch_size, seed), stream.skipped
            for place, batch in enumerate(batches[given:], given):
                if turn % workers == worker:
                    collated = self._collated(batch, stream)
                    # the window is read again, so without what of its rows was left out
                    skipped = before + stream.skipped - read
                    yield collated, (done, passed, skipped, window, place + 1)
                turn += 1
            window, given = window + 1, 0


class EndlessBatches:
    """The batches of a loader, epoch after epoch, for a trainer that stops by steps.

    The last batch of an epoch may be short: if the rows are no multiple of a step's Samples, what
    the steps around the end of an epoch hold depends on how a step is divided.

    Args:
        loader: of a mixture.
    """

    def __init__(self, loader: MixtureLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        empty = 0
        while True:
            empty += 1
            for batch in self.loader:
                empty = 0
                yield batch
            if empty > 1:  # the first may be what a checkpoint at the end of an epoch leaves of it
                raise DataError(
                    f"epoch {self.loader.epoch - 1} of the mixture gives this process no Sample: "
                    "use fewer processes, or look at what its views leave out."
                )

    def save(self, folder: Path, rank: int) -> None:
        """Write where this process stands into a checkpoint."""
        _state_file(folder, rank).write_text(json.dumps(self.loader.state_dict()), "utf-8")

    def load(self, folder: Path, rank: int) -> None:
        """Go on where this process stood when a checkpoint was written.

        Raises:
            ConfigError: if another number of processes wrote it, or of another mixture.
        """
        path = _state_file(folder, rank)
        if not path.exists():
            raise ConfigError(
                f"{folder} has no {path.name}: it was written by fewer processes. Resume with as "
                "many as before."
            )
        self.loader.load_state_dict(json.loads(path.read_text("utf-8")))


def _state_file(folder: Path, rank: int) -> Path:
    return folder / f"mixture-{rank}.json"


def rank_and_world(rank: int | None, world: int | None) -> tuple[int, int]:
    """Fill in what was not given: from torch.distributed if it runs, otherwise rank 0 of 1."""
    if (rank is None) != (world is None):
        raise ConfigError(f"rank is {rank} and world {world}: give both or neither.")
    if rank is not None and world is not None:
        return rank, world
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _as_it_is(found: Any) -> Any:
    return found
