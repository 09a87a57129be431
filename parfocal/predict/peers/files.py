"""Files of a checkpoint: loaded from a folder, with safetensors and without code of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from parfocal.detectors.loading import load_processor
from parfocal.errors import CheckpointError
from parfocal.hub import first_line, load_errors, refuse_gaps, require_safetensors


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of one of the families, and how it is to be loaded.

    Attributes:
        folder: config, weights as safetensors, and processor files.
        name: for answers and reports.
        device: where it runs.
        dtype: of the weights.
        dialect: what the checkpoint speaks; None: what its family speaks.
    """

    folder: Path
    name: str
    device: torch.device
    dtype: torch.dtype
    dialect: str | None = None


def load_parts(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A model that reads pictures and writes text, and its processor.

    Raises:
        CheckpointError: if a file is missing or the weights are not those of the config.
    """
    from transformers import AutoModelForImageTextToText

    require_safetensors(folder)
    processor = load_processor(folder)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except load_errors() as err:
        raise CheckpointError(f"{folder} could not be loaded: {first_line(err)}") from err
    refuse_gaps(folder, report, spare=True)
    return model, processor
