"""The processes of a run: how many, how they start, that they end together, one run a folder.

`parfocal train` starts a launcher (`parfocal.train.spread`), which starts the workers. Each asks
the system to end it when the process that started it does, so that a run that is killed stops
writing before another goes on with its folder. Both `parfocal train` and its main worker hold the
folder: either may be all that is left of a run, or all that there ever was.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from parfocal.errors import ConfigError

KEEP_MEMORY = {"MMAP_THRESHOLD_": 2**30, "TRIM_THRESHOLD_": 2**30, "TOP_PAD_": 2**26}
"""How glibc is told, in bytes, to use memory again that a process gave back: a step on a CPU asks
for the same large tensors every time, and fresh pages are slow."""

LOCKS = ("run.lock", "work.lock")  # of the process that starts a run, and of its main worker
ACCELERATE = "accelerate.yaml"
"""In the folder of a run, what Accelerate is configured with."""
_PARENT = "PARFOCAL_LAUNCHED_BY"  # number and machine of a process
_PR_SET_PDEATHSIG = 1  # of Linux' sys/prctl.h


def default_processes() -> int:
    """One process a GPU, or one a core, at most two, on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return min(2, os.cpu_count() or 1)


def command_of(out: Path, processes: int, accelerate: Path | None, bf16: bool) -> list[str]:
    """The command that starts all processes of the run in `out`.

    Args:
        out: the run's folder.
        processes: how many.
        accelerate: configuration file of Accelerate, or None.
        bf16: what the recipe says; it overrules the configuration.

    """
    python, worker = [sys.executable, "-m"], ["parfocal.train.worker", str(out)]
    if accelerate is not None:
        options = ["--config_file", str(accelerate), "--num_processes", str(processes)]
        options += ["--mixed_precision", "bf16" if bf16 else "no"]
        spread = ["parfocal.train.spread", "accelerate.commands.launch", *options, "-m"]
        return [*python, *spread, *worker]
    if processes > 1:
        options = ["--standalone", f"--nproc-per-node={processes}", "-m"]
        return [*python, "parfocal.train.spread", "torch.distributed.run", *options, *worker]
    return [*python, *worker]


def divided_states(accelerate: Path | None) -> tuple[str, ...]:
    """Which of weights, gradients and moments processes hold parts of; none where all hold all.

    Args:
        accelerate: configuration file of Accelerate, or None.

    Raises:
        ConfigError: if it cannot be read, or needs DeepSpeed, which is missing.
    """
    if accelerate is None:
        return ()
    try:
        asked = load_config_from_file(str(accelerate))
    except Exception as err:  # it checks little of what it reads, and fails on it anyhow
        raise ConfigError(f"{accelerate} is no configuration of Accelerate: {err!r}.") from err
    if asked.distributed_type == DistributedType.FSDP:
        again = asked.fsdp_config.get("fsdp_reshard_after_forward", True)
        whole = again in (False, "SHARD_GRAD_OP")  # the name that FSDP 1 has for it
        return ("moments", "gradients") if whole else ("moments", "gradients", "weights")
    if asked.distributed_type != DistributedType.DEEPSPEED:
        return ()
    if find_spec("deepspeed") is None:
        raise ConfigError(f"{accelerate.name} needs DeepSpeed: pip install deepspeed.")
    return ("moments", "gradients", "weights")[: _zero_stage(asked.deepspeed_config, accelerate)]


def _zero_stage(asked: Mapping[str, Any], accelerate: Path) -> int:
    """The stage of ZeRO: of DeepSpeed's own file, where the configuration names one."""
    own = asked.get("deepspeed_config_file", "none")
    if own == "none":
        return int(asked.get("zero_stage", 2))  # Accelerate's own default
    try:
        settings = json.loads(Path(own).read_text(encoding="utf-8"))
        return int(settings.get("zero_optimization", {}).get("stage", 0))
    except (OSError, ValueError, AttributeError, TypeError) as err:
        raise ConfigError(
            f"{accelerate} names the DeepSpeed configuration {own}, which cannot be read: {err}. "
            "Give its whole path, or leave it out and set zero_stage."
        ) from err


def launch(out: Path, processes: int, command: list[str]) -> None:
    """Run all processes of the run in `out` to their end.

    Args:
        out: the run's folder.
        processes: how many.
        command: from `command_of`.

    Raises:
        ConfigError: if they stop with an error, which they have told.
    """
    environment = {**os.environ, _PARENT: _this_process()}
    if processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if not torch.cuda.is_available() and _keeps_memory(*platform.libc_ver()):
        for name, size in KEEP_MEMORY.items():
            environment.setdefault(f"MALLOC_{name}", str(size))
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise ConfigError(
            f"training in {out} stopped with exit code {code}; the log above says why. "
            "--resume goes on with the same recipe; to change it, remove the folder or give "
            "another --out."
        )


def _keeps_memory(libc: str, version: str) -> bool:
    """Whether `KEEP_MEMORY` does what it is for.

    Older ones refuse so high a threshold of their own and no longer raise it with the other two
    set, so that every tensor would be of fresh pages.
    """
    return libc == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 36)


def end_with_parent() -> None:
    """Let Linux end this process as soon as the one that started it has ended.

    So it is with those that `launch` starts and, in turn, with theirs. What somebody started by
    hand goes on, and so does everything on other systems.
    """
    parent, _, machine = os.environ.get(_PARENT, "").partition(" ")
    if sys.platform != "linux" or machine != _machine():
        return  # launchers may hand the variable on to other machines
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not is_running(int(parent)):  # it ended before the system was asked
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ[_PARENT] = _this_process()


def _this_process() -> str:
    return f"{os.getpid()} {_machine()}"


def _machine() -> str:
    """The machine, or the container on it, whose numbers of processes this one's is among."""
    space = os.readlink("/proc/self/ns/pid") if sys.platform == "linux" else ""
    return f"{platform.node()}/{space}"


def is_running(process: int) -> bool:
    """Whether Linux has a process of this number, and not only what is left of an ended one."""
    try:
        words = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):  # it may end while it is looked at
        return False
    return words.rpartition(")")[2].split()[0] != "Z"


@contextmanager
def sole_run(out: Path, lock: str) -> Iterator[None]:
    """Keep other runs out of a folder for as long as this lasts, or this process.

    Where the system or the folder has no locks, nothing is kept.

    Args:
        out: the run's folder.
        lock: one of `LOCKS`.

    Raises:
        ConfigError: if another process holds it.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    with (out / lock).open("a+", encoding="utf-8") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # this process's, not its children's
        except (BlockingIOError, PermissionError) as err:
            stream.seek(0)
            raise ConfigError(
                f"another process trains in {out}: {stream.read().strip()}. Wait for it, end it, "
                f"or choose another folder; if its machine is gone, remove {out / lock}."
            ) from err
        except OSError:  # a file system without locks
            pass
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}\n")
        stream.flush()
        yield
