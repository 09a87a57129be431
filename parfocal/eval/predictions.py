"""What a predictor answered, one JSON object a line: the only thing that scores are computed from.

Boxes are xyxy in pixels of the decoded picture. A phrase without boxes keeps its place, "there is
none" is its own flag, and the problems that parsing met travel along, so that a wrong answer and an
unreadable one stay different things.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parfocal.boxes import Boxes, Frame
from parfocal.errors import DataError

if TYPE_CHECKING:
    from parfocal.predict import Answer

logger = logging.getLogger(__name__)

_DIGITS = 3  # of a pixel or of a score; a thousandth of a pixel changes no overlap that matters


@dataclass(frozen=True)
class PredictedPhrase:
    """Words and the boxes that they were tied to.

    Attributes:
        text: the phrase; "" for bare boxes.
        xyxy: N boxes in pixels.
        scores: N confidences, or None where the predictor gave none.
    """

    text: str
    xyxy: tuple[tuple[float, ...], ...] = ()
    scores: tuple[float | None, ...] = ()

    @classmethod
    def from_boxes(cls, text: str, boxes: Boxes) -> PredictedPhrase:
        """Take over the boxes, rounded to a thousandth of a pixel."""
        scores = [None] * len(boxes) if boxes.scores is None else [float(s) for s in boxes.scores]
        return cls(
            text,
            tuple(tuple(round(float(value), _DIGITS) for value in row) for row in boxes.xyxy),
            tuple(None if score is None else round(score, _DIGITS) for score in scores),
        )

    def boxes(self, frame: Frame) -> Boxes:
        """The boxes, without scores, in the frame of their picture."""
        return Boxes(list(self.xyxy), frame) if self.xyxy else Boxes.empty(frame)


@dataclass(frozen=True)
class Prediction:
    """One answer to one item of a benchmark.

    Attributes:
        id: of the item, unique in the file.
        image: id of the picture; intervals resample these.
        task: what was asked, in the benchmark's words.
        input: the expression or question, the box to be named, or "" where the picture alone is the
            input.
        prompt: the words that the model was given.
        output: the answer as a person reads it.
        phrases: phrases with their boxes, in the order of the answer.
        nothing: the answer says "there is none".
        problems: (kind, detail) of what could not be read in the model's output.
    """

    id: str
    image: str
    task: str
    input: str | tuple[float, ...]
    prompt: str = ""
    output: str = ""
    phrases: tuple[PredictedPhrase, ...] = ()
    nothing: bool = False
    problems: tuple[tuple[str, str], ...] = ()

    def with_answer(self, answer: Answer) -> Prediction:
        """This item with what a predictor answered."""
        question = answer.question
        return replace(
            self,
            prompt=question if isinstance(question, str) else question.plain,
            output=answer.text.plain,
            phrases=tuple(PredictedPhrase.from_boxes(p.text, p.boxes) for p in answer.text.phrases),
            nothing=answer.text.is_nothing,
            problems=tuple((problem.kind, problem.detail) for problem in answer.problems),
        )

    def boxes(self, frame: Frame) -> Boxes:
        """All boxes of the answer in order."""
        return Boxes.concat([Boxes.empty(frame), *(phrase.boxes(frame) for phrase in self.phrases)])

    def to_json(self) -> dict[str, Any]:
        """A dict for one line of the file."""
        row = asdict(self)
        row["phrases"] = [
            {
                "text": phrase.text,
                "boxes": [
                    {"xyxy": list(xyxy), "score": score}
                    for xyxy, score in zip(phrase.xyxy, phrase.scores, strict=True)
                ],
            }
            for phrase in self.phrases
        ]
        row["problems"] = [{"kind": kind, "detail": detail} for kind, detail in self.problems]
        return row

    @classmethod
    def from_json(cls, row: Any, where: str = "prediction") -> Prediction:
        """The inverse of `to_json`.

        Raises:
            DataError: if the row is not a prediction; the message starts with `where`.
        """
        try:
            given = row["input"]
            return cls(
                id=str(row["id"]),
                image=str(row["image"]),
                task=str(row["task"]),
                input=given if isinstance(given, str) else tuple(float(v) for v in given),
                prompt=str(row["prompt"]),
                output=str(row["output"]),
                phrases=tuple(
                    PredictedPhrase(
                        str(phrase["text"]),
                        tuple(tuple(float(v) for v in box["xyxy"]) for box in phrase["boxes"]),
                        tuple(box["score"] for box in phrase["boxes"]),
                    )
                    for phrase in row["phrases"]
                ),
                nothing=bool(row["nothing"]),
                problems=tuple((str(p["kind"]), str(p["detail"])) for p in row["problems"]),
            )
        except (KeyError, TypeError, ValueError) as err:
            raise DataError(
                f"{where} is not a prediction ({type(err).__name__}: {err}). A prediction has id, "
                "image, task, input, "
                "prompt, output, phrases, nothing and problems, as `parfocal eval` writes them."
            ) from err


def write_predictions(predictions: Iterable[Prediction], path: Path) -> int:
    """Write a file of predictions as they come; returns the number of lines.

    Until the last one the file is called `NAME.partial`. It stays where asking ends early, unless
    nothing was answered, and a warning names it; what an earlier time left gets a number.
    """
    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        kept = numbered(partial)
        os.replace(partial, kept)
        logger.warning("what was answered before is now in %s", kept)
    count = 0
    try:
        with partial.open("w", encoding="ascii", newline="\n", buffering=1) as file:
            for prediction in predictions:
                file.write(json.dumps(prediction.to_json(), allow_nan=False) + "\n")
                count += 1
    except BaseException:  # an interrupt too: hours of answers may be there already
        if count:
            logger.warning("asking ended early; the %d answers so far are in %s", count, partial)
        else:
            partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    return count


def numbered(path: Path) -> Path:
    """The first name with a number behind it that no file has."""
    names = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Read a file of predictions.

    Raises:
        DataError: if the file is missing or a line is broken; the message names file and line.
    """
    if not path.is_file():
        raise DataError(
            f"there is no prediction file {str(path)!r}. Make one with `parfocal eval`."
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as err:
                raise DataError(f"{where} is not JSON: {err}. Each line is one object.") from err
            yield Prediction.from_json(row, where)
