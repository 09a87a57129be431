"""Checkpoint folders that are whole or not there.

A checkpoint is written beside its final name, put on disk, listed with the size of every file, and
renamed last. What was cut off has another name or another size, and is passed over.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from parfocal.errors import ConfigError

logger = logging.getLogger(__name__)

LIST = "files.json"  # name -> bytes, written last
_PREFIX = "checkpoint-"
_PART = "checkpoint.part"
STATE = "trainer_state.json"  # of Transformers
_SHARING = "sharing.json"  # how many processes wrote it, and how they share the work


def part_folder(out: Path, clear: bool = False) -> Path:
    """Where a checkpoint of the stage in `out` is written before it is whole.

    Args:
        out: folder of the stage.
        clear: remove what a crash left there; one process does so, before any writes.
    """
    part = out / _PART
    if clear:
        shutil.rmtree(part, ignore_errors=True)
    return part


def publish(part: Path, out: Path) -> list[Path]:
    """Put every checkpoint in `part` on disk and give it its name in `out`.

    Args:
        part: from `part_folder`; gone afterwards.
        out: folder of the stage.

    Returns:
        The checkpoints, under their new names.
    """
    published = []
    for folder in sorted(part.glob(f"{_PREFIX}*")):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        (folder / LIST).write_text(json.dumps(sizes, indent=1), encoding="utf-8")
        for path in (*files, folder / LIST, folder):
            sync(path)
        target = out / folder.name
        if target.exists():  # cut off by an earlier crash: a whole one would have been resumed
            shutil.rmtree(target)
        os.replace(folder, target)
        published.append(target)
    shutil.rmtree(part, ignore_errors=True)
    sync(out)
    return published


def newest(out: Path) -> Path | None:
    """Return the newest whole checkpoint of a stage, and say which broken ones were passed over."""
    for folder in sorted(out.glob(f"{_PREFIX}*"), key=step_of, reverse=True):
        if is_whole(folder):
            return folder
        logger.warning("%s was cut off while it was written; it is passed over.", folder)
    return None


def is_whole(folder: Path) -> bool:
    """Whether every file is there with the size it had when it was written."""
    try:
        sizes: dict[str, int] = json.loads((folder / LIST).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def write_sharing(folder: Path, processes: int, way: str) -> None:
    """Note in a checkpoint how many processes it is of, and how they share the work.

    Args:
        folder: of the checkpoint.
        processes: how many.
        way: `ddp`, `fsdp` or `deepspeed`; one process is `ddp`.
    """
    text = json.dumps({"processes": processes, "way": way})
    (folder / _SHARING).write_text(text, encoding="utf-8")


def check_sharing(folder: Path, processes: int, way: str) -> None:
    """Refuse a checkpoint whose optimiser and random numbers other processes cannot go on with.

    The arguments are those of `write_sharing`.

    Raises:
        ConfigError: saying how to go on.
    """
    now, path = {"processes": processes, "way": way}, folder / _SHARING
    if not path.exists():
        return
    then = json.loads(path.read_text(encoding="utf-8"))
    if then != now:
        raise ConfigError(
            f"{folder} is of {then['processes']} processes ({then['way']}), and now there are "
            f"{processes} ({way}), which cannot go on to the same result. Resume with --processes "
            f"{then['processes']} and the --accelerate of before, or remove the checkpoints of "
            "this stage to begin it again."
        )


def prune(out: Path, keep: int) -> None:
    """Delete all but the last `keep` whole checkpoints and the best one.

    Args:
        out: folder of the stage.
        keep: how many.
    """
    chosen = best(out)
    folders = sorted(out.glob(f"{_PREFIX}*"), key=step_of)
    whole = [folder for folder in folders if is_whole(folder)]
    kept = {*whole[-keep:], *([] if chosen is None else [chosen])}
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)


def best(out: Path) -> Path | None:
    """Return the best whole checkpoint of a stage, None if it does not score them.

    Which one that is, the Trainer's state in the newest one says.
    """
    last = newest(out)
    if last is None:
        return None
    state = json.loads((last / STATE).read_text(encoding="utf-8"))
    step = state.get("best_global_step")
    folder = out / f"{_PREFIX}{step}"
    return folder if step is not None and is_whole(folder) else None


def step_of(folder: Path) -> int:
    """The step that a checkpoint was made at; -1 for a folder of another name."""
    number = folder.name.removeprefix(_PREFIX)
    return int(number) if number.isdigit() else -1


def sync(path: Path) -> None:
    """Put a file, or a folder's list of names, on disk."""
    if path.is_dir() and os.name != "posix":
        return  # only POSIX opens folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
