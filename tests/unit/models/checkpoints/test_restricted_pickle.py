"""Restricted unpickling: weights come out, nothing else is imported or run."""

from __future__ import annotations

import collections
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.restricted_pickle import (
    ALLOWED,
    Stub,
    load_restricted,
    read_state_dict,
)


class MessageHub:
    """Like a training framework's object: attributes, a list, tensors inside."""

    def __init__(self) -> None:
        self.scalars = {"loss": [1.0, 2.0]}
        self.tensor = torch.ones(2)


class Named(dict):
    """A container of a class that is not built."""


class Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


WEIGHTS = {
    "llm.weight": torch.arange(6.0).view(2, 3),
    "gate.bias": torch.full((3,), 0.5, dtype=torch.bfloat16),
    "steps": torch.tensor(7),
}


def save(path: Path, value) -> Path:
    torch.save(value, path)
    return path


def test_weights_beside_foreign_objects_come_out_equal(tmp_path):
    hub = MessageHub()
    named = Named(a=1)
    content = {
        "meta": {"hub": hub, "named": named, "epoch": 1},
        "message_hub": hub,
        "state_dict": collections.OrderedDict(WEIGHTS),
        "optimizer": collections.defaultdict(list, {"state": [torch.zeros(1)]}),
    }
    path = save(tmp_path / "iter_1.pth", content)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # the file is one that PyTorch refuses
    found = read_state_dict(path)
    assert list(found) == list(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    loaded = load_restricted(path)
    assert isinstance(loaded["message_hub"], Stub)
    assert loaded["message_hub"].name.endswith("MessageHub")
    assert loaded["meta"]["epoch"] == 1
    assert torch.equal(loaded["optimizer"]["state"][0], torch.zeros(1))


def test_shared_storages_views_and_parameters(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    state = {"a": base, "b": base.t(), "c": torch.nn.Parameter(base[1:, 2:])}
    found = read_state_dict(save(tmp_path / "views.pth", state))
    for name, value in state.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    "attack",
    [
        lambda target: Calls(os.system, f"touch {target}"),
        lambda target: Calls(eval, f"open({str(target)!r}, 'w')"),
        lambda target: Calls(subprocess.check_call, ["touch", str(target)]),
        lambda target: Calls(getattr, Calls(__import__, "os"), "system"),
        lambda target: Calls(Path.touch, target),
        lambda target: Calls(torch.storage._load_from_bytes, inner_pickle(target)),
    ],
    ids=["os.system", "eval", "subprocess", "getattr", "method", "pickle in a pickle"],
)
def test_a_malicious_pickle_does_not_run(tmp_path, attack):
    target = tmp_path / "ran"
    path = save(tmp_path / "bad.pth", {"x": attack(target), "state_dict": WEIGHTS})
    found = read_state_dict(path)
    assert not target.exists()
    assert torch.equal(found["llm.weight"], WEIGHTS["llm.weight"])


def inner_pickle(target: Path) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(Calls(os.system, f"touch {target}"), buffer)
    return buffer.getvalue()


def test_the_attacks_would_run_in_an_open_unpickler(tmp_path):
    """The tests above mean something: the same file does harm when it is trusted."""
    target = tmp_path / "ran"
    path = save(tmp_path / "bad.pth", {"x": Calls(os.system, f"touch {target}")})
    torch.load(path, weights_only=False)
    assert target.exists()


def test_no_module_is_imported_for_a_name_in_the_file(tmp_path):
    (tmp_path / "harmful_module_of_this_test.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass A: pass\n"
    )
    path = tmp_path / "named.pth"
    save(path, WEIGHTS)
    payload = (
        b"\x80\x02}q\x00X\x01\x00\x00\x00xq\x01charmful_module_of_this_test\nA\nq\x02)Rq\x03s."
    )
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as changed:
        for name, value in parts.items():
            changed.writestr(name, payload if name.endswith("data.pkl") else value)
    sys.path.insert(0, str(tmp_path))
    try:
        loaded = load_restricted(path)
    finally:
        sys.path.remove(str(tmp_path))
    assert isinstance(loaded["x"], Stub)
    assert not (tmp_path / "ran").exists()
    assert "harmful_module_of_this_test" not in sys.modules


def test_only_containers_and_tensors_are_allowed():
    assert {name for _, name in ALLOWED} == {
        "OrderedDict", "defaultdict", "set", "frozenset", "Size", "_rebuild_tensor_v2",
        "_rebuild_parameter",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a file"),
        (b"no archive at all", "no archive"),
        (pickle.dumps({"state_dict": {}}), "no archive"),
    ],
    ids=["missing", "garbage", "bare pickle"],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("words.txt", "words")
    with pytest.raises(CheckpointError, match="not one of tensors"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(1)], "without a state_dict"),
        ({"state_dict": {"a": torch.ones(1), "b": 3}}, "'b' is a int"),
        ({"weights": {"a": torch.ones(1)}}, "'weights' is a dict"),
    ],
    ids=["a list", "a number inside", "another key"],
)
def test_a_file_without_weights_is_refused(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(save(tmp_path / "x.pth", value))
