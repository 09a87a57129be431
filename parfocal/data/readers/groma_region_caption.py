"""Groma's region captions: refcocog_cap_*, vg_train_single, vg_train_multi and vg_test.

COCO form with the words in the annotation. Most files have one region an entry; `vg_train_multi`
has several, with near-duplicates, which are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.groma_format import find_picture, read_entries
from parfocal.data.sample import Sample


@dataclass
class GromaRegionCaptionReader(Reader):
    """A Sample an entry of `images`; its regions are labelled with their captions."""

    source: ClassVar[str] = "groma_region_caption"
    licence: ClassVar[str] = "CC-BY-4.0 (Visual Genome), for research (RefCOCOg)"
    files: ClassVar[tuple[str, ...]] = ("vg_*.json or refcocog_cap_*.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield pictures in the order of the file."""
        path = self.paths[0]
        for image, rows in read_entries(path, caption=str):
            names, key = find_picture(image["file_name"])
            placed = self.pictures.place(names, (image["width"], image["height"]))
            if isinstance(placed, str):
                self.skip(placed)
                continue
            used = [row for row in rows if row["caption"].strip()]
            self.skip("regions without words", len(rows) - len(used))
            boxes = [xywh_to_xyxy(row["bbox"]) for row in used]
            regions = self.regions(boxes, [row["caption"].strip() for row in used], placed)
            if not len(regions):
                self.skip("pictures without a region")
                continue
            yield self.sample(
                f"{path.stem}:{image['id']}",
                (placed.ref,),
                regions=regions,
                meta={"image_key": key},
            )
