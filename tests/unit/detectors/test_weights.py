"""Names for weights, and devices by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parfocal.detectors.weights import SAMPLES, digest_of, resolve_device
from parfocal.errors import ConfigError


def filled(value: float, bias: float = 0.0) -> nn.Module:
    layer = nn.Linear(20, 30)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, bias)
    return layer


def test_equal_weights_have_equal_names_and_others_do_not() -> None:
    assert digest_of(filled(0.5)) == digest_of(filled(0.5))
    names = {digest_of(m) for m in (filled(0.5), filled(0.6), filled(0.5, 1.0), filled(0.5).half())}
    assert len(names) == 4
    assert all(len(name) == 16 for name in names)


def test_samples_reach_the_last_value_of_a_large_tensor() -> None:
    large = nn.Embedding(10 * SAMPLES + 3, 7)
    before = digest_of(large)
    with torch.no_grad():
        large.weight[-1, -1] += 1
    assert digest_of(large) != before


def test_scalars_and_empty_tensors_are_fine() -> None:
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor(2.0))
    module.register_buffer("nothing", torch.zeros(0))
    assert digest_of(module) == digest_of(module)


def test_devices_by_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="'gpu' is not known"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="'meta' is not known"):
        resolve_device("meta")


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'mps' was asked for but"):
        resolve_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' was asked for but torch sees no GPU"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"'cuda:9' was asked for, torch sees 2: .*cuda:1"):
        resolve_device("cuda:9")
