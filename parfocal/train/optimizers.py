"""The optimiser of a stage: AdamW, and Muon for the matrices and kernels that the stage names.

Source: Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks"; its steps
    are as large as AdamW's (Liu et al., 2025, arXiv:2502.16982, section 2.2), so that both take one
    learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from parfocal.errors import ConfigError
from parfocal.train.optim import Optim, is_part
from parfocal.train.recipe import Stage
from parfocal.train.runtime import process_rank, world_size

_ADAMW = "[] for AdamW alone"


class Optimizers(Optimizer):
    """Several optimisers that schedules, the Trainer and checkpoints take for one.

    Args:
        members: at least one; every parameter is in one of them only.
    """

    def __init__(self, members: Sequence[Optimizer]) -> None:
        self.members = tuple(members)
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """The groups themselves, so that a learning rate set here is set in the member."""
        return [group for member in self.members for group in member.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Let every member take its step; a closure is called once, before them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the members' states, in their order."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            ValueError: if it is of other members, or of other groups of parameters.
        """
        for member, state in zip(self.members, state_dict["members"], strict=True):
            member.load_state_dict(state)
        self.param_groups = self._groups()  # loading made new ones


class KernelMuon(Muon):
    """Muon that takes kernels of convolutions as matrices, one row for each output channel.

    Data-parallel processes share the work: each makes the steps of some parameters and hands the
    result to the others, so that the weights are those of one process to the bit. Momenta are
    everywhere, and any process can write a checkpoint.

    Args:
        groups: parameters of two or four dimensions, with `lr` and `weight_decay`.
        lr: where a group has none.

    Source: Jordan et al., 2024, which flattens kernels and shares work likewise.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        nothing = {"params": [nn.Parameter(torch.empty(0, 0))]}  # Muon itself takes matrices only
        super().__init__([nothing], lr=lr, adjust_lr_fn="match_rms_adamw")
        self.param_groups.clear()
        for group in groups:
            self.add_param_group(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; all processes at once, with the same gradients."""
        loss: float | None = super().step(closure)
        if world_size() > 1:
            owners = self._owners()
            for rank in range(world_size()):
                owned = [_matrix(value, value) for value in owners if owners[value] == rank]
                if owned:
                    whole = torch.cat([value.flatten() for value in owned])
                    torch.distributed.broadcast(whole, rank)
                    sizes = [value.numel() for value in owned]
                    for value, found in zip(owned, whole.split(sizes), strict=True):
                        value.copy_(found.view_as(value))
        return loss

    def _owners(self) -> dict[Tensor, int]:
        """Which process makes the step of each parameter that has a gradient, the largest first."""
        trained = [v for group in self.param_groups for v in group["params"] if v.grad is not None]
        work, owners = [0] * world_size(), dict[Tensor, int]()
        for value in sorted(trained, key=lambda value: -value.numel()):
            owners[value] = work.index(min(work))
            work[owners[value]] += value.numel() * min(len(value), value.numel() // len(value))
        return owners

    def _init_group(
        self,
        group: MutableMapping[str, Any],
        params_with_grad: list[Tensor],
        grads: list[Tensor],
        muon_momentum_bufs: list[Tensor],
    ) -> bool:
        """Show the step matrices: of own parameters, their gradients and their momenta."""
        owners, rank = self._owners(), process_rank()
        for value in group["params"]:
            if value.grad is None:
                continue
            # the momentum in the parameter's layout, whatever its gradient
            state = self.state[value]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(value)
            momentum = state["momentum_buffer"]
            if owners[value] != rank:
                momentum.lerp_(value.grad, 1 - group["momentum"])
                continue
            parts = (params_with_grad, grads, muon_momentum_bufs)
            for part, item in zip(parts, (value, value.grad, momentum), strict=True):
                part.append(_matrix(item, value))
        return False  # no complex numbers


def _matrix(value: Tensor, kernel: Tensor) -> Tensor:
    """Flatten a tensor of a kernel's shape so that the kernel itself would be a view."""
    if kernel.ndim == 4 and kernel.is_contiguous(memory_format=torch.channels_last):
        value = value.permute(0, 2, 3, 1)
    return value.flatten(1)


def build_optimizer(model: nn.Module, stage: Stage) -> Optimizer:
    """Return the stage's optimiser: a group of parameters for each learning rate and weight decay.

    Raises:
        ConfigError: as `check_names` does.
    """
    check_names(model, stage)
    optim = stage.optim
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    matrices = [item for item in named if by_muon(*item, optim)]
    others = [item for item in named if not by_muon(*item, optim)]
    members: list[Optimizer] = []
    if others:
        members.append(AdamW(_grouped(others, optim), lr=optim.lr, betas=optim.betas))
    if matrices:
        members.append(KernelMuon(_grouped(matrices, optim), lr=optim.lr))
    return members[0] if len(members) == 1 else Optimizers(members)


def check_names(model: nn.Module, stage: Stage) -> None:
    """Refuse names of the stage's optimiser that mean nothing.

    Raises:
        ConfigError: if `lr_factors` or `muon` name something that no parameter that trains is part
            of, or `muon` parts without matrices and kernels.
    """
    optim = stage.optim
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    settings = {"lr_factors": (optim.lr_factors, "{} for one rate"), "muon": (optim.muon, _ADAMW)}
    for key, (parts, otherwise) in settings.items():
        for part in parts:
            if not any(is_part(name, part) for name, _ in named):
                raise ConfigError(
                    f"stage {stage.name!r}: {key} name {part!r}, which is part of no parameter "
                    f"that trains. Set stages.{stage.name}.optim.{key} to parts that train, or to "
                    f"{otherwise}."
                )
    if optim.muon and not any(by_muon(*item, optim) for item in named):
        raise ConfigError(
            f"stage {stage.name!r}: muon names {list(optim.muon)}, which hold no matrix and no "
            f"kernel that trains. Set stages.{stage.name}.optim.muon to parts that hold one, or to "
            f"{_ADAMW}."
        )


def by_muon(name: str, value: Tensor, optim: Optim) -> bool:
    """Whether Muon trains a parameter: it takes matrices and kernels of two-way convolutions."""
    return value.ndim in (2, 4) and any(is_part(name, part) for part in optim.muon)


def _grouped(named: Sequence[tuple[str, nn.Parameter]], optim: Optim) -> list[dict[str, Any]]:
    """Groups of an optimiser, in an order that depends on nothing but rates and decays."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
    for name, value in named:
        decays = optim.decay_all or value.ndim > 1
        groups[not decays, optim.factor(name)].append(value)
    return [
        {
            "params": groups[key],
            "lr": optim.lr * key[1],
            "weight_decay": 0.0 if key[0] else optim.weight_decay,
        }
        for key in sorted(groups)
    ]
