"""Groma's form of Flickr30k Entities: COCO form, a caption an entry, phrases by their offsets.

An annotation's `tokens_positive` lists the [start, end) of the phrases that its box belongs to. The
same picture has an entry for each of its captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.caption_spans import SpanBox, ground_caption
from parfocal.data.readers.coco_format import Row
from parfocal.data.readers.flickr30k import flickr_names
from parfocal.data.readers.groma_format import read_entries
from parfocal.data.readers.stream import require
from parfocal.data.sample import Sample, Turn
from parfocal.errors import DataError


@dataclass
class GromaFlickrReader(Reader):
    """A Sample a caption: one assistant turn, its phrases with their boxes."""

    source: ClassVar[str] = "groma_flickr"
    licence: ClassVar[str] = "free with citation (annotations); pictures for research only"
    files: ClassVar[tuple[str, ...]] = ("flickr_entities_*.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield captions in the order of the file."""
        path = self.paths[0]
        for image, rows in read_entries(path, tokens_positive=list):
            where = f"{path}: entry {image['id']} of `images`"
            (caption,) = require(image, where, caption=str)
            if not caption.strip():
                self.skip("captions without words")
                continue
            name = image["file_name"]
            number = Path(name).stem
            size_wh = (image["width"], image["height"])
            placed = self.pictures.place(flickr_names(number, name), size_wh)
            if isinstance(placed, str):
                self.skip(placed)
                continue
            yield self.sample(
                f"{path.stem}:{image['id']}",
                (placed.ref,),
                turns=(
                    Turn("assistant", ground_caption(self, caption, _boxes(rows, where), placed)),
                ),
                meta={"image_key": f"flickr:{number}"},
            )


def _boxes(rows: list[Row], where: str) -> Iterator[SpanBox]:
    for row in rows:
        for span in row["tokens_positive"]:
            if not _is_span(span):
                raise DataError(
                    f"{where}: tokens_positive is {row['tokens_positive']!r}, must be a list of "
                    "[start, end]."
                )
            yield SpanBox(span[0], span[1], xywh_to_xyxy(row["bbox"]))


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and [type(value) for value in span] == [int, int]
