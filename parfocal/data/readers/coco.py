"""COCO instances, 2014 and 2017: boxes of 80 kinds of things.

Files of 2014 are named `COCO_train2014_%012d.jpg`, those of 2017 `%012d.jpg`, with the same ids and
the same pixels; either will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.readers.coco_format import CocoFormatReader, Row


@dataclass
class CocoReader(CocoFormatReader):
    """A Sample a picture; its objects are labelled regions.

    Args:
        crowds: keep `iscrowd` annotations, which mark groups, labelled like single things.
    """

    source: ClassVar[str] = "coco"
    licence: ClassVar[str] = "CC-BY-4.0 (annotations); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("instances_*.json",)
    flags: ClassVar[Mapping[str, str]] = {"iscrowd": "crowds"}

    crowds: bool = False

    def names(self, image: Row) -> list[str]:
        """Return the names of 2014 and 2017, as stated first."""
        return coco_names(image["id"], image["file_name"])

    def image_key(self, image: Row) -> str:
        """Return `coco:ID`."""
        return f"coco:{image['id']}"


def coco_names(image_id: int, *stated: str) -> list[str]:
    """Return the paths under which a COCO picture may be stored, as stated first.

    Args:
        image_id: of COCO.
        stated: the names that the dataset uses.
    """
    number = f"{image_id:012d}.jpg"
    folders = ("train2017", "val2017", "train2014", "val2014")
    names = [*stated, number]
    for folder in folders:
        name = number if folder.endswith("2017") else f"COCO_{folder}_{number}"
        names += [f"{folder}/{name}", f"coco/{folder}/{name}", name]
    return list(dict.fromkeys(names))
