"""RAM++ on disk: the official checkpoint with its tag and threshold files, and folders of our own.

Both hold the weights under the official names, so one key map reads them; it is data, at the top.
Loading is strict: every tensor of a file is used or is one of the buffers named in `DROPPED`, and
every parameter of the network is filled.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from parfocal.detectors.ram_plus import RamPlus, RamPlusConfig, RamPlusTagger
from parfocal.detectors.weights import resolve_device
from parfocal.errors import CheckpointError, DataError
from parfocal.hub import local_path

logger = logging.getLogger(__name__)

# Official module on the left, ours on the right; {s}, {b} and {l} stand for numbers (stage, block,
# decoder layer) and what follows a module (.weight, .bias) stays.
KEY_MAP: Final = (
    ("visual_encoder.patch_embed.proj", "swin.embeddings.patch_embeddings.projection"),
    ("visual_encoder.patch_embed.norm", "swin.embeddings.norm"),
    (
        "visual_encoder.layers.{s}.blocks.{b}.norm1",
        "swin.encoder.layers.{s}.blocks.{b}.layernorm_before",
    ),
    (
        "visual_encoder.layers.{s}.blocks.{b}.norm2",
        "swin.encoder.layers.{s}.blocks.{b}.layernorm_after",
    ),
    (
        "visual_encoder.layers.{s}.blocks.{b}.attn.proj",
        "swin.encoder.layers.{s}.blocks.{b}.attention.o_proj",
    ),
    (
        "visual_encoder.layers.{s}.blocks.{b}.attn.relative_position_bias_table",
        "swin.encoder.layers.{s}.blocks.{b}.attention.relative_position_bias."
        "relative_position_bias_table",
    ),
    (
        "visual_encoder.layers.{s}.blocks.{b}.mlp.fc1",
        "swin.encoder.layers.{s}.blocks.{b}.mlp.fc1",
    ),
    (
        "visual_encoder.layers.{s}.blocks.{b}.mlp.fc2",
        "swin.encoder.layers.{s}.blocks.{b}.mlp.fc2",
    ),
    ("visual_encoder.layers.{s}.downsample.norm", "swin.encoder.layers.{s}.downsample.norm"),
    (
        "visual_encoder.layers.{s}.downsample.reduction",
        "swin.encoder.layers.{s}.downsample.reduction",
    ),
    ("visual_encoder.norm", "swin.layernorm"),
    ("image_proj", "image_proj"),
    ("label_embed", "label_embed"),
    ("reweight_scale", "reweight_scale"),
    ("wordvec_proj", "wordvec_proj"),
    ("tagging_head.encoder.layer.{l}.crossattention.self.query", "decoder.{l}.query"),
    ("tagging_head.encoder.layer.{l}.crossattention.self.key", "decoder.{l}.key"),
    ("tagging_head.encoder.layer.{l}.crossattention.self.value", "decoder.{l}.value"),
    (
        "tagging_head.encoder.layer.{l}.crossattention.output.dense",
        "decoder.{l}.attention_output",
    ),
    (
        "tagging_head.encoder.layer.{l}.crossattention.output.LayerNorm",
        "decoder.{l}.attention_norm",
    ),
    ("tagging_head.encoder.layer.{l}.intermediate.dense", "decoder.{l}.ffn_input"),
    ("tagging_head.encoder.layer.{l}.output.dense", "decoder.{l}.ffn_output"),
    ("tagging_head.encoder.layer.{l}.output.LayerNorm", "decoder.{l}.ffn_norm"),
    ("fc", "fc"),
)
# One official matrix for queries, keys and values, three of ours, stacked in this order.
STACKED: Final = (
    "visual_encoder.layers.{s}.blocks.{b}.attn.qkv",
    tuple(
        f"swin.encoder.layers.{{s}}.blocks.{{b}}.attention.{name}"
        for name in ("q_proj", "k_proj", "v_proj")
    ),
)
# Buffers that the network computes for itself.
DROPPED: Final = (
    "visual_encoder.layers.{s}.blocks.{b}.attn.relative_position_index",
    "visual_encoder.layers.{s}.blocks.{b}.attn_mask",
)
# Names that older files use.
OLD_NAMES: Final = (("vision_multi", "tagging_head"),)

CONFIG_FILE, WEIGHTS_FILE = "ram_plus.json", "model.safetensors"
TAG_FILE, THRESHOLD_FILE = "ram_tag_list.txt", "ram_tag_list_threshold.txt"


def load_ram_plus(
    source: str | Path,
    tags: str | Path | Sequence[str] | None = None,
    thresholds: str | Path | Sequence[float] | None = None,
    config: RamPlusConfig | None = None,
    device: str | torch.device = "auto",
    **settings: Any,
) -> RamPlusTagger:
    """Load RAM++ from the official files or from a folder that `save_ram_plus` wrote.

    Args:
        source: the checkpoint (`.pth` or `.safetensors`), or a folder with one and with the lists
            under their official names.
        tags: tag list, a file or the names; by default `ram_tag_list.txt` beside the weights.
        thresholds: one a tag, a file or the numbers; by default `ram_tag_list_threshold.txt` beside
            the weights.
        config: sizes of the network; by default `ram_plus.json` beside the weights, else those of
            the released checkpoint.
        device: `auto`, `cpu`, `cuda`, `cuda:1`...
        settings: passed to `RamPlusTagger`: `silenced` and `batch_size`.

    Raises:
        CheckpointError: if a file is missing, the weights do not fit (all misfits are listed), or
            the lists do not go with them.
        DataError: if a list cannot be read.

    Example:
        >>> tagger = load_ram_plus("ram_plus_swin_large_14m.pth")  # doctest: +SKIP
    """
    weights_path = _weights_path(local_path(source))
    folder = weights_path.parent
    names = _list_of(tags, folder / TAG_FILE, read_tags)
    numbers = _list_of(thresholds, folder / THRESHOLD_FILE, read_thresholds)
    network = RamPlus(config or _read_config(folder / CONFIG_FILE))
    state, dropped = convert_state(read_weights(weights_path), network, str(weights_path))
    network.load_state_dict(state)
    logger.info("RAM++ from %s: %d tensors, %d dropped", weights_path, len(state), len(dropped))
    return RamPlusTagger(network.to(resolve_device(device)), names, numbers, **settings)


def save_ram_plus(tagger: RamPlusTagger, folder: str | Path) -> None:
    """Write weights (under their official names), sizes and lists to a folder.

    A released training checkpoint of 3.0 GB becomes 1.3 GB of what the tagger needs. Silenced tags
    are written with threshold 1.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu() for name, value in tagger.model.state_dict().items()}
    save_file(official_state(state), target / WEIGHTS_FILE)
    sizes = json.dumps(tagger.model.config.to_dict(), indent=1)
    thresholds = [
        1.0 if index in tagger.silenced else value
        for index, value in enumerate(tagger.thresholds.tolist())
    ]
    (target / CONFIG_FILE).write_text(sizes + "\n", encoding="utf-8")
    (target / TAG_FILE).write_text("\n".join(tagger.tags), encoding="utf-8")
    lines = "".join(f"{value!r}\n" for value in thresholds)
    (target / THRESHOLD_FILE).write_text(lines, encoding="utf-8")


