"""Open questions about short videos: MSVD-QA and MSRVTT-QA as MG-LLaVA's evaluation asks them.

    DIR/test_q.json   [{"question_id", "video_name", "question"}]
    DIR/test_a.json   [{"question_id", "answer"}]
    DIR/videos/...    files named like the videos; anywhere under DIR where there is no such folder

The published numbers are the share of "yes" of a GPT-3.5 judge (Video-ChatGPT's protocol), which is
not run here: `for_judge.json` holds what it reads. What is scored here is stricter, an exact match
after EvalAI normalisation, and must not be compared with them.

Source: MG-LLaVA official mg_llava/evaluation/video/video_qa_dataset.py and
video_mg_llava_proxy_eval_dataset.py. Deviates: answers are joined by `question_id` where the file
has it, there by position; files are found by name, whatever their ending, there all have the ending
of the first video of the box file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parfocal.data.outputs import atomic_file
from parfocal.errors import ConfigError, DataError
from parfocal.eval.metrics import evalai_match, rate
from parfocal.eval.predictions import Prediction
from parfocal.video import SUFFIXES

if TYPE_CHECKING:
    from parfocal.predict import AnyPredictor

QUESTIONS, ANSWERS, FOR_JUDGE = "test_q.json", "test_a.json", "for_judge.json"
_JUDGE = (
    "not run. Published numbers are the share of 'yes' of GPT-3.5 with Video-ChatGPT's prompt; "
    f"{FOR_JUDGE} holds the rows that such a judge reads"
)


@dataclass(frozen=True)
class VideoQuestion:
    """A question, the video it is about, and the right answer."""

    id: int | str
    video: str
    question: str
    answer: str

    @property
    def user_text(self) -> str:
        """What MG-LLaVA is given: the video, a line end, the question, and no instruction.

        A predictor is given the video and the question and puts them together itself.
        """
        return f"<video>\n{self.question}"


@dataclass(frozen=True)
class JudgeRow:
    """One row of the file that the judge reads: question, right answer, and what the model said."""

    id: int | str
    question: str
    answer: str
    pred: str


@dataclass(frozen=True)
class VideoQaSet:
    """Questions about the videos of one folder.

    Attributes:
        questions: those that were asked for, in the file's order.
        files: the file of each of their videos, by its name, in the order of the first question.
        digest: sha256 over both JSON files whole, whatever the limit was.
        available: number of questions in the file.
    """

    questions: tuple[VideoQuestion, ...]
    files: Mapping[str, Path]
    digest: str
    available: int


@dataclass(frozen=True)
class VideoQaBenchmark:
    """A benchmark of video questions; a change of wording or scoring raises the version."""

    name: str
    version: str = "1"
    bundled: bool = False

    def load(self, limit: int | None = None, data: Path | None = None) -> VideoQaSet:
        """Read the questions about the first so many videos of a folder, and find these videos."""
        if data is None:
            raise ConfigError(
                f"{self.name} needs its data: a folder with {QUESTIONS}, {ANSWERS} and the videos. "
                "Name it with --data DIR, in Python data=DIR."
            )
        return read_video_qa(data, limit)

    def size(self, split: VideoQaSet) -> int:
        """Number of videos."""
        return len(split.files)

    def predict(
        self,
        predictor: AnyPredictor,
        split: VideoQaSet,
        batch_size: int,
        on_image: Callable[[], object],
    ) -> Iterator[Prediction]:
        """Ask all questions, video by video, at most `batch_size` about one video at a time."""
        by_video: dict[str, list[VideoQuestion]] = {}
        for question in split.questions:
            by_video.setdefault(question.video, []).append(question)
        for video, own in by_video.items():
            file = split.files[video]
            for start in range(0, len(own), batch_size):
                part = own[start : start + batch_size]
                words = [question.question for question in part]
                answers = predictor.ask_batch([file] * len(part), words)  # one object: seen once
                for question, answer in zip(part, answers, strict=True):
                    yield _item(question).with_answer(answer)
            on_image()

    def score(self, predictions: Iterable[Prediction], split: VideoQaSet) -> dict[str, Any]:
        """The report's numbers, in percent; see `score_video_qa`."""
        return score_video_qa(predictions, split)

    def protocol(self, split: VideoQaSet) -> dict[str, Any]:
        """Data identity, wording and scoring rules."""
        return {
            "videos": len(split.files),
            "questions": len(split.questions),
            "questions_available": split.available,
            "data_sha256": split.digest,
            "question_rule": "the video and the bare question, without an instruction",
            "user_text_example": split.questions[0].user_text,
            "match_rule": "equal to the answer after EvalAI normalisation, and not empty; not the "
            "published metric",
            "judge": _JUDGE,
            "interval": "95 % percentile bootstrap over videos, 1000 resamples, seed 0",
        }

    def export(self, predictions: Sequence[Prediction], split: VideoQaSet, out: Path) -> None:
        """Write `for_judge.json`, in the order of the questions."""
        said = _by_question(predictions, split)
        rows = [
            JudgeRow(question.id, question.question, question.answer, said[str(question.id)].output)
            for question in split.questions
        ]
        write_judge_rows(rows, out / FOR_JUDGE)


