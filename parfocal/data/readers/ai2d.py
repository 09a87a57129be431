"""AI2D: questions with four options about diagrams of schoolbooks.

    ai2d/images/1.png   ai2d/questions/1.png.json   ai2d_test_ids.csv
    ai2d/abc_images/1.png   the same diagrams with letters painted over their labels

A file of questions is {"imageName", "questions": {words: {"questionId", "answerTexts",
"correctAnswer", "abcLabel"}}}. Where `abcLabel` is set, the options are those letters, so that the
question is about the picture in `abc_images`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader
from parfocal.data.readers.pictures import Pictures
from parfocal.data.readers.stream import json_value
from parfocal.data.sample import Sample, Turn
from parfocal.dialects import GroundedText
from parfocal.errors import ConfigError, DataError

_TEST_IDS = "ai2d_test_ids.csv"
_NUMBER = re.compile(r"[0-9]+")


@dataclass
class Ai2dReader(Reader):
    """A Sample a question: its words and a line an option, and the letter of the right one.

    Pictures are looked for in the folder itself, if no other is given.

    Args:
        split: "train" or "test", for which the list of test ids is needed; "" for all.
        test_ids: the list, `ai2d_test_ids.csv`; looked for in the folder, if not given.
        lettered: the folder of the pictures with letters painted on, for questions about letters.
    """

    source: ClassVar[str] = "ai2d"
    licence: ClassVar[str] = "pictures of schoolbooks, mixed rights: check the card"
    files: ClassVar[tuple[str, ...]] = ("the folder ai2d, or its folder questions",)

    test_ids: str | Path | None = None
    lettered: str = "abc_images"

    def __post_init__(self) -> None:
        """Find the questions, the pictures, and which are for testing."""
        super().__post_init__()
        given = self.paths[0]
        self._root = given if (given / "questions").is_dir() else given.parent
        self._questions = given / "questions" if self._root == given else given
        if self.images is None:
            self.pictures = Pictures(self._root)
        if self.split not in ("train", "test", ""):
            raise ConfigError(
                f"split is {self.split!r}; AI2D has 'train' and 'test', and '' is all of it."
            )
        self._test = self._read_test_ids() if self.split else frozenset()
        if self.test_ids is not None and not self.split:
            raise ConfigError(
                f"split is {self.split!r} and test_ids is given; say which part of AI2D is wanted: "
                "split='train' or split='test'."
            )

    def samples(self) -> Iterator[Sample]:
        """Yield questions, diagrams in the order of their numbers."""
        files = sorted(self._questions.glob("*.json"), key=_order)
        if not files:
            raise DataError(f"{self._questions} holds no questions (*.json). Is it AI2D's folder?")
        for file in files:
            if self.split and (file.name.partition(".")[0] in self._test) != (self.split == "test"):
                continue
            content = json_value(file)
            questions = content.get("questions") if isinstance(content, dict) else None
            if not isinstance(questions, dict) or not isinstance(content.get("imageName"), str):
                raise DataError(f"{file} has no `imageName` and `questions`. Is it AI2D's?")
            for words, row in questions.items():
                sample = self._sample(words, row, content["imageName"], file)
                if sample is not None:
                    yield sample

    def _sample(self, words: str, row: Any, picture: str, file: Path) -> Sample | None:
        options, right = _read_options(row, f"{file}: {words!r}")
        about_letters = bool(row.get("abcLabel"))
        folder = self.lettered if about_letters else "images"
        names = [f"{folder}/{picture}", f"ai2d/{folder}/{picture}"]
        placed = self.pictures.place(names if about_letters else [*names, picture])
        if isinstance(placed, str):
            self.skip(f"{placed}, with letters painted on" if about_letters else placed)
            return None
        lines = [f"{ascii_uppercase[k]}. {option}" for k, option in enumerate(options)]
        turns = (
            Turn("user", GroundedText.of("\n".join([words, *lines]))),
            Turn("assistant", GroundedText.of(ascii_uppercase[right])),
        )
        return self.sample(
            row["questionId"],
            (placed.ref,),
            turns=turns,
            meta={
                "image_key": f"ai2d:{PurePosixPath(picture).stem}",
                "question": words,
                "options": list(options),
                "answer": right,
                "about_letters": about_letters,
            },
        )

    def _read_test_ids(self) -> frozenset[str]:
        path = Path(self.test_ids) if self.test_ids is not None else self._root / _TEST_IDS
        try:
            lines = path.read_text("utf-8").split()
        except OSError as err:
            raise ConfigError(
                f"split {self.split!r} needs the list of test ids, and {path} cannot be read: "
                f"{err.strerror}. Give test_ids=..., or split='' for all diagrams."
            ) from err
        return frozenset(line.partition(".")[0] for line in lines)


def _order(file: Path) -> tuple[int, str]:
    number = _NUMBER.match(file.name)
    return (int(number[0]) if number else -1, file.name)


def _read_options(row: Any, where: str) -> tuple[list[str], int]:
    """Options of a question, and the index of the right one."""
    options = row.get("answerTexts") if isinstance(row, dict) else None
    right = row.get("correctAnswer") if isinstance(row, dict) else None
    if not isinstance(options, list) or not 2 <= len(options) <= len(ascii_uppercase):
        raise DataError(f"{where} has the options {options!r}, must be a list of two or more.")
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(options):
        raise DataError(
            f"{where} has the right answer {right!r}, must be an index from 0 to "
            f"{len(options) - 1}."
        )
    if not row.get("questionId"):
        raise DataError(f"{where} has no `questionId`.")
    return [str(option) for option in options], right
