"""Whole runs of the tiny model, in this process: folders, refusals, and resuming bit for bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.readers.scenes import SceneReader
from parfocal.errors import ConfigError, DataError, TrainingError
from parfocal.recipes import accelerate_file
from parfocal.train import run
from parfocal.train.checkpoints import newest
from parfocal.train.context import StageContext
from parfocal.train.detection import DetectionObjective
from parfocal.train.language import LanguageObjective
from parfocal.train.recipe import Optim, Recipe, Stage
from parfocal.train.run import start_run
from parfocal.train.runtime import Runtime
from tests.unit.train.drawn import write_drawn

ROOT = Path(run.__file__).parents[2]
OPTIM = Optim(lr=3e-3, warmup_steps=2)
FIND = Stage(
    "find", "detection", ("vision", "proposer", "regions.pool", "regions.flatten"), samples=12,
    batch_size=2, optim=OPTIM, eval_samples=0,
)  # fmt: skip
TALK = Stage(
    "talk", "language", ("projector", "regions.position", "regions.lift", "text"), samples=12,
    batch_size=2, optim=OPTIM, eval_samples=0,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("in_process")


def recipe_of(*stages: Stage) -> Recipe:
    return Recipe("demo", "tiny", stages, sides=(64,), seed=5, bf16=False)


@pytest.fixture
def start(tiny_parts):
    """Train a recipe of the tiny model into a folder."""
    config, processor = tiny_parts

    def begin(recipe: Recipe, out, resume: bool = False):
        return start_run(
            recipe, config, processor, out, resume=resume, runtime=Runtime(processes=1)
        )

    return begin


class CrashError(Exception):
    """What stands for a crash."""


def interrupt(monkeypatch, objective: type, call: int) -> None:
    """Make the objective fail at its n-th forward pass."""
    original, calls = objective.forward, []

    def forward(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise CrashError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(objective, "forward", forward)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert not differing


def test_a_run_leaves_everything_it_needs(start, tmp_path):
    stage = dataclasses.replace(FIND, samples=4, eval_samples=2)
    recipe = recipe_of(stage)
    model = start(recipe, tmp_path)
    assert model == tmp_path / "model"
    assert Recipe.from_json((tmp_path / "recipe.json").read_text(encoding="utf-8")) == recipe
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["libraries"]["torch"] == torch.__version__.partition("+")[0]
    assert record["data"]["find"]["count"] == 4
    for folder in ("start", "model"):
        assert (tmp_path / folder / "config.json").is_file()
        assert (tmp_path / folder / "parfocal_processor.json").is_file()
    assert {value.dtype for value in weights(model).values()} <= {torch.bfloat16, torch.int64}
    lines = (tmp_path / "find" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert last["step"] == 2
    assert last["eval_samples"] == 2
    assert 0 <= last["proposal_recall_50"] <= 100


def test_the_same_recipe_gives_the_same_model_and_another_seed_another(start, tmp_path):
    recipe = recipe_of(dataclasses.replace(FIND, samples=4))
    one, other = (start(recipe, tmp_path / name) for name in ("one", "other"))
    assert_same(weights(one), weights(other))
    reseeded = start(dataclasses.replace(recipe, seed=6), tmp_path / "reseeded")
    assert any(not torch.equal(v, weights(reseeded)[k]) for k, v in weights(one).items())


def test_stages_see_different_scenes(start, tmp_path, monkeypatch):
    seen: list[tuple[str, int]] = []
    original = SceneReader.__getitem__

    def watch(self, index):
        seen.append((self.split, index))
        return original(self, index)

    monkeypatch.setattr(SceneReader, "__getitem__", watch)
    first, second = (dataclasses.replace(FIND, name=name, samples=4) for name in ("one", "two"))
    monkeypatch.setattr(run, "data_fingerprint", lambda *parts: {})  # it looks as well
    start(recipe_of(first, second), tmp_path)
    assert sorted(seen[:4]) == [("train", index) for index in range(4)]
    assert sorted(seen[4:]) == [("train", index) for index in range(4, 8)]


@pytest.fixture
def no_training(monkeypatch):
    """Runs that only begin."""
    launched = []
    monkeypatch.setattr(run, "launch", lambda out, processes, command: launched.append(processes))
    return launched


def leave_weights(folder) -> None:
    """Let a stage, or any folder, look as if it held weights."""
    folder.mkdir()
    (folder / "model.safetensors").touch()


def test_an_existing_run_is_not_overwritten(start, tmp_path, no_training):
    start(recipe_of(FIND), tmp_path)
    before = (tmp_path / "recipe.json").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        start(recipe_of(FIND), tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        start(recipe_of(TALK), tmp_path)
    assert (tmp_path / "recipe.json").read_bytes() == before
    assert no_training == [1]
    start(recipe_of(FIND), tmp_path, resume=True)
    assert no_training == [1, 1]


@pytest.mark.parametrize("name", ["model", "eval", "find"])
def test_a_folder_of_other_things_is_not_written_over(start, tmp_path, no_training, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"no folder of a run, .* what is in it: {name}. Choose"):
        start(recipe_of(FIND), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not no_training


@pytest.mark.parametrize("name", ["start", "run.json", "runtime.json", "accelerate.yaml"])
def test_what_somebody_else_left_is_not_written_over(start, tmp_path, no_training, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"what is in it: {name}"):
        start(recipe_of(FIND), tmp_path)
    assert not no_training


def test_a_run_that_was_cut_off_before_it_began_begins_again(start, tmp_path, no_training):
    (tmp_path / "run.lock").touch()
    (tmp_path / "start").mkdir()
    (tmp_path / "accelerate.yaml").write_text("distributed_type: FSDP")
    start(recipe_of(FIND), tmp_path)
    assert no_training == [1]
    assert not (tmp_path / "accelerate.yaml").exists()


def test_a_run_goes_on_with_the_processes_it_had(tiny_parts, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(run, "launch", lambda out, processes, command: commands.append(command))
    recipe, own = recipe_of(FIND), tmp_path / "own.yaml"
    own.write_text("distributed_type: MULTI_GPU\n", encoding="utf-8")
    out = tmp_path / "out"
    start_run(recipe, *tiny_parts, out, accelerate=own, runtime=Runtime(processes=2))
    own.unlink()
    start_run(recipe, *tiny_parts, out, resume=True)
    assert commands[0] == commands[1]
    assert "--num_processes" in commands[0]
    assert str(out / "accelerate.yaml") in commands[0]
    start_run(recipe, *tiny_parts, out, resume=True, runtime=Runtime(processes=1))
    assert commands[2] != commands[0]


def test_a_folder_in_which_a_worker_trains_is_left_as_it_is(tiny_parts, tmp_path, no_training):
    recipe = recipe_of(FIND)
    start_run(recipe, *tiny_parts, tmp_path, runtime=Runtime(processes=1))
    before = (tmp_path / "runtime.json").read_bytes()
    hold = "import sys; from pathlib import Path; from parfocal.train import processes as here\n"
    hold += "with here.sole_run(Path(sys.argv[1]), here.LOCKS[1]):\n"
    hold += "    print('held', flush=True); sys.stdin.read()"
    command, pipe = [sys.executable, "-c", hold, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as worker:
        assert worker.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another process trains in"):
            start_run(recipe, *tiny_parts, tmp_path, resume=True, runtime=Runtime(processes=2))
        worker.communicate()
    assert (tmp_path / "runtime.json").read_bytes() == before
    assert no_training == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trainable": ("text", "projecter")}, "stage 'talk' trains 'projecter'"),
        ({"optim": Optim(lr_factors={"txet": 1.0})}, "lr_factors name 'txet'"),
        ({"optim": Optim(muon=("regions.balance",))}, "muon name"),
        ({"batch_size": 3}, "batch size 3 is not a multiple of 2 processes"),
    ],
    ids=["trainable", "lr_factors", "muon", "batch"],
)
def test_a_later_stage_is_checked_before_the_first_trains(
    tiny_parts, tmp_path, no_training, change, words
):
    recipe = recipe_of(FIND, dataclasses.replace(TALK, **change))
    with pytest.raises(ConfigError, match=words):
        start_run(recipe, *tiny_parts, tmp_path / "out", runtime=Runtime(processes=2))
    assert not no_training
    assert not (tmp_path / "out").exists()  # so that the recipe may be mended


def test_what_fsdp_cannot_divide_is_refused_before_the_first_stage(
    start, tiny_parts, tmp_path, no_training, monkeypatch
):
    held = dataclasses.replace(TALK, first_row=3, optim=Optim(weight_decay=0.0))
    fsdp, words = accelerate_file("fsdp"), "'talk' cannot train with FSDP or DeepSpeed: some"
    with pytest.raises(ConfigError, match=words):
        start_run(
            recipe_of(FIND, held),
            *tiny_parts,
            tmp_path / "out",
            accelerate=fsdp,
            runtime=Runtime(processes=1),
        )
    assert not (tmp_path / "out").exists()
    start(recipe_of(FIND, held), tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="stage 'talk' cannot train with FSDP or DeepSpeed: some"):
        run.work(tmp_path)
    assert not (tmp_path / "find").exists()


def test_what_a_stage_is_scored_on_is_opened_before_another_trains(
    tiny_parts, tmp_path, no_training
):
    mixture = Mixture((MixtureSource("rows", write_drawn(tmp_path, 2)),))
    missing = Mixture((MixtureSource("rows", "missing.jsonl"),))
    stage = dataclasses.replace(
        TALK, mixture=mixture, eval_mixture=missing, eval_samples=2, alignment_weight=0.5
    )
    runtime = Runtime(data=str(tmp_path), processes=1)
    with pytest.raises(ConfigError, match=r"'talk': eval_mixture: .*missing\.jsonl"):
        start_run(recipe_of(FIND, stage), *tiny_parts, tmp_path / "out", runtime=runtime)
    assert not no_training


def test_a_stage_that_is_done_is_not_checked_again(start, tiny_parts, tmp_path, no_training):
    recipe = recipe_of(FIND, TALK)
    start(recipe, tmp_path)
    for name in ("find", "talk"):
        leave_weights(tmp_path / name)
    start_run(
        recipe, *tiny_parts, tmp_path, resume=True, runtime=Runtime(processes=4)
    )  # a batch is 2
    assert no_training == [1, 4]


def test_a_folder_may_hold_a_log(start, tmp_path, no_training):
    (tmp_path / "train.log").touch()
    start(recipe_of(FIND), tmp_path)
    assert no_training == [1]


def test_the_model_answers_with_the_settings_of_its_recipe(start, tmp_path):
    stage = dataclasses.replace(FIND, samples=2)
    model = start(dataclasses.replace(recipe_of(stage), generation={"num_beams": 4}), tmp_path)
    assert GenerationConfig.from_pretrained(model).num_beams == 4


def test_a_stage_leaves_the_mean_of_its_first_and_last_weights(start, tmp_path):
    plain = dataclasses.replace(TALK, samples=4)
    mixed = dataclasses.replace(plain, start_share=0.25)
    for name, stage in (("plain", plain), ("mixed", mixed)):
        start(recipe_of(dataclasses.replace(FIND, samples=4), stage), tmp_path / name)
    first = weights(tmp_path / "plain" / "find")
    last = weights(tmp_path / "plain" / "talk")
    kept = weights(tmp_path / "mixed" / "talk")
    trained = [name for name in first if not torch.equal(first[name], last[name])]
    assert len(trained) > 5  # tied tables are among them, and are mixed once
    for name in first:
        want = last[name]
        if name in trained:
            want = 0.25 * first[name].double() + 0.75 * last[name].double()
        assert torch.allclose(kept[name].double(), want.double(), rtol=0, atol=1e-6), name


def test_settings_that_generate_does_not_know_are_refused_before_training(
    start, tmp_path, no_training
):
    misspelt = dataclasses.replace(recipe_of(FIND), generation={"num_beam": 4})
    with pytest.raises(ConfigError, match=r"generation has \['num_beam'\]"):
        start(misspelt, tmp_path / "run")
    assert no_training == []
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_recipe_is_refused_and_named(start, tmp_path, no_training):
    start(recipe_of(FIND), tmp_path)
    changed = dataclasses.replace(recipe_of(FIND), seed=9, sides=(80,))
    words = r"another recipe: sides\.0: 64 -> 80; seed: 5 -> 9\. .* remove the folder or give anoth"
    with pytest.raises(ConfigError, match=words):
        start(changed, tmp_path, resume=True)
    longer = recipe_of(dataclasses.replace(FIND, samples=14))
    with pytest.raises(ConfigError, match=r"another recipe: stages\.find\.samples: 12 -> 14"):
        start(longer, tmp_path, resume=True)
    assert len(no_training) == 1


def test_a_setting_that_did_not_exist_when_a_run_began_is_no_change(start, tmp_path, no_training):
    recipe = recipe_of(FIND)
    start(recipe, tmp_path)
    saved = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))
    assert saved["stages"][0].pop("row_length") == 0
    (tmp_path / "recipe.json").write_text(json.dumps(saved), encoding="utf-8")
    start(recipe, tmp_path, resume=True)
    assert len(no_training) == 2


def test_other_data_has_another_fingerprint(toy_bank, in_process):
    one, two = recipe_of(FIND, TALK), recipe_of(FIND, dataclasses.replace(TALK, samples=13))
    prints = [
        run.data_fingerprint(StageContext(recipe, stage))
        for recipe in (one, two)
        for stage in recipe.stages
    ]
    assert prints[0] == prints[2]
    assert (prints[1]["first"], prints[1]["count"]) == (12, 12)
    digests = {entry["sha256_of_first_and_last"] for entry in prints}
    assert len(digests) == 3


def test_the_data_of_a_stage_is_looked_at_when_it_is_to_train(tiny_parts, tmp_path, no_training):
    missing = Mixture((MixtureSource("rows", "missing.jsonl"),))
    later = dataclasses.replace(TALK, mixture=missing)
    recipe, record = recipe_of(FIND, later), tmp_path / "run.json"
    runtime = Runtime(data=str(tmp_path), stages=("find",), processes=1)
    start_run(recipe, *tiny_parts, tmp_path, runtime=runtime)
    assert list(json.loads(record.read_text("utf-8"))["data"]) == ["find"]
    leave_weights(tmp_path / "find")
    runtime = dataclasses.replace(runtime, stages=("talk",))
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        start_run(recipe, *tiny_parts, tmp_path, resume=True, runtime=runtime)
    (tmp_path / write_drawn(tmp_path, 2)).rename(tmp_path / "missing.jsonl")
    start_run(recipe, *tiny_parts, tmp_path, resume=True, runtime=runtime)
    assert list(json.loads(record.read_text("utf-8"))["data"]) == ["find", "talk"]


def test_data_may_change_before_a_stage_begins_and_not_after(tiny_parts, tmp_path, no_training):
    mixture = Mixture((MixtureSource("rows", write_drawn(tmp_path, 2)),))
    recipe = recipe_of(FIND, dataclasses.replace(TALK, mixture=mixture, alignment_weight=0.5))
    runtime, out = Runtime(data=str(tmp_path), processes=1), tmp_path / "out"

    def go_on(resume: bool = True) -> dict:
        start_run(recipe, *tiny_parts, out, resume=resume, runtime=runtime)
        return json.loads((out / "run.json").read_text("utf-8"))["data"]

    first = go_on(resume=False)
    write_drawn(tmp_path, 3)
    second = go_on()
    assert second["find"] == first["find"]
    assert second["talk"] != first["talk"]
    checkpoint = out / "talk" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "files.json").write_text("{}")
    assert go_on() == second
    write_drawn(tmp_path, 4)
    with pytest.raises(ConfigError, match="data of stage 'talk' are others than when it began: "):
        go_on()


def test_a_folder_that_cannot_be_made_is_told(tiny_parts, tmp_path, no_training):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file' cannot be made: File exists"):
        start_run(recipe_of(FIND), *tiny_parts, tmp_path / "file", runtime=Runtime(processes=1))


def test_a_tracker_that_is_not_here_is_refused_before_training(tiny_parts, tmp_path, no_training):
    with pytest.raises(ConfigError, match=r"tracker 'wandbb' is not known .* or not installed"):
        start_run(
            recipe_of(FIND),
            *tiny_parts,
            tmp_path,
            runtime=Runtime(trackers=("wandbb",), processes=1),
        )
    assert not no_training


def test_features_of_scenes_are_refused(tiny_parts, tmp_path, no_training):
    with pytest.raises(ConfigError, match=r"features are kept of language stages that read files"):
        start_run(
            recipe_of(FIND, TALK),
            *tiny_parts,
            tmp_path,
            runtime=Runtime(features="seen", processes=1),
        )
    assert not no_training


def test_stages_one_by_one_do_what_all_at_once_do(start, tiny_parts, tmp_path):
    recipe = recipe_of(FIND, TALK)
    expected = weights(start(recipe, tmp_path / "whole"))
    out = tmp_path / "parts"
    for names in (("find",), ("talk",)):
        start_run(recipe, *tiny_parts, out, resume=True, runtime=Runtime(stages=names, processes=1))
        assert run.finished(recipe, out) == (names == ("talk",))
    assert_same(weights(out / "model"), expected)


def test_what_is_done_is_told_of_the_same_recipe_alone(start, tmp_path, no_training):
    recipe = recipe_of(FIND, TALK)
    assert run.done_stages(recipe, tmp_path) == ()
    start(recipe, tmp_path)
    assert run.done_stages(recipe, tmp_path) == ()
    leave_weights(tmp_path / "find")
    assert run.done_stages(recipe, tmp_path) == ("find",)
    with pytest.raises(ConfigError, match="another recipe: seed: 5 -> 6"):
        run.done_stages(dataclasses.replace(recipe, seed=6), tmp_path)


def test_a_stage_starts_in_another_folder_from_what_an_earlier_one_left(
    start, tiny_parts, tmp_path
):
    recipe, out = recipe_of(FIND, TALK), tmp_path / "out"
    start(recipe, tmp_path / "whole")
    talk = Runtime(stages=("talk",), processes=1)
    with pytest.raises(ConfigError, match=r"stages \['find'\] are neither done .*'proposer', "):
        start_run(recipe, *tiny_parts, out, runtime=talk)
    assert not out.exists()
    recipe = dataclasses.replace(recipe, weights={"model": str(tmp_path / "whole" / "find")})
    start_run(recipe, *tiny_parts, out, runtime=talk)
    assert not (out / "find").exists()
    assert run.finished(recipe, out)
    assert_same(weights(out / "talk"), weights(tmp_path / "whole" / "talk"))
    with pytest.raises(ConfigError, match="'find' is not done, but 'talk', which comes after it"):
        start_run(recipe, *tiny_parts, out, resume=True, runtime=Runtime(processes=1))


def test_weights_are_looked_for_before_there_is_a_run(start, tmp_path, no_training):
    recipe = dataclasses.replace(recipe_of(FIND), weights={"model": "nowhere/x"})
    with pytest.raises(ConfigError, match=r"weights of 'model': 'nowhere/x' is neither a folder"):
        start(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reports_of_a_model_that_is_trained_again_are_removed(start, tmp_path):
    recipe = recipe_of(dataclasses.replace(FIND, samples=2))
    report = start(recipe, tmp_path).parent / "eval" / "scenes" / "report.json"
    report.parent.mkdir(parents=True)
    report.touch()
    start(recipe, tmp_path, resume=True)
    assert report.exists()
    shutil.rmtree(tmp_path / "find")
    start(recipe, tmp_path, resume=True)
    assert not report.exists()


def test_a_stage_that_is_not_there_is_named(tiny_parts, tmp_path):
    with pytest.raises(ConfigError, match=r"no stage 'walk'; its stages are \['find', 'talk'\]"):
        start_run(recipe_of(FIND, TALK), *tiny_parts, tmp_path, runtime=Runtime(stages=("walk",)))


def test_a_run_can_be_prepared_and_started_later(tiny_parts, tmp_path):
    model = start_run(
        recipe_of(FIND), *tiny_parts, tmp_path, begin=False, runtime=Runtime(processes=1)
    )
    assert not model.exists()
    run.work(tmp_path)
    assert (model / "config.json").is_file()


@pytest.mark.parametrize(
    ("stages", "objective", "workers"),
    [
        ((FIND,), DetectionObjective, 0),
        ((TALK,), LanguageObjective, 0),
        ((TALK,), LanguageObjective, 2),
    ],
    ids=["detection", "packed language", "two data workers"],
)
def test_an_interrupted_stage_resumes_bit_for_bit(
    start, tmp_path, monkeypatch, stages, objective, workers
):
    recipe = dataclasses.replace(recipe_of(*stages), workers=workers)
    expected = weights(start(recipe, tmp_path / "whole"))
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt(patch, objective, call=5)
        with pytest.raises(CrashError):
            start(recipe, broken)
    name = stages[0].name
    assert (broken / name / "checkpoint-4").is_dir()
    assert not (broken / "model").exists()
    with monkeypatch.context() as patch:
        interrupt(patch, objective, call=3)  # two steps are left: a restart would take six
        assert_same(weights(start(recipe, broken, resume=True)), expected)
    whole = weights(tmp_path / "whole" / name)
    assert_same(weights(broken / name), whole)  # float32, before rounding


def test_a_checkpoint_that_was_cut_off_is_passed_over(start, tmp_path, monkeypatch):
    recipe = recipe_of(FIND)
    expected = weights(start(recipe, tmp_path / "whole"))
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt(patch, DetectionObjective, call=5)
        with pytest.raises(CrashError):
            start(recipe, broken)
    whole, cut = (broken / "find" / f"checkpoint-{step}" for step in (4, 5))
    shutil.copytree(whole, cut)
    complete = (whole / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(complete[: len(complete) // 2])
    assert_same(weights(start(recipe, broken, resume=True)), expected)


def test_finished_stages_are_not_trained_again(start, tmp_path, monkeypatch):
    first = dataclasses.replace(FIND, samples=4)
    recipe = recipe_of(first, dataclasses.replace(TALK, samples=4))
    expected = weights(start(recipe, tmp_path / "whole"))
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt(patch, LanguageObjective, call=1)
        with pytest.raises(CrashError):
            start(recipe, broken)
    assert (broken / "find" / "model.safetensors").is_file()
    with monkeypatch.context() as patch:
        interrupt(patch, DetectionObjective, call=1)  # training it again would fail
        assert_same(weights(start(recipe, broken, resume=True)), expected)


def test_a_stage_whose_scores_were_cut_off_is_scored_when_the_run_goes_on(start, tmp_path):
    stage = dataclasses.replace(FIND, samples=4, eval_samples=2)
    start(recipe_of(stage), tmp_path)
    log = tmp_path / "find" / "metrics.jsonl"
    *whole, last = log.read_text("utf-8").splitlines()
    log.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
    start(recipe_of(stage), tmp_path, resume=True)
    *again, late = log.read_text("utf-8").splitlines()
    assert again == whole
    assert json.loads(late).keys() == json.loads(last).keys()
    start(recipe_of(stage), tmp_path, resume=True)
    assert log.read_text("utf-8").splitlines() == [*whole, late]
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model"]


def test_a_checkpoint_of_other_processes_is_refused(start, tmp_path, monkeypatch):
    recipe = recipe_of(dataclasses.replace(FIND, samples=4))
    with monkeypatch.context() as patch:
        interrupt(patch, DetectionObjective, call=2)
        with pytest.raises(CrashError):
            start(recipe, tmp_path)
    note = tmp_path / "find" / "checkpoint-1" / "sharing.json"
    assert json.loads(note.read_text("utf-8")) == {"processes": 1, "way": "ddp"}
    note.write_text('{"processes": 4, "way": "fsdp"}')
    sizes = json.loads((note.parent / "files.json").read_text("utf-8"))
    sizes["sharing.json"] = note.stat().st_size
    (note.parent / "files.json").write_text(json.dumps(sizes))
    with pytest.raises(
        ConfigError, match=r"4 processes \(fsdp\), and now there are 1 \(ddp\).*--pro"
    ):
        start(recipe, tmp_path, resume=True)


def test_a_later_stage_resumes_as_if_the_first_had_just_ended(start, tmp_path, monkeypatch):
    first, second = (dataclasses.replace(FIND, name=name, samples=4) for name in ("one", "two"))
    recipe = recipe_of(first, second)
    expected = weights(start(recipe, tmp_path / "whole"))
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt(patch, DetectionObjective, call=3)
        with pytest.raises(CrashError):
            start(recipe, broken)
    assert_same(weights(start(recipe, broken, resume=True)), expected)


def test_detection_on_files_learns_and_resumes_bit_for_bit_at_the_end_of_an_epoch(
    make_model, processor, tmp_path, monkeypatch
):
    drawn = Mixture((MixtureSource("drawn", write_drawn(tmp_path, 4), views=("detect",)),))
    stage = Stage(
        "find", "detection", ("vision", "proposer", "refiner"), samples=32, batch_size=4,
        mixture=drawn, augment="groma_detection", optim=OPTIM, eval_samples=0,
    )  # fmt: skip
    config = make_model("deformable_detr").config

    def train(out, resume: bool = False):
        runtime = Runtime(data=str(tmp_path), processes=1)
        start_run(recipe_of(stage), config, processor, tmp_path / out, resume, runtime)
        return weights(tmp_path / out / "find")

    whole = train("whole")
    text = (tmp_path / "whole" / "find" / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    for row in rows:
        assert {"proposer_score", "proposer_l1", "proposer_giou"} <= set(row)
    with monkeypatch.context() as patch:
        interrupt(patch, DetectionObjective, call=6)
        with pytest.raises(CrashError):
            train("broken")
    with monkeypatch.context() as patch:
        interrupt(patch, DetectionObjective, call=4)  # three steps are left: a restart takes eight
        assert_same(train("broken", resume=True), whole)


def test_a_stage_whose_end_was_cut_off_ends_at_the_same_bits(start, tmp_path):
    recipe = recipe_of(FIND)
    expected = weights(start(recipe, tmp_path))
    (tmp_path / "find" / "model.safetensors").unlink()
    assert (tmp_path / "find" / "checkpoint-6").is_dir()
    assert_same(weights(start(recipe, tmp_path, resume=True)), expected)


@pytest.mark.parametrize("clipped", [5.0, 0.0])
def test_a_gradient_that_is_no_number_never_reaches_the_weights(
    start, tmp_path, monkeypatch, clipped
):
    original, calls = DetectionObjective.forward, []

    def forward(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 4:
            output.loss.register_hook(lambda gradient: gradient * float("nan"))
        return output

    monkeypatch.setattr(DetectionObjective, "forward", forward)
    with pytest.raises(TrainingError, match="gradient of step 4 has the norm nan, though its loss"):
        optim = dataclasses.replace(OPTIM, max_grad_norm=clipped)
        start(recipe_of(dataclasses.replace(FIND, optim=optim)), tmp_path)
    kept = load_file(newest(tmp_path / "find") / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in kept.values())
    batches = load_file(tmp_path / "find" / "not-finite-step-4-rank-0.safetensors")
    assert batches["0.pixel_values.0"].shape[1:] == (3, 96, 96)
