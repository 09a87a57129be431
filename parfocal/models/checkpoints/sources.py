"""Where the tensors of a checkpoint lie: read lazily, by name, from any layout that is in use.

Single files and index files with shards, as safetensors or as PyTorch pickles. Pickles are read
with `weights_only`; a `.pth` of a training framework, which holds more than that admits, goes
through the restricted reader. Nothing that is pickled is ever run.

Example:
    >>> import tempfile, torch
    >>> from safetensors.torch import save_file
    >>> folder = tempfile.mkdtemp()
    >>> save_file({"a.weight": torch.zeros(2, 3)}, f"{folder}/model.safetensors")
    >>> tensors = open_tensors(folder)
    >>> list(tensors), tuple(tensors["a.weight"].shape)
    (['a.weight'], (2, 3))
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from parfocal.errors import CheckpointError
from parfocal.hub import bundled_folder, cached_folder, local_path
from parfocal.models.checkpoints.restricted_pickle import read_state_dict

# what a folder's weights are called, the first that is there wins
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
PICKLES = (".bin", ".pth", ".pt")
DEEPSPEED = ("*_optim_states.pt", "*_model_states.pt", "global_step*", "zero_to_fp32.py")


class Tensors(Mapping[str, Tensor]):
    """Named tensors that are read when they are asked for.

    Args:
        readers: name -> function that reads it.
        origin: where they lie, for messages.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]], origin: str) -> None:
        self._readers, self.origin = dict(readers), origin

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor."""
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def under(self, prefix: str) -> Tensors:
        """Return the tensors whose names start with `prefix`, which is cut off."""
        return Tensors(
            {
                name.removeprefix(prefix): reader
                for name, reader in self._readers.items()
                if name.startswith(prefix)
            },
            self.origin,
        )

    def renamed(self, prefix: str) -> Tensors:
        """Return the same tensors with `prefix` before every name."""
        readers = {prefix + name: reader for name, reader in self._readers.items()}
        return Tensors(readers, self.origin)


def joined(parts: Sequence[Tensors]) -> Tensors:
    """Lay several sources side by side.

    Raises:
        CheckpointError: if two of them hold a tensor of the same name.
    """
    readers: dict[str, Callable[[], Tensor]] = {}
    owner: dict[str, str] = {}
    for part in parts:
        twice = sorted(readers.keys() & part._readers.keys())
        if twice:
            raise CheckpointError(
                f"{owner[twice[0]]} and {part.origin} both hold {twice[0]!r} "
                f"({len(twice)} such tensors); remove the one that is not of this model."
            )
        readers.update(part._readers)
        owner.update(dict.fromkeys(part._readers, part.origin))
    return Tensors(readers, ", ".join(dict.fromkeys(part.origin for part in parts)))


def local_folder(name: str | Path) -> Path:
    """Return the folder of a model's name: a bundled one's, itself, or a hub id's in the cache.

    Raises:
        CheckpointError: if there is neither. Nothing is downloaded.
    """
    path = bundled_folder(str(name)) or local_path(name)
    if name != "" and path.exists():  # Path("") is the folder one is in
        return path
    cached = cached_folder(str(name))
    if cached is None:
        raise CheckpointError(
            f"{str(name)!r} is neither a folder here nor a hub id in the local cache, nor bundled. "
            f"Nothing is downloaded on its own; for a hub id, run `hf download {name}` first."
        )
    return cached


def open_tensors(path: str | Path) -> Tensors:
    """Open the weights of a folder or file.

    Args:
        path: a folder with `model.safetensors`, `pytorch_model.bin`, their sharded forms with an
            index, open_clip's names, or one other file of weights; or such a file itself.

    Raises:
        CheckpointError: if there are no weights, several to choose from, shards or tensors that the
            index names are missing, or the files are DeepSpeed's shards.
    """
    path = Path(path)
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is neither a folder nor a file.")
    for name in INDEXES:
        if (path / name).is_file():
            return _open_index(path / name)
    for name in FILES:
        if (path / name).is_file():
            return _open_file(path / name)
    _refuse_deepspeed(path)
    found = weight_files(path)
    if len(found) == 1:
        return _open_file(found[0])
    raise CheckpointError(
        f"{path} holds {[file.name for file in found] or 'no weights'}; expected one of "
        f"{', '.join((*INDEXES, *FILES))}, or a single file of weights. Give the file itself."
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that may hold weights; training arguments are none."""
    suffixes = (".safetensors", *PICKLES)
    skipped = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt")
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in suffixes and file.is_file() and file.name not in skipped
    )


def _refuse_deepspeed(folder: Path) -> None:
    inner = [folder, *(child for child in folder.iterdir() if child.is_dir())]
    if any(next(place.glob(pattern), None) for place in inner for pattern in DEEPSPEED):
        raise CheckpointError(
            f"{folder} holds the shards of a DeepSpeed run. Join them first: "
            "`python zero_to_fp32.py FOLDER pytorch_model.bin` (the script lies in that folder, or "
            "in the deepspeed package), and give the file it writes."
        )


def _open_index(index: Path) -> Tensors:
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(names.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{index} is no index of weights; copy it again.") from err
    outside = [shard for shard in shards if Path(shard).name != shard]
    if outside:
        raise CheckpointError(f"{index} names a file outside its folder: {outside[0]!r}.")
    lost = [shard for shard in shards if not (index.parent / shard).is_file()]
    if lost:
        raise CheckpointError(
            f"{index.parent} lacks {len(lost)} of {len(shards)} shards: {', '.join(lost)}. "
            "Copy them into the folder."
        )
    tensors = joined([_open_file(index.parent / shard) for shard in shards])
    missing = sorted(names.keys() - set(tensors))
    if missing:
        raise CheckpointError(
            f"{index} names {len(missing)} tensors that no shard holds, such as {missing[0]!r}; "
            "index and shards are of different checkpoints. Copy them again."
        )
    return Tensors(tensors._readers, str(index.parent))


def _open_file(path: Path) -> Tensors:
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in PICKLES:
        tensors = _read_pickle(path)
        return Tensors({name: _given(value) for name, value in tensors.items()}, str(path))
    raise CheckpointError(
        f"{path} is no file of weights; those end in .safetensors, {', '.join(PICKLES)}."
    )


def _given(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value


def _open_safetensors(path: Path) -> Tensors:
    try:
        opened = safe_open(path, framework="pt")
        names = list(opened.keys())
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{path} is no readable safetensors file ({err}); copy it again."
        ) from err

    def reader(name: str) -> Callable[[], Tensor]:
        return lambda: opened.get_tensor(name)

    return Tensors({name: reader(name) for name in names}, str(path))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Read a pickle with `weights_only`; one that holds more, with the restricted reader."""
    try:
        loaded = _load(path)
    except pickle.UnpicklingError:
        return read_state_dict(path)
    except (RuntimeError, OSError, EOFError, ValueError, LookupError) as err:
        raise CheckpointError(
            f"{path} is no readable PyTorch file ({type(err).__name__}); copy it again."
        ) from err
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path} holds no weights, but a {type(loaded).__name__}.")
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path} holds other things than weights, such as {others[0]!r}; give the file of a "
            "state dict."
        )
    return state


def _load(path: Path) -> Any:
    """Leave the tensors in the file until they are used; the format before PyTorch 1.6 cannot."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as err:
        if "mmap" not in str(err):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)
