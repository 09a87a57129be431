"""Reading a mixture: every row of an epoch exactly once, over any number of processes.

```text
 schedule: which source comes when --> order: which of its rows --> row --> views --> Samples
```

The order of an epoch is one for all; ranks and workers take rows of it in turn. It takes a byte a
row in memory, plus four bytes a row of sources of which not all rows are used, plus a little more
than four for the index of JSON Lines and tar files. Where reading stands is two numbers.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from parfocal.data.leaks import LeakIndex, LeakReport, check, load_benchmarks
from parfocal.data.mixture import Mixture
from parfocal.data.mixture_sources import OpenSource, open_sources
from parfocal.data.permute import Ints, key_of
from parfocal.data.sample import Sample
from parfocal.data.schedule import Schedule, make_schedule
from parfocal.data.shard import Place, Shard
from parfocal.data.views import apply, build_view
from parfocal.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

STATE = "parfocal.mixture/2"
AHEAD = 1 << 14  # rows of all ranks and workers whose numbers are computed at a time

Expand = Callable[[Sample], Iterable[Sample]]


class OpenMixture:
    """A mixture with its files open; make it with `open_mixture`.

    It may be sent to other processes if its views may.

    Attributes:
        mixture: what it is.
        sources: its sources.
        leaks: what the leak guard found.
    """

    def __init__(
        self, mixture: Mixture, views: Mapping[str, Expand] | None, index: LeakIndex
    ) -> None:
        self.mixture, self.sources, self._index = mixture, open_sources(mixture), index
        self._views = dict(views or {})
        self.leaks: LeakReport = check(self.sources, index)
        if mixture.leaks == "exclude":
            for source in self.sources:
                source.exclude(self.leaks.rows.get(source.name, np.empty(0, np.int64)))
        self._known: tuple[int, Schedule | None] = (-1, None)

    def refuse_leaks(self) -> None:
        """Raise DataError if there are leaks and the mixture says to refuse."""
        if self.mixture.leaks == "refuse" and not self.leaks.ok:
            raise DataError(
                f"{self.leaks.num_rows} rows of the mixture show pictures of benchmarks: "
                f"{self.leaks}. Numbers on these benchmarks would be too good. Leave the rows out "
                "with leaks = 'exclude' (--leaks exclude), or keep them on purpose with 'allow'."
            )

    @property
    def expands(self) -> bool:
        """Whether a row can give another number of Samples than one."""
        guarded = any(map(self._guarded, self.sources)) and self.mixture.leaks == "exclude"
        viewed = any(source.settings.views for source in self.sources)
        return viewed or guarded or self.mixture.skip_bad > 0

    def schedule(self, epoch: int = 0) -> Schedule:
        """Which source comes when; the last one made is kept."""
        if epoch < 0:
            raise ConfigError(f"epoch is {epoch}, must be 0 or more.")
        known, schedule = self._known
        if schedule is None or known != epoch:
            mixture = self.mixture
            schedule = make_schedule(
                mixture.interleave,
                [source.span(epoch)[1] for source in self.sources],
                key_of(mixture.seed, "schedule", epoch),
                [source.settings.weight for source in self.sources],
                mixture.stop,
            )
            self._known = (epoch, schedule)
        return schedule

    def rows(self, epoch: int = 0) -> int:
        """How many rows an epoch has, before views expand them."""
        return len(self.schedule(epoch))

    def samples(self, epoch: int = 0, probed: int = 100) -> float:
        """How many Samples an epoch gives.

        Where views expand rows, or some may not be readable, this is estimated from the first rows
        of each source in use.

        Args:
            epoch: 0 or more.
            probed: rows of each source to look at.

        Raises:
            DataError: if more of them than `skip_bad` cannot be read.
        """
        if not self.expands:
            return self.rows(epoch)
        schedule, total = self.schedule(epoch), 0.0
        for source, rows in zip(self.sources, schedule.counts(len(schedule)), strict=True):
            count = min(probed, len(source))
            total += int(rows) * self._given(copy.copy(source), count) / max(1, count)
        return total

    def _given(self, source: OpenSource, count: int) -> int:
        """How many Samples the first rows of a source give; none where they cannot be read."""
        given, bad = 0, 0
        for row in range(count):
            try:
                sample = source.read(row)
            except DataError:
                if (bad := bad + 1) > self.mixture.skip_bad:
                    raise
            else:
                given += sum(1 for _ in self.expanded(source, sample))
        return given

    def places(self, epoch: int = 0, shard: Shard | None = None, skip: int = 0) -> Iterator[Place]:
        """The rows of a shard of an epoch, in order, without reading them.

        Args:
            epoch: 0 or more.
            shard: all of it if None.
            skip: how many rows of the shard to pass over.
        """
        shard, schedule = shard or Shard(), self.schedule(epoch)
        step = max(1, AHEAD // (shard.world * shard.workers))
        while True:
            positions = shard.positions(np.arange(skip, skip + step))
            positions = positions[positions < len(schedule)]
            if not len(positions):
                return
            yield from self._places(epoch, schedule, positions)
            skip += step

    def _places(self, epoch: int, schedule: Schedule, positions: Ints) -> Iterator[Place]:
        first = int(positions[0])
        labels, numbers = (
            values[positions - first] for values in schedule.window(first, int(positions[-1]) + 1)
        )
        indices, repeats = np.empty_like(labels), np.empty_like(labels)
        for label in np.unique(labels).tolist():
            own = np.flatnonzero(labels == label)
            source = self.sources[label]
            begin = source.span(epoch)[0]
            indices[own] = source.order(begin + numbers[own])
            repeats[own] = (begin + numbers[own]) // len(source) - begin // len(source)
        columns = (values.tolist() for values in (positions, labels, indices, repeats))
        yield from map(Place._make, zip(*columns, strict=True))

    def iterate(
        self,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        worker: int = 0,
        workers: int = 1,
        *,
        start: int = 0,
        block: int = 1,
    ) -> MixtureStream:
        """The Samples of a shard of an epoch; see `Shard` for the arguments."""
        return MixtureStream(self, epoch, Shard(rank, world, worker, workers, block, start))

    def expanded(self, source: OpenSource, sample: Sample) -> Iterator[Sample]:
        """The Samples that the views of a source make of a row.

        Raises:
            DataError: if the row shows a picture of a benchmark that could not be looked for
                before, and the mixture refuses.
            ConfigError: if a view was not given.
        """
        functions = [self._view(name, source.name) for name in source.settings.views]
        if self._guarded(source):
            found = self._index.find_sample(sample)
            if found and self.mixture.leaks == "refuse":
                name, mark = next(iter(found.items()))
                raise DataError(
                    f"source {source.name!r}: sample {sample.id!r} shows {mark} of the benchmark "
                    f"{name!r}. Set leaks to 'exclude' or 'allow'."
                )
            if found:
                return
        if not functions:
            yield sample
        for function in functions:
            yield from function(sample)

    def rows_once(self) -> OpenMixture:
        """The same rows without views, each once in an epoch, one source after the other."""
        found = copy.copy(self)
        found.sources, found._known = tuple(map(copy.copy, self.sources)), (-1, None)
        for source in found.sources:
            source.settings = replace(source.settings, views=(), epochs=1.0, weight=1.0)
        settings = tuple(source.settings for source in found.sources)
        found.mixture = replace(self.mixture, sources=settings, interleave="sequential", stop="all")
        return found

    def fingerprint(self) -> dict[str, Any]:
        """All that the order of the Samples depends on, as plain JSON; views by their names."""
        mixture = self.mixture
        return {
            "seed": mixture.seed,
            "interleave": mixture.interleave,
            "stop": mixture.stop,
            "sources": [source.fingerprint() for source in self.sources],
        }

    def _guarded(self, source: OpenSource) -> bool:
        """Whether rows are compared with benchmarks only when they are read."""
        return source.remote and bool(self._index.benchmarks) and self.mixture.leaks != "allow"

    def _view(self, name: str, source: str) -> Expand:
        if name not in self._views:
            raise ConfigError(
                f"source {source!r} wants the view {name!r}, which was not given; there are "
                f"{', '.join(sorted(self._views)) or 'none'}. Give it to open_mixture(views=...)."
            )
        return self._views[name]


def open_mixture(
    mixture: Mixture, views: Mapping[str, Expand] | None = None, refuse: bool = True
) -> OpenMixture:
    """Open the files of a mixture and look for pictures of benchmarks in them.

    Args:
        mixture: from `read_mixture`, or made in Python.
        views: functions by the names that sources use. A function must give the same Samples for
            the same row and its `seen` every time, or reading cannot be resumed.
        refuse: False opens a mixture with leaks, too, so that it can be described.

    Raises:
        DataError: if a file cannot be read, or a row shows a picture of a benchmark and
            `mixture.leaks` is "refuse".
        ConfigError: if a setting does not fit the files.
    """
    index = load_benchmarks(mixture.benchmarks)
    if not index.benchmarks and mixture.leaks != "allow":
        logger.info("the mixture names no benchmarks: their pictures are not looked for")
    opened = OpenMixture(mixture, views, index)
    if refuse:
        opened.refuse_leaks()
    if not any(len(source) for source in opened.sources):
        raise DataError("no row of the mixture is left: all show pictures of benchmarks.")
    return opened


def task_views(mixture: Mixture) -> dict[str, Expand]:
    """The task views that the sources name, with the options they give and the mixture's seed.

    Raises:
        ConfigError: if a source names something else; the message lists the task views.
    """
    names = {name for source in mixture.sources for name in source.views}
    return {
        name: partial(apply, view=build_view(name), seed=mixture.seed) for name in sorted(names)
    }


class MixtureStream(Iterator[Sample]):
    """The Samples of a shard of an epoch; `state_dict` says where it stands.

    Args:
        mixture: what is read.
        epoch: 0 or more.
        shard: which part.

    Attributes:
        place: the row that the last Sample came from; None before the first.
        skipped: how many rows were passed over as they could not be read.
    """

    def __init__(self, mixture: OpenMixture, epoch: int, shard: Shard) -> None:
        self.mixture, self.epoch, self.shard = mixture, epoch, shard
        self.place: Place | None = None
        # Copies: what streams has a place in its file that no other reader may move.
        self._sources = [copy.copy(source) for source in mixture.sources]
        self.go_to((0, 0, 0))

    def go_to(self, mark: tuple[int, int, int]) -> None:
        """Go on where `mark` said a stream of the same shard stood.

        Raises:
            DataError: if a row does not give the Samples that it gave then.
        """
        rows, samples, skipped = mark
        self.rows, self.samples, self.skipped = rows, 0, skipped
        self._places = self.mixture.places(self.epoch, self.shard, rows)
        self._current: Iterator[Sample] | None = None
        for _ in range(samples):
            if next(self, None) is None or self.rows != rows:
                raise DataError(
                    f"row {rows} of the shard gives fewer than the {samples} samples it gave when "
                    "the state was saved: a view must give the same for the same row."
                )

    def __next__(self) -> Sample:
        while True:
            if self._current is None:
                self.place = next(self._places)
                self._current = self._read(self.place)
            sample = next(self._current, None)
            if sample is not None:
                self.samples += 1
                return sample
            self._current = None
            self.rows, self.samples = self.rows + 1, 0

    def _read(self, place: Place) -> Iterator[Sample]:
        source = self._sources[place.source]
        try:
            sample = source.read(place.row)
        except DataError as err:
            self.leave_out(err)
            return
        passes = source.span(self.epoch)[0] // len(source) + place.repeat
        yield from self.mixture.expanded(source, _given_before(sample, passes))

    def leave_out(self, why: DataError) -> None:
        """Count and tell what cannot be read; raise it where that is more than `skip_bad`."""
        if self.skipped >= self.mixture.mixture.skip_bad:
            raise why
        self.skipped += 1
        logger.warning("left out, number %d of this process: %s", self.skipped, why)

    def mark(self) -> tuple[int, int, int]:
        """(rows done, Samples given of the next row, rows left out as unreadable)."""
        return self.rows, self.samples, self.skipped

    def state_dict(self) -> dict[str, Any]:
        """Where reading stands, as plain JSON."""
        rows, samples, skipped = self.mark()
        return {
            "schema": STATE,
            "mixture": self.mixture.fingerprint(),
            "epoch": self.epoch,
            "shard": vars(self.shard),
            "rows": rows,
            "samples": samples,
            "skipped": skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a stream of the same mixture and shard stood.

        Raises:
            ConfigError: if the mixture or the shard is another one.
        """
        check_state(state, self.mixture)
        if dict(state["shard"]) != vars(self.shard):
            raise ConfigError(
                f"the state is of the shard {dict(state['shard'])}, this is {vars(self.shard)}. "
                "Resume with the same ranks and workers."
            )
        self.epoch = int(state["epoch"])
        self.go_to((int(state["rows"]), int(state["samples"]), int(state["skipped"])))


def _given_before(sample: Sample, times: int) -> Sample:
    """The Sample of a row that was given so often before."""
    if not times:
        return sample
    # Nothing that is checked changes, so the checks of a new Sample are left out.
    found = copy.copy(sample)
    object.__setattr__(found, "seen", times)
    return found


def check_state(state: Mapping[str, Any], mixture: OpenMixture) -> None:
    """Refuse a state that was saved with another mixture; ConfigError says what differs."""
    if state.get("schema") != STATE:
        raise ConfigError(f"this is no state of a mixture: its schema is {state.get('schema')!r}.")
    saved, present = state["mixture"], mixture.fingerprint()
    wrong = [key for key in present if key != "sources" and saved.get(key) != present[key]]
    if len(saved["sources"]) != len(present["sources"]):
        wrong.append("the number of sources")
    for old, new in zip(saved["sources"], present["sources"], strict=False):
        wrong += [f"{key} of {new['name']!r}" for key in new if old.get(key) != new[key]]
    if wrong:
        raise ConfigError(
            f"the mixture has changed since the state was saved: {', '.join(wrong)}. Resume with "
            "the mixture of that time, or start a new epoch."
        )
