"""Video questions from a folder to a report, with real tiny videos and predictors that are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError, DataError
from parfocal.eval.benchmarks import get_benchmark
from parfocal.eval.benchmarks.video_qa import (
    ANSWERS,
    FOR_JUDGE,
    QUESTIONS,
    JudgeRow,
    read_judge_rows,
    read_video_qa,
    score_video_qa,
    write_judge_rows,
)
from parfocal.eval.predictions import read_predictions
from parfocal.eval.run import rescore, run_benchmark
from parfocal.video import load_video

ASKED: list[dict[str, Any]] = [
    {"question_id": 7, "video_name": "vid1", "question": "what is it?"},
    {"question_id": 8, "video_name": "vid2", "question": "who is it?"},
    {"question_id": 9, "video_name": "vid1", "question": "how many are there?"},
]
ANSWERED: list[dict[str, Any]] = [  # in another order, as they are joined by id
    {"question_id": 9, "answer": "two", "type": 1},
    {"question_id": 7, "answer": "dog", "type": 1},
    {"question_id": 8, "answer": "man", "type": 1},
]
Write = Callable[[Any, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write both files into a folder with two files that are named like videos."""

    def apply(asked: Any = ASKED, answered: Any = ANSWERED) -> Path:
        folder = tmp_path / "data"
        (folder / "videos" / "all").mkdir(parents=True, exist_ok=True)
        for name in ("vid1.avi", "all/vid2.MP4", "all/.vid2.mp4", "all/vid2.txt"):
            (folder / "videos" / name).touch()
        (folder / QUESTIONS).write_text(json.dumps(asked))
        (folder / ANSWERS).write_text(json.dumps(answered))
        return folder

    return apply


@pytest.fixture
def data(write: Write) -> Path:
    """The two files and two videos of different length."""
    from tests.unit.clips import write_clip

    folder = write(ASKED, ANSWERED)
    write_clip(folder / "videos" / "vid1.avi", frames=3)
    write_clip(folder / "videos" / "all" / "vid2.MP4", frames=5, container="mp4")
    return folder


class Watcher:
    """Decodes the video that it is given and answers from a table."""

    name = "watcher"

    def __init__(self, table: dict[str, str]) -> None:
        self.table, self.calls = table, []

    def ask(self, video: Path, question: str) -> Any:
        assert len(load_video(video)) == 8
        text = GroundedText.of(self.table.get(question, ""))
        return SimpleNamespace(question=question, text=text, problems=())

    def ask_batch(self, videos: Sequence[Path], questions: Sequence[str]) -> list[Any]:
        assert len({id(video) for video in videos}) == 1, "one object is encoded once"
        self.calls.append((videos[0].name, list(questions)))
        return [self.ask(*pair) for pair in zip(videos, questions, strict=True)]


PERFECT = {"what is it?": "A dog.", "who is it?": "the Man", "how many are there?": "2"}


def test_questions_are_read_and_joined(write: Write) -> None:
    split = read_video_qa(write(ASKED, ANSWERED))
    found = [(q.id, q.video, q.question, q.answer) for q in split.questions]
    assert found == [
        (7, "vid1", "what is it?", "dog"),
        (8, "vid2", "who is it?", "man"),
        (9, "vid1", "how many are there?", "two"),
    ]
    assert split.questions[0].user_text == "<video>\nwhat is it?"
    assert [path.name for path in split.files.values()] == ["vid1.avi", "vid2.MP4"]
    assert (split.available, len(split.digest)) == (3, 64)


def test_the_limit_counts_videos(write: Write) -> None:
    split = read_video_qa(write(ASKED, ANSWERED), limit=1)
    assert [question.id for question in split.questions] == [7, 9]
    assert (list(split.files), split.available) == (["vid1"], 3)
    with pytest.raises(ConfigError, match="at least 1 video"):
        read_video_qa(write(ASKED, ANSWERED), limit=0)


def test_answers_without_ids_are_joined_by_position(write: Write) -> None:
    bare = [{"answer": answer} for answer in ("dog", "man", "two")]
    split = read_video_qa(write(ASKED, bare))
    assert [question.answer for question in split.questions] == ["dog", "man", "two"]
    with pytest.raises(DataError, match="has 2 answers for the 3 questions"):
        read_video_qa(write(ASKED, bare[:2]))


def test_names_may_have_their_ending_and_files_lie_anywhere(write: Write) -> None:
    folder = write([{**ASKED[0], "video_name": "vid1.avi"}], ANSWERED)
    (folder / "videos").rename(folder / "clips")
    assert read_video_qa(folder).files["vid1.avi"] == folder / "clips" / "vid1.avi"


def changed(row: int, **difference: Any) -> list[Any]:
    return [{**one, **difference} if number == row else one for number, one in enumerate(ASKED)]


BROKEN: dict[str, tuple[Any, Any, str]] = {
    "no list": ({"a": 1}, ANSWERED, r"test_q\.json holds no list"),
    "an empty list": (ASKED, [], r"test_a\.json holds no list"),
    "no object": ([*ASKED, 5], ANSWERED, r"test_q\.json: row 3 is 5, it must be an object"),
    "no id": (changed(1, question_id=None), ANSWERED, r"row 1 has the question_id None"),
    "a truth value as id": (changed(1, question_id=True), ANSWERED, r"has the question_id True"),
    "an id twice": (changed(2, question_id="7"), ANSWERED, r"row 2 has the question_id 7 of an"),
    "no question": (changed(0, question=" "), ANSWERED, r"row 0 has the question ' '"),
    "no video": (changed(0, video_name=3), ANSWERED, r"row 0 has the video_name 3"),
    "no answer": (ASKED, [{**ANSWERED[0], "answer": None}, *ANSWERED[1:]], r"row 0 has the answer"),
    "an answer missing": (ASKED, ANSWERED[:2], r"1 questions of .* have no answer .*first: .*'8'"),
    "a video missing": (changed(0, video_name="x"), ANSWERED, r"1 of 3 videos .*first: 'x'"),
}


