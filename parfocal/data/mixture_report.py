"""What a mixture will show, before it is trained on; and an epoch of it as one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from parfocal.data.files import check_output, write_samples
from parfocal.data.mixing import MixtureStream, OpenMixture
from parfocal.data.mixture import Mixture, exact
from parfocal.data.mixture_sources import source_files
from parfocal.data.picture_files import PictureFiles, pictures_folder
from parfocal.data.sample import ImageRef, Sample

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


class Written(NamedTuple):
    """What `write_epoch` wrote: Samples, and pictures that were not there before."""

    samples: int
    pictures: int


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


def check_epoch_file(mixture: Mixture, path: str | Path) -> None:
    """Refuse a file that `write_epoch` could not write, before the mixture is opened.

    Raises:
        ConfigError: if its name ends in something else, or it is one of the files that are mixed or
            of the benchmarks that these are compared with.
        DataError: if a source has no files.
    """
    sources = chain.from_iterable(map(source_files, mixture.sources))
    check_output(path, chain(sources, mixture.benchmarks))


def write_epoch(opened: OpenMixture, path: str | Path, epoch: int = 0) -> Written:
    """Write the Samples of an epoch, in its order, to one .jsonl or .parquet file.

    Ids stay unique where a row comes again in the epoch: the second time it ends in "#2". Pictures
    are named by their paths from the folder of the file. Those inside tar files are put into a
    folder beside it (`pictures_folder`), their bytes unchanged.

    Returns:
        How many Samples were written, and pictures; none of either stays if something is wrong.

    Raises:
        DataError: if a row cannot be read or the file cannot be written.
        ConfigError: if the name of the file ends in anything else, it is one of the files that are
            mixed, or a view was not given.
    """
    check_epoch_file(opened.mixture, path)
    files = PictureFiles(pictures_folder(Path(path).absolute()))
    with files.kept_if_all_goes_well():
        samples = write_samples(_portable(opened.iterate(epoch), files), path)
    return Written(samples, len(files.written))


def _portable(stream: MixtureStream, files: PictureFiles) -> Iterator[Sample]:
    for sample in stream:
        repeat = stream.place.repeat if stream.place else 0
        images = tuple(_from_folder(image, files) for image in sample.images)
        name = f"{sample.id}#{repeat + 1}" if repeat else sample.id
        yield replace(sample, id=name, images=images)
    files.sync()


def _from_folder(image: ImageRef, files: PictureFiles) -> ImageRef:
    """The image with a path from the folder of the file; a crop of another one stays as it is."""
    file = image.path
    if file is None and image.parent is None and image.pixels is not None:
        file = str(files.put(image))
    if file is None:
        return image
    return replace(image, path=Path(os.path.relpath(file, files.folder.parent)).as_posix())
