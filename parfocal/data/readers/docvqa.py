"""DocVQA: questions about scanned pages, each with several answers that count as right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader
from parfocal.data.readers.fields import need_text
from parfocal.data.readers.stream import json_items
from parfocal.data.sample import JSON, Sample, Turn
from parfocal.dialects import GroundedText
from parfocal.errors import DataError

_FOLDERS = ("", "documents/", "images/", "spdocvqa_images/", "docvqa/images/")
_NATIVE = ("questionId", "docId", "ucsf_document_id", "ucsf_document_page_no", "question_types")


@dataclass
class DocVqaReader(Reader):
    """A Sample a question; its answer is the first, and all of them are in `meta["answers"]`.

    The test split comes without answers: there, a Sample is a question.
    """

    source: ClassVar[str] = "docvqa"
    licence: ClassVar[str] = "research only, after registration (RRC)"
    files: ClassVar[tuple[str, ...]] = ("{train,val,test}_v1.0.json",)

    def samples(self) -> Iterator[Sample]:
        """Yield questions in the order of the file."""
        number = -1
        for number, row in enumerate(json_items(self.paths[0], "data")):
            question, page, answers = _read(row, f"{self.paths[0]}: row {number}")
            name = PurePosixPath(page).name
            placed = self.pictures.place([page, *(f"{folder}{name}" for folder in _FOLDERS)])
            if isinstance(placed, str):
                self.skip(placed)
                continue
            turns = [Turn("user", GroundedText.of(question))]
            turns += [Turn("assistant", GroundedText.of(answer)) for answer in answers[:1]]
            meta: dict[str, JSON] = {"image_key": f"docvqa:{PurePosixPath(page).stem}"}
            meta |= {key: row[key] for key in _NATIVE if row.get(key) is not None}
            if answers:
                meta["answers"] = list(answers)
            yield self.sample(row["questionId"], (placed.ref,), turns=tuple(turns), meta=meta)
        if number < 0:
            raise DataError(f"{self.paths[0]} has no questions under `data`. Is it DocVQA's file?")


def _read(row: Any, where: str) -> tuple[str, str, list[str]]:
    """Question, page and answers of a row."""
    missing = [key for key in ("questionId", "question", "image") if not _has(row, key)]
    if missing:
        raise DataError(f"{where} has no {' and no '.join(missing)}. Is it DocVQA's file?")
    answers = row.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{where}: `answers` is {answers!r}, must be a list of texts.")
    question, page = need_text(where, row, "question"), need_text(where, row, "image")
    return question, page, [answer for answer in answers if answer.strip()]


def _has(row: Any, key: str) -> bool:
    return isinstance(row, dict) and row.get(key) not in (None, "")
