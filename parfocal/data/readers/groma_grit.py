"""Groma's selection of GRIT: a JSON list of captions, phrases as in GRIT, sizes not stated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.data.readers.base import Reader
from parfocal.data.readers.caption_spans import ground_caption
from parfocal.data.readers.grit import read_span_boxes
from parfocal.data.readers.stream import json_items, require
from parfocal.data.sample import Sample, Turn


@dataclass
class GromaGritReader(Reader):
    """A Sample a row: the caption as one assistant turn; the pictures are needed for their sizes.

    Official code asks for one phrase of a row at random; views do that.
    """

    source: ClassVar[str] = "groma_grit"
    licence: ClassVar[str] = "MS-PL (annotations); pictures belong to the sites they are from"
    files: ClassVar[tuple[str, ...]] = ("grit_filtered_10m.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield rows in the order of the file."""
        path = self.paths[0]
        for index, row in enumerate(json_items(path)):
            where = f"{path}: row {index} (from 0)"
            name, caption, phrases = require(row, where, filename=str, caption=str, ref_exps=list)
            if not caption.strip():
                self.skip("rows without a caption")
                continue
            placed = self.pictures.place([name, name.rpartition("/")[2]])
            if isinstance(placed, str):
                self.skip(placed)
                continue
            boxes = read_span_boxes(phrases, placed.upright.source, where)
            yield self.sample(
                index,
                (placed.ref,),
                turns=(Turn("assistant", ground_caption(self, caption, boxes, placed)),),
                meta={"image_key": f"grit:{name}"},
            )
