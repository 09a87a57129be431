"""V3Det: boxes of 13,204 kinds of things, in pictures that lie in a folder a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from parfocal.data.readers.coco_format import CocoFormatReader, Row


@dataclass
class V3DetReader(CocoFormatReader):
    """A Sample a picture; its objects are labelled regions.

    Args:
        crowds: keep `iscrowd` annotations, which mark groups, labelled like single things.
    """

    source: ClassVar[str] = "v3det"
    licence: ClassVar[str] = "CC-BY-4.0 (annotations); pictures under the terms of their owners"
    files: ClassVar[tuple[str, ...]] = ("v3det_2023_v1_*.json",)
    flags: ClassVar[Mapping[str, str]] = {"iscrowd": "crowds"}

    crowds: bool = False

    def names(self, image: Row) -> list[str]:
        """Return the name with and without `images/`."""
        return v3det_names(image["file_name"])

    def image_key(self, image: Row) -> str:
        """Return `v3det:FOLDER/NAME`; the ids are those of rows, train and val have the same."""
        name = PurePosixPath(image["file_name"]).with_suffix("")
        return f"v3det:{'/'.join(name.parts[-2:])}"


def v3det_names(stated: str) -> list[str]:
    """Return the paths under which a picture may be stored.

    Args:
        stated: the dataset's name of it, `images/FOLDER/NAME.jpg`.
    """
    return [stated, stated.removeprefix("images/")]
