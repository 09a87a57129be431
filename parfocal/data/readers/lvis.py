"""LVIS v1: COCO pictures, boxes of 1,203 kinds of things.

Pictures have no file name, only the address of the COCO picture. The ids of `lvis_v1_*.json` are
those of COCO; files made from it (LVIS-Ground) list one picture under several ids, so the address
says which picture it is. LVIS val holds pictures of COCO train2017.

Annotations are federated: of a category, a picture is judged only if it has boxes of it or lists it
as verified absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.readers.base import INEXHAUSTIVE, inexhaustive
from parfocal.data.readers.coco import coco_names
from parfocal.data.readers.coco_format import CocoFormatReader, Row, label_of
from parfocal.data.readers.fields import need_rows
from parfocal.data.sample import JSON
from parfocal.errors import DataError


@dataclass
class LvisReader(CocoFormatReader):
    """A Sample a picture; its objects are labelled regions, "bow (decorative ribbons)".

    `meta` lists as `neg_categories` the labels that are verified to be absent, and as
    `not_exhaustive_categories` those of which there may be more than there are boxes.
    """

    source: ClassVar[str] = "lvis"
    licence: ClassVar[str] = "CC-BY-4.0 (annotations); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("lvis_v1_*.json",)
    name_field: ClassVar[str] = "coco_url"

    def names(self, image: Row) -> list[str]:
        """Return COCO's names; the address ends in `train2017/*.jpg` or `val2017/*.jpg`."""
        return coco_names(self._number(image), "/".join(image["coco_url"].split("/")[-2:]))

    def image_key(self, image: Row) -> str:
        """Return `coco:ID`."""
        return f"coco:{self._number(image)}"

    def notes(
        self, image: Row, categories: Mapping[int, str], unboxed: Sequence[str]
    ) -> dict[str, JSON]:
        """Return the labels that are absent, and those whose boxes are not complete."""
        where = f"{self.paths[0]}: picture {image['id']!r}"
        absent, incomplete = (
            [
                label_of(number, categories, where)
                for number in (need_rows(where, image, field) if field in image else ())
            ]
            for field in ("neg_category_ids", "not_exhaustive_category_ids")
        )
        every: dict[str, JSON] = {"neg_categories": [*absent], INEXHAUSTIVE: []}
        return every | inexhaustive(*incomplete, *unboxed)

    def _number(self, image: Row) -> int:
        number: str = image["coco_url"].rpartition("/")[2].removesuffix(".jpg")
        if not number.isdecimal():
            raise DataError(
                f"{self.paths[0]}: picture {image['id']!r} has `coco_url` {image['coco_url']!r}, "
                "which does not end in the number of a COCO picture."
            )
        return int(number)