def read_tags(path: str | Path) -> list[str]:
    """One tag a line, kept as written (the Chinese list has blanks at line ends that belong to it).

    Raises:
        DataError: if the file cannot be read, is empty, or a line is blank or stands twice.
    """
    tags = _read_text(path).splitlines()
    seen: set[str] = set()
    for number, tag in enumerate(tags, start=1):
        if not tag.strip() or tag in seen:
            what = "stands twice" if tag in seen else "is blank"
            raise DataError(f"{path}:{number}: the tag {tag!r} {what}; give one tag a line.")
        seen.add(tag)
    if not tags:
        raise DataError(f"{path} is empty; give one tag a line.")
    return tags


def read_thresholds(path: str | Path) -> list[float]:
    """One number from 0 to 1 a line, in the order of the tags.

    Raises:
        DataError: if the file cannot be read or a line is not such a number.
    """
    found = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = float(line)
        except ValueError:
            value = float("nan")
        if not 0 <= value <= 1:
            raise DataError(
                f"{path}:{number}: {line.strip()!r} is not a number from 0 to 1; give one "
                "threshold a line, in the order of the tags."
            )
        found.append(value)
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names they have there, on the CPU.

    Of a `.pth` nothing but tensors and plain containers is unpickled, and only what is under its
    entry `model` is taken: optimizer state, more than half of the official file, is never touched.

    Raises:
        CheckpointError: if the file cannot be read that way.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        lazily = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except pickle.UnpicklingError as err:
        raise CheckpointError(
            f"{path} holds more than tensors and plain containers, and parfocal runs no code from "
            "checkpoints. Where you trust the file, load it with torch and save its entry 'model' "
            "with safetensors.torch.save_file, then give that file."
        ) from err
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise CheckpointError(
            f"{path} cannot be read: {reason}. Fetch or copy the file again."
        ) from err
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise CheckpointError(
            f"{path} has no entry 'model' with weights, as the official RAM++ checkpoint has."
        )
    strays = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if strays:
        raise CheckpointError(f"{path}: {strays[0]!r} under 'model' is not a tensor.")
    return weights


