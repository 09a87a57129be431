"""Detectors and taggers by name, folder or hub id.

Nothing is fetched unless the caller gives a hub id: a name such as `owlv2` means the published
checkpoint where it is in the local cache already. `load_finder` makes the two into what
`parfocal.load` takes for models that read a detector's boxes.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parfocal.detectors.base import Detector, Tagger
from parfocal.detectors.cache import BoxCache
from parfocal.detectors.fixed import FIXED_LISTS, FixedTagger
from parfocal.detectors.pipeline import MG_LLAVA, RegionFinder, RegionSettings
from parfocal.errors import CheckpointError, ConfigError
from parfocal.hub import (
    cached_folder,
    fetch,
    first_line,
    is_hub_id,
    load_errors,
    local_path,
    refuse_gaps,
    require_safetensors,
)

if TYPE_CHECKING:
    import torch

# Strings, so that reading the tables loads no deep-learning library.
DETECTORS: Final[dict[str, str]] = {
    "owlv2": "parfocal.detectors.owlv2:Owlv2Detector",
    "grounding_dino": "parfocal.detectors.grounding_dino:GroundingDinoDetector",
}
TAGGERS: Final[dict[str, str]] = {
    "ram_plus": "parfocal.detectors.ram_plus:RamPlusTagger",
    "florence2": "parfocal.detectors.florence2:Florence2Tagger",
    "coco80": "parfocal.detectors.fixed:FixedTagger",
}


def load_detector(
    model: str | Path,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    **settings: Any,
) -> Detector:
    """Load a detector.

    Args:
        model: a name of `DETECTORS` (the published checkpoint, from the local cache), a folder that
            `save_pretrained` wrote, or a hub id, which is downloaded where it is not in the cache.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`...
        dtype: of the weights, as Transformers takes it.
        settings: passed to the class, such as `threshold` or `batch_size`.

    Raises:
        CheckpointError: if there is no such detector, or its files do not fit together.
        ConfigError: if the device is not possible here.

    Example:
        >>> load_detector("google/owlv2-base-patch16-ensemble")  # doctest: +SKIP
    """
    detector: Detector = _load(DETECTORS, str(model), device, dtype, settings)
    return detector


def load_tagger(
    model: str | Path,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    **settings: Any,
) -> Tagger:
    """Load a tagger.

    Args:
        model: a fixed list (`coco80`, or a text file with one name a line), RAM++ (its `.pth`, or a
            folder with it and its two lists; see `load_ram_plus`), or Florence-2 (`florence2`, a
            folder or a hub id, like a detector's).
        device: see `load_detector`.
        dtype: of the weights of Florence-2.
        settings: passed on, such as `tags`, `thresholds` and `batch_size` for RAM++; a fixed list
            has none.

    Raises:
        CheckpointError: if there is no such tagger, or its files do not fit together.
        ConfigError: if the device is not possible here, or a fixed list is given settings.
        DataError: if a list cannot be read.

    Example:
        >>> load_tagger("coco80").tags[:2]
        ('person', 'bicycle')
    """
    name, path = str(model), local_path(model)
    if settings and (name in FIXED_LISTS or path.suffix == ".txt"):
        raise ConfigError(
            f"{name} is a fixed list of names, which has no settings; got {', '.join(settings)}. "
            "Leave them out, or give a network that looks at pictures."
        )
    if name in FIXED_LISTS:
        return FixedTagger(FIXED_LISTS[name])
    if path.suffix == ".txt":
        from parfocal.detectors.ram_plus_files import read_tags

        return FixedTagger(read_tags(path))
    if name == "ram_plus" or path.suffix in (".pth", ".safetensors") or _has_ram_plus(path):
        from parfocal.detectors.ram_plus_files import load_ram_plus

        return load_ram_plus(path, device=device, **settings)
    tagger: Tagger = _load(TAGGERS, name, device, dtype, settings)
    return tagger


def load_finder(
    tagger: str | Path,
    detector: str | Path,
    cache: str | Path | None = None,
    device: str | torch.device = "auto",
    settings: RegionSettings = MG_LLAVA,
) -> RegionFinder:
    """Load a tagger and a detector, and chain them.

    Args:
        tagger: as `load_tagger` takes it; `ram_plus` weights are what MG-LLaVA was trained with.
        detector: as `load_detector` takes it; MG-LLaVA was trained with `owlv2`.
        cache: folder where boxes are kept between runs; None: nowhere.
        device: of both.
        settings: thresholds, suppression and limits.

    Raises:
        CheckpointError: if there is no such tagger or detector, or its files do not fit together.
        ConfigError: if the device is not possible here.
        DataError: if a list of names or the cache's folder is not as it must be.

    Example:
        >>> finder = load_finder("ram_plus_swin_large_14m.pth", "owlv2")  # doctest: +SKIP
        >>> model = parfocal.load("./mg-llava", finder=finder)  # doctest: +SKIP
    """
    boxes = None if cache is None else BoxCache(cache)
    namer = load_tagger(tagger, device)  # the quicker of the two, so that its errors come first
    return RegionFinder(namer, load_detector(detector, device), settings, boxes)


def _has_ram_plus(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("ram_tag_list.txt", "ram_plus.json"))


def _load(
    table: dict[str, str], model: str, device: Any, dtype: Any, settings: dict[str, Any]
) -> Any:
    """An instance of the class of `table` that reads the checkpoint's model type."""
    from parfocal.detectors.weights import resolve_device

    where = resolve_device(device)
    classes = {name: _resolve(home) for name, home in table.items()}
    classes = {name: kind for name, kind in classes.items() if hasattr(kind, "MODEL_TYPES")}
    hub_ids = {name: kind.HUB_ID for name, kind in classes.items()}
    try:
        source = _source(model, hub_ids, table)
        kind, network, processor = _read(source, classes, dtype)
    except CheckpointError as err:
        if model not in hub_ids:
            raise
        advice = f"To download it, pass the hub id itself: {hub_ids[model]!r}."
        raise CheckpointError(f"{err} {advice}") from err
    return kind(network.to(where), processor, **settings)


def _read(source: str, classes: dict[str, Any], dtype: Any) -> tuple[Any, Any, Any]:
    """The class that a folder is of, its network and its processor."""
    from transformers import AutoConfig

    common = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        kind = _class_of(classes, config.model_type, source)
        require_safetensors(Path(source))
        processor = load_processor(source)
        network, report = kind.NETWORK.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True, **common
        )
    except CheckpointError:
        raise
    except load_errors() as err:
        reason = first_line(err).rstrip(".")
        raise CheckpointError(f"{source} could not be loaded: {reason}.") from err
    refuse_gaps(source, report)
    return kind, network, processor


def load_processor(folder: str | Path) -> Any:
    """Read the processor of a folder as Transformers does, without running code beside it.

    Raises:
        CheckpointError: if it cannot be read, or prepares no pictures.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as err:  # its readers raise whatever broken files lead to, nameless ones too
        raise CheckpointError(
            f"{folder} holds no processor that Transformers can read ({first_line(err)}). Copy the "
            "whole folder of the checkpoint again."
        ) from err
    if not hasattr(processor, "image_processor"):
        raise CheckpointError(
            f"{folder} lacks the files of its image processor (preprocessor_config.json or "
            "processor_config.json); copy the whole folder of the checkpoint."
        )
    return processor


def _resolve(home: str) -> Any:
    module, name = home.split(":")
    return getattr(importlib.import_module(module), name)


def _source(model: str, hub_ids: dict[str, str], table: dict[str, str]) -> str:
    """The folder of a model; a name's is in the cache.

    Hub ids are not left to Transformers, which asks the hub for adapters where PEFT is installed,
    even when it is told to read local files only.
    """
    if model in hub_ids:
        cached = cached_folder(hub_ids[model])
        if cached is None:
            raise CheckpointError(
                f"{model!r} means {hub_ids[model]}, which is not in the local Hugging Face cache."
            )
        return str(cached)
    folder = local_path(model)
    if folder.is_dir():
        return str(folder)
    if is_hub_id(model):
        return str(fetch(model))
    files = " Files are .txt (a name a line), .pth and .safetensors (RAM++)."
    raise CheckpointError(
        f"there is no {model!r}: it is no folder here and no hub id, and the names are "
        f"{', '.join(table)}.{files if table is TAGGERS else ''}"
    )


def _class_of(classes: dict[str, Any], model_type: str, source: str) -> Any:
    for kind in classes.values():
        if model_type in kind.MODEL_TYPES:
            return kind
    known = [model_type for kind in classes.values() for model_type in kind.MODEL_TYPES]
    raise CheckpointError(
        f"{source} is of model_type {model_type!r}, which is none of {', '.join(known)}."
    )
