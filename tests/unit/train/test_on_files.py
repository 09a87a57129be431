"""Stages on files: mixtures in, the same weights however the work is divided, resumed or cached."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from parfocal.boxes import Boxes
from parfocal.data.jsonl import read_jsonl, write_jsonl
from parfocal.data.mixing import open_mixture
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.scenes.turns import with_turns
from parfocal.dialects import GroundedText, get_dialect
from parfocal.errors import CheckpointError, ConfigError, DataError
from parfocal.models.presets import vary
from parfocal.train import stages
from parfocal.train.data import AnswerCollator
from parfocal.train.feature_cache import FeatureCache, fill, picture_keys
from parfocal.train.language import LanguageObjective
from parfocal.train.recipe import Lora, Optim, Recipe, Stage
from parfocal.train.run import start_run
from parfocal.train.runtime import Runtime

TALK = Stage(
    "talk", "language", ("projector", "regions.position", "regions.lift", "text"), samples=16,
    batch_size=4, mixture=Mixture((MixtureSource("toy", "toy.jsonl", images="pictures"),)),
    optim=Optim(lr=3e-3, warmup_steps=1), eval_samples=0,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="session")
def files(toy_bank, tmp_path_factory):
    """A folder with eight rows about drawn pictures and four in words alone."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "pictures").mkdir()
    dialect, rows = get_dialect("region_tokens"), []
    reader = SceneReader("train", 8, (64,), toy_bank)
    for index in range(8):
        sample = with_turns(reader[index], dialect, np.random.default_rng(index))
        name = f"{index}.png"
        sample.open_image().save(folder / "pictures" / name)
        image = dataclasses.replace(sample.images[0], path=name, pixels=None)
        rows.append(dataclasses.replace(sample, images=(image,)))
    for word in ("one", "two", "three", "four"):
        turns = (Turn("user", GroundedText.of(word)), Turn("assistant", GroundedText.of(word)))
        rows.append(Sample(f"words:{word}", (), turns))
    write_jsonl(rows, folder / "toy.jsonl")
    return folder


@pytest.fixture
def train(files, tiny_parts, tmp_path):
    """Train one stage; returns its weights."""

    def begin(name: str, stage: Stage = TALK, resume=False, **runtime):
        recipe = Recipe("demo", "tiny", (stage,), seed=5, bf16=False)
        settings = Runtime(data=str(files), processes=1, **runtime)
        start_run(recipe, *tiny_parts, tmp_path / name, resume=resume, runtime=settings)
        return load_file(tmp_path / name / stage.name / "model.safetensors")

    return begin


