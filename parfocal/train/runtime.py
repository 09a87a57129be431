"""What a run needs to know of the machine it is on, apart from its recipe."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from parfocal.errors import ConfigError
from parfocal.train.typed import build

RUNTIME = "runtime.json"


@dataclass(frozen=True)
class Runtime:
    """Where and how a run runs, apart from its recipe.

    Attributes:
        data: folder that the paths of mixtures are relative to; "" for the working folder.
        micro_batch: Samples that a process computes at a time; 0: all of its part of a step.
        features: folder for what frozen towers make of pictures, which is then computed once; "" to
            compute it every time.
        stages: names of those to train now; all when empty. Of the others, those that are done are
            built on, and those that are not are left out.
        trackers: of Transformers' `report_to`, such as "tensorboard" or "wandb".
        processes: that share every step; 0: as many as the machine suggests.
    """

    data: str = ""
    micro_batch: int = 0
    features: str = ""
    stages: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    processes: int = 0

    def save(self, out: Path) -> None:
        """Keep it with the run, so that its processes find it."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        (out / RUNTIME).write_text(text, encoding="utf-8")

    @classmethod
    def of(cls, out: Path) -> Runtime:
        """Read what `save` wrote; the defaults where nothing was.

        Raises:
            ConfigError: if the file is another one.
        """
        path = out / RUNTIME
        if not path.exists():
            return cls()
        try:
            found: Runtime = build(cls, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as err:
            raise ConfigError(
                f"{path} is not what a run keeps there ({err}); choose another folder."
            ) from err
        return found


def process_rank() -> int:
    """Number of this process among those of the run; the main one is 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def divides_weights() -> bool:
    """Whether processes hold parts of the weights, as Accelerate's FSDP and DeepSpeed have it."""
    kinds = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(kind) == "true" for kind in kinds)


def device() -> torch.device:
    """Where this process computes: its GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def attention(cuda: bool | None = None) -> str:
    """The attention of language models in training, a name that Transformers knows.

    Fused attention keeps far less in memory; on a CPU its way back takes longer with the masks of
    packed rows.

    Args:
        cuda: on a GPU; None: if one is here.
    """
    return "sdpa" if (torch.cuda.is_available() if cuda is None else cuda) else "eager"
