"""Plans: counts and memory of a real tiny model, work by hand, and a sentence for every mistake."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch

from parfocal.cli.train_plan import show_plan
from parfocal.data.jsonl import write_jsonl
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.readers import scenes
from parfocal.errors import ConfigError
from parfocal.models.info import config_info, part_modules, prefill_flops
from parfocal.models.presets import PRESETS, get_preset
from parfocal.train import checks, feature_cache, measure, quantize
from parfocal.train.adapters import add_adapters
from parfocal.train.context import StageContext
from parfocal.train.costs import Row, meta_model, process_memory, row_flops
from parfocal.train.data import AnswerCollator
from parfocal.train.feature_cache import entry_bytes
from parfocal.train.language import LanguageObjective
from parfocal.train.parameters import freeze, trainable_counts
from parfocal.train.plan import Plan, plan
from parfocal.train.recipe import Lora, Optim, Recipe, Stage
from parfocal.train.runtime import Runtime

SOURCE = MixtureSource("toy", "toy.jsonl", images="pictures")
TALK = Stage(
    "talk", "language", ("projector", "regions.lift", "text"), samples=0, batch_size=4,
    epochs=3.0, mixture=Mixture((SOURCE,)), max_length=90,
)  # fmt: skip
FIND = Stage("find", "detection", ("vision.pyramid", "proposer"), samples=20, batch_size=4)
ROW = Row(9.0, 6.0, 25.0, 5.0, 40, 1.0, 0.0, "measured")
WIDTH, INNER, LAYERS, RANK = 32, 64, 2, 4
LINEAR = LAYERS * (4 * WIDTH**2 + 3 * WIDTH * INNER)  # weights of the tiny language model
ADAPTERS = LAYERS * RANK * (4 * (WIDTH + WIDTH) + 3 * (WIDTH + INNER))


@pytest.fixture(scope="session")
def folder(toy_talk, tmp_path_factory):
    """Four rows and their pictures."""
    root = tmp_path_factory.mktemp("plan")
    (root / "pictures").mkdir()
    rows = []
    for number, sample in enumerate(toy_talk):
        sample.open_image().save(root / "pictures" / f"{number}.png")
        image = dataclasses.replace(sample.images[0], path=f"{number}.png", pixels=None)
        rows.append(dataclasses.replace(sample, images=(image,)))
    write_jsonl(rows, root / "toy.jsonl")
    return root


@pytest.fixture
def planned(folder, tiny_parts):
    """Plan a recipe of stages; further words change the recipe."""

    def make(
        *stages: Stage,
        processes: int = 1,
        micro_batch: int = 0,
        data=folder,
        done=(),
        only=(),
        features="",
        tflops=0.5,
        **changes,
    ):
        recipe = Recipe("demo", "tiny", stages, **{"bf16": False, "sides": (64,), **changes})
        runtime = Runtime(str(data), micro_batch, str(features), only, processes=processes)
        terms = {"benchmarks": ("scenes",), "tflops": tflops, "done": done}
        return plan(recipe, *tiny_parts, runtime, **terms)

    return make


@pytest.mark.parametrize(
    "stage",
    [
        TALK,
        dataclasses.replace(TALK, lora=Lora(rank=RANK)),
        dataclasses.replace(TALK, trainable=("projector",), lora=Lora(targets=("q_proj",))),
        FIND,
    ],
    ids=["language", "adapters", "adapters on one layer", "detection"],
)
def test_counts_are_those_of_a_real_model(planned, make_model, stage):
    real = make_model()
    if stage.lora is not None:
        add_adapters(real.text, stage.lora)
    freeze(LanguageObjective(real), stage)
    found = planned(stage)
    assert found.problems == ()
    (one,) = found.stages
    assert (one.trained, one.frozen) == trainable_counts(real)
    parts = {part.name: (part.trained, part.frozen) for part in one.parts}
    modules = part_modules(real)
    assert parts == {name: trainable_counts(modules[name]) for name in parts}
    assert sum(map(sum, parts.values())) == one.trained + one.frozen


def frozen_model(config, stage: Stage):
    model = meta_model(config)
    checks.prepare(model, stage, checks.Findings())
    return model


def forward_of(config) -> dict[str, int]:
    return prefill_flops(meta_model(config).requires_grad_(False), 1)


@pytest.mark.parametrize(
    ("change", "linear", "attention", "head"),
    [
        ({"trainable": ("text",)}, 6 * LINEAR, 12, 6),
        ({"trainable": ("projector",)}, 4 * LINEAR, 12, 4),
        ({"trainable": ("proposer",)}, 2 * LINEAR, 4, 2),
        ({"trainable": ("text",), "gradient_checkpointing": True}, 8 * LINEAR, 16, 6),
        ({"trainable": (), "lora": Lora(rank=RANK)}, 4 * LINEAR + 6 * ADAPTERS, 12, 4),
    ],
    ids=["trained", "passed", "forward only", "checkpointed", "adapters"],
)
def test_work_of_the_language_model_is_the_formula(tiny_parts, change, linear, attention, head):
    stage = dataclasses.replace(TALK, **change)
    config = tiny_parts[0]
    found = row_flops(frozen_model(config, stage), stage, ROW, forward_of(config))
    table = config.text_config.vocab_size * WIDTH
    expected = linear * 40 + attention * LAYERS * WIDTH * 40**2 + head * table * 5
    assert found["text"] == pytest.approx(expected, abs=1)


def test_other_parts_cost_by_what_trains_in_and_before_them(tiny_parts):
    forward = forward_of(tiny_parts[0])

    def factors(stage: Stage, row: Row = ROW) -> dict[str, float]:
        work = row_flops(frozen_model(tiny_parts[0], stage), stage, row, forward)
        return {name: work[name] / count for name, count in forward.items() if count}

    talk = factors(TALK)
    assert (talk["vision 1"], talk["pyramid"], talk["proposer"], talk["projector"]) == (1, 1, 1, 3)
    assert 2 < talk["regions"] < 3
    find = factors(dataclasses.replace(FIND, trainable=("vision.pyramid",)))
    assert (find["vision 1"], find["pyramid"], find["proposer"]) == (1, 3, 2)
    assert (find["projector"], find["regions"], find["text"]) == (0, 0, 0)
    crops = factors(TALK, dataclasses.replace(ROW, pictures=0.5, objects=2.0))
    assert (crops["vision 1"], crops["projector"], crops["proposer"]) == (2.5, 7.5, 0.5)


def test_a_plan_adds_up(planned, tiny_parts, folder):
    found = planned(TALK, processes=2, micro_batch=1)
    (stage,) = found.stages
    assert (stage.samples, stage.steps) == (12, 3)  # four rows, three times, four a step
    assert (stage.micro_batch, stage.accumulation) == (1, 2)
    row = stage.row
    assert (row.basis, row.image, row.regions, row.pictures) == ("measured", 9, 6, 1)
    assert 0 < row.learned < row.text <= 90
    context = StageContext(Recipe("x", "tiny", (TALK,)), TALK, Runtime(str(folder)))
    samples = list(checks.open_stage(context).iterate())
    text = AnswerCollator(tiny_parts[1], TALK.max_length)(samples)["text"]
    assert row.tokens == pytest.approx(float(text.attention_mask.sum()) / 4)
    assert row.longest == text.input_ids.shape[1]
    assert stage.tokens == round(12 * row.tokens)
    assert stage.flops == 12 * sum(part.flops for part in stage.parts)
    assert stage.hours == pytest.approx(stage.flops / (2 * 0.5e12) / 3600)


def test_what_cannot_be_measured_is_said(planned, tmp_path):
    limited, open_ended = planned(TALK, dataclasses.replace(TALK, name="any", max_length=0),
                                  data=tmp_path).stages  # fmt: skip
    assert (limited.row.basis, limited.row.text, limited.row.longest) == ("one_picture", 90, 105)
    assert limited.memory is not None
    assert (limited.samples, limited.steps, limited.flops, limited.hours) == (None,) * 4
    assert (open_ended.row, open_ended.memory, open_ended.tokens) == (None, None, None)
    assert open_ended.parts[0].flops is None


def test_rows_that_are_not_measured_have_the_pictures_of_their_samples(tiny_parts, toy_talk):
    model, picture = frozen_model(tiny_parts[0], TALK), toy_talk[0].images[0]
    frame = dataclasses.replace(picture, path="clip.mp4", pixels=None)
    frames = tuple(dataclasses.replace(frame, video_frame=number) for number in range(3))
    video = dataclasses.replace(toy_talk[0], images=frames)
    row = measure._at_most(model, TALK, [video, toy_talk[1]])
    assert (row.basis, row.pictures, row.image, row.regions) == ("max_length", 2, 18, 12)
    assert row.longest == 3 * (9 + 6) + 90


def test_hours_without_a_gpu_are_those_of_cores(planned, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = planned(TALK, tflops=None)
    stage = found.stages[0]
    assert (found.tflops, found.device) == (0.05, "cpu")
    assert stage.hours == pytest.approx(stage.flops / (found.processes * 0.05e12) / 3600)
    show_plan(found)
    assert "hours at an assumed 0.05 TFLOP/s" in capsys.readouterr().out


def test_large_models_are_planned_for_gpus(planned, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = planned(TALK, processes=2)
    (stage,) = here.stages
    assert (here.device, here.attention) == ("cpu", "turns")
    assert stage.host == 2 * stage.memory.total
    monkeypatch.setattr("parfocal.train.plan.FOR_GPUS", 1)
    there = planned(TALK, processes=2)
    (other,) = there.stages
    assert (there.device, there.attention) == ("cuda", "sdpa")
    assert other.memory.activations < stage.memory.activations
    assert other.host == 2 * 4 * (stage.trained + stage.frozen)  # all of it, in each process


def test_fused_attention_keeps_no_pairs_but_the_mask(tiny_parts):
    def kept(length: int, attention: str) -> int:
        model, row = frozen_model(tiny_parts[0], TALK), dataclasses.replace(ROW, longest=length)
        memory = process_memory(model, TALK, row, 1, 1, bf16=True, attention=attention)
        return memory.activations - 4 * length**2

    assert kept(4096, "sdpa") < 2 * kept(2048, "sdpa")
    assert kept(4096, "eager") > 3.5 * kept(2048, "eager")


def test_features_are_counted_as_they_are_kept(planned, make_model, tiny_parts, folder):
    real = make_model()
    seen = feature_cache._row(real.perceive(feature_cache.blank_picture(real.config)), 0)
    size = entry_bytes(meta_model(tiny_parts[0]))
    assert size == sum(value.nbytes for value in seen.values())
    found = planned(TALK, features=folder / "seen")
    (kept,) = (stage.features for stage in found.stages)
    assert (kept.picture, kept.pictures, kept.size) == (size, 4, 4 * size)  # once, not each epoch
    assert found.problems == () and found.free > 0 and not (folder / "seen").exists()
    sees = dataclasses.replace(TALK, name="sees", trainable=("vision",))
    assert [stage.features for stage in planned(TALK, sees, features=folder).stages][1] is None


def test_features_that_do_not_fit_are_a_problem(planned, folder, monkeypatch, capsys):
    monkeypatch.setattr("parfocal.train.plan.free_bytes", lambda folder: (10, 0))
    again = dataclasses.replace(TALK, name="again")
    found = planned(TALK, again, features=folder)  # the same pictures, once
    (problem,) = found.problems
    assert problem.startswith("--features keeps up to 0.0 GB, and ")
    monkeypatch.setattr("parfocal.train.plan.free_bytes",
                        lambda folder: (10, found.stages[0].features.size))  # fmt: skip
    found = planned(TALK, again, features=folder)
    assert found.problems == ()
    show_plan(found)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "pictures 4 4" in lines


def test_detection_reads_no_text(planned):
    (stage,) = planned(FIND).stages
    work = {part.name: part.flops for part in stage.parts}
    assert (stage.row.basis, stage.tokens, stage.steps) == ("pictures", 0, 5)
    assert work["text"] == 0 < work["proposer"]
    assert stage.memory.activations > 0


def test_scenes_are_measured_where_their_art_is(planned, monkeypatch, tmp_path, toy_bank):
    stage = dataclasses.replace(TALK, mixture=None, samples=8, max_length=0)
    monkeypatch.setattr(scenes, "load_sprites", lambda: toy_bank)
    monkeypatch.setattr(measure, "art_path", lambda: tmp_path)
    found = planned(stage)
    assert (found.stages[0].row.basis, found.to_fetch) == ("measured", ())
    monkeypatch.setattr(measure, "art_path", lambda: tmp_path / "none.tgz")
    found = planned(stage)
    assert (found.stages[0].row, found.problems) == (None, ())
    assert found.to_fetch == ("the art of the seeded scenes (16 MB)",)


def test_memory_of_weights_and_optimiser_is_the_formula(tiny_parts):
    stage = dataclasses.replace(TALK, trainable=("text",), lora=Lora(rank=RANK))
    model = frozen_model(tiny_parts[0], stage)
    trained, frozen = trainable_counts(model)
    assert trained == ADAPTERS
    plain = process_memory(model, stage, ROW, 1, world=1, bf16=False)
    assert (plain.weights, plain.copies) == (4 * (trained + frozen), 0)
    assert (plain.gradients, plain.moments) == (4 * trained, 8 * trained)
    half = process_memory(model, stage, ROW, 2, world=2, bf16=True)
    assert half.copies == 2 * sum(value.numel() for value in model.text.parameters())
    assert half.gradients == 2 * plain.gradients
    assert half.total == sum(dataclasses.astuple(half))
    saving = dataclasses.replace(stage, gradient_checkpointing=True)
    less = process_memory(model, saving, ROW, 1, world=1, bf16=False)
    assert less.activations < plain.activations


def test_muon_keeps_one_number_a_weight(tiny_parts):
    stage = dataclasses.replace(TALK, trainable=("text",))
    model = frozen_model(tiny_parts[0], stage)
    matrices = sum(value.numel() for value in model.text.model.layers.parameters()
                   if value.ndim == 2)  # fmt: skip
    muon = dataclasses.replace(stage, optim=dataclasses.replace(stage.optim, muon=("layers",)))
    adamw, both = (process_memory(model, item, ROW, 1, 1, bf16=False) for item in (stage, muon))
    assert 0 < adamw.moments - both.moments == 4 * matrices


def test_memory_in_4_bits_is_the_formula(tiny_parts):
    stage = dataclasses.replace(TALK, trainable=("text",), lora=Lora(rank=RANK, quantize="nf4"))
    model = frozen_model(tiny_parts[0], stage)
    trained, frozen = trainable_counts(model)
    assert trained == ADAPTERS
    packed = LINEAR * (4 + 0.127) / 8  # section 3 of QLoRA: 0.127 bits for the scales
    plain = process_memory(model, stage, ROW, 1, world=1, bf16=False)
    assert plain.weights - 4 * (trained + frozen - LINEAR) == pytest.approx(packed, rel=1e-3)
    assert plain.copies == 4 * WIDTH * INNER  # the largest layer, unpacked
    half = process_memory(model, stage, ROW, 1, world=1, bf16=True)
    text = sum(value.numel() for value in model.text.parameters())
    assert half.copies == 2 * (text - LINEAR) + 2 * WIDTH * INNER
    assert (plain.gradients, plain.moments) == (4 * trained, 8 * trained)


def test_what_4_bits_need_is_a_problem_before(planned, monkeypatch):
    stage = dataclasses.replace(TALK, lora=Lora(rank=RANK, quantize="nf4"))
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    rows, missing = planned(stage).problems
    assert missing.startswith("stage 'talk': ")
    assert "pip install 'parfocal[qlora]'" in missing
    assert "q_proj' has 32 inputs" in rows


def kept_by_step(model, batch) -> int:
    """Bytes that autograd keeps of a real step, weights left out."""
    own = {value.data_ptr() for value in (*model.parameters(), *model.buffers())}
    held: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = LanguageObjective(model, offer_ground_boxes=True)(**batch)
    assert output.loss.requires_grad
    return sum(held.values())


@pytest.mark.parametrize("trainable", [TALK.trainable, ("vision", "projector")], ids=str)
def test_activations_are_what_a_real_step_keeps(make_model, tiny_parts, toy_talk, trainable):
    stage = dataclasses.replace(TALK, trainable=trainable)
    batch = AnswerCollator(tiny_parts[1])([toy_talk[0]])
    model = make_model().eval()
    model.text.set_attn_implementation("eager")
    freeze(LanguageObjective(model), stage)
    text = batch["text"]
    row = dataclasses.replace(
        ROW, longest=text.input_ids.shape[1], learned=float((text.labels != -100).sum())
    )
    planned = frozen_model(tiny_parts[0], stage)
    memory = process_memory(planned, stage, row, 1, 1, bf16=False, attention="eager")
    assert memory.activations == pytest.approx(kept_by_step(model, batch), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_planned(name):
    config = get_preset(name)
    parts = {key.split(".")[0] for key, _ in meta_model(config).named_parameters()}
    elsewhere = Mixture((MixtureSource("far", "owner/rows", kind="hub", streaming=True),))
    whole = Stage(
        "whole", "language", tuple(parts), samples=8, batch_size=4, mixture=elsewhere,
        max_length=500,
    )  # fmt: skip
    few = dataclasses.replace(
        whole, name="few", trainable=("projector",), lora=Lora(), gradient_checkpointing=True
    )
    recipe = Recipe("demo", name, (whole, few))
    found = plan(recipe, config, None, Runtime(micro_batch=2), benchmarks=())
    assert found.problems == ()
    one, other = found.stages
    assert (one.frozen, one.trained) == (0, config_info(config, name).parameters)
    assert 0 < other.trained < other.frozen
    text = {part.name: part for part in one.parts}["text"]
    shape, length = config.text_config, one.row.tokens
    attention = 12 * shape.num_hidden_layers * shape.hidden_size * length**2
    assert text.flops == pytest.approx(6 * text.trained * length + attention, rel=0.15)
    assert one.memory.activations > other.memory.activations > 0


MISSING = dataclasses.replace(SOURCE, name="lost", path="lost.jsonl")
UNSEEN = dataclasses.replace(SOURCE, name="unseen", images="nowhere")
MISTAKES = {
    "file": ({"mixture": Mixture((MISSING,))}, {}, "'lost'.*lost.jsonl does not exist"),
    "picture": ({"mixture": Mixture((UNSEEN,))}, {}, "'unseen'.*nowhere/0.png"),
    "view": (
        {"mixture": Mixture((dataclasses.replace(SOURCE, views=("spin",)),))}, {}, "'spin'",
    ),
    "leak index": (
        {"mixture": Mixture((SOURCE,), benchmarks=("marks.json",))}, {}, "marks.json",
    ),
    "rows to score on": (
        {"eval_samples": 2, "eval_mixture": Mixture((MISSING,))}, {},
        "stage 'talk': eval_mixture: .*lost.jsonl does not exist",
    ),
    "rate": ({"optim": Optim(lr_factors={"txet": 2.0})}, {}, "lr_factors name 'txet'"),
    "muon": ({"optim": Optim(muon=("vision",))}, {}, "muon name 'vision', which is part of no"),
    "held rows": (
        {"first_row": 10**6, "optim": Optim(weight_decay=0.0)}, {}, "first_row is 1000000, but",
    ),
    "prefix": ({"trainable": ("text", "vison")}, {}, "stage 'talk' trains 'vison'"),
    "adapter": ({"lora": Lora(targets=("nothing",))}, {}, "lora.targets .'nothing'."),
    "batch": ({"batch_size": 3}, {"processes": 2}, "batch size 3 is not a multiple of 2"),
    "micro-batch": ({}, {"micro_batch": 3}, "4 is not a multiple of 1 processes times 3"),
    "weights": ({}, {"weights": {"text": "/no/such"}}, "'text': '/no/such' is neither a folder"),
    "part": ({}, {"weights": {"txet": "/"}}, "no part 'txet'"),
    "benchmark": ({}, {"benchmarks": ("scnes",)}, "no benchmark 'scnes' .* choose from .'scenes'"),
    "limit": ({}, {"benchmark_limit": 0}, "benchmark_limit is 0, must be 1 or more"),
}  # fmt: skip


@pytest.mark.parametrize(("stage", "words", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_has_its_sentence(planned, stage, words, sentence):
    problems = planned(dataclasses.replace(TALK, **stage), **words).problems
    assert any(re.search(sentence, problem) for problem in problems), problems


def test_all_mistakes_are_told_at_once_and_none_twice(planned):
    first = dataclasses.replace(
        TALK, mixture=Mixture((MISSING, UNSEEN)), trainable=("text", "vison", "liht"), batch_size=3
    )
    second = dataclasses.replace(first, name="second", trainable=("text",), batch_size=4)
    problems = planned(first, second, processes=2, benchmarks=("scnes",)).problems
    wanted = ("lost.jsonl", "0.png", "1.png", "2.png", "'vison'", "'liht'", "size 3", "'scnes'")
    assert len(problems) == len(wanted)
    for words in wanted:
        assert sum(words in problem for problem in problems) == 1, words


def test_what_is_on_a_hub_is_listed_and_not_asked_for(planned):
    remote = MixtureSource("far", "owner/rows", kind="hub", streaming=True)
    stage = dataclasses.replace(TALK, mixture=Mixture((remote, SOURCE)))
    found = planned(stage)
    assert found.problems == ()
    assert found.to_fetch == ("source 'far': dataset owner/rows",)


def test_weights_that_a_run_would_not_find_are_a_problem(planned):
    (problem,) = planned(TALK, weights={"text": "owner/language-model"}).problems
    assert "run `hf download owner/language-model` first" in problem


def test_what_is_done_is_left_out_with_the_weights_that_it_began_with(planned):
    weights = {"text": "owner/language-model"}
    found = planned(FIND, TALK, weights=weights, done=("find",))
    assert found.problems == ()
    assert found.stages == planned(TALK).stages


def test_stages_that_are_asked_for_are_planned_alone(planned):
    found = planned(FIND, TALK, only=(TALK.name,))
    assert found.stages == planned(TALK).stages
    (problem,) = found.problems
    assert problem.startswith("stages ['find'] are neither done nor asked for")
    assert planned(FIND, TALK, only=(TALK.name,), done=(TALK.name,)).stages == ()
    (problem,) = planned(FIND, TALK, only=("walk",)).problems
    assert "has no stage 'walk'" in problem


def test_settings_that_a_run_would_refuse_are_a_problem(planned):
    (problem,) = planned(TALK, generation={"num_beam": 4}).problems
    assert "generation has ['num_beam']" in problem


def test_all_of_a_model_is_a_part(planned, tmp_path):
    (problem,) = planned(TALK, weights={"model": str(tmp_path)}).problems
    assert problem.endswith("holds no weights (.safetensors, .bin, .pt, .pth).")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert planned(TALK, weights={"model": str(tmp_path)}).problems == ()


def test_one_weight_is_a_part(planned, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert planned(TALK, weights={"regions.context.scale": str(tmp_path)}).problems == ()


def test_a_plan_is_json_and_comes_back(planned):
    adapted = dataclasses.replace(TALK, name="adapted", lora=Lora())
    found = planned(FIND, adapted, TALK, benchmarks=("scnes",))
    values = json.loads(json.dumps(found.to_json()))
    assert values["schema"] == "parfocal.plan/1"
    assert Plan.from_json(values) == found
    with pytest.raises(ConfigError, match="no plan"):
        Plan.from_json({"schema": "parfocal.run/1"})


def test_a_plan_is_shown(planned, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    found = planned(FIND, TALK)
    show_plan(found)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    find, talk = found.stages
    assert f"trained parameters {find.trained:,} {talk.trained:,}" in lines
    assert "optimiser steps 5 3" in lines
    assert "processes x batches of 1 x 1 of 4 1 x 1 of 4" in lines
    assert "basis pictures only measured" in lines
    assert lines[-1] == "no problems"
    show_plan(planned(TALK, benchmarks=("scnes",), weights={"text": "a/b"}))
    out = capsys.readouterr().out
    assert "\nproblem: there is no benchmark 'scnes'" in out
    assert out.endswith("\n2 problems\n")
    show_plan(found, as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_json()))


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_of_a_plan_is_cut(planned, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    found = planned(*(dataclasses.replace(TALK, name=f"alignment_{n}") for n in range(4)))
    large = (dataclasses.replace(stage, trained=2_151_590_912) for stage in found.stages)
    show_plan(dataclasses.replace(found, stages=tuple(large)))
    out = capsys.readouterr().out
    table = out[: out.index("memory: ")]
    assert "\N{HORIZONTAL ELLIPSIS}" not in out and out.count("2,151,590,912") == 4
    assert max(map(len, table.splitlines())) <= columns
    assert table.count("trained parameters") == {60: 2, 80: 2, 120: 1}[columns]