def losses(folder) -> list[float]:
    lines = (folder / "talk" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_a_mixture_trains_and_its_length_is_that_of_its_epochs(train, tmp_path):
    stage = dataclasses.replace(TALK, samples=0, epochs=2.0)
    before = train("none", dataclasses.replace(TALK, samples=4, optim=Optim(lr=1e-12)))
    after = train("two", stage)
    found = losses(tmp_path / "two")
    assert len(found) == 6  # 24 rows, 4 a step
    assert found[-1] < found[0]
    log = (tmp_path / "two" / "talk" / "metrics.jsonl").read_text(encoding="utf-8")
    assert 0 <= json.loads(log.splitlines()[0])["proposed"] <= 1
    assert gap(before, after) > 1e-3
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["data"]["talk"]["sources"][0]["name"] == "toy"


@pytest.mark.parametrize("micro", [1, 2])
def test_a_step_is_the_same_however_it_is_divided(train, tmp_path, micro):
    train("whole")
    train("divided", micro_batch=micro)
    whole = losses(tmp_path / "whole")
    assert len(whole) == 4
    assert losses(tmp_path / "divided") == pytest.approx(whole, abs=1e-5)


def test_views_that_expand_rows_are_counted(files, in_process):
    mixture = Mixture((MixtureSource("toy", "toy.jsonl", images="pictures"),)).under(files)
    plain = open_mixture(mixture)
    source = dataclasses.replace(mixture.sources[0], views=("thrice",))
    tripled = open_mixture(Mixture((source,)), {"thrice": lambda sample: [sample] * 3})
    stage = dataclasses.replace(TALK, samples=0, epochs=2.0)
    assert stages.counted(stage, plain).samples == 24
    assert stages.counted(stage, tripled).samples == 72


@pytest.mark.parametrize(
    ("epochs", "batch", "steps"),
    [(10.0, 8, 20), (2.0, 5, 6), (0.5, 4, 1), (1.5, 4, 4), (3.0, 64, 3)],
)
def test_the_last_batch_of_an_epoch_is_a_step(files, epochs, batch, steps):
    mixture = open_mixture(TALK.mixture.under(files))
    stage = dataclasses.replace(TALK, samples=0, epochs=epochs, batch_size=batch)
    assert stages.counted(stage, mixture).steps == steps


def test_every_row_is_seen_as_often_as_there_are_epochs(train, files, monkeypatch, tmp_path):
    seen: list[str] = []
    told = AnswerCollator.__call__

    def note(self, samples):
        seen.extend(sample.id for sample in samples)
        return told(self, samples)

    monkeypatch.setattr(AnswerCollator, "__call__", note)
    train("odd", dataclasses.replace(TALK, samples=0, epochs=3.0, batch_size=8))
    counts = Counter(seen)
    assert len(counts) == 12
    assert set(counts.values()) == {3}
    lines = (tmp_path / "odd" / "talk" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row["epoch"] for row in map(json.loads, lines) if "loss" in row][-1] == 2


def test_a_picture_to_be_scored_on_that_is_gone_is_told_before_training(train, files, tmp_path):
    rows = list(read_jsonl(files / "toy.jsonl"))[:2]
    gone = dataclasses.replace(rows[0].images[0], path="gone.png")
    write_jsonl([rows[1], dataclasses.replace(rows[0], images=(gone,))], files / "val.jsonl")
    scored = Mixture((MixtureSource("val", "val.jsonl", images="pictures"),))
    stage = dataclasses.replace(TALK, eval_mixture=scored, eval_samples=2, eval_every=2)
    with pytest.raises(ConfigError, match=r"there is no picture .*gone\.png"):
        train("scored", stage)
    assert not list((tmp_path / "scored").glob("talk/checkpoint-*"))


def test_a_mean_of_each_part_is_another_mean(train, files, tiny_parts, tmp_path):
    recipe = Recipe("demo", "tiny", (TALK,), seed=5, bf16=False, loss_mean="process")
    settings = Runtime(data=str(files), micro_batch=1, processes=1)
    start_run(recipe, *tiny_parts, tmp_path / "parts", runtime=settings)
    train("whole")
    assert losses(tmp_path / "parts") != pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_a_batch_that_does_not_divide_is_an_error(train):
    with pytest.raises(ConfigError, match="4 is not a multiple of 1 processes times 3 Samples"):
        train("three", micro_batch=3)


class CrashError(Exception):
    """What stands for a crash."""


def test_rows_that_are_shared_change_no_step(train, tmp_path, monkeypatch):
    counts, reads = [], LanguageObjective.forward

    def forward(self, *args, **kwargs):
        counts.append(len(kwargs["text"].places))
        return reads(self, *args, **kwargs)

    plain = train("plain")
    monkeypatch.setattr(LanguageObjective, "forward", forward)
    shared = train("shared", dataclasses.replace(TALK, row_length=1000))
    assert max(counts) < TALK.batch_size
    assert losses(tmp_path / "shared") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    assert gap(plain, shared) < 1e-4


@pytest.mark.parametrize(
    ("workers", "grouped", "row_length"),
    [(0, False, 0), (2, False, 0), (2, True, 0), (2, False, 1000)],
)
def test_a_resumed_run_ends_at_the_same_bits(train, monkeypatch, workers, grouped, row_length):
    stage = dataclasses.replace(TALK, samples=40, group_by_length=grouped, row_length=row_length)
    whole = train("whole", stage)
    original, calls = LanguageObjective.forward, []

    def forward(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 8:
            raise CrashError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(stages, "num_workers", lambda recipe: workers)
    with monkeypatch.context() as patch:
        patch.setattr(LanguageObjective, "forward", forward)
        with pytest.raises(CrashError):
            train("again", stage)
    again = train("again", stage, resume=True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_checkpointed_activations_change_nothing(train):
    stage = dataclasses.replace(TALK, gradient_checkpointing=True)
    assert gap(train("kept"), train("computed twice", stage)) < 1e-6


def test_adapters_train_and_are_merged(train, tmp_path):
    still = dataclasses.replace(TALK, optim=Optim(lr=1e-12, warmup_steps=1))
    before = train("still", still)
    after = train("adapted", dataclasses.replace(TALK, lora=Lora(rank=2, targets=("q_proj",))))
    assert before.keys() == after.keys()
    moved = {name for name in before if float((before[name] - after[name]).abs().max()) > 1e-6}
    text = {name for name in moved if name.startswith("text.")}
    assert text == {f"text.model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)}
    assert any(name.startswith("projector.") for name in moved)


def test_parts_of_the_language_model_train_beside_adapters(train):
    stage = dataclasses.replace(
        TALK, trainable=("projector", "text.model.embed_tokens"), lora=Lora(rank=2), first_row=9,
        samples=8, optim=Optim(lr=3e-3, warmup_steps=1, weight_decay=0.0),
    )  # fmt: skip
    still = dataclasses.replace(stage, optim=dataclasses.replace(stage.optim, lr=1e-12))
    before, after = train("still", still), train("adapted", stage)
    (table,) = {"text.model.embed_tokens.weight", "text.lm_head.weight"} & set(after)
    moved = (before[table] - after[table]).abs().amax(1) > 1e-6
    assert not moved[:9].any()
    assert moved[9:].any()
    layer = "text.model.layers.0.self_attn.q_proj.weight"
    assert float((before[layer] - after[layer]).abs().max()) > 1e-6


def test_adapters_on_tables_are_refused(train):
    with pytest.raises(ConfigError, match=r"'model.embed_tokens', which is no linear layer"):
        train("none", dataclasses.replace(TALK, lora=Lora(targets=("embed_tokens",))))


def test_adapters_on_layers_that_are_not_there(train):
    with pytest.raises(ConfigError, match=r"\['key'\] name no layer; there are .*'k_proj'"):
        train("none", dataclasses.replace(TALK, lora=Lora(targets=("key",))))


def test_features_of_frozen_towers_are_computed_once(train, tmp_path, monkeypatch):
    plain = train("plain")
    cached = train("first", features=str(tmp_path / "features"))
    assert gap(plain, cached) < 1e-5
    monkeypatch.setattr(stages, "fill", lambda *args, **kwargs: 0)  # all is there
    monkeypatch.setattr(Sample, "open_image", None)
    assert gap(cached, train("second", features=str(tmp_path / "features"))) == 0


def test_a_damaged_shard_of_features_is_computed_anew(train, tmp_path):
    stage = dataclasses.replace(TALK, samples=4)
    plain = train("first", stage, features=str(tmp_path / "features"))
    (shard,) = (tmp_path / "features").rglob("*.safetensors")
    whole = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:100])
    assert gap(plain, train("second", stage, features=str(tmp_path / "features"))) == 0
    sizes = [path.stat().st_size for path in (tmp_path / "features").rglob("*.safetensors")]
    assert sizes == [whole]


def test_no_features_are_kept_of_what_trains(train, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("parfocal"), "propagate", True)  # the CLI turns it off
    stage = dataclasses.replace(TALK, samples=4, trainable=("projector", "proposer"))
    plain = train("plain", stage)
    assert gap(plain, train("asked", stage, features=str(tmp_path / "features"))) == 0
    assert "trains parts that see, so no features are kept" in caplog.text
    assert not (tmp_path / "features").exists()


def test_batches_of_similar_length_read_what_was_kept(train, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "WINDOW", 2)
    stage = dataclasses.replace(TALK, samples=28, group_by_length=True)
    plain = train("plain", stage)
    assert gap(plain, train("cached", stage, features=str(tmp_path / "features"))) < 1e-5
    assert gap(plain, train("shuffled", dataclasses.replace(TALK, samples=28))) > 1e-5


@pytest.mark.parametrize("grouped", [False, True])
def test_a_window_that_is_begun_is_kept_whole(train, tmp_path, monkeypatch, grouped):
    monkeypatch.setattr(stages, "WINDOW", 3)
    stage = dataclasses.replace(TALK, samples=4, group_by_length=grouped)
    train("first", stage, features=str(tmp_path / "features"))


def test_the_cache_knows_weights_and_pictures(make_model, processor, toy_samples, tmp_path):
    model = make_model()
    cache = FeatureCache(tmp_path, model)
    assert fill(cache, model, processor, [*toy_samples, *toy_samples], batch_size=3) == 4
    assert fill(cache, model, processor, toy_samples) == 0
    again = FeatureCache(tmp_path, model)
    assert len(again) == 4
    other = FeatureCache(tmp_path, make_model(seed=1))
    assert len(other) == 0
    model.config = vary(model.config, {"vision": {"resize": "squash"}})
    assert len(FeatureCache(tmp_path, model)) == 0
    with pytest.raises(CheckpointError, match="lacks a picture"):
        other.read(["x"])


def test_a_picture_that_is_not_there_matters_only_where_it_is_trained_on(
    make_model, processor, toy_samples, tmp_path, caplog
):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    gone, bad = (
        Sample(path.name, (ImageRef(str(path), 9, 9),), ())
        for path in (tmp_path / "gone.png", broken)
    )
    model = make_model()
    cache = FeatureCache(tmp_path / "features", model)
    assert fill(cache, model, processor, [gone, bad, *toy_samples]) == 4
    assert "no features of sample 'gone.png'" in caplog.text
    assert "no features of sample 'broken.png'" in caplog.text
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        picture_keys(gone, model.config.vision)


def test_a_process_without_rows_does_not_look_for_them_for_ever(files):
    opened = open_mixture(Mixture((MixtureSource("toy", str(files / "toy.jsonl")),)))
    rows = stages._epoch_after_epoch(opened, 0, 1)
    assert len(list(itertools.islice(rows, 30))) == 30  # of twelve
    assert not list(stages._epoch_after_epoch(opened, 99, 100))


def test_what_is_made_of_answers_is_no_matter_of_features(make_model, tmp_path):
    model = make_model()
    folder = FeatureCache(tmp_path, model).folder
    model.config = vary(model.config, {"proposer": {"match_threshold": 0.3, "ground_score": 0.7}})
    assert FeatureCache(tmp_path, model).folder == folder
    model.config = vary(model.config, {"proposer": {"nms_threshold": 0.3}})
    assert FeatureCache(tmp_path, model).folder != folder


@pytest.mark.parametrize("room", [12, 30])
def test_what_is_too_long_is_left_out_turn_by_turn(processor, toy_talk, room):
    whole = AnswerCollator(processor)(toy_talk)["text"]
    short = AnswerCollator(processor, room)(toy_talk)["text"]
    prefix = int((whole.turn[0] == 0).sum())
    lengths = (short.turn > 0).sum(1)
    assert int(lengths.max()) <= room
    assert 0 < int(lengths.sum()) < int((whole.turn > 0).sum())
    marks = (short.input_ids == processor.settings.token_ids.ground_box).sum(1)
    assert marks.tolist() == short.ground_mask.sum(1).tolist()
    for row in range(len(toy_talk)):
        length = prefix + int(lengths[row])
        assert torch.equal(short.input_ids[row, :length], whole.input_ids[row, :length])


def test_pictures_that_nothing_shows_are_refused(processor, toy_talk):
    sample = toy_talk[0]
    twice = dataclasses.replace(sample, images=sample.images * 2)
    with pytest.raises(DataError, match="has 2 pictures; training reads one"):
        AnswerCollator(processor)([twice])


def cut_off(folder) -> None:
    """End a picture early."""
    picture = folder / "pictures" / "3.png"
    picture.write_bytes(picture.read_bytes()[:200])


def marked(folder) -> None:
    """Add a row whose words the dialect would read as markup."""
    turns = (Turn("user", GroundedText.of("one")), Turn("assistant", GroundedText.of("<p>one")))
    rows = [*read_jsonl(folder / "toy.jsonl"), Sample("words:marked", (), turns)]
    write_jsonl(rows, folder / "toy.jsonl")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, r"sample .*3\.png"),
        (marked, r"sample 'words:marked', turn 0: words hold '<p>'"),
    ],
)
def test_what_cannot_be_used_is_left_out(
    train, files, tmp_path, caplog, monkeypatch, damage, message
):
    monkeypatch.setattr(logging.getLogger("parfocal"), "propagate", True)  # the CLI turns it off
    damage(shutil.copytree(files, tmp_path / "damaged"))
    stage = dataclasses.replace(TALK, mixture=TALK.mixture.under(tmp_path / "damaged"))
    with pytest.raises(DataError, match=message):
        train("stopped", stage)
    skips = dataclasses.replace(stage.mixture, skip_bad=1)
    train("left out", dataclasses.replace(stage, mixture=skips))
    assert re.search(f"left out, number 1 of this process: {message}", caplog.text)


