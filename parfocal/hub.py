"""Checkpoints: from the Hugging Face hub or its local cache, and whole or not at all.

A hub id is looked for in the local cache first. Only where it is not whole there, and only because
the caller wrote the id, is it downloaded; what and how much is said before.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from parfocal.errors import CheckpointError

logger = logging.getLogger(__name__)

BUNDLED: Final = ("mini",)
# What is needed of a repository: no pickles, no code.
FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
# What a model of pictures and words needs beside config and weights, under any of the names.
_BESIDE: Final = (
    ("tokenizer.json", "*.model", "vocab.json", "vocab.txt"),
    ("preprocessor_config.json", "processor_config.json", "parfocal_processor.json"),
)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SHARD = re.compile(r".*-\d+-of-\d+\.\w+")


def bundled_folder(name: str) -> Path | None:
    """Return the folder of a bundled model; None for any other name."""
    if name not in BUNDLED:
        return None
    return Path(str(resources.files("parfocal"))) / "weights" / name


def local_path(name: str | Path) -> Path:
    """A path with `~` read as a shell does: as it stands where there is no such user.

    >>> str(local_path("~nosuchuser/model"))
    '~nosuchuser/model'
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def refuse_gaps(source: str | Path, report: Mapping[str, Any], spare: bool = False) -> None:
    """Refuse weights that do not fit: one that is missing would stay random, and nobody would see.

    Args:
        source: where they come from.
        report: what Transformers' `from_pretrained` tells with `output_loading_info`.
        spare: weights that the model does not have are warned of only: releases of other families
            ship heads and buffers of their training code.

    Raises:
        CheckpointError: with how many there are, and one by name.
    """
    reshaped = {name for name, *_ in report["mismatched_keys"]}
    extra = set(report["unexpected_keys"])
    gaps = {
        "are missing": set(report["missing_keys"]) - reshaped,
        "are not of this model": set() if spare else extra,
        "have another shape": reshaped,
    }
    for what, names in gaps.items():
        if names:
            raise CheckpointError(
                f"{source}: {len(names)} weights {what} (such as {min(names)!r}). Config and "
                "weights must come from the same version of the model; save or copy both again."
            )
    if extra:
        logger.warning("%s: %d weights are not used, such as %s", source, len(extra), min(extra))


def require_safetensors(folder: Path) -> None:
    """Refuse a folder without safetensors: other formats can run code when they are read."""
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} holds no weights as safetensors. Other formats are not read, because they "
            "can run code: save the model again with save_pretrained."
        )


def load_errors() -> tuple[type[Exception], ...]:
    """What Transformers raises where the files of a checkpoint do not fit it, or each other."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    common = (OSError, ValueError, TypeError, RuntimeError, KeyError)
    return (*common, SafetensorError, StrictDataclassError)


def first_line(err: BaseException) -> str:
    """The first line of an error's message, with the next where it announces one, or its kind."""
    lines = str(err).strip().splitlines()
    if not lines:
        return type(err).__name__
    return " ".join(map(str.strip, lines[: 2 if lines[0].endswith(":") else 1]))


def is_hub_id(name: str) -> bool:
    """True for `owner/name`.

    >>> is_hub_id("Qwen/Qwen2.5-VL-3B-Instruct"), is_hub_id("mini"), is_hub_id("./a/b")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(name) is not None


def cached_folder(hub_id: str) -> Path | None:
    """The folder of what the local cache holds of a hub repository, all of it or not; or None."""
    return _cached(hub_id)[0]


def fetch(hub_id: str) -> Path:
    """The local folder of a hub repository, downloaded if the cache does not hold what is needed.

    What cannot be downloaded is given as it is where its weights are whole, in any format: the
    reader of the folder says what it lacks.

    Raises:
        CheckpointError: if it is neither in the cache nor to be had.
    """
    cached, missing_some = _cached(hub_id)
    if cached is not None and not missing_some and _is_whole(cached):
        return cached
    try:
        return _download(hub_id, cached)
    except CheckpointError as err:
        formats = ("*.safetensors", "pytorch_model*.bin", "*.pth")
        if cached is None or not any(_has_weights(cached, files) for files in formats):
            raise
        logger.warning("%s Now reading what is in the cache: %s", err, cached)
        return cached


def _cached(hub_id: str) -> tuple[Path | None, bool]:
    """The folder in the cache, and whether it is known to lack files that are wanted."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(hub_id, allow_patterns=list(FILES), local_files_only=True)
    except (OSError, ValueError) as err:
        partial = getattr(err, "snapshot_path", None)
        return (None if partial is None else Path(partial)), True
    return Path(found), False


def _is_whole(folder: Path) -> bool:
    """Whether all is there; a plain `from_pretrained` brings only what it was asked for."""
    beside = all(any(next(folder.glob(name), None) for name in names) for names in _BESIDE)
    return beside and (folder / "config.json").is_file() and _has_weights(folder, "*.safetensors")


def _has_weights(folder: Path, files: str) -> bool:
    """Whether there are weights: all shards that an index names, or a file that is none."""
    for index in folder.glob(f"{files}.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return all((folder / str(shard)).is_file() for shard in shards)
    return any(_SHARD.fullmatch(file.name) is None for file in folder.glob(files))


def _download(hub_id: str, cached: Path | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # The errors of whatever HTTP client the library is built on are among its own error's bases;
    # those of its Rust client are RuntimeErrors.
    bases = [base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception)]
    failures = (*bases[: bases.index(Exception)], ValueError, RuntimeError)
    try:
        siblings = HfApi().model_info(hub_id, files_metadata=True).siblings or []
        sizes = {item.rfilename: item.size or 0 for item in siblings if _is_wanted(item.rfilename)}
        if any(name.endswith(".safetensors") for name in sizes):
            logger.warning(
                "downloading %s: %d files, %.2f GB, into the Hugging Face cache",
                hub_id,
                len(sizes),
                sum(sizes.values()) / 1e9,
            )
            return Path(snapshot_download(hub_id, allow_patterns=list(FILES)))
    except failures as err:
        place = "not" if cached is None else f"only in part ({cached})"
        raise CheckpointError(
            f"{hub_id!r} is {place} in the local Hugging Face cache and could not be fetched: "
            f"{first_line(err)} Check the id and the connection, or give a folder."
        ) from err
    raise CheckpointError(
        f"{hub_id!r} has no weights as safetensors, nothing else is downloaded. If you "
        "trust it, download it yourself and give its folder."
    )


def _is_wanted(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in FILES)
