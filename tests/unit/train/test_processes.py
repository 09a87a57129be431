"""How the processes of a run are started, that they end together, and that a folder has one run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parfocal.errors import ConfigError
from parfocal.recipes import accelerate_file
from parfocal.train import processes

ROOT = Path(processes.__file__).parents[2]


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


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("ddp", ()),
        ("fsdp", ("moments", "gradients", "weights")),
        ("zero2", ("moments", "gradients")),
        ("zero3", ("moments", "gradients", "weights")),
    ],
)
def test_a_configuration_says_what_processes_hold_parts_of(monkeypatch, name, states):
    monkeypatch.setattr(processes, "find_spec", lambda name: True)
    assert processes.divided_states(accelerate_file(name)) == states
    assert processes.divided_states(None) == ()


@pytest.mark.parametrize(
    ("settings", "states"),
    [
        ('{"zero_optimization": {"stage": 3}}', ("moments", "gradients", "weights")),
        ('{"zero_optimization": {"stage": 1}}', ("moments",)),
        ('{"train_batch_size": 8}', ()),
    ],
)
def test_a_file_of_deepspeed_says_its_stage(tmp_path, monkeypatch, settings, states):
    monkeypatch.setattr(processes, "find_spec", lambda name: True)
    path, own = tmp_path / "own.yaml", tmp_path / "zero.json"
    path.write_text(
        "distributed_type: DEEPSPEED\ndeepspeed_config:\n"
        f"  deepspeed_config_file: {own}\n  zero3_init_flag: false\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"own\.yaml names .*zero\.json, which cannot be read"):
        processes.divided_states(path)
    own.write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Give its whole path, or leave it out"):
        processes.divided_states(path)
    own.write_text(settings, encoding="utf-8")
    assert processes.divided_states(path) == states


def test_a_configuration_that_cannot_be_used_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"zero2\.yaml needs DeepSpeed: pip install deepspeed"):
        processes.divided_states(accelerate_file("zero2"))
    path = tmp_path / "own.yaml"
    for text in ("[", "- a\n", "unknown: 1\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"own\.yaml is no configuration of Accelerate"):
            processes.divided_states(path)


HOLD = """
import sys
from pathlib import Path
from parfocal.train.processes import LOCKS, sole_run
with sole_run(Path(sys.argv[1]), LOCKS[0]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_run_at_a_time(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as other:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(ConfigError, match=f"trains in .*: process {other.pid} on .*remove"),
            processes.sole_run(tmp_path, processes.LOCKS[0]),
        ):
            pytest.fail("two runs in one folder")
        with processes.sole_run(tmp_path, processes.LOCKS[1]):
            other.communicate()
    with processes.sole_run(tmp_path, processes.LOCKS[0]):
        assert (tmp_path / "run.lock").exists()
