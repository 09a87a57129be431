"""What frozen towers and a frozen proposer make of pictures, computed once and kept on disk.

Later epochs, stages and runs then train at the price of the language model alone. A shard is a
safetensors file that is whole or not there; an entry is found by what the picture is and by the
weights that saw it, so one folder can serve many models.

Shapes: C channels, G grid cells a side, K candidates; an entry has no batch axis.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from parfocal.data.outputs import make_folder
from parfocal.data.sample import ImageRef, Sample
from parfocal.errors import CheckpointError, DataError
from parfocal.images import image_digest
from parfocal.models.config_vision import VisionConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.outputs import Perception
from parfocal.models.pictures import open_pictures, shows_video
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.proposer import Candidates
from parfocal.models.vision import VisionFeatures
from parfocal.train.checkpoints import sync
from parfocal.train.recipe import Stage
from parfocal.train.unseen import blank_picture

logger = logging.getLogger(__name__)

SHARD_BYTES = 256 << 20
_SUFFIX = ".safetensors"
_LISTS = ("tokens", "levels")
_OF_ANSWERS = ("match_threshold", "ground_score")  # of the proposer, and no matter of features


class FeatureCache:
    """Entries of one model's frozen parts.

    Args:
        folder: of all models' shards; created when it does not exist.
        model: its towers and its proposer are what the entries are of.
        bf16: computed under autocast, as training does.
    """

    def __init__(
        self, folder: Path, model: ParfocalForConditionalGeneration, bf16: bool = False
    ) -> None:
        own = (model.vision, model.proposer, model.refiner)
        parts = [part for part in own if part is not None]
        self.bf16, config = bf16, model.config
        settings = [config.vision.to_dict(), bf16]
        if model.proposer is not None:
            values = config.proposer.to_dict()
            settings.append({key: values[key] for key in values if key not in _OF_ANSWERS})
        self.folder = folder / weights_digest(parts, settings)
        make_folder(self.folder, "--features")
        self._places: dict[str, tuple[Path, list[str]]] = {}
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """Look again which entries there are; other processes may have written some.

        Of an entry that two have written, all processes take the same one.
        """
        self._places.clear()
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                with safe_open(path, "pt") as shard:
                    names = list(shard.keys())
            except SafetensorError as err:
                logger.warning("%s is damaged (%s); its entries are computed anew.", path, err)
                path.unlink(missing_ok=True)  # it was whole when it got its name
                continue
            for name in names:
                key, _, field = name.partition("/")
                known = self._places.setdefault(key, (path, []))
                if known[0] == path and field not in known[1]:
                    known[1].append(field)

    def write(self, entries: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write a shard, under a name that no other process writes."""
        digest = hashlib.sha256("".join(sorted(entries)).encode()).hexdigest()[:16]
        path = self.folder / f"{digest}{_SUFFIX}"
        part = path.with_suffix(f".part{os.getpid()}")
        tensors = {
            f"{key}/{field}": value.contiguous()
            for key, entry in entries.items()
            for field, value in entry.items()
        }
        save_file(tensors, str(part))
        sync(part)
        os.replace(part, path)
        for key, entry in entries.items():
            self._places[key] = (path, list(entry))

    def check(self, keys: Iterable[str]) -> None:
        """Raise CheckpointError if an entry is not there."""
        if not all(key in self._places for key in keys):
            raise CheckpointError(
                f"the feature cache in {self.folder} lacks a picture that is trained on: it has "
                "changed since, or its row was left out then. Start the stage again, which "
                "computes what is missing."
            )

    def read(self, keys: Sequence[str]) -> Perception:
        """Read entries as a batch, in order.

        Raises:
            CheckpointError: if one is not there.
        """
        self.check(keys)
        rows = [self._entry(key) for key in keys]
        stacked = {field: torch.stack([row[field] for row in rows]) for field in rows[0]}
        lists = {
            name: [stacked[f"{name}.{index}"] for index in range(_count(stacked, name))]
            for name in _LISTS
        }
        candidates = None
        if "boxes" in stacked:
            candidates = Candidates(stacked["boxes"], stacked["scores"], None)
        return Perception(VisionFeatures(**lists, proposer=[]), candidates)

    def _entry(self, key: str) -> dict[str, Tensor]:
        path, fields = self._places[key]
        with safe_open(path, "pt") as shard:
            return {field: shard.get_tensor(f"{key}/{field}") for field in fields}


def _count(fields: Mapping[str, Tensor], name: str) -> int:
    return sum(field.startswith(f"{name}.") for field in fields)


