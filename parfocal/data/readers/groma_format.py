"""What Groma's annotation files have in common: COCO form, one class, more than one text key.

Captions sit in the picture's entry or in the annotation, and the same picture has many entries.
Pictures are of COCO, under the names of 2017, or of Visual Genome, all in one folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from parfocal.data.readers.coco import coco_names
from parfocal.data.readers.coco_format import Row, read_images
from parfocal.data.readers.stream import require
from parfocal.errors import DataError

VG_FOLDERS = ("", "VG_100K/", "VG_100K_2/", "vg/VG_100K/", "vg/VG_100K_2/", "images/", "images2/")


def read_entries(path: Path, **fields: type) -> Iterator[tuple[Row, list[Row]]]:
    """Yield every picture's entry with its annotations: `bbox` and the named fields.

    Args:
        path: the file.
        fields: what annotations must have, by type.

    Raises:
        DataError: if an entry or annotation lacks something.
    """
    for image, rows in read_images(path, _keeper(path, fields)):
        where = f"{path}: entry {image['id']} of `images`"
        require(image, where, file_name=str, width=int, height=int)
        yield image, rows


def _keeper(path: Path, fields: dict[str, type]) -> Callable[[Row], Row]:
    def keep(row: Row) -> Row:
        where = f"{path}: annotation {row.get('id')!r}"
        kept = dict(zip(fields, require(row, where, **fields), strict=True))
        return {**kept, "bbox": check_xywh(row.get("bbox"), where)}

    return keep


def check_xywh(box: Any, where: str) -> list[float]:
    """Return a box as it is.

    Raises:
        DataError: if it is not four numbers.
    """
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(f"{where}: the box is {box!r:.80}, must be [x, y, width, height].")
    return box


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_picture(file_name: str) -> tuple[list[str], str]:
    """Return the paths under which a picture may be stored, and its `image_key`.

    COCO pictures are told by their twelve digits, others are of Visual Genome.

    Example:
        >>> find_picture("000000581857.jpg")[1], find_picture("2370806.jpg")[1]
        ('coco:581857', 'vg:2370806')
    """
    stem = Path(file_name).stem
    coco = re.search(r"(?:^|_)(\d{12})$", stem)
    if coco:
        return coco_names(int(coco[1]), file_name), f"coco:{int(coco[1])}"
    name = Path(file_name).name
    return list(dict.fromkeys([file_name, *(folder + name for folder in VG_FOLDERS)])), f"vg:{stem}"
