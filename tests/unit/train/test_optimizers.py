"""Muon beside AdamW: who trains what, one schedule for both, checkpoints to the bit."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from parfocal.data.readers.scenes import SceneReader
from parfocal.data.scenes.catalogue import KINDS
from parfocal.errors import ConfigError
from parfocal.train.checkpoints import step_of
from parfocal.train.context import StageContext
from parfocal.train.data import ObjectCollator, SceneDataset
from parfocal.train.detection import DetectionObjective
from parfocal.train.optimizers import KernelMuon, Optimizers, build_optimizer
from parfocal.train.recipe import Optim, Recipe, Stage
from parfocal.train.trainer import run_stage

MIXED = Optim(lr=1e-2, weight_decay=0.1, lr_factors={"layers": 2.0}, muon=("layers",))


def small_model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 8))
    return nn.ModuleDict({"layers": layers, "head": nn.Linear(8, 3)})


def stage_with(optim: Optim) -> Stage:
    return Stage("find", "detection", ("proposer",), samples=6, batch_size=2, optim=optim)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        data = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model["head"](model["layers"](data)).square().sum().backward()
        optimizer.step()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.parameters()]


def test_muon_trains_the_matrices_of_named_parts_and_adamw_all_else():
    model = small_model()
    optimizer = build_optimizer(model, stage_with(MIXED))
    adamw, muon = optimizer.members
    assert (type(adamw), type(muon)) == (AdamW, KernelMuon)
    names = {value: name for name, value in model.named_parameters()}
    (group,) = muon.param_groups
    assert [names[value] for value in group["params"]] == ["layers.0.weight", "layers.2.weight"]
    assert (group["lr"], group["weight_decay"]) == (2e-2, 0.1)
    rates = {names[value]: (item["lr"], item["weight_decay"])
             for item in adamw.param_groups for value in item["params"]}  # fmt: skip
    assert rates == {
        "layers.0.bias": (2e-2, 0.0), "layers.1.weight": (2e-2, 0.0), "layers.1.bias": (2e-2, 0.0),
        "layers.2.bias": (2e-2, 0.0), "head.weight": (1e-2, 0.1), "head.bias": (1e-2, 0.0),
    }  # fmt: skip


def test_both_take_the_steps_they_take_alone():
    together, apart = small_model(), small_model()
    learn(together, build_optimizer(together, stage_with(MIXED)), range(4))
    matrices = [apart["layers"][index].weight for index in (0, 2)]
    others = [
        {"params": [value for value in apart["layers"].parameters() if value.ndim == 1],
         "lr": 2e-2, "weight_decay": 0.0},
        {"params": [apart["head"].weight], "weight_decay": 0.1},
        {"params": [apart["head"].bias], "weight_decay": 0.0},
    ]  # fmt: skip
    alone = [
        AdamW(others, lr=1e-2, betas=MIXED.betas),
        Muon(matrices, lr=2e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for step in range(4):
        data = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        apart.zero_grad()
        apart["head"](apart["layers"](data)).square().sum().backward()
        for optimizer in alone:
            optimizer.step()
    for got, expected in zip(weights(together), weights(apart), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("gradient", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_takes_the_steps_of_its_matrix(layout, gradient):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, bias=False).to(memory_format=layout)
    matrix = nn.Linear(27, 8, bias=False)
    matrix.weight.data = conv.weight.detach().reshape(8, 27).clone()
    optim = Optim(lr=1e-2, weight_decay=0.1, muon=("weight",))
    members = [build_optimizer(model, stage_with(optim)) for model in (conv, matrix)]
    for step in range(3):
        slope = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(step))
        conv.weight.grad = slope.contiguous(memory_format=gradient)
        matrix.weight.grad = slope.reshape(8, 27)
        for optimizer in members:
            optimizer.step()
    assert conv.weight.is_contiguous(memory_format=layout)
    # steps are computed in bfloat16, and columns stand in another order
    torch.testing.assert_close(
        conv.weight.detach().reshape(8, 27), matrix.weight.detach(), rtol=0, atol=2e-4
    )


def test_a_schedule_sets_the_rates_of_both():
    optimizer = build_optimizer(small_model(), stage_with(MIXED))
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert {group["lr"] for member in optimizer.members for group in member.param_groups} == {
        5e-3, 1e-2
    }  # fmt: skip


def test_saved_states_go_on_to_the_bit():
    model = small_model()
    optimizer = build_optimizer(model, stage_with(MIXED))
    learn(model, optimizer, range(3))
    kept, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    learn(model, optimizer, range(3, 6))
    again = build_optimizer(kept, stage_with(MIXED))
    again.load_state_dict(state)
    for group in again.param_groups:  # what a schedule does after loading
        group["lr"] *= 1.0
    learn(kept, again, range(3, 6))
    for got, expected in zip(weights(kept), weights(model), strict=True):
        assert torch.equal(got, expected)
    again.param_groups[-1]["lr"] = 0.5
    assert again.members[-1].param_groups[-1]["lr"] == 0.5
    with pytest.raises(ValueError, match="zip"):
        again.load_state_dict({"members": state["members"][:1]})


def test_a_closure_is_called_once():
    model, calls = small_model(), []
    optimizer = build_optimizer(model, stage_with(MIXED))

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        return 1.5

    with torch.no_grad():
        assert optimizer.step(closure) == 1.5
    assert calls == [True]


def test_one_optimiser_is_enough_where_one_trains_all():
    model = small_model()
    assert type(build_optimizer(model, stage_with(Optim()))) is AdamW
    for value in model.parameters():
        value.requires_grad_(value.ndim == 2)
    assert type(build_optimizer(model, stage_with(Optim(muon=("layers", "head"))))) is KernelMuon


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        (
            Optim(muon=("layer",)),
            r"muon name 'layer', which is part of no parameter that trains\. Set "
            r"stages\.find\.optim\.muon to parts that train, or to \[\] for AdamW alone\.",
        ),
        (
            Optim(lr_factors={"heads": 2.0}),
            r"lr_factors name 'heads', which is part of no parameter that trains\. Set "
            r"stages\.find\.optim\.lr_factors to parts that train, or to \{\} for one rate\.",
        ),
        (
            Optim(muon=("layers.1",)),
            r"muon names \['layers.1'\], which hold no matrix and no kernel that trains\. Set "
            r"stages\.find\.optim\.muon to parts that hold one, or to \[\] for AdamW alone\.",
        ),
    ],
)
def test_names_that_fit_nothing_are_refused(optim, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer(small_model(), stage_with(optim))


@pytest.mark.usefixtures("in_process")
def test_a_stage_goes_on_to_the_bit(make_model, processor, toy_bank, tmp_path):
    trained = ("proposer", "regions.pool")
    optim = Optim(lr=1e-2, warmup_steps=1, muon=("region_kind",))
    stage = Stage("find", "detection", trained, samples=6, batch_size=2, optim=optim, keep=3)
    recipe = Recipe("demo", "tiny", (stage,), sides=(64,), bf16=False)
    data = SceneDataset(SceneReader("train", stage.samples, (64,), toy_bank))

    def run(out):
        torch.manual_seed(1)
        objective = DetectionObjective(make_model(), len(KINDS))
        context = StageContext(recipe, stage)
        return run_stage(objective, context, data, ObjectCollator(processor), out)

    whole = run(tmp_path / "whole")
    first = min((tmp_path / "whole").glob("checkpoint-*"), key=step_of)
    shutil.copytree(first, tmp_path / "again" / first.name)
    states = torch.load(first / "optimizer.pt", weights_only=True)["members"]
    assert [sorted(next(iter(state["state"].values()))) for state in states] == [
        ["exp_avg", "exp_avg_sq", "step"], ["momentum_buffer"]
    ]  # fmt: skip
    again = run(tmp_path / "again")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_members_keep_their_groups():
    model = small_model()
    members = [AdamW(model["head"].parameters()), Muon([model["layers"][0].weight])]
    joined = Optimizers(members)
    assert joined.param_groups[0] is members[0].param_groups[0]
    assert joined.param_groups[1] is members[1].param_groups[0]
