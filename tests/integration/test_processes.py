"""Several processes compute what one does: the same losses, step by step."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from parfocal.data.jsonl import write_jsonl
from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.scenes.turns import with_turns
from parfocal.dialects import get_dialect
from parfocal.errors import ConfigError
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import vary
from parfocal.recipes import accelerate_file
from parfocal.train.checkpoints import best, step_of
from parfocal.train.language import LanguageObjective
from parfocal.train.parameters import check_divisible
from parfocal.train.processes import command_of, is_running
from parfocal.train.recipe import Lora, Optim, Recipe, Stage
from parfocal.train.runtime import Runtime
from tests.integration.conftest import wait_for

pytestmark = pytest.mark.integration

STEPS = 20
TALK = Stage(
    "talk", "language", ("projector", "regions.position", "regions.lift", "text"),
    samples=4 * STEPS, batch_size=4, mixture=Mixture((MixtureSource("toy", "toy.jsonl"),)),
    optim=Optim(lr=1e-3, warmup_steps=2), eval_samples=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(toy_bank, toy_parts, tmp_path_factory):
    """Make a run's folder that any number of processes may start from."""
    data = tmp_path_factory.mktemp("data")
    reader, rows = SceneReader("train", 8, (64,), toy_bank), []
    dialect = get_dialect("region_tokens")
    for index in range(8):
        sample = with_turns(reader[index], dialect, np.random.default_rng(index))
        sample.open_image().save(data / f"{index}.png")
        image = dataclasses.replace(sample.images[0], path=f"{index}.png", pixels=None)
        rows.append(dataclasses.replace(sample, images=(image,)))
    write_jsonl(rows, data / "toy.jsonl")

    def prepare(name: str, stage: Stage = TALK, width: int = 32, features: str = "") -> Path:
        out = tmp_path_factory.mktemp(name)
        config, processor = toy_parts
        changes = {"regions": {"context": "none"}, "text_config": {"hidden_size": width}}
        vary(config, changes).save_pretrained(out / "start")
        processor.save_pretrained(out / "start")
        recipe = Recipe("toy", "tiny", (stage,), seed=3, bf16=False)
        (out / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
        Runtime(data=str(data), features=features).save(out)
        return out

    return prepare


# what `parfocal train` does once the folder is prepared
LAUNCH = """
import sys
from pathlib import Path
from parfocal.train.processes import command_of, launch
out, processes = Path(sys.argv[1]), int(sys.argv[2])
launch(out, processes, command_of(out, processes, None, bf16=False))
"""


def begin(out: Path, processes: int) -> subprocess.Popen:
    """Start a run like the command does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None)
    command = [sys.executable, "-c", LAUNCH, str(out), str(processes)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def launch(out: Path, processes: int) -> None:
    run = begin(out, processes)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 0, told[-3000:]


def losses(out: Path) -> list[float]:
    lines = (out / "talk" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.fixture(scope="module")
def single(prepared) -> Path:
    out = prepared("single")
    launch(out, 1)
    return out


def test_two_processes_take_the_steps_of_one(prepared, single):
    out = prepared("two")
    launch(out, 2)
    assert len(losses(single)) == STEPS
    assert losses(out) == pytest.approx(losses(single), abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell of a parent's end")
def test_two_killed_processes_end_at_the_bits_of_two_that_never_stopped(prepared):
    stage = dataclasses.replace(TALK, row_length=256, samples=4 * 12)
    whole, killed = prepared("whole", stage), prepared("killed", stage)
    launch(whole, 2)
    steps = int(np.random.default_rng().integers(1, 10))
    run, folder = begin(killed, 2), killed / "talk"
    assert wait_for(lambda: any(step_of(path) >= steps for path in folder.glob("checkpoint-*")))
    worker = int((killed / "work.lock").read_text(encoding="utf-8").split()[1])
    run.kill()
    run.communicate()
    assert wait_for(lambda: not is_running(worker))
    assert not (folder / "model.safetensors").exists()
    launch(killed, 2)
    one, other = (load_file(out / "talk" / "model.safetensors") for out in (whole, killed))
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])], steps


MUON = """
import os, sys, torch
from parfocal.train.optimizers import KernelMuon

if "RANK" in os.environ:
    torch.distributed.init_process_group("gloo")
generator = torch.Generator().manual_seed(0)
shapes = [(8, 3, 3, 3), (8, 8, 3, 3), (6, 40), (40, 6), (5, 5)]
weights = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
weights[1].data = weights[1].data.to(memory_format=torch.channels_last)
optimizer = KernelMuon([{"params": weights, "weight_decay": 0.1}], lr=1e-2)
for step in range(4):
    for weight in weights[:4]:  # the last has no gradient
        weight.grad = torch.randn(weight.shape, generator=generator)
    optimizer.step()
momenta = [optimizer.state[weight].get("momentum_buffer") for weight in weights]
rank = os.environ.get("RANK", "alone")
torch.save([weight.detach() for weight in weights] + momenta, f"{sys.argv[1]}/{rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_share_the_steps_of_muon(tmp_path):
    script = tmp_path / "muon.py"
    script.write_text(MUON, encoding="utf-8")
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    for words in ((), two):
        command = [sys.executable, *words, str(script), str(tmp_path)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    alone, *others = (torch.load(tmp_path / f"{name}.pt") for name in ("alone", 0, 1))
    for found in others:
        for got, expected in zip(found, alone, strict=True):
            assert (got is None) if expected is None else torch.equal(got, expected)


@pytest.mark.slow
def test_two_processes_agree_on_the_best_checkpoint(prepared):
    scored = dataclasses.replace(
        TALK, samples=16, eval_every=2, eval_samples=4, eval_mixture=TALK.mixture,
        best="pointing_50",
    )  # fmt: skip
    out = prepared("scored", scored)
    launch(out, 2)
    assert len(losses(out)) == 4
    assert best(out / "talk").name in ("checkpoint-2", "checkpoint-4")


@pytest.mark.slow
def test_two_processes_read_what_both_have_seen(prepared, tmp_path):
    viewed = Mixture((MixtureSource("toy", "toy.jsonl", views=("conversation",)),))
    stage = dataclasses.replace(TALK, samples=32, mixture=viewed)
    launch(prepared("seen", stage, features=str(tmp_path / "features")), 2)
    (folder,) = (tmp_path / "features").iterdir()
    assert len(list(folder.glob("*.safetensors"))) == 2  # one of each


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is installed apart")
def test_two_processes_take_the_steps_of_one_in_4_bits(prepared):
    lora = Lora(rank=4, dropout=0.0, quantize="nf4")
    runs = [
        prepared(name, dataclasses.replace(TALK, lora=lora), width=64) for name in ("one4", "two4")
    ]
    for processes, out in enumerate(runs, 1):
        launch(out, processes)
    assert len(losses(runs[0])) == STEPS
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), abs=1e-5)
    files = [load_file(out / "talk" / "model.safetensors") for out in runs]
    assert all(torch.allclose(files[0][name], files[1][name], atol=1e-4) for name in files[0])


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is installed apart")
@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_zero_takes_the_steps_of_one_process(prepared, single, tmp_path, kind):
    out, settings = prepared(kind), tmp_path / f"{kind}.yaml"
    shipped = accelerate_file(kind).read_text(encoding="utf-8")
    settings.write_text(f"{shipped}use_cpu: true\n", encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = command_of(out, 2, settings, bf16=False)

    def train() -> dict[str, torch.Tensor]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return load_file(out / "talk" / "model.safetensors")

    found = train()
    assert losses(out) == pytest.approx(losses(single), abs=1e-5)
    whole = load_file(single / "talk" / "model.safetensors")
    assert found.keys() == whole.keys()
    assert all(torch.allclose(found[name], whole[name], atol=1e-3) for name in whole)
    (out / "talk" / "model.safetensors").unlink()  # killed behind the last checkpoint
    again = train()
    assert all(torch.equal(found[name], again[name]) for name in found)


# Accelerate divides weights beside accelerators only, so this is PyTorch's own way of doing it.
DIVIDED = """
import json, os, sys
from pathlib import Path
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from safetensors.torch import load_file, save_file
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.train.context import StageContext
from parfocal.train.data import AnswerCollator
from parfocal.train.language import LanguageObjective
from parfocal.train.mixture_data import EndlessBatches, MixtureLoader
from parfocal.train.recipe import Recipe
from parfocal.train.runtime import Runtime
from parfocal.train.stages import open_stage
from parfocal.train.parameters import check_divisible, freeze, load_divided, tied_names

out, divided = Path(sys.argv[1]), sys.argv[2] == "divided"
torch.distributed.init_process_group("gloo")
rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
recipe = Recipe.from_json((out / "recipe.json").read_text())
(stage,) = recipe.stages
torch.manual_seed(recipe.seed)
model = ParfocalForConditionalGeneration(ParfocalConfig.from_pretrained(out / "start"))
model.text.set_attn_implementation("eager")
objective = LanguageObjective(model)
freeze(objective, stage)
check_divisible(stage, objective)
opened = open_stage(StageContext(recipe, stage, Runtime.of(out)))
collate = AnswerCollator(ParfocalProcessor.from_pretrained(out / "start"))
micro = stage.batch_size // world
batches = iter(EndlessBatches(MixtureLoader(opened, micro, collate, rank=rank, world=world)))
if divided:
    for name, part in objective.named_modules():
        if type(part).__name__ in objective._no_split_modules:
            fully_shard(part)
    fully_shard(objective)
trained = [value for value in objective.parameters() if value.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
losses = []
for _ in range(20):
    batch = next(batches)
    whole = torch.tensor(objective.counts(batch)["answer"])
    torch.distributed.all_reduce(whole)
    loss = objective.train()(**batch, counts={"answer": float(whole) / world}).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    shown = loss.detach().clone()
    torch.distributed.all_reduce(shown)
    losses.append(float(shown) / world)
options = StateDictOptions(full_state_dict=True, cpu_offload=True)
state = get_model_state_dict(objective, options=options)
if rank == 0:
    tied = {name for names in tied_names(objective) for name in names[1:]}
    kept = {name: value.contiguous() for name, value in state.items() if name not in tied}
    save_file(kept, str(out / "model.safetensors"))
    (out / "losses.json").write_text(json.dumps(losses))
torch.distributed.barrier()
if divided:  # what was saved whole goes back into parts
    with torch.no_grad():
        for value in objective.parameters():
            value.zero_()
    load_divided(objective, str(out / "model.safetensors"))
    again = get_model_state_dict(objective, options=options)
    if rank == 0:
        saved = load_file(out / "model.safetensors")
        assert all(torch.equal(again[name], value) for name, value in saved.items())
torch.distributed.destroy_process_group()
"""


def launch_script(out: Path, processes: int, kind: str) -> list[float]:
    script = out / "divided.py"
    script.write_text(DIVIDED, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", str(script), str(out), kind,
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "losses.json").read_text(encoding="utf-8"))


def test_divided_weights_take_the_steps_of_whole_ones(prepared):
    whole = launch_script(prepared("whole"), 1, "whole")
    assert len(whole) == STEPS
    assert launch_script(prepared("divided"), 2, "divided") == pytest.approx(whole, abs=1e-5)


def test_what_cannot_be_divided_is_refused(toy_parts):
    model = ParfocalForConditionalGeneration(vary(toy_parts[0], {"regions": {"context": "rank"}}))
    with pytest.raises(ConfigError, match="single numbers cannot be divided"):
        check_divisible(TALK, LanguageObjective(model))
    with pytest.raises(ConfigError, match=r"eval_every.*; some rows of its tables are held"):
        scored = dataclasses.replace(
            TALK, eval_every=2, eval_samples=4, eval_mixture=TALK.mixture, first_row=3,
            optim=Optim(weight_decay=0.0),
        )  # fmt: skip
        check_divisible(scored)
    with pytest.raises(ConfigError, match=r"trained by Muon \(optim.muon\), which needs whole"):
        matrices = dataclasses.replace(TALK, optim=Optim(muon=("text",)))
        check_divisible(matrices)
