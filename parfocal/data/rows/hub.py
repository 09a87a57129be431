"""Rows of a Hugging Face dataset, streamed by the library `datasets`.

Nothing is asked of the network unless the source names a dataset of the hub. Rows have the columns
of `sample.schema.json`; `meta` may be text that is JSON, as in our Parquet files, or a struct. From
JSON files the library keeps ten decimals of a number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from parfocal.data.mixture import LOCAL_BUILDERS
from parfocal.data.parquet import row_of_columns
from parfocal.data.rows.base import Likely, Raw, Scanned
from parfocal.data.sample import Sample
from parfocal.errors import ConfigError, DataError

BATCH = 100  # rows asked for at a time


class HubRows:
    """A split of a dataset, in order only.

    Args:
        dataset: id on the hub, or "json" or "parquet" for local files.
        files: local files, or files of the dataset; none for all of the split.
        split: which split.
        revision: of the dataset on the hub; None for the newest.
        rows: how many to read; None asks the dataset.

    Raises:
        ConfigError: if `datasets` is not installed, or cannot say how many rows there are.
        DataError: if the dataset cannot be opened.
    """

    def __init__(
        self,
        dataset: str,
        files: Sequence[str] = (),
        split: str = "train",
        revision: str | None = None,
        rows: int | None = None,
    ) -> None:
        self.dataset, self.files, self.split = dataset, tuple(files), split
        self.revision = revision
        self.remote = dataset not in LOCAL_BUILDERS or any("://" in name for name in files)
        if not self.remote and not files:
            raise ConfigError(
                f"path {dataset!r} of kind 'hub' means local files: give files = [...]."
            )
        self._rows = self._count() if rows is None else rows

    def __len__(self) -> int:
        return self._rows

    def forward(self, start: int = 0) -> Iterator[Raw]:
        """Rows from number `start` on."""
        found, index = self._open(), start
        # By batches: row by row, the library would give each worker of a DataLoader other rows.
        for batch in (found.skip(start) if start else found).iter(batch_size=BATCH):
            for values in zip(*batch.values(), strict=True):
                index += 1
                yield Raw(
                    f"{self.dataset}/{self.split}:{index}", dict(zip(batch, values, strict=True))
                )

    def sample(self, raw: Raw) -> Sample:
        """Check a row and make it a Sample."""
        return Sample.from_json(_row(raw), raw.where)

    def scan(self, likely: Likely) -> Iterator[Scanned]:
        """Rows whose meta `likely` picks."""
        for index, raw in enumerate(self.forward()):
            text = _with_text(raw.content).get("meta") or "{}"
            if likely(text.encode(errors="replace")):
                row = _row(raw)
                if isinstance(row["meta"], dict):
                    yield Scanned(index, raw.where, row, partial(self.sample, raw))

    def _count(self) -> int:
        if not self.remote:
            return sum(1 for _ in self.forward())
        splits = self._open().info.splits or {}
        count = splits[self.split].num_examples if self.split in splits else None
        if count is None:
            raise ConfigError(
                f"the dataset {self.dataset!r} does not say how many rows its split "
                f"{self.split!r} has. Say it: rows = N."
            )
        return int(count)

    def _open(self) -> Any:
        try:
            import datasets
        except ImportError as err:
            raise ConfigError(
                "sources of kind 'hub' need datasets, which is not installed: "
                "pip install 'parfocal[stream]'."
            ) from err
        try:
            if not self.remote:  # load_dataset would count the call at a server, files or not
                read = getattr(datasets.Dataset, f"from_{self.dataset}")
                return read(list(self.files), split=self.split, streaming=True)
            return datasets.load_dataset(
                self.dataset,
                data_files=list(self.files) or None,
                split=self.split,
                revision=self.revision,
                streaming=True,
            )
        except (OSError, ValueError, RuntimeError) as err:
            raise DataError(
                f"the dataset {self.dataset!r} cannot be opened: {' '.join(str(err).split())}"
            ) from err


def _row(raw: Raw) -> dict[str, Any]:
    return row_of_columns(_with_text(raw.content))


def _with_text(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns with `meta` as JSON text; what a struct says is null is not there."""
    meta = columns.get("meta")
    if not isinstance(meta, Mapping):
        return dict(columns)
    return {**columns, "meta": json.dumps(_without_nulls(meta))}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
