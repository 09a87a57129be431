"""SA-1B: boxes around masks of anything, without names; a JSON file a picture.

Boxes are kept as stored: nothing is added to width and height, although they seem to be the last
pixel of the mask minus the first, which is one short of where the mask ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from parfocal.data.readers.coco_format import CocoFormatReader, Row
from parfocal.data.readers.fields import need, need_int, need_rows, need_text
from parfocal.data.readers.stream import json_value
from parfocal.errors import DataError

SIDE = 448  # pixels, of the square that Groma resizes pictures to before it looks at areas


@dataclass
class Sa1bReader(CocoFormatReader):
    """A Sample a picture; every mask is a region labelled "object".

    Areas are square pixels after the picture is resized to 448 x 448. Groma (arXiv:2404.13013)
    trains on those from 14^2 = 196 to 400^2 = 160000.

    Args:
        min_area: leave out smaller boxes.
        max_area: leave out larger boxes.
    """

    source: ClassVar[str] = "sa1b"
    licence: ClassVar[str] = "SA-1B licence: research only"
    files: ClassVar[tuple[str, ...]] = ("the folder of sa_*.json, or of folders of them",)

    min_area: float = 0.0
    max_area: float = math.inf

    def names(self, image: Row) -> list[str]:
        """Return the name in the folder of the JSON file, and by itself."""
        return sa1b_names(image["file_name"])

    def image_key(self, image: Row) -> str:
        """Return `sa1b:ID`, the number in the file's name."""
        return f"sa1b:{image['id']}"

    def categories(self) -> dict[int, str]:
        """Return nothing: there are none."""
        return {}

    def pairs(self, categories: Mapping[int, str]) -> Iterator[tuple[Row, list[Row]]]:
        """Yield the files, folder by folder, in the order of their numbers."""
        root = self.paths[0]
        for path in _files(root):
            content = json_value(path)
            image = need(path, content, "image")
            name = path.parent.relative_to(root) / need_text(path, image, "file_name")
            number = need_int(path, image, "image_id")
            rows = [
                self.kept(row, "object", f"{path}: annotation {position}")
                for position, row in enumerate(need_rows(path, content, "annotations"), start=1)
            ]
            yield {**image, "id": number, "file_name": name.as_posix()}, rows

    def left_out(self, image: Row, row: Row) -> str:
        """Return why a box is not wanted: its size."""
        _, _, width, height = row["bbox"]
        area = width * height * SIDE**2 / (image["width"] * image["height"])
        return "" if self.min_area <= area <= self.max_area else "boxes of unwanted area"


def sa1b_names(stated: str) -> list[str]:
    """Return the paths under which a picture may be stored.

    Args:
        stated: `sa_000000/sa_1.jpg`.
    """
    return [stated, stated.rpartition("/")[2]]


def _files(root: Path) -> Iterator[Path]:
    """Yield the JSON files of a folder and its folders; the names of one folder are in memory."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Give the folder of sa_*.json.")
    count = 0
    for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        names = [path.name for path in folder.iterdir() if re.fullmatch(r"sa_\d+\.json", path.name)]
        count += len(names)
        for name in sorted(names, key=lambda name: (len(name), name)):  # sa_9 before sa_10
            yield folder / name
    if not count:
        raise DataError(f"{root} has no sa_*.json, nor have its folders. Unpack an archive there.")
