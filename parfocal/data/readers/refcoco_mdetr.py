"""RefCOCO, RefCOCO+ and RefCOCOg as MDETR publishes them: finetune_*.json, in the COCO format.

A picture is listed once a sentence, under a running number; COCO's id is its `original_id`. Each
entry has one box, [x, y, width, height], pixels, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.coco import coco_names
from parfocal.data.readers.coco_format import Row, read_categories, read_images
from parfocal.data.readers.fields import need_box, need_int, need_text
from parfocal.data.sample import JSON, Sample
from parfocal.errors import DataError


@dataclass
class RefCocoMdetrReader(Reader):
    """A Sample a sentence: one region, labelled with the sentence."""

    source: ClassVar[str] = "refcoco_mdetr"
    licence: ClassVar[str] = "research use (annotations); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("finetune_*.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield sentences in the order of the file."""
        path = self.paths[0]
        names = read_categories(path)
        for image, rows in read_images(path, _kept):
            coco_id = need_int(path, image, "original_id")
            text = need_text(path, image, "caption").strip()
            if not text:
                self.skip("sentences without words")
                continue
            row = self._only_row(image, rows)
            placed = self.pictures.place(
                coco_names(coco_id, need_text(path, image, "file_name")),
                (need_int(path, image, "width"), need_int(path, image, "height")),
            )
            if isinstance(placed, str):
                self.skip(placed)
                continue
            box = xywh_to_xyxy(need_box(path, row, "bbox"))
            regions = self.regions([box], [text], placed)
            if not len(regions):
                continue
            category = need_int(path, row, "category_id")
            if category not in names:
                raise DataError(f"{path}: unknown category {category}.")
            meta: dict[str, JSON] = {
                "image_key": f"coco:{coco_id}",
                "ann_id": row["original_id"],
                "category": names[category],
                "area": row["area"],
                "iscrowd": row["iscrowd"],
            }
            native = str(image["id"])
            if "dataset_name" in image:
                meta["dataset"] = need_text(path, image, "dataset_name")
                native = f"{meta['dataset']}:{native}"
            yield self.sample(native, (placed.ref,), regions=regions, meta=meta)

    def _only_row(self, image: Row, rows: list[Row]) -> Row:
        if len(rows) != 1:
            raise DataError(
                f"{self.paths[0]}: the sentence of entry {image['id']} has {len(rows)} boxes, must "
                "have one. Give finetune_refcoco_*.json, finetune_refcoco+_*.json or "
                "finetune_refcocog_*.json."
            )
        return rows[0]


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row.get(name) for name in ("bbox", "category_id", "original_id", "area")}
    return kept | {"iscrowd": row.get("iscrowd", 0)}