def convert_state(
    source: Mapping[str, Tensor], network: RamPlus, where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Official tensors under our names, ready for `load_state_dict`, and the names of dropped ones.

    Raises:
        CheckpointError: listing every tensor that is missing, unknown or of another shape.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    state: dict[str, Tensor] = {}
    dropped, misfits = [], []
    for original, value in source.items():
        name = _current_name(original)
        if any(_renamed(name, template, template) for template in DROPPED):
            dropped.append(original)
            continue
        parts = _ours(name, value)
        misfits += _misfit(original, value, parts, wanted, state)
        state.update(parts)
    missing = {_official_name(name) for name in wanted.keys() - state.keys()}
    misfits += [f"{name} is missing" for name in sorted(missing)]
    if misfits:
        rest = f"; and {len(misfits) - 20} more" if len(misfits) > 20 else ""
        raise CheckpointError(
            f"{where} does not fit: {'; '.join(misfits[:20])}{rest}. Give the checkpoint that "
            "belongs to these sizes and this tag list."
        )
    return state, dropped


def official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `convert_state`: our weights under their official names."""
    found: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, value in state.items():
        official = _official_name(name)
        places = [bool(_renamed(name, ours, ours)) for ours in STACKED[1]]
        if any(places):
            stacks.setdefault(official, {})[places.index(True)] = value
        else:
            found[official] = value.contiguous()
    joined = {name: [parts[place] for place in sorted(parts)] for name, parts in stacks.items()}
    return found | {name: torch.cat(parts) for name, parts in joined.items()}


def _current_name(name: str) -> str:
    for old, new in OLD_NAMES:
        name = name.replace(old, new)
    return name


def _ours(name: str, value: Tensor) -> dict[str, Tensor]:
    """Our names for an official tensor, with what goes there; empty where it is unknown."""
    stacked = [_renamed(name, STACKED[0], ours) for ours in STACKED[1]]
    if stacked[0]:
        count = len(stacked)
        whole = value.ndim > 0 and len(value) % count == 0
        parts = value.chunk(count) if whole else (value,) * count
        return dict(zip(stacked, parts, strict=True))
    found = filter(None, (_renamed(name, official, ours) for official, ours in KEY_MAP))
    return dict.fromkeys(found, value)


def _misfit(
    original: str,
    value: Tensor,
    parts: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    state: Mapping[str, Tensor],
) -> list[str]:
    """What is wrong with an official tensor, if anything, in the words of a message."""
    if not parts or not parts.keys() <= wanted.keys():
        return [f"{original} is not a weight of this network"]
    if parts.keys() & state.keys():
        return [f"{original} is there under two names"]
    if not value.is_floating_point():
        return [f"{original} has type {value.dtype}, not floating point"]
    target, part = next(iter(parts.items()))
    shape = wanted[target]
    if tuple(part.shape) == shape:
        return []
    expected = (len(parts) * shape[0], *shape[1:]) if len(parts) > 1 else shape
    return [f"{original} has shape {tuple(value.shape)}, not {expected}"]


def _official_name(name: str) -> str:
    pairs = [*KEY_MAP, *((STACKED[0], ours) for ours in STACKED[1])]
    return next(filter(None, (_renamed(name, ours, official) for official, ours in pairs)), name)


def _renamed(name: str, source: str, target: str) -> str:
    """`name` with the module `source` written as `target`; empty where it is another module."""
    pattern = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(source))
    match = re.fullmatch(rf"{pattern}(?P<tail>\.weight|\.bias|)", name)
    if not match:
        return ""
    numbers = match.groupdict()
    return target.format(**numbers) + numbers["tail"]


def _weights_path(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise CheckpointError(
            f"there is no {source}. Download ram_plus_swin_large_14m.pth of the hub repository "
            "xinyu1205/recognize-anything-plus-model and give its path; nothing is fetched here."
        )
    found = [path for suffix in ("safetensors", "pth") for path in source.glob(f"*.{suffix}")]
    if len(found) != 1:
        raise CheckpointError(
            f"{source} holds {len(found)} files .safetensors or .pth; give the checkpoint itself."
        )
    return found[0]


def _read_config(path: Path) -> RamPlusConfig:
    if not path.is_file():
        return RamPlusConfig()
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return RamPlusConfig.from_dict(values)
    except (ValueError, TypeError) as err:
        raise CheckpointError(f"{path} does not describe a RAM++ network: {err}") from err


def _list_of(given: Any, beside: Path, read: Any) -> list[Any]:
    if isinstance(given, Iterable) and not isinstance(given, str):
        return list(given)
    path = beside if given is None else local_path(given)
    if given is None and not path.is_file():
        raise CheckpointError(
            f"there is no {beside.name} beside the weights in {beside.parent}. It is not part of "
            "the checkpoint: take it from ram/data of the official repository "
            "(xinyu1205/recognize-anything), or pass tags=... and thresholds=..."
        )
    found: list[Any] = read(path)
    return found


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # a byte order mark is no part of a line
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "not UTF-8"
        raise DataError(f"{path} cannot be read: {reason}. Give a text file, UTF-8.") from err
