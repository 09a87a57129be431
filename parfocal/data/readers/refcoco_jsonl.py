"""RefCOCO, RefCOCO+ and RefCOCOg as Shikra and GroundingGPT publish them: a sentence a line.

Boxes are [x1, y1, x2, y2], pixels of the picture as it is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from parfocal.data.readers.base import Reader
from parfocal.data.readers.coco import coco_names
from parfocal.data.readers.fields import need_box, need_int, need_text
from parfocal.data.readers.stream import json_lines
from parfocal.data.sample import JSON, Sample
from parfocal.errors import DataError

# COCO's names of 2014 and 2017; references count annotations behind the number.
_STEM = re.compile(r"((?:COCO_(?:train|val)2014_)?(\d{12}))(?:_\d+)?")


@dataclass
class RefCocoJsonlReader(Reader):
    """A Sample a sentence: one region, labelled with the sentence."""

    source: ClassVar[str] = "refcoco_jsonl"
    licence: ClassVar[str] = "research use (annotations); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("REC_*.jsonl",)

    def samples(self) -> Iterator[Sample]:
        """Yield sentences in the order of the file."""
        for number, row in json_lines(self.paths[0]):
            where = f"{self.paths[0]}:{number}"
            text = need_text(where, row, "expression").strip()
            if not text:
                self.skip("sentences without words")
                continue
            stated = need_text(where, row, "img_path")
            coco_id, name = _coco_picture(stated)
            if coco_id is None:
                raise DataError(
                    f"{where}: {stated!r} is not named like a picture of COCO "
                    "(COCO_train2014_000000581857.jpg, 000000581857.jpg)."
                )
            placed = self.pictures.place(
                coco_names(coco_id, name),
                (need_int(where, row, "width"), need_int(where, row, "height")),
            )
            if isinstance(placed, str):
                self.skip(placed)
                continue
            regions = self.regions([need_box(where, row, "bbox")], [text], placed)
            if not len(regions):
                continue
            meta: dict[str, JSON] = {"image_key": f"coco:{coco_id}"}
            native = str(number)
            if "dataset_name" in row:
                meta["dataset"] = need_text(where, row, "dataset_name")
                native = f"{meta['dataset']}:{number}"
            yield self.sample(native, (placed.ref,), regions=regions, meta=meta)


def _coco_picture(stated: str) -> tuple[int | None, str]:
    """COCO's id (None if it is not one of its pictures) and the name without a count behind it."""
    path = PurePosixPath(stated)
    match = _STEM.fullmatch(path.stem)
    if match is None:
        return None, stated
    return int(match[2]), str(path.with_name(match[1] + path.suffix))