def score_video_qa(predictions: Iterable[Prediction], split: VideoQaSet) -> dict[str, Any]:
    """Exact matches after EvalAI normalisation, and answers that hold nothing.

    Args:
        predictions: exactly one for each question, in any order.
        split: the questions that were asked.

    Returns:
        `exact_match` and `invalid_answers`, each with its count and interval over videos.

    Raises:
        DataError: if a question has no prediction, or two, or a prediction belongs to none.
    """
    said = _by_question(predictions, split)
    videos = [question.video for question in split.questions]
    answers = [said[str(question.id)] for question in split.questions]
    hits = [
        evalai_match(answer.output, [question.answer])
        for question, answer in zip(split.questions, answers, strict=True)
    ]
    invalid = [bool(answer.problems) or not answer.output.strip() for answer in answers]
    matched, broken = rate(hits, videos), rate(invalid, videos)
    return matched.to_flat("exact_match") | broken.to_flat("invalid_answers")


def read_video_qa(folder: Path, limit: int | None = None) -> VideoQaSet:
    """Read the questions and answers of a folder and find the videos.

    Args:
        folder: with `test_q.json`, `test_a.json` and the videos.
        limit: only the questions about the first so many videos.

    Raises:
        ConfigError: if the limit is below 1.
        DataError: if a file is missing or broken, or a video is missing or there twice; the message
            names the file and the row (from 0).
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit is {limit}; it must be at least 1 video.")
    asked, answered = folder / QUESTIONS, folder / ANSWERS
    rows = _read_rows(asked)
    questions = _with_answers(asked, rows, answered, _read_rows(answered))
    names = list(dict.fromkeys(question.video for question in questions))[:limit]
    files = _find_videos(folder, names)
    kept = tuple(question for question in questions if question.video in files)
    digest = hashlib.sha256(asked.read_bytes() + answered.read_bytes()).hexdigest()
    return VideoQaSet(kept, files, digest, len(questions))


def write_judge_rows(rows: Iterable[JudgeRow], path: Path) -> None:
    """Write the file that a judge reads, whole or not at all.

    Source: MG-LLaVA official video_qa_dataset.py, evaluate. Deviates: no.
    """
    listed = [
        {"id": row.id, "question": row.question, "answer": row.answer, "pred": row.pred}
        for row in rows
    ]
    with atomic_file(path) as file:
        file.write(json.dumps(listed).encode("ascii"))


def read_judge_rows(path: Path) -> list[JudgeRow]:
    """The inverse of `write_judge_rows`; also reads what the official code wrote.

    Raises:
        DataError: if the file or a row is broken; the message names the row (from 0).
    """
    keys = ("question", "answer", "pred")
    return [
        JudgeRow(_id(row, where), *(_text(row, key, where) for key in keys))
        for where, row in _read_rows(path)
    ]


_Row = tuple[str, dict[str, Any]]  # where it stands, what it says


def _read_rows(path: Path) -> list[_Row]:
    """The objects of a JSON file's list, each with its place."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise DataError(
            f"{str(path)!r} cannot be read: {err.strerror}. Put the benchmark's {path.name} there, "
            "or name another folder."
        ) from err
    except ValueError as err:
        raise DataError(f"{path} is not JSON: {err}. Fetch it again.") from err
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no list of rows. Fetch it again.")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is {row!r}, it must be an object with keys.")
    return [(f"{path}: row {number}", row) for number, row in enumerate(rows)]


