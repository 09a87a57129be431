"""Groma's box files, class_agnostic_*.json: five datasets in the COCO format with one category.

Groma's proposer is trained on them: COCO, Objects365 v2, OpenImages v6, V3Det and SA-1B. Whose a
picture is shows in its name, so that it has the same `image_key` as in its own dataset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.readers.coco import coco_names
from parfocal.data.readers.coco_format import CocoFormatReader, Row
from parfocal.data.readers.objects365 import objects365_names
from parfocal.data.readers.openimages import openimages_names
from parfocal.data.readers.sa1b import sa1b_names
from parfocal.data.readers.v3det import v3det_names
from parfocal.errors import DataError

# A dataset -> the end of its pictures' names with what identifies them, and where they may lie.
_DATASETS: dict[str, tuple[str, Callable[[str, str], list[str]]]] = {
    "coco": (
        r"(?:^|/|COCO_\w+_)(?=\d{12}\.)0*(\d+)\.\w+$",
        lambda number, name: coco_names(int(number), name),
    ),
    "objects365": (r"objects365_v\d_0*(\d+)\.\w+$", lambda _, name: objects365_names(name)),
    "openimages": (r"(?:^|/)([0-9a-f]{16})\.\w+$", openimages_names),
    "sa1b": (r"(?:^|/)sa_(\d+)\.\w+$", lambda _, name: sa1b_names(name)),
    "v3det": (r"(?:^|/)([A-Za-z]\d+/[^/]+)\.\w+$", lambda _, name: v3det_names(name)),
}


@dataclass
class GromaDetectionReader(CocoFormatReader):
    """A Sample a picture; its objects are regions labelled "object".

    Args:
        crowds: keep `iscrowd` annotations, which mark groups.
    """

    source: ClassVar[str] = "groma_detection"
    licence: ClassVar[str] = "that of the dataset that the pictures are from"
    files: ClassVar[tuple[str, ...]] = ("class_agnostic_*.json",)
    flags: ClassVar[Mapping[str, str]] = {"iscrowd": "crowds"}

    crowds: bool = False

    def names(self, image: Row) -> list[str]:
        """Return where the dataset that the picture is from may have it."""
        dataset, identity = self._identity(image)
        return _DATASETS[dataset][1](identity, image["file_name"])

    def image_key(self, image: Row) -> str:
        """Return the key of the dataset that the picture is from."""
        return ":".join(self._identity(image))

    def _identity(self, image: Row) -> tuple[str, str]:
        for dataset, (pattern, _) in _DATASETS.items():
            if found := re.search(pattern, image["file_name"]):
                return dataset, found[1]
        raise DataError(
            f"{self.paths[0]}: picture {image['id']!r} is {image['file_name']!r}, which is not how "
            f"{', '.join(_DATASETS)} name theirs. Is it one of Groma's box files?"
        )
