"""Load a model by name: the bundled `mini`, a folder, or (online, when asked for) a hub id."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from parfocal.detectors.weights import resolve_device
from parfocal.dialects import get_dialect
from parfocal.errors import CheckpointError, ConfigError
from parfocal.hub import (
    BUNDLED,
    bundled_folder,
    fetch,
    first_line,
    is_hub_id,
    load_errors,
    local_path,
    refuse_gaps,
)
from parfocal.models.building import refuse_mismatch
from parfocal.models.checkpoints import official
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import FILE_NAME, ParfocalProcessor
from parfocal.predict.answer import Answer
from parfocal.predict.finding import Finder, no_finder, reads_detections
from parfocal.predict.peers import DETECTORS, PEERS, load_peer, model_type_of
from parfocal.predict.peers.files import Checkpoint
from parfocal.predict.predictor import Predictor
from parfocal.predict.protocol import AnyPredictor

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    model: str | Path = "mini",
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    finder: Finder | None = None,
    dialect: str | None = None,
) -> AnyPredictor:
    """Load a model and its processor.

    Args:
        model: `mini`; a folder that `save_pretrained` wrote, of this package or of a family in
            `PEERS`; an official folder of Groma or MG-LLaVA, converted on the way (with options,
            and once for all, by `parfocal convert`); or the hub id of such a checkpoint, downloaded
            unless it is in the local cache.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`...
        dtype: `auto` (float32 on a CPU and for detectors, whose boxes half precision would move;
            else bfloat16 on a GPU), or one of float32, bfloat16, float16.
        finder: finds the boxes that MG-LLaVA reads beside a picture, such as a
            `parfocal.detectors.RegionFinder`; None: it sees only boxes that the user gives.
        dialect: a key of `DIALECTS`, for checkpoints of a chat family that were taught to write
            boxes in another family's way and share its `model_type`, such as Rex-Omni
            (`rex_omni`), which is a Qwen2.5-VL; None: what the checkpoint says it speaks.

    Raises:
        CheckpointError: if there is no such model or its folder is not complete.
        ConfigError: if the device, dtype or dialect is not possible here, or the model asks no
            finder.
        DialectError: if there is no such dialect; the message lists the names.

    Example:
        >>> answer = load("mini").locate("street.png", "the red car")  # doctest: +SKIP
    """
    if dialect is not None:
        get_dialect(dialect)  # a wrong name is told before anything is read
    if finder is not None:
        check_finder(model)
    folder = model_folder(model)
    where = resolve_device(device)
    kind = _dtype(dtype, where, model_type_of(folder))
    if model_type_of(folder) not in PEERS and official.recognise(folder) is not None:
        return _load_official(folder, str(model), where, kind, finder, dialect)
    _refuse_remote_code(folder)
    if model_type_of(folder) in PEERS:
        return load_peer(Checkpoint(folder, str(model), where, kind, dialect))
    processor = ParfocalProcessor.from_pretrained(folder)
    _require_spoken(str(model), processor, dialect)
    try:
        loaded, report = ParfocalForConditionalGeneration.from_pretrained(
            folder,
            dtype=kind,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
        )
    except load_errors() as err:
        raise CheckpointError(f"{folder} could not be loaded: {first_line(err)}") from err
    refuse_gaps(folder, report)
    refuse_mismatch(folder, loaded, processor)
    return Predictor(loaded.to(where), processor, str(model), finder)


def model_folder(model: str | Path) -> Path:
    """Return the folder of a model name; CheckpointError says what is possible instead."""
    bundled = bundled_folder(str(model))
    if bundled is not None:
        return bundled
    folder = local_path(model)
    # Path("") is the folder one is in; where a name is too long for a file, `is_dir` raises
    if model == "" or not os.path.isdir(folder):
        if not is_hub_id(str(model)):
            raise CheckpointError(
                f"there is no model {str(model)!r}: it is neither bundled ({', '.join(BUNDLED)}) "
                "nor a folder here, nor a hub id (owner/name)."
            )
        folder = fetch(str(model))
    known = model_type_of(folder) in PEERS or official.recognise(folder) is not None
    if not known and not (folder / FILE_NAME).is_file():
        raise CheckpointError(
            f"{folder} holds no {FILE_NAME}; give a folder that ParfocalProcessor.save_pretrained "
            f"wrote to, or one whose config.json has a model_type of {', '.join(PEERS)}."
        )
    return folder


def check_finder(model: str | Path) -> None:
    """Refuse a finder for a model that would never ask it; only its config is read.

    Raises:
        CheckpointError: if there is no such model.
        ConfigError: if it reads no boxes of a detector.
    """
    folder = model_folder(model)
    if model_type_of(folder) in PEERS:
        raise no_finder(str(model))
    family = official.recognise(folder)
    reads = family == "mg_llava"
    if family is None:
        _refuse_remote_code(folder)
        reads = reads_detections(_config_of(folder))
    if not reads:
        raise no_finder(str(model))


def _config_of(folder: Path) -> ParfocalConfig:
    """The config of one of our own checkpoints; CheckpointError if it is none."""
    try:
        return ParfocalConfig.from_pretrained(folder, local_files_only=True)
    except load_errors() as err:
        raise CheckpointError(f"{folder} could not be loaded: {first_line(err)}") from err


def _require_spoken(name: str, processor: ParfocalProcessor, dialect: str | None) -> None:
    """Our own checkpoints say in their settings which dialect they were trained in."""
    spoken = processor.dialect.name
    if dialect not in (None, spoken):
        raise ConfigError(
            f"{name} was trained in the dialect {spoken!r}, as it says itself; it cannot be asked "
            f"in {dialect!r}. Leave dialect out: it is for checkpoints of other families, whose "
            "config does not say."
        )


def _load_official(
    folder: Path,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    finder: Finder | None,
    dialect: str | None,
) -> Predictor:
    """Convert an official folder in memory."""
    made = official.read_official(folder)
    _require_spoken(name, made.processor, dialect)
    loaded, report = ParfocalForConditionalGeneration.from_pretrained(
        None,
        config=made.config,
        state_dict=made.state,
        dtype=dtype,
        output_loading_info=True,
    )
    refuse_gaps(folder, report)
    kind = _DetectorOnly if made.detector_only else Predictor
    return kind(loaded.to(device), made.processor, name, finder)


class _DetectorOnly(Predictor):
    """Proposes boxes; its language model is a dummy, so it answers nothing."""

    def _answer(self, *args: Any, **options: Any) -> list[Answer]:
        raise ConfigError(
            f"{self.name} holds Groma's detector only, which can propose boxes and not answer. Use "
            "a later checkpoint, or join a language model and train on: `parfocal convert "
            f"{self.name} DST --text lmsys/vicuna-7b-v1.5`."
        )


def _dtype(name: str | torch.dtype, device: torch.device, model_type: str | None) -> torch.dtype:
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        half = device.type == "cuda" and model_type not in DETECTORS
        return torch.bfloat16 if half else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is not known; choose auto or one of {list(DTYPES)}.")
    return DTYPES[name]


def _refuse_remote_code(folder: Path) -> None:
    """A config that asks for code of its own is refused: parfocal runs none."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no config.json; it is not a model folder.")
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise CheckpointError(f"{path} is not JSON ({err}); copy the folder again.") from err
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is no mapping of fields; copy the folder again.")
    if "auto_map" in config:
        raise CheckpointError(
            f"{path} asks for code of its own (auto_map); parfocal never runs a model's code. "
            "Many such models are also published in the format of Transformers itself."
        )
    if config.get("model_type") not in ("parfocal", *PEERS):
        raise CheckpointError(
            f"{path} is of model_type {config.get('model_type')!r}; "
            f"this loads models of type 'parfocal', {', '.join(PEERS)}."
        )
