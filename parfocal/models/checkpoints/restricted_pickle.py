"""Reads tensors out of a `.pth` file without running what else is pickled in it.

A pickle can name any function of any module and have it called. Training frameworks put their own
objects beside the weights (mmengine: message hub, history buffers), so PyTorch's `weights_only`
refuses such files as a whole. Here tensors and plain containers are built, and every other name in
the file becomes a `Stub`: nothing is imported for it and nothing is called.
"""

from __future__ import annotations

import collections
import pickle
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.errors import CheckpointError

_DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip


class Stub:
    """Stands for an object whose class is not built; takes everything and does nothing.

    It takes the place of the class and of every instance that the file makes of it.

    Args:
        name: of what it stands for, such as "mmengine.logging.MessageHub".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Stub:
        """Stand for what the call would have made."""
        return Stub(self.name)

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget an item."""

    def append(self, value: Any) -> None:
        """Forget an item."""

    def extend(self, values: Any) -> None:
        """Forget items."""

    def add(self, value: Any) -> None:
        """Forget an item."""

    def update(self, *values: Any) -> None:
        """Forget items."""

    def __repr__(self) -> str:
        return f"Stub({self.name!r})"


def _stub_class(name: str) -> type[Stub]:
    """Return a class for pickle's instructions that insist on one (`cls.__new__(cls, ...)`)."""

    def new(cls: type[Stub], *args: Any, **kwargs: Any) -> Stub:
        return Stub(name)

    return type("Stub", (Stub,), {"__new__": new})


def _plain_dict(*args: Any) -> dict[Any, Any]:
    """Build a defaultdict without its factory."""
    return {}


# all that a file can have called; names as they stand in pickles
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): _plain_dict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
_CONSTANTS: dict[tuple[str, str], Any] = {("torch", name): getattr(torch, name) for name in _DTYPES}


class RestrictedUnpickler(pickle.Unpickler):
    """Looks names up in a table instead of importing them."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle may have for a name, or a stub."""
        key = (module, name)
        if key in ALLOWED:
            return ALLOWED[key]
        return _CONSTANTS[key] if key in _CONSTANTS else _stub_class(f"{module}.{name}")


def load_restricted(path: str | Path) -> Any:
    """Read a file that `torch.save` wrote; objects other than tensors and containers are stubs.

    Tensors stay in the file until they are used.

    Raises:
        CheckpointError: if the file cannot be read, is no archive of tensors, or is broken.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; give the .pth file itself.")
    _check_archive(path)
    # torch.load takes a module and asks it for an Unpickler; it has no other use for one here,
    # because archives of the old format and of TorchScript have been refused
    module = types.SimpleNamespace(Unpickler=RestrictedUnpickler, load=_refuse, __name__="pickle")
    try:
        return torch.load(
            path, map_location="cpu", pickle_module=module, weights_only=False, mmap=True
        )
    except (
        pickle.UnpicklingError, RuntimeError, TypeError, ValueError, EOFError, AttributeError,
        LookupError, OSError,
    ) as err:  # fmt: skip
        raise CheckpointError(
            f"{path} cannot be read ({type(err).__name__}: {err}); copy the file again."
        ) from err


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.split("/", 1)[-1] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as err:
        raise CheckpointError(
            f"{path} is no archive of PyTorch 1.6 or later ({err}). Copy it again, or load and "
            "save it with the PyTorch it was made with."
        ) from err
    if "data.pkl" not in names or "constants.pkl" in names:
        raise CheckpointError(f"{path} is an archive, but not one of tensors (torch.save).")


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise pickle.UnpicklingError("the old format is not read")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the weights of a `.pth` file: its `state_dict`, or itself when it holds only tensors.

    Raises:
        CheckpointError: if there is no state dict, or something in it is not a tensor.
    """
    loaded = load_restricted(path)
    found = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{path} holds a {type(loaded).__name__} without a state_dict.")
    others = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path} holds no state_dict that is all tensors; {others[0]!r} is a "
            f"{type(found[others[0]]).__name__} ({len(others)} such entries)."
        )
    return dict(found)