def _with_answers(
    asked: Path, rows: Sequence[_Row], answered: Path, answers: Sequence[_Row]
) -> list[VideoQuestion]:
    """Join by `question_id` where every answer has it, else by position."""
    ids = _unique_ids(rows)
    if all("question_id" in answer for _, answer in answers):
        found = dict(zip(_unique_ids(answers), answers, strict=True))
    elif len(answers) == len(rows):
        found = dict(zip(ids, answers, strict=True))
    else:
        raise DataError(
            f"{answered} has {len(answers)} answers for the {len(rows)} questions of {asked} and "
            "no question_id to join them by. Fetch both files from one place."
        )
    lost = [number for number in ids if number not in found]
    if lost:
        raise DataError(
            f"{len(lost)} questions of {asked} have no answer in {answered} (first: question_id "
            f"{lost[0]!r}). Fetch both files from one place."
        )
    return [
        VideoQuestion(
            row["question_id"],
            _text(row, "video_name", where, blank=False),
            _text(row, "question", where, blank=False),
            _text(found[number][1], "answer", found[number][0]),
        )
        for number, (where, row) in zip(ids, rows, strict=True)
    ]


def _unique_ids(rows: Sequence[_Row]) -> list[str]:
    """The question ids as predictions write them."""
    seen: dict[str, None] = {}
    for where, row in rows:
        number = str(_id(row, where, "question_id"))
        if number in seen:
            raise DataError(f"{where} has the question_id {number} of an earlier row. Keep one.")
        seen[number] = None
    return list(seen)


def _id(row: Mapping[str, Any], where: str, key: str = "id") -> int | str:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where} has the {key} {value!r}; it must be a whole number or a word.")
    return value


def _text(row: Mapping[str, Any], key: str, where: str, blank: bool = True) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise DataError(f"{where} has the {key} {value!r}; it must be words.")
    return value


def _find_videos(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each video; names may come with their ending or without."""
    root = folder / "videos" if (folder / "videos").is_dir() else folder
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            for key in (path.name, path.stem):
                found.setdefault(key, []).append(path)
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} videos are not under {str(root)!r} (first: "
            f"{missing[0]!r}, with any ending of {' '.join(SUFFIXES)}). Put them there."
        )
    for name in names:
        if len(found[name]) > 1:
            raise DataError(
                f"the video {name!r} is there twice: {found[name][0]} and {found[name][1]}. "
                "Move one away."
            )
    return {name: found[name][0] for name in names}


def _item(question: VideoQuestion) -> Prediction:
    return Prediction(str(question.id), question.video, "video_qa", question.question)


def _by_question(predictions: Iterable[Prediction], split: VideoQaSet) -> dict[str, Prediction]:
    """Predictions by question id; complete, or an error."""
    expected = {str(question.id) for question in split.questions}
    found: dict[str, Prediction] = {}
    for prediction in predictions:
        if prediction.id in found:
            raise DataError(
                f"there are two predictions for question {prediction.id!r}. Keep one line each."
            )
        found[prediction.id] = prediction
    missing, unknown = sorted(expected - found.keys()), sorted(found.keys() - expected)
    if missing or unknown:
        raise DataError(
            f"the predictions do not fit the {len(expected)} questions: {len(missing)} have none "
            f"(first: {missing[:1]}), {len(unknown)} belong to no question (first: {unknown[:1]}). "
            "Score with the data, and the limit, that the predictions were made with."
        )
    return found
