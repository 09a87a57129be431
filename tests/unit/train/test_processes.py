"""How the processes of a run are started, that they end together, and that a folder has one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from parfocal.errors import ConfigError
from parfocal.train import processes


@pytest.mark.parametrize(("count", "several"), [(1, False), (3, True)])
def test_workers_are_launched_as_told(tmp_path, monkeypatch, count, several):
    commands = []

    def fake(command, env, check):
        commands.append((command, env))
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(processes.subprocess, "run", fake)
    with pytest.raises(ConfigError, match=r"exit code 7.*--resume"):
        processes.launch(tmp_path, count, processes.command_of(tmp_path, count, None, bf16=True))
    ((command, _),) = commands
    assert command[-2:] == ["parfocal.train.worker", str(tmp_path)]
    assert ("torch.distributed.run" in command) == several
    assert ("--nproc-per-node=3" in command) == several


@pytest.mark.parametrize(
    ("libc", "told"),
    [(("glibc", "2.41"), 3), (("glibc", "2.36"), 3), (("glibc", "2.34"), 0), (("", ""), 0)],
)
def test_memory_is_kept_where_the_system_can(tmp_path, monkeypatch, libc, told):
    environments = []

    def fake(command, env, check):
        environments.append(env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(processes.subprocess, "run", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(processes.platform, "libc_ver", lambda: libc)
    processes.launch(tmp_path, 1, ["python"])
    assert sum(name.startswith("MALLOC_") for name in environments[0]) == told


def test_accelerate_launches_workers_as_its_configuration_says(tmp_path, monkeypatch):
    path = tmp_path / "own.yaml"
    path.write_text("distributed_type: FSDP\n", encoding="utf-8")
    command = processes.command_of(tmp_path, 4, path, bf16=False)
    assert command[1:7] == [
        "-m", "parfocal.train.spread", "accelerate.commands.launch", "--config_file", str(path),
        "--num_processes",
    ]  # fmt: skip
    rest = ["4", "--mixed_precision", "no", "-m", "parfocal.train.worker", str(tmp_path)]
    assert command[7:] == rest
    path.write_text("distributed_type: DEEPSPEED\n", encoding="utf-8")
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"own\.yaml needs DeepSpeed: pip install deepspeed"):
        processes.command_of(tmp_path, 4, path, bf16=True)


# a process like `parfocal train`, and a launcher like PyTorch's, which starts two that train
RUN = """
import sys
from pathlib import Path
from parfocal.train.processes import launch
spread = [sys.executable, "-m", "parfocal.train.spread", "launcher"]
launch(Path(sys.argv[1]), 2, [*spread, sys.argv[1]])
"""
LAUNCHER = """
import subprocess, sys
started = [
    subprocess.Popen([sys.executable, "-m", "trainer", *sys.argv[1:]], start_new_session=True)
    for _ in range(2)
]
for process in started:
    process.wait()
"""
TRAINER = """
import os, sys, time
from pathlib import Path
from parfocal.train.processes import end_with_parent
end_with_parent()
Path(sys.argv[1], str(os.getpid())).touch()
time.sleep(600)
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell of a parent's end")
def test_what_a_killed_run_has_started_ends_with_it(tmp_path):
    (tmp_path / "launcher.py").write_text(LAUNCHER, encoding="utf-8")
    (tmp_path / "trainer.py").write_text(TRAINER, encoding="utf-8")
    (tmp_path / "out").mkdir()
    roots = [str(Path(processes.__file__).parents[2]), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    command = [sys.executable, "-c", RUN, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment) as run:
        try:
            assert wait_for(lambda: len(list((tmp_path / "out").iterdir())) == 2)
        finally:
            os.kill(run.pid, signal.SIGKILL)
    trainers = [path.name for path in (tmp_path / "out").iterdir()]
    assert wait_for(lambda: not any(map(is_running, trainers)))


def is_running(number: str) -> bool:
    """Whether there is such a process, and not only what is left until somebody asks after it."""
    try:
        return Path("/proc", number, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(look, seconds: float = 60.0):
    """What `look` returns as soon as it is true; its last answer when the time is over."""
    end = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_folder_has_one_run_at_a_time(tmp_path):
    refused = pytest.raises(ConfigError, match="another process trains in")
    with processes.sole_run(tmp_path), refused, processes.sole_run(tmp_path):
        pytest.fail("two runs in one folder")
    with processes.sole_run(tmp_path):
        assert (tmp_path / processes.LOCK).exists()
