"""Groma's referring expressions: refcoco, refcoco+ and refcocog in COCO form.

One entry of `images` an expression, with the words as its `caption`; file names of COCO 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.groma_format import find_picture, read_entries
from parfocal.data.readers.stream import require
from parfocal.data.sample import Sample


@dataclass
class GromaRecReader(Reader):
    """A Sample an expression: its box is a region labelled with the expression."""

    source: ClassVar[str] = "groma_rec"
    licence: ClassVar[str] = "for research (RefCOCO annotations); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("refcoco_*.json, refcoco+_*.json or refcocog_*.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield expressions in the order of the file."""
        path = self.paths[0]
        for image, rows in read_entries(path):
            (caption,) = require(image, f"{path}: entry {image['id']} of `images`", caption=str)
            phrase = caption.strip()
            if not phrase or not rows:
                self.skip("expressions without words" if rows else "expressions without a box")
                continue
            names, key = find_picture(image["file_name"])
            placed = self.pictures.place(names, (image["width"], image["height"]))
            if isinstance(placed, str):
                self.skip(placed)
                continue
            boxes = [xywh_to_xyxy(row["bbox"]) for row in rows]
            regions = self.regions(boxes, [phrase] * len(boxes), placed)
            if not len(regions):
                self.skip("expressions without a box")
                continue
            yield self.sample(
                f"{path.stem}:{image['id']}",
                (placed.ref,),
                regions=regions,
                meta={"image_key": key, "dataset": image.get("dataset_name", "")},
            )
