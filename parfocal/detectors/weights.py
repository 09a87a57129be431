"""What detectors and taggers share about networks: where they run, and a name for their weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from parfocal.errors import ConfigError

# How many values of each tensor go into a digest.
SAMPLES = 64


def digest_of(model: nn.Module) -> str:
    """A name for the weights of a network: 16 hex digits.

    Every tensor enters with its name, shape, type and up to 64 evenly spaced values, so that
    gigabytes are named in milliseconds. Fine-tuning changes all of them; a change of single values
    of a large tensor can go unnoticed.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().reshape(-1)
        count = min(SAMPLES, len(flat))
        picks = torch.arange(count, device=flat.device) * (len(flat) - 1) // max(count - 1, 1)
        digest.update(flat[picks].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def digest_of_text(text: str) -> str:
    """A name for a text, such as a list of tags: 16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(model.parameters()).device


def resolve_device(name: str | torch.device) -> torch.device:
    """A device by name; `auto` is a GPU if there is one.

    Raises:
        ConfigError: if it is none of cpu, cuda and mps, or is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise _unknown_device(name) from err
    if device.type not in ("cpu", "cuda", "mps"):
        raise _unknown_device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {str(name)!r} was asked for but torch sees no MPS; use cpu.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ConfigError(f"device {str(name)!r} was asked for but torch sees no GPU; use cpu.")
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device {str(name)!r} was asked for, torch sees {count}: cuda:0 to "
                f"cuda:{count - 1}. Use one of these."
            )
    return device


def _unknown_device(name: str | torch.device) -> ConfigError:
    return ConfigError(f"device {str(name)!r} is not known; use auto, cpu, cuda, cuda:N or mps.")
