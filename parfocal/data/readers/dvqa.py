"""DVQA: questions about drawn bar charts; an answer that is written in the chart has its box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader, upright_boxes, xywh_to_xyxy
from parfocal.data.readers.pictures import Placed
from parfocal.data.readers.stream import json_items
from parfocal.data.sample import JSON, Sample, Turn
from parfocal.dialects import GroundedText, Phrase
from parfocal.errors import DataError

_FOLDERS = ("", "images/", "dvqa/images/")
_BOX_KEYS = ("bbox_answer", "answer_bbox")  # both are met
_TEXTS = ("image", "question", "answer")


@dataclass
class DvqaReader(Reader):
    """A Sample a question; an answer that is a text of the chart is a Phrase with its box.

    Answers stay as they are written: digits are values, number words are counts.
    """

    source: ClassVar[str] = "dvqa"
    licence: ClassVar[str] = "not stated by its authors, check before use"
    files: ClassVar[tuple[str, ...]] = ("{train,val_easy,val_hard}_qa.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield questions in the order of the file."""
        number = -1
        for number, row in enumerate(json_items(self.paths[0])):
            where = f"{self.paths[0]}: row {number}"
            if not isinstance(row, dict) or any(row.get(key) in (None, "") for key in _TEXTS):
                raise DataError(f"{where} must have `{'`, `'.join(_TEXTS)}`. Is it DVQA's file?")
            picture = str(row["image"])
            placed = self.pictures.place([f"{folder}{picture}" for folder in _FOLDERS])
            if isinstance(placed, str):
                self.skip(placed)
                continue
            turns = (
                Turn("user", GroundedText.of(str(row["question"]))),
                Turn("assistant", self._answer(row, placed, where)),
            )
            stem = PurePosixPath(picture).stem
            meta: dict[str, JSON] = {"image_key": f"dvqa:{stem}"}
            meta |= {key: row[key] for key in ("question_id", "question_type") if key in row}
            yield self.sample(f"{number}:{stem}", (placed.ref,), turns=turns, meta=meta)
        if number < 0:
            raise DataError(f"{self.paths[0]} is no list of questions, or an empty one.")

    def _answer(self, row: dict[str, Any], placed: Placed, where: str) -> GroundedText:
        words = str(row["answer"])
        box = next((row[key] for key in _BOX_KEYS if row.get(key)), None)
        if box is None:
            return GroundedText.of(words)
        sound = isinstance(box, list) and len(box) == 4
        if not sound or not all(isinstance(number, int | float) for number in box):
            raise DataError(f"{where}: the answer's box is {box!r}, must be x, y, width, height.")
        boxes, kept = upright_boxes([xywh_to_xyxy(box)], placed)
        self.skip("boxes without area inside their picture", 1 - len(kept))
        return GroundedText.of(Phrase(words, boxes)) if kept else GroundedText.of(words)
