"""Boxes on disk, so that each picture is detected once.

    FOLDER/<fingerprint>/settings.json          what the boxes depend on apart from the picture
    FOLDER/<fingerprint>/<2 digits>/<digest>.json   one picture, named by `image_digest`

The fingerprint is a hash of the settings and of the networks' identities, so that boxes of other
thresholds or weights are never mistaken for these; old ones stay until their folder is deleted. An
entry is written beside its name and renamed, so that several processes may share a folder. An entry
that cannot be read, or does not go with its picture, is reported as a warning, made again and
overwritten.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parfocal.boxes import Boxes, Frame
from parfocal.data.outputs import atomic_file
from parfocal.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# Raised when entries of older code must not be read any more.
LAYOUT = 1


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits for JSON values; the order of keys does not matter.

    Raises:
        ConfigError: if the values are not JSON.
    """
    try:
        text = json.dumps([LAYOUT, identity], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"a cache needs settings that are plain JSON: {err}.") from err
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class BoxCache:
    """A folder of boxes by picture and settings.

    Args:
        folder: made when the first entry is written.

    >>> import tempfile
    >>> cache = BoxCache(tempfile.mkdtemp())
    >>> key, frame = cache.register({"threshold": 0.2}), Frame("image", 640, 427)
    >>> cache.write(key, "ab12", Boxes([[1, 2, 3, 4]], frame, scores=[0.5], labels=["cat"]))
    >>> cache.read(key, "ab12", frame).labels, cache.read(key, "cd34", frame)
    (('cat',), None)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def register(self, identity: Mapping[str, Any]) -> str:
        """The fingerprint of settings; what they are is written down for people to read.

        Raises:
            ConfigError: if they are not JSON.
            DataError: if the folder cannot be written.
        """
        fingerprint = fingerprint_of(identity)
        path = self.folder / fingerprint / "settings.json"
        if not path.is_file():
            self._write(path, json.dumps(identity, indent=1, sort_keys=True))
        return fingerprint

    def read(self, fingerprint: str, digest: str, frame: Frame) -> Boxes | None:
        """The boxes of a picture, or None where they have to be made (again).

        Args:
            fingerprint: from `register`.
            digest: of the picture, from `image_digest`.
            frame: of the picture.
        """
        path = self._path(fingerprint, digest)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as err:
            logger.warning("%s cannot be read (%s); its boxes are made again", path, err)
            return None
        try:
            return _parsed(text, frame)
        except (KeyError, TypeError, ValueError) as err:
            logger.warning("%s is damaged (%s); its boxes are made again", path, err)
            return None

    def write(self, fingerprint: str, digest: str, boxes: Boxes) -> None:
        """Keep the boxes of a picture; an entry that is there is replaced.

        Raises:
            DataError: if the folder cannot be written.
        """
        entry = {
            "size": [boxes.frame.width, boxes.frame.height],
            "boxes": boxes.to_json(),
            "scores": None if boxes.scores is None else boxes.scores.tolist(),
            "labels": None if boxes.labels is None else list(boxes.labels),
        }
        self._write(self._path(fingerprint, digest), json.dumps(entry))

    def _path(self, fingerprint: str, digest: str) -> Path:
        return self.folder / fingerprint / digest[:2] / f"{digest}.json"

    def _write(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise DataError(
                f"{path.parent} cannot be made: {err.strerror}. Give BoxCache a folder that can "
                "be written."
            ) from err
        with atomic_file(path) as file:
            file.write(text.encode())


def _parsed(text: str, frame: Frame) -> Boxes:
    entry = json.loads(text)
    width, height = entry["size"]
    if (width, height) != (frame.width, frame.height):
        raise ValueError(f"it is of a picture of {width}x{height}, not of frame {frame}")
    return Boxes(entry["boxes"], frame, scores=entry["scores"], labels=entry["labels"])
