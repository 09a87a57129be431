"""One stage: what is frozen stays as it was, the schedule, the log, the checkpoint that goes on."""

from __future__ import annotations

import dataclasses
import json
import logging
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from parfocal.data.readers.scenes import SceneReader
from parfocal.data.scenes.catalogue import KINDS
from parfocal.errors import ConfigError, TrainingError
from parfocal.train.callbacks import JsonLog
from parfocal.train.context import StageContext
from parfocal.train.data import (
    ConversationCollator,
    ConversationDataset,
    ObjectCollator,
    SceneDataset,
)
from parfocal.train.detection import DetectionObjective
from parfocal.train.parameters import freeze
from parfocal.train.recipe import Optim, Recipe, Stage
from parfocal.train.stages import build_language_objective
from parfocal.train.trainer import StageTrainer, _choose_what_trains, run_stage

FIND = Stage(
    "find", "detection", ("proposer", "regions.pool"), samples=6, batch_size=2,
    optim=Optim(lr=1e-2, warmup_steps=1), eval_samples=0,
)  # fmt: skip
RECIPE = Recipe("demo", "tiny", (FIND,), sides=(64,), bf16=False)
CONTEXT = StageContext(RECIPE, FIND)

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def dataset(toy_bank) -> SceneDataset:
    return SceneDataset(SceneReader("train", FIND.samples, (64,), toy_bank))


def parameters(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_a_stage_moves_what_it_trains_and_nothing_else(make_model, processor, dataset, tmp_path):
    model = make_model()
    before = parameters(model)
    objective = DetectionObjective(model, len(KINDS))
    heads = objective.region_kind.weight.detach().clone()
    run_stage(objective, CONTEXT, dataset, ObjectCollator(processor), tmp_path)
    after = parameters(model)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    under = {name for name in after if name.startswith(("proposer.", "regions.pool."))}
    assert changed == under
    assert not torch.equal(objective.region_kind.weight, heads)


def test_freezing_takes_prefixes_of_whole_names(make_model):
    objective = DetectionObjective(make_model(), len(KINDS))
    stage = dataclasses.replace(FIND, trainable=("regions.context.identity", "text"))
    freeze(objective, stage)
    trained = {name for name, v in objective.model.named_parameters() if v.requires_grad}
    assert trained
    assert all(name.startswith(("regions.context.identity.", "text.")) for name in trained)
    assert {name.split(".")[0] for name in trained} == {"regions", "text"}
    assert all(value.requires_grad for value in objective.cell_kind.parameters())
    # a later stage thaws and freezes anew
    freeze(objective, dataclasses.replace(FIND, trainable=("proposer",)))
    trained = {name for name, v in objective.model.named_parameters() if v.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"proposer"}


def test_what_trains_is_told_when_a_stage_begins(make_model, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("parfocal"), "propagate", True)  # the CLI turns it off
    objective = DetectionObjective(make_model(), len(KINDS))
    with caplog.at_level(logging.INFO, logger="parfocal"):
        _choose_what_trains(objective, CONTEXT)
    counts = [0, 0]
    for value in objective.model.parameters():
        counts[not value.requires_grad] += value.numel()
    assert f"{counts[0]} parameters train, {counts[1]} are frozen" in caplog.text
    assert min(counts) > 0


@pytest.mark.parametrize("prefix", ["propose", "proposer.nothing", "visoin", ""])
def test_a_prefix_that_names_nothing_is_an_error(make_model, prefix):
    objective = DetectionObjective(make_model(), len(KINDS))
    with pytest.raises(ConfigError, match=f"trains '{prefix}'.*'proposer'.*'vision'"):
        freeze(objective, dataclasses.replace(FIND, trainable=("text", prefix)))


def test_batch_size_must_divide_among_processes(
    make_model, processor, dataset, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "3")
    objective = DetectionObjective(make_model(), len(KINDS))
    with pytest.raises(ConfigError, match="2 is not a multiple of 3"):
        run_stage(objective, CONTEXT, dataset, ObjectCollator(processor), tmp_path)


def test_metrics_name_every_term_of_the_loss(make_model, processor, dataset, tmp_path):
    objective = DetectionObjective(make_model(), len(KINDS))
    run_stage(objective, CONTEXT, dataset, ObjectCollator(processor), tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    terms = {"objectness", "boxes", "cell_kind", "region_kind", "likeness", "giou", "sides"}
    for row in steps:
        assert terms <= set(row)
        assert sum(row[name] for name in terms) == pytest.approx(row["loss"], abs=1e-2)
    rates = [row["learning_rate"] for row in steps]
    assert max(rates) <= FIND.optim.lr
    assert rates[-1] < rates[0]


def bare_trainer(make_model, optim: Optim, samples: int = 200) -> StageTrainer:
    """A trainer for its optimiser and schedule alone."""
    trainer = StageTrainer.__new__(StageTrainer)
    trainer.stage = dataclasses.replace(FIND, samples=samples, batch_size=1, optim=optim)
    trainer.model = make_model()
    trainer.optimizer = trainer.lr_scheduler = None
    return trainer


def test_schedule_warms_up_and_falls_to_its_last_rate(make_model):
    optim = Optim(lr=2.0, warmup_steps=10, final_lr_ratio=0.1)
    trainer = bare_trainer(make_model, optim, samples=110)
    optimizer = trainer.create_optimizer()
    schedule = trainer.create_scheduler(110, optimizer)
    rates = []
    for _ in range(112):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half of the cosine
    assert rates[110] == rates[111] == pytest.approx(0.2)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_weight_decay_is_on_trained_matrices_only(make_model):
    trainer = bare_trainer(make_model, Optim(weight_decay=0.3))
    for name, value in trainer.model.named_parameters():
        value.requires_grad_(name.startswith("text."))
    decayed, free = trainer.create_optimizer().param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {value.ndim for value in decayed["params"]} == {2}
    assert {value.ndim for value in free["params"]} == {1}
    trained = [value for value in trainer.model.parameters() if value.requires_grad]
    assert len(decayed["params"]) + len(free["params"]) == len(trained)


def test_parts_have_their_own_rates_and_vectors_decay_if_asked(make_model):
    factors = {"vision": 0.1, "regions.position": 0.5, "text": 2.0}
    optim = Optim(lr=1e-2, weight_decay=0.3, decay_all=True, lr_factors=factors)
    trainer = bare_trainer(make_model, optim)
    groups = trainer.create_optimizer().param_groups
    rates = {id(value): group["lr"] for group in groups for value in group["params"]}
    assert {group["weight_decay"] for group in groups} == {0.3}
    found = {name: rates[id(value)] for name, value in trainer.model.named_parameters()}
    first = {name: "regions.position" if name.startswith("regions.position.") else
             name.partition(".")[0] for name in found}  # fmt: skip
    assert {"text", "vision", "regions", "regions.position"} <= set(first.values())
    assert any(name.startswith("regions.context.") for name in found)  # it is no text
    for name, rate in found.items():
        assert rate == pytest.approx(1e-2 * factors.get(first[name], 1.0)), name


def test_log_lines_are_appended(tmp_path):
    log = JsonLog(tmp_path / "metrics.jsonl")
    log.write(1, {"loss": 0.5})
    JsonLog(tmp_path / "metrics.jsonl").write(2, {"recall": 9.0})
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5}, {"step": 2, "recall": 9.0}
    ]  # fmt: skip