@pytest.mark.parametrize(("asked", "answered", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_data_is_explained(write: Write, asked: Any, answered: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_video_qa(write(asked, answered))


def test_broken_folders_are_explained(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"msvd_qa needs its data.*--data DIR"):
        get_benchmark("msvd_qa").load()
    with pytest.raises(DataError, match=r"test_q\.json' cannot be read.*No such file"):
        read_video_qa(tmp_path)
    folder = write(ASKED, ANSWERED)
    (folder / "videos" / "vid1.mp4").touch()
    with pytest.raises(DataError, match=r"'vid1' is there twice: .*vid1\.avi and .*vid1\.mp4"):
        read_video_qa(folder)
    (folder / QUESTIONS).write_text("[")
    with pytest.raises(DataError, match=r"test_q\.json is not JSON"):
        read_video_qa(folder)


@pytest.mark.parametrize("name", ["msvd_qa", "msrvtt_qa"])
def test_a_perfect_run(name: str, data: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", []
    watcher = Watcher(PERFECT)
    report = run_benchmark(
        name, watcher, out, on_progress=lambda *step: told.append(step), data=data
    )
    assert told == [(1, 2), (2, 2)]
    assert watcher.calls == [
        ("vid1.avi", ["what is it?", "how many are there?"]),
        ("vid2.MP4", ["who is it?"]),
    ]
    assert (report["exact_match"], report["exact_match_n"]) == (100.0, 3)
    assert report["invalid_answers"] == 0.0
    assert json.loads((out / FOR_JUDGE).read_text()) == [
        {"id": 7, "question": "what is it?", "answer": "dog", "pred": "A dog."},
        {"id": 8, "question": "who is it?", "answer": "man", "pred": "the Man"},
        {"id": 9, "question": "how many are there?", "answer": "two", "pred": "2"},
    ]
    protocol = report["protocol"]
    assert protocol["judge"].startswith("not run")
    assert protocol["match_rule"].endswith("not the published metric")
    assert protocol["user_text_example"] == "<video>\nwhat is it?"
    assert (protocol["videos"], protocol["questions"]) == (2, 3)
    assert protocol["prompt_examples"] == {"video_qa": "what is it?"}


def test_a_mixed_run_by_hand(data: Path, tmp_path: Path) -> None:
    said = {"what is it?": "a puppy", "how many are there?": "two"}  # and nothing to the third
    report = run_benchmark("msvd_qa", Watcher(said), tmp_path / "out", data=data)
    assert report["exact_match"] == report["invalid_answers"] == 33.33


def test_answers_do_not_depend_on_the_batch_size(data: Path, tmp_path: Path) -> None:
    watcher = Watcher(PERFECT)
    run_benchmark("msvd_qa", watcher, tmp_path / "one", batch_size=1, data=data)
    assert [len(questions) for _, questions in watcher.calls] == [1, 1, 1]
    run_benchmark("msvd_qa", Watcher(PERFECT), tmp_path / "many", data=data)
    files = [tmp_path / name / "predictions.jsonl" for name in ("one", "many")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_can_be_scored_again(data: Path, tmp_path: Path) -> None:
    report = run_benchmark("msvd_qa", Watcher(PERFECT), tmp_path, limit=1, data=data)
    (tmp_path / FOR_JUDGE).unlink()
    assert rescore("msvd_qa", tmp_path, limit=1, data=data) == report
    assert [row.id for row in read_judge_rows(tmp_path / FOR_JUDGE)] == [7, 9]
    predictions = list(read_predictions(tmp_path / "predictions.jsonl"))
    with pytest.raises(DataError, match=r"1 have none .*'8'"):
        score_video_qa(predictions, read_video_qa(data))
    with pytest.raises(DataError, match="two predictions for question '7'"):
        score_video_qa([*predictions, predictions[0]], read_video_qa(data, 1))


def test_a_model_that_watches_and_one_that_does_not(data, tmp_path, tiny_predictor) -> None:
    from parfocal.predict.predictor import Predictor
    from tests.unit.models.builders import build_mg_llava

    watcher = Predictor(*build_mg_llava(), "tiny-watcher")
    report = run_benchmark("msvd_qa", watcher, tmp_path / "out", limit=1, data=data)
    assert (report["protocol"]["model"], report["exact_match_n"]) == ("tiny-watcher", 2)
    with pytest.raises(ConfigError, match="tiny reads one picture at a time"):
        run_benchmark("msvd_qa", tiny_predictor, tmp_path / "no", data=data)
    assert not (tmp_path / "no" / "report.json").exists()


def test_the_file_for_the_judge_survives(tmp_path: Path) -> None:
    rows = [JudgeRow("a", "who?", "man", "caf\u00e9\n"), JudgeRow(2, "what?", "dog", "")]
    path = tmp_path / FOR_JUDGE
    write_judge_rows(rows, path)
    assert read_judge_rows(path) == rows
    path.write_text('[{"id": 1, "question": "q", "answer": "a"}]')
    with pytest.raises(DataError, match=r"for_judge\.json: row 0 has the pred None"):
        read_judge_rows(path)
