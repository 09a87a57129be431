"""Files of a checkpoint: loaded from a folder, with safetensors and without code of its own.

A hub id is looked for in the local cache first. Only where it is not there, and only because the
caller wrote the id, is it downloaded; what and how much is said before.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError

from parfocal.errors import CheckpointError

logger = logging.getLogger(__name__)

# What is needed of a repository: no pickles, no code.
FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load_parts(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A model that reads pictures and writes text, and its processor.

    Raises:
        CheckpointError: if a file is missing or the weights are not those of the config.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    require_safetensors(folder)
    common = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **common)
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
            **common,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as err:
        raise CheckpointError(f"{folder} could not be loaded: {first_line(err)}") from err
    if not hasattr(processor, "image_processor"):
        raise CheckpointError(
            f"{folder} lacks the files of its image processor (preprocessor_config.json or "
            "processor_config.json); copy the whole folder of the checkpoint."
        )
    refuse_gaps(folder, report)
    return model, processor


def refuse_gaps(folder: Path, report: Mapping[str, Any]) -> None:
    """A weight that is missing would stay random and nobody would notice.

    Weights that the model does not have are warned of: releases ship heads and buffers of their
    training code.
    """
    reshaped = {name for name, *_ in report["mismatched_keys"]}
    gaps = {"are missing": set(report["missing_keys"]) - reshaped, "have another shape": reshaped}
    for what, names in gaps.items():
        if names:
            raise CheckpointError(
                f"{folder}: {len(names)} weights {what} (such as {min(names)!r}). Config and "
                "weights must come from the same checkpoint; copy both again."
            )
    extra = sorted(report["unexpected_keys"])
    if extra:
        logger.warning("%s: %d weights are not used, such as %s", folder, len(extra), extra[0])


def require_safetensors(folder: Path) -> None:
    """Refuse a folder without safetensors: other formats can run code when they are read."""
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} holds no weights as safetensors. Other formats are not read, because they "
            "can run code: save the model again with save_pretrained."
        )


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