def test_checkpoints_write_tied_tables_once(make_model, processor, toy_bank, tmp_path):
    from safetensors import safe_open

    stage = Stage("talk", "language", ("text",), samples=2, batch_size=2, eval_samples=0)
    objective = build_language_objective(make_model(), processor)
    reader = SceneReader("train", 2, (64,), toy_bank)
    data = ConversationDataset(reader, processor.dialect, 0)
    run_stage(
        objective, StageContext(RECIPE, stage), data, ConversationCollator(processor), tmp_path
    )
    with safe_open(tmp_path / "checkpoint-1" / "model.safetensors", "pt") as file:
        saved = set(file.keys())
    tables = {"model.text.model.embed_tokens.weight", "model.text.lm_head.weight"}
    assert len(saved & tables) == 1
    assert {"names.log_scale", "words.log_scale", "word_bias"} <= saved


def test_a_later_stage_that_diverged_can_start_again_elsewhere(make_model, tmp_path):
    trainer = bare_trainer(make_model, FIND.optim)
    stages = [dataclasses.replace(FIND, name=name) for name in ("one", "two", "three", "four")]
    trainer.stage, trainer.recipe = stages[2], dataclasses.replace(RECIPE, stages=tuple(stages))
    trainer.args = SimpleNamespace(output_dir=str(tmp_path / "three"))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "model.safetensors").touch()  # the second was left out
    options = f"--set weights.model={tmp_path / 'one'} --stage three --stage four."
    assert trainer._way_on().endswith(
        f"another --out, which may start where this stage did: {options}"
    )


def test_a_loss_that_is_no_number_stops_and_keeps_its_batch(
    make_model, processor, dataset, tmp_path
):
    objective = DetectionObjective(make_model(), len(KINDS))
    with torch.no_grad():
        objective.region_kind.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"step 1 is nan .*region_kind nan") as caught:
        run_stage(objective, CONTEXT, dataset, ObjectCollator(processor), tmp_path)
    (kept,) = tmp_path.glob("not-finite-step-1-rank-0.safetensors")
    assert str(kept) in str(caught.value)
    assert str(caught.value).endswith("max_grad_norm needs another --out.")  # the first stage
    batch = load_file(kept)
    assert set(batch) == {"pixel_values.0", "boxes", "mask", "labels"}
    assert batch["pixel_values.0"].shape == (2, 3, 96, 96)
