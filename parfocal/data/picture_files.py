"""Files for pictures that have none of their own, beside a file of Samples.

The bytes of a picture's file are carried over as they are. A file is named by what it holds, so
that a picture that comes again is written once, and writing the same again gives the same folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from parfocal.data.sample import ImageRef
from parfocal.errors import DataError
from parfocal.images import FORMATS, load_image

_ENDINGS = {"jpeg": "jpg", "jpeg2000": "jp2", "tiff": "tif"}


def pictures_folder(path: str | Path) -> Path:
    """The folder of the pictures of a file: `epoch.images` for `epoch.jsonl`."""
    return Path(path).with_suffix(".images")


class PictureFiles:
    """A folder that pictures are put into; made when there is one.

    Args:
        folder: where; see `pictures_folder`.

    Attributes:
        written: the files that were not there before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    def put(self, image: ImageRef) -> Path:
        """Write the picture of `image`, unless it is there, and return its file.

        Raises:
            DataError: if the picture has no pixels or the file cannot be written.
        """
        data = encoded_picture(image)
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            kind = str(opened.format).lower()
        name = f"{hashlib.sha256(data).hexdigest()[:32]}.{_ENDINGS.get(kind, kind)}"
        target = self.folder / name[:2] / name
        try:
            if not target.is_file() or target.stat().st_size != len(data):
                _write(target, data)
                self.written.append(target)
        except OSError as err:
            raise DataError(
                f"{target} cannot be written: {err.strerror}. Give a file in a folder that exists "
                "and is writable."
            ) from err
        return target

    @contextmanager
    def kept_if_all_goes_well(self) -> Iterator[None]:
        """Remove what was written if the block raises; folders that are empty then go, too."""
        try:
            yield
        except BaseException:
            folders = {file.parent for file in self.written}
            for file in self.written:
                file.unlink(missing_ok=True)
            for folder in (*folders, self.folder):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            raise

    def sync(self) -> None:
        """Wait until what was written is on disk, so that a file that names it may appear."""
        if self.written and hasattr(os, "sync"):
            os.sync()


def encoded_picture(image: ImageRef) -> bytes:
    """The bytes of a picture file: those that it was decoded from, or else a PNG.

    Raises:
        DataError: if the picture is not in memory.
    """
    if image.pixels is None:
        raise DataError("this image has no pixels to write to a file.")
    if image.encoded is not None:
        decoded = load_image(image.encoded)
        if decoded.size == image.pixels.size and decoded.tobytes() == image.pixels.tobytes():
            return image.encoded  # otherwise the picture was changed after it had been read
    data = io.BytesIO()
    image.pixels.save(data, "PNG")
    return data.getvalue()


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(data)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
