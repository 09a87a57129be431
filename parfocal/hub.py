"""Checkpoints: from the Hugging Face hub or its local cache, and whole or not at all.

A hub id is looked for in the local cache first. Only where it is not there, and only because the
caller wrote the id, is it downloaded; what and how much is said before.
"""

from __future__ import annotations

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
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def bundled_folder(name: str) -> Path | None:
    """Return the folder of a bundled model; None for any other name."""
    if name not in BUNDLED:
        return None
    return Path(str(resources.files("parfocal"))) / "weights" / name


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


def first_line(err: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    lines = str(err).strip().splitlines()
    return lines[0] if lines else type(err).__name__


def is_hub_id(name: str) -> bool:
    """True for `owner/name`.

    >>> is_hub_id("Qwen/Qwen2.5-VL-3B-Instruct"), is_hub_id("mini"), is_hub_id("./a/b")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(name) is not None


def fetch(hub_id: str) -> Path:
    """The local folder of a hub repository, downloaded if it is not in the cache.

    Raises:
        CheckpointError: if it is neither in the cache nor to be had.
    """
    from huggingface_hub import HfApi, snapshot_download

    wanted = list(FILES)
    try:
        cached = Path(snapshot_download(hub_id, allow_patterns=wanted, local_files_only=True))
    except (OSError, ValueError):
        cached = None
    if cached is not None and any(cached.glob("*.safetensors")):
        return cached
    try:
        siblings = HfApi().model_info(hub_id, files_metadata=True).siblings or []
        sizes = {item.rfilename: item.size or 0 for item in siblings if _is_wanted(item.rfilename)}
        if not any(name.endswith(".safetensors") for name in sizes):
            raise CheckpointError(
                f"{hub_id!r} has no weights as safetensors, nothing else is downloaded. If you "
                "trust it, download it yourself and give its folder."
            )
        logger.warning(
            "downloading %s: %d files, %.2f GB, into the Hugging Face cache",
            hub_id,
            len(sizes),
            sum(sizes.values()) / 1e9,
        )
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except CheckpointError:
        raise
    except (OSError, ValueError) as err:
        raise CheckpointError(
            f"{hub_id!r} is not in the local Hugging Face cache and could not be fetched: "
            f"{first_line(err)} Check the id and the connection, or give a folder."
        ) from err


def _is_wanted(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in FILES)
