"""The scenes benchmark: perfect answers score 100, garbage 0, and nothing depends on batch size."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parfocal.errors import ConfigError, DataError, ImageError
from parfocal.eval.benchmarks import BENCHMARKS, get_benchmark
from parfocal.eval.benchmarks.scenes import predict_scenes
from parfocal.eval.benchmarks.scenes_score import object_size, score_scenes
from parfocal.eval.predictions import Prediction
from parfocal.eval.scenes import SceneSet, load_scenes

RATES = (
    "rec_acc_50",
    "rec_acc_75",
    "rec_unique_50",
    "rec_twins_50",
    "name_exact",
    "proposal_recall_50",
    "proposal_recall_75",
    "caption_precision",
    "caption_recall",
    "caption_f1",
    "absent_rejection",
    "count_exact",
)
Change = Callable[[Callable[[list[dict[str, Any]]], object]], Path]


def score(predictor: Any, split: SceneSet) -> dict[str, Any]:
    return score_scenes(predict_scenes(predictor, split, batch_size=2), split.scenes)


def test_perfect_answers_score_100(oracle: Any, scene_set: SceneSet) -> None:
    report = score(oracle, scene_set)
    assert {key: report[key] for key in RATES} == dict.fromkeys(RATES, 100.0)
    assert (report["false_rejection"], report["invalid_answers"]) == (0.0, 0.0)
    assert report["proposals_per_image"] == 2.0


def test_a_task_that_a_predictor_refuses_is_left_out(
    oracle: Any, scene_set: SceneSet, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def refuse(*words: Any, **options: Any) -> Any:
        raise ConfigError("oracle cannot")

    monkeypatch.setattr(logging.getLogger("parfocal"), "propagate", True)  # the CLI turns it off
    for verb in ("propose_batch", "describe_batch", "describe_regions_batch"):
        monkeypatch.setattr(oracle, verb, refuse)
    report = score(oracle, scene_set)
    assert report["not_asked"] == ["propose", "name", "caption"]
    none = {key for key in RATES if report[key] is None}
    assert none == {key for key in RATES if key.startswith(("propos", "caption", "name"))}
    assert {report[key] for key in RATES if key not in none} == {100.0}
    assert {record.args[0] for record in caplog.records} == set(report["not_asked"])
    monkeypatch.setattr(oracle, "locate_batch", refuse)
    monkeypatch.setattr(oracle, "ask_batch", refuse)
    with pytest.raises(DataError, match="do not fit"):
        score(oracle, scene_set)


def test_garbage_scores_0(garbage: Any, scene_set: SceneSet) -> None:
    report = score(garbage, scene_set)
    assert {key: report[key] for key in RATES} == dict.fromkeys(RATES, 0.0)


def test_counts_and_random_twin_are_as_worked_by_hand(oracle: Any, scene_set: SceneSet) -> None:
    report = score(oracle, scene_set)
    counted = {key: report[f"{key}_n"] for key in (*RATES, "false_rejection", "invalid_answers")}
    assert counted == {
        "rec_acc_50": 4,
        "rec_acc_75": 4,
        "rec_unique_50": 2,
        "rec_twins_50": 2,
        "name_exact": 3,
        "proposal_recall_50": 4,
        "proposal_recall_75": 4,
        "caption_precision": 4,
        "caption_recall": 4,
        "caption_f1": 2,
        "absent_rejection": 3,
        "count_exact": 3,
        "false_rejection": 4,
        "invalid_answers": 4 + 3 + 3 + 3 + 2,
    }
    assert report["rec_twins_random_50"] == 50.0  # two apples, each twin expression has 1 in 2
    assert report["rec_acc_50_low"] == report["rec_acc_50_high"] == 100.0


def test_breakdowns(oracle: Any, scene_set: SceneSet) -> None:
    report = score(oracle, scene_set)
    relations = {name: row["rec_acc_50_n"] for name, row in report["by_relation"].items()}
    assert relations == {"name only": 2, "leftmost": 1, "largest": 1}
    sizes = {name: row["rec_acc_50_n"] for name, row in report["by_size"].items()}
    assert sizes == {"medium": 2, "large": 2}
    absences = {name: row["absent_rejection_n"] for name, row in report["by_absence"].items()}
    assert absences == {"other": 2, "near": 1}
    first = scene_set.scenes[0]  # 400, 1600 and 400 of 8000 pixels
    assert [object_size(first, index) for index in range(3)] == ["medium", "large", "medium"]


def one_wrong(predictions: list[Prediction], id: str, **changes: Any) -> list[Prediction]:
    assert any(prediction.id == id for prediction in predictions)
    return [replace(p, **changes) if p.id == id else p for p in predictions]


def test_saying_none_is_a_miss_and_a_false_rejection(oracle: Any, scene_set: SceneSet) -> None:
    answers = list(predict_scenes(oracle, scene_set))
    changed = one_wrong(answers, "s0/locate/0", phrases=(), nothing=True, output="none")
    report = score_scenes(changed, scene_set.scenes)
    assert (report["rec_acc_50"], report["rec_unique_50"], report["rec_twins_50"]) == (75, 50, 100)
    assert (report["false_rejection"], report["invalid_answers"]) == (25.0, 0.0)


def test_a_boxless_answer_is_invalid_but_rejects_nothing(oracle: Any, scene_set: SceneSet) -> None:
    answers = list(predict_scenes(oracle, scene_set))
    changed = one_wrong(answers, "s0/absent/1", nothing=False, output="it is there")
    report = score_scenes(changed, scene_set.scenes)
    assert report["absent_rejection"] == pytest.approx(66.67)
    assert report["invalid_answers"] == pytest.approx(100 / 15, abs=0.01)


def test_a_problem_makes_an_answer_invalid(oracle: Any, scene_set: SceneSet) -> None:
    answers = list(predict_scenes(oracle, scene_set))
    changed = one_wrong(answers, "s1/caption/0", problems=(("unknown_region", "<r99>"),))
    report = score_scenes(changed, scene_set.scenes)
    assert report["invalid_answers"] == pytest.approx(100 / 15, abs=0.01)
    assert report["caption_f1"] == 100.0


def test_predictions_do_not_depend_on_batch_size(oracle: Any, scene_set: SceneSet) -> None:
    runs = [list(predict_scenes(oracle, scene_set, size)) for size in (1, 2, 3, 100)]
    assert all(run == runs[0] for run in runs)
    assert [p.id for p in runs[0]][:5] == [
        "s0/propose/0",
        "s0/locate/0",
        "s0/locate/1",
        "s0/locate/2",
        "s0/absent/0",
    ]
    assert [p.image for p in runs[0]] == ["s0"] * 10 + ["s1"] * 7


@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_regions_of_a_picture_are_named_together(
    oracle: Any, scene_set: SceneSet, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    describe, counts = oracle.describe_regions_batch, []

    def spy(images: Any, boxes: Any) -> Any:
        counts.extend(map(len, boxes))
        return describe(images, boxes)

    monkeypatch.setattr(oracle, "describe_regions_batch", spy)
    list(predict_scenes(oracle, scene_set, size))
    assert counts == [len(scene.regions) for scene in scene_set.scenes]
    assert max(counts) > 1


def test_questions_are_asked_in_full_batches(oracle: Any, scene_set: SceneSet) -> None:
    list(predict_scenes(oracle, scene_set, 3))
    assert [size for task, size in oracle.calls if task == "locate"] == [3, 1, 3]


def test_progress_is_told_for_every_scene(oracle: Any, scene_set: SceneSet) -> None:
    told: list[int] = []
    list(predict_scenes(oracle, scene_set, 1, lambda: told.append(1)))
    assert len(told) == 2


def test_scoring_does_not_care_for_the_order_of_lines(oracle: Any, scene_set: SceneSet) -> None:
    answers = list(predict_scenes(oracle, scene_set))
    assert score_scenes(answers[::-1], scene_set.scenes) == score_scenes(answers, scene_set.scenes)


def test_incomplete_double_or_foreign_predictions_are_refused(
    oracle: Any, scene_set: SceneSet
) -> None:
    answers = list(predict_scenes(oracle, scene_set))
    with pytest.raises(DataError, match=r"1 items have none .*'s1/caption/0'"):
        score_scenes(answers[:-1], scene_set.scenes)
    with pytest.raises(DataError, match="two predictions for 's0/propose/0'"):
        score_scenes([*answers, answers[0]], scene_set.scenes)
    with pytest.raises(DataError, match="7 belong to no item"):
        score_scenes(answers, scene_set.scenes[:1])


def test_limit_takes_the_first_scenes_and_keeps_the_digest(scenes_folder: Path) -> None:
    whole, first = load_scenes(scenes_folder), load_scenes(scenes_folder, limit=1)
    assert [scene.id for scene in first.scenes] == ["s0"]
    assert (first.available, first.digest) == (2, whole.digest)
    with pytest.raises(ConfigError, match="the limit is 0"):
        load_scenes(scenes_folder, limit=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].pop("counts"), "jsonl:2 .*'counts' is missing"),
        (lambda rows: rows[1].update(id="s0"), "jsonl:2 .*'s0' appears twice"),
        (lambda rows: rows[0].update(id="a/b"), "jsonl:1 .*has a slash"),
        (lambda rows: rows[0].update(objects=[]), "jsonl:1 .*no objects"),
        (lambda rows: rows[0]["objects"][0].update(xyxy=[20, 0, 0, 20]), "jsonl:1 .*x2 < x1"),
        (lambda rows: rows[0]["objects"][1].update(xyxy=[60, 0, 101, 40]), "leaves the picture"),
        (lambda rows: rows[0]["expressions"][0].update(target=3), "object 3 does not exist"),
        (lambda rows: rows[0]["expressions"][0].update(kind="odd"), "kind 'odd' is not one of"),
        (lambda rows: rows[0]["expressions"][1].update(kind="unique"), "is called unique"),
        (lambda rows: rows[0]["counts"][0].update(n=3), "the count of 'apple' is 3"),
        (lambda rows: rows[0].update(regions=[9]), "object 9 does not exist"),
        (lambda rows: rows.clear(), "holds no scene"),
    ],
)
def test_broken_scenes_name_file_and_line(rewrite: Change, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_scenes(rewrite(change))


def test_broken_files_are_named(scenes_folder: Path) -> None:
    (scenes_folder / "scenes.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="is not a zip file"):
        load_scenes(scenes_folder)
    (scenes_folder / "scenes.zip").unlink()
    with pytest.raises(DataError, match=r"there is no scenes\.zip"):
        load_scenes(scenes_folder)
    (scenes_folder / "scenes.jsonl").write_text("{]\n")
    (scenes_folder / "scenes.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"scenes\.jsonl:1 is not a scene"):
        load_scenes(scenes_folder)


def test_pictures_must_be_there_and_have_the_stated_size(rewrite: Change) -> None:
    split = load_scenes(rewrite(lambda rows: rows[1].update(file="gone.webp")))
    with pytest.raises(ImageError, match=r"gone\.webp cannot be read"):
        split.open(split.scenes)
    split = load_scenes(rewrite(lambda rows: rows[1].update(width=70)))
    with pytest.raises(ImageError, match=r"has 60x60 pixels, scenes\.jsonl says 70x60"):
        split.open(split.scenes)


def test_unknown_benchmark_lists_the_names() -> None:
    with pytest.raises(ConfigError, match=r"no benchmark 'coco'\. The benchmarks are: .*scenes"):
        get_benchmark("coco")
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())