def test_samples_without_questions_are_refused(processor, toy_samples):
    with pytest.raises(DataError, match=r"no questions and answers.*Name a task view"):
        AnswerCollator(processor)([toy_samples[0]])


def test_more_regions_than_slots_are_refused_by_name(processor, toy_talk):
    sample = toy_talk[0]
    frame = sample.images[0].frame()
    many = dataclasses.replace(sample, regions=Boxes([[0, 0, 9, 9]] * 7, frame))
    with pytest.raises(DataError, match=rf"{sample.id!r} has 7 regions .* has 6 slots"):
        AnswerCollator(processor, slots=6)([toy_talk[1], many])
    AnswerCollator(processor, slots=7)([many])


@pytest.mark.parametrize("order", ["score", "left_to_right"])
def test_slots_of_a_sample_do_not_depend_on_its_neighbours(make_model, processor, toy_talk, order):
    model = make_model()
    model.config = vary(model.config, {"proposer": {"order": order}})
    objective, collate = LanguageObjective(model).eval(), AnswerCollator(processor)
    whole, alone = collate(toy_talk), [collate([sample]) for sample in toy_talk]
    counts = objective.counts(whole)
    assert sum(objective.counts(one)["answer"] for one in alone) == counts["answer"]
    parts = [objective(**one, counts=counts).loss.item() for one in alone]
    together = objective(**whole, counts=counts).loss.item()
    assert together == pytest.approx(sum(parts), abs=1e-4)


def test_packed_turns_are_learned_from_as_turns_alone(make_model, processor, toy_talk):
    objective, collate = LanguageObjective(make_model()).eval(), AnswerCollator(processor)
    for sample in toy_talk:
        packed = collate([sample])
        counts = objective.counts(packed)
        turns = [sample.turns[start : start + 2] for start in range(0, len(sample.turns), 2)]
        assert len(turns) > 1
        alone = collate([dataclasses.replace(sample, turns=pair) for pair in turns])
        assert objective.counts(alone) == counts
        together = objective(**packed, counts=counts).loss.item()
        assert together == pytest.approx(objective(**alone, counts=counts).loss.item(), abs=1e-5)


def test_a_folder_of_features_that_cannot_be_made_is_named(make_model, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot be made: .*Give another --features"):
        FeatureCache(tmp_path / "file", make_model())
