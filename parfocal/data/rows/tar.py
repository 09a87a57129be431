"""Rows of WebDataset shards: tar files in which the members of a row stand together.

The members of a row share their name up to the first dot of the file name: `0001.json` is the row
as `sample.schema.json` describes it, `0001.jpg` its picture. An image's path names its member; if
there is one picture and one image, any name will do. Pictures are decoded with the row.
"""

from __future__ import annotations

import tarfile
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from parfocal.data.jsonl import describe_line_error, parse_line
from parfocal.data.rows.base import Likely, Raw, Scanned, Stamp, Window
from parfocal.data.rows.index import Index, make_index, open_index
from parfocal.data.rows.lines import object_or_none
from parfocal.data.sample import ImageRef, Sample
from parfocal.errors import DataError, ParfocalError
from parfocal.images import load_image

PICTURES = ("avif", "bmp", "gif", "jp2", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp")

Members = Mapping[str, bytes]  # name -> content


class TarRows:
    """The rows of an uncompressed tar file, any of them by its number.

    Args:
        path: a tar file.
        cache: keep the index beside the file, for the next time.

    Raises:
        DataError: if it is no such file.
    """

    def __init__(self, path: Path, cache: bool = False) -> None:
        self.path = path
        self._index = open_index(path, "rows", _index_tar, cache)
        self._window = Window(path, self._index.stamp)

    def __len__(self) -> int:
        return len(self._index)

    def at(self, index: int) -> Raw:
        """Members of row `index`."""
        content = self._window.read(*self._index.span(index))
        return next(_groups(self.path, BytesIO(content), "r:"))

    def forward(self, start: int = 0) -> Iterator[Raw]:
        """Members of the rows from `start` on."""
        for index in range(start, len(self)):
            yield self.at(index)

    def sample(self, raw: Raw) -> Sample:
        """Parse a row and decode its pictures."""
        return tar_sample(raw)

    def scan(self, likely: Likely) -> Iterator[Scanned]:
        """Rows whose json member `likely` picks."""
        return scan_members(self.forward(), likely)


class TarStream:
    """The rows of tar files, compressed or not, in order only.

    Args:
        paths: tar files.
        rows: how many there are in all; None counts them, which reads the files once.

    Raises:
        DataError: if a file is no tar file.
    """

    def __init__(self, paths: tuple[Path, ...], rows: int | None = None) -> None:
        self.paths = paths
        self._rows = sum(1 for _ in self.forward()) if rows is None else rows

    def __len__(self) -> int:
        return self._rows

    def forward(self, start: int = 0) -> Iterator[Raw]:
        """Members of the rows from `start` on; those before are read, too."""
        index = 0
        for path in self.paths:
            with _opened(path) as file:
                for raw in _groups(path, file, "r|*"):
                    if index >= start:
                        yield raw
                    index += 1

    def sample(self, raw: Raw) -> Sample:
        """Parse a row and decode its pictures."""
        return tar_sample(raw)

    def scan(self, likely: Likely) -> Iterator[Scanned]:
        """Rows whose json member `likely` picks."""
        return scan_members(self.forward(), likely)


def scan_members(rows: Iterator[Raw], likely: Likely) -> Iterator[Scanned]:
    """See `Rows.scan`."""
    for index, raw in enumerate(rows):
        text = _json_member(raw.content)
        if text is not None and likely(text):
            row = object_or_none(text)
            if row is not None:
                yield Scanned(index, raw.where, row, partial(tar_sample, raw))


def tar_sample(raw: Raw) -> Sample:
    """Make a Sample of the members of a row.

    Raises:
        DataError: if there is no json member, it is no row, or a picture is missing or broken.
    """
    text = _json_member(raw.content)
    if text is None:
        raise DataError(
            f"{raw.where} has no .json member, only {', '.join(raw.content)}. Each row needs one "
            "that holds the sample."
        )
    try:
        row = parse_line(text)
    except ValueError as err:
        raise DataError(f"{raw.where}: {describe_line_error(err)[1]}") from err
    sample = Sample.from_json(row, raw.where)
    pictures = {name: data for name, data in raw.content.items() if _kind(name) in PICTURES}
    try:
        images = [_filled(image, sample, pictures) for image in sample.images]
        return replace(sample, images=tuple(images))
    except ParfocalError as err:
        raise DataError(f"{raw.where}: {err}") from err


def _filled(image: ImageRef, sample: Sample, pictures: Members) -> ImageRef:
    """An image with the pixels of its member instead of a path."""
    if image.path is None:
        return image
    name = _member_of(image.path, pictures)
    if name is None and len(pictures) == 1 and sum(i.path is not None for i in sample.images) == 1:
        name = next(iter(pictures))
    if name is None:
        raise DataError(
            f"no member holds the picture {image.path!r}; there are {', '.join(pictures) or 'none'}"
            ". Name the member in the image's path."
        )
    data = pictures[name]
    return replace(image, path=None, pixels=load_image(data), encoded=data)


def _member_of(path: str, pictures: Members) -> str | None:
    if path in pictures:
        return path
    ending = path.rpartition("/")[2]
    return next((name for name in pictures if name.rpartition("/")[2] == ending), None)


def _json_member(members: Members) -> bytes | None:
    return next((data for name, data in members.items() if _kind(name) == "json"), None)


def _kind(name: str) -> str:
    """What stands after the last dot of a member's name."""
    return name.rpartition(".")[2].lower()


def _key(name: str) -> str | None:
    """What the members of a row have in common; None for members of no row."""
    folder, _, file = name.rpartition("/")
    if file.startswith((".", "__")):  # left by other programs, or about the shard
        return None
    return f"{folder}/{file.partition('.')[0]}".lstrip("/")


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as err:
        raise DataError(f"{path} cannot be opened: {err.strerror}.") from err


def _groups(path: Path, file: IO[bytes], mode: str) -> Iterator[Raw]:
    """The rows of an open tar file, with the contents of their members."""
    key, members = None, dict[str, bytes]()
    for member, content in _members(path, file, mode, read=True):
        own = _key(member.name)
        if own is None:
            continue
        if own != key and members:
            yield Raw(f"{path}:{key}", members)
            members = {}
        key = own
        members[member.name] = content
    if members:
        yield Raw(f"{path}:{key}", members)


def _members(
    path: Path, file: IO[bytes], mode: str, read: bool
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The ordinary files in a tar file and what is in them; their headers are not kept."""
    try:
        opened: Any = tarfile.open(fileobj=file, mode=mode)  # type: ignore[call-overload]  # noqa: SIM115
        with opened as tar:
            while (member := tar.next()) is not None:
                tar.members = []
                if member.isfile():
                    yield member, tar.extractfile(member).read() if read else b""
    except (tarfile.TarError, EOFError, OSError) as err:
        raise DataError(f"{path} is not a readable tar file: {err}. Fetch it again.") from err


def _index_tar(path: Path) -> Index:
    """Find where the rows of an uncompressed tar file begin."""
    stamp = Stamp.of(path)
    starts, key = array("q"), None
    with _opened(path) as file:
        for member, _ in _members(path, file, "r:", read=False):
            own = _key(member.name)
            if own is not None and own != key:
                starts.append(member.offset)
                key = own
    starts.append(stamp.size)
    return make_index(path, stamp, [(np.array(starts, np.int64), 1 + np.arange(len(starts)))])