def weights_digest(parts: Iterable[nn.Module], settings: Any) -> str:
    """A name for weights and what else decides features: 24 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for part in parts:
        for name, value in part.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]


def picture_keys(sample: Sample, vision: VisionConfig) -> list[str]:
    """A name for each picture that the row of a Sample shows.

    Args:
        sample: its first picture is not a crop of another.
        vision: of the model; frames of a video are named with how they enter it.
    """
    if shows_video(sample):
        return [f"{picture_key(image)}-{vision.video}" for image in sample.images]
    return [picture_key(image) for image in sample.images[:1]]


def picture_key(image: ImageRef) -> str:
    """A name for a picture: of its file with size and time of change, or of its pixels.

    Args:
        image: not a crop of another.

    Raises:
        DataError: if its file is not there.
    """
    if image.path is None or image.pixels is not None:
        return image_digest(image.open())[:32]
    path = Path(image.path)
    try:
        found = path.stat()
    except OSError as err:
        raise DataError(f"the picture {path} cannot be read: {err.strerror}.") from err
    text = json.dumps([str(path.resolve()), found.st_size, found.st_mtime_ns, image.video_frame])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept_for(stage: Stage) -> bool:
    """Whether features are kept for a stage, which is to see pictures the same all the time."""
    seeing = ("vision", "proposer", "refiner")
    reads = stage.mixture is not None and stage.objective == "language"
    return reads and not any(stage.trains(part) for part in seeing)


def entry_bytes(model: ParfocalForConditionalGeneration) -> int:
    """Count the bytes that are kept of a picture, all of them as float32.

    Args:
        model: on the meta device.
    """
    with torch.no_grad(), torch.device("meta"):
        seen = model.perceive(blank_picture(model.config))
    return sum(value.nbytes for value in _row(seen, 0).values())


def free_bytes(folder: Path) -> tuple[int, int]:
    """Return what is free on the disk of a folder that need not exist, and what entries take."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    held = sum(path.stat().st_size for path in folder.glob(f"*/*{_SUFFIX}"))
    return shutil.disk_usage(there).free, held


def fill(
    cache: FeatureCache,
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    samples: Iterable[Sample],
    batch_size: int = 16,
) -> int:
    """Compute what is missing, and return how many pictures that were.

    What cannot be opened is left out, and told: that is an error only if it is trained on.

    Args:
        cache: of `model`.
        model: in evaluation mode while this runs.
        processor: of the model.
        samples: rows that views make those of that are trained on, or these themselves; rows
            without a picture are passed over.
        batch_size: pictures at a time.
    """
    was_training, device = model.training, next(model.vision.parameters()).device
    model.eval()
    entries: dict[str, dict[str, Tensor]] = {}
    size, written = 0, 0
    missing = _missing(cache, samples, processor.settings.vision)
    while batch := dict(islice(missing, batch_size)):
        images, frames = zip(*batch.values(), strict=True)
        pixels, _ = processor.pixel_values(images, frames)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=cache.bf16):
            seen = model.perceive([value.to(device) for value in pixels])
        for row, key in enumerate(batch):
            entries[key] = {name: value.cpu() for name, value in _row(seen, row).items()}
            size += sum(value.nbytes for value in entries[key].values())
        if size >= SHARD_BYTES:
            cache.write(entries)
            written, size, entries = written + len(entries), 0, {}
    if entries:
        cache.write(entries)
    model.train(was_training)
    return written + len(entries)


def _missing(
    cache: FeatureCache, samples: Iterable[Sample], vision: VisionConfig
) -> Iterator[tuple[str, tuple[Image, bool]]]:
    """The pictures that are not in the cache, each once, and whether they are frames of a video."""
    met: set[str] = set()
    for sample in samples:
        try:
            keys = picture_keys(sample, vision)
            if all(key in cache or key in met for key in keys):
                continue
            images = open_pictures(sample)
        except DataError as err:
            logger.warning("no features of sample %r: %s", sample.id, err)
            continue
        for key, image in zip(keys, images, strict=True):
            if key not in cache and key not in met:
                met.add(key)
                yield key, (image, shows_video(sample))


def _row(seen: Perception, row: int) -> dict[str, Tensor]:
    """One picture's entry, without the maps that only the proposer reads."""
    lists = {"tokens": seen.vision.tokens, "levels": seen.vision.levels}
    entry = {
        f"{name}.{index}": value[row]
        for name, values in lists.items()
        for index, value in enumerate(values)
    }
    if seen.candidates is not None:
        entry["boxes"], entry["scores"] = seen.candidates.boxes[row], seen.candidates.scores[row]
    return entry
