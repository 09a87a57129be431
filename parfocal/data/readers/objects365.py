"""Objects365 v2: boxes of 365 kinds of things in two million pictures.

The names of the kinds are as published, with their typing errors and slashes ("Cabinet/shelf").
Boxes may leave their picture by a pixel or two and are clipped. Some of the pictures listed were
never published, others are broken: with `images`, they are counted and skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.readers.coco_format import CocoFormatReader, Row


@dataclass
class Objects365Reader(CocoFormatReader):
    """A Sample a picture; its objects are labelled regions.

    Args:
        crowds: keep `iscrowd` annotations, which mark groups, labelled like single things.
        fakes: keep `isfake` annotations: pictures and figures of things.
        reflections: keep `isreflected` annotations: things in mirrors.
    """

    source: ClassVar[str] = "objects365"
    licence: ClassVar[str] = "CC-BY-4.0 (annotations); pictures not to be passed on"
    files: ClassVar[tuple[str, ...]] = ("zhiyuan_objv2_*.json",)
    flags: ClassVar[Mapping[str, str]] = {
        "iscrowd": "crowds",
        "isfake": "fakes",
        "isreflected": "reflections",
    }

    crowds: bool = False
    fakes: bool = True
    reflections: bool = True

    def names(self, image: Row) -> list[str]:
        """Return the name without and with the folders of the versions."""
        return objects365_names(image["file_name"])

    def image_key(self, image: Row) -> str:
        """Return `objects365:ID`, the number in the file's name."""
        return f"objects365:{image['id']}"


def objects365_names(stated: str) -> list[str]:
    """Return the paths under which a picture may be stored: most people have `patch50/*.jpg`.

    Args:
        stated: the dataset's name of it, `images/v2/patch50/*.jpg`.
    """
    usual = re.sub(r"^(images/)?(v[12]/)?", "", stated)
    return [usual, stated, f"train/{usual}", f"val/{usual}", stated.rpartition("/")[2]]
