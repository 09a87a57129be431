"""Which rows of an epoch one process reads, and what is known of a row before it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from parfocal.data.permute import Ints
from parfocal.errors import ConfigError


class Place(NamedTuple):
    """A row of an epoch.

    Attributes:
        position: in the order of the epoch, from 0.
        source: number of the source.
        row: which of the rows of the source in use, see `OpenSource`.
        repeat: how many passes of this epoch over the source came before, so that source, row and
            repeat are never the same twice in an epoch.
    """

    position: int
    source: int
    row: int
    repeat: int


@dataclass(frozen=True)
class Shard:
    """The part of an epoch that one process reads.

    Row `start + rank + world * i` belongs to a rank; its workers take `block` of these in turn, so
    that batches of `block` rows do not depend on how many workers there are.

    Attributes:
        rank: which of `world` ranks.
        world: how many ranks.
        worker: which of the rank's `workers`.
        workers: how many workers each rank has.
        block: rows that a worker takes at a time.
        start: position in the epoch that everything begins at.
    """

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1
    block: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (0 <= self.rank < self.world and 0 <= self.worker < self.workers):
            raise ConfigError(
                f"rank {self.rank} of {self.world} and worker {self.worker} of {self.workers}: "
                "they count from 0 and must be below how many there are."
            )
        if self.block < 1 or self.start < 0:
            raise ConfigError(f"block {self.block} must be at least 1, start {self.start} 0.")

    def positions(self, rows: Ints) -> Ints:
        """Positions of the shard's own rows by their numbers, ascending."""
        turns = (rows // self.block * self.workers + self.worker) * self.block
        return self.start + self.rank + self.world * (turns + rows % self.block)
