"""What a mixture will show, before it is trained on; and an epoch of it as one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from parfocal.data.files import write_samples
from parfocal.data.mixing import MixtureStream, OpenMixture
from parfocal.data.mixture import exact
from parfocal.data.sample import ImageRef, Sample
from parfocal.errors import DataError

FIRST = 10  # ids that a report shows


@dataclass(frozen=True)
class SourceReport:
    """One source of a mixture.

    Attributes:
        name: of the source.
        path: its files.
        rows: in the files.
        used: of these, what `ratio` and the leak guard leave.
        epochs: how often each of them comes in an epoch.
        weight: for weighted interleaving.
        expected: rows an epoch on average, if the epoch does not stop early.
        epoch_rows: rows in the first epoch.
        share: of the rows of the first epoch.
        views: what rows are turned into Samples by.
    """

    name: str
    path: str
    rows: int
    used: int
    epochs: float
    weight: float
    expected: float
    epoch_rows: int
    share: float
    views: tuple[str, ...]


@dataclass(frozen=True)
class MixtureReport:
    """What a mixture will show.

    Attributes:
        interleave: how sources are mixed.
        seed: of everything that is drawn.
        rows: in the first epoch, before views.
        sources: one each.
        first: ids of the first rows, before views.
        leaks: `LeakReport.to_json()`, and what was to be done about them as `policy`.
    """

    interleave: str
    seed: int
    rows: int
    sources: tuple[SourceReport, ...]
    first: tuple[str, ...]
    leaks: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {"schema": "parfocal.mix/1", **asdict(self)}


def describe_mixture(opened: OpenMixture, first: int = FIRST) -> MixtureReport:
    """Count what the first epoch holds, and read its first rows.

    Raises:
        DataError: if one of these rows cannot be read.
    """
    mixture, total = opened.mixture, opened.rows()
    sources = []
    for source, count in zip(opened.sources, opened.schedule().counts(total), strict=True):
        settings = source.settings
        sources.append(
            SourceReport(
                source.name,
                settings.path,
                source.num_rows,
                len(source),
                settings.epochs,
                settings.weight,
                float(exact(settings.epochs) * len(source)),
                int(count),
                int(count) / total if total else 0.0,
                settings.views,
            )
        )
    places = islice(opened.places(), first)
    names = tuple(opened.sources[place.source].read(place.row).id for place in places)
    leaks = {"policy": mixture.leaks, **opened.leaks.to_json()}
    return MixtureReport(mixture.interleave, mixture.seed, total, tuple(sources), names, leaks)


def write_epoch(opened: OpenMixture, path: str | Path, epoch: int = 0) -> int:
    """Write the Samples of an epoch, in its order, to one .jsonl or .parquet file.

    Ids stay unique where a row comes again in the epoch: the second time it ends in "#2". Pictures
    are named by their paths from the folder of the file.

    Returns:
        How many Samples were written.

    Raises:
        DataError: if a row cannot be read, or has a picture that is in no file of its own.
        ConfigError: if the name of the file ends in anything else, or a view was not given.
    """
    folder = Path(path).absolute().parent
    return write_samples(_portable(opened.iterate(epoch), folder), path)


def _portable(stream: MixtureStream, folder: Path) -> Iterator[Sample]:
    for sample in stream:
        repeat = stream.place.repeat if stream.place else 0
        images = tuple(_from_folder(image, sample, folder) for image in sample.images)
        name = f"{sample.id}#{repeat + 1}" if repeat else sample.id
        yield replace(sample, id=name, images=images)


def _from_folder(image: ImageRef, sample: Sample, folder: Path) -> ImageRef:
    if image.pixels is not None and image.path is None:
        raise DataError(
            f"the picture of sample {sample.id!r} is inside a tar file, which a file of samples "
            "cannot name. Unpack the tar file, or train from the mixture itself."
        )
    if image.path is None:
        return image
    return replace(image, path=Path(os.path.relpath(image.path, folder)).as_posix())
