"""The COCO file format, in which most box datasets come: pictures, annotations, categories.

One JSON object; pictures and annotations are joined on disk, so that files of any size do. Boxes
are [x, y, width, height], pixels, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from parfocal.data.readers.spill import Spill
from parfocal.data.readers.stream import json_items
from parfocal.errors import DataError

Row = dict[str, Any]


def read_categories(path: Path) -> dict[int, str]:
    """Return id -> name; ids have gaps, so always look names up here.

    Raises:
        DataError: if the file has no categories.
    """
    names = {int(row["id"]): str(row["name"]) for row in json_items(path, "categories")}
    if not names:
        raise DataError(f"{path} has no `categories`. Is it a COCO instances file?")
    return names


def read_images(
    path: Path, keep: Callable[[Row], Row], annotations: str = "annotations"
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield every picture with its annotations, in the order of the file.

    Args:
        path: the file.
        keep: what is needed of an annotation; segmentations are large.
        annotations: name of the array.

    Raises:
        DataError: if an annotation lacks its picture or the file has no pictures.
    """
    with Spill() as table:
        rows = json_items(path, annotations)
        table.add((_image_id(row, path), keep(row)) for row in rows)
        count = 0
        for image in json_items(path, "images"):
            count += 1
            yield image, table.of(image["id"])
    if not count:
        raise DataError(f"{path} has no `images`. Is it a COCO instances file?")


def _image_id(row: Row, path: Path) -> int:
    if "image_id" not in row:
        raise DataError(f"{path}: annotation {row.get('id')!r} has no `image_id`.")
    image_id: int = row["image_id"]
    return image_id
