"""The conversion engine: every source tensor used or named, every target filled, or all misfits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.convert import (
    Drop,
    Join,
    Keep,
    KeyMap,
    Rename,
    convert,
    fill,
    match,
)


def numbers(*shape: int, start: int = 0) -> Tensor:
    count = int(torch.tensor(shape).prod())
    return torch.arange(start, start + count, dtype=torch.float32).reshape(shape)


def run(source: Mapping[str, Tensor], *rules, **targets: Tensor):
    wanted = {name.replace("__", "."): value for name, value in targets.items()}
    return convert(source, KeyMap("test", rules), wanted)


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "name", "expected"),
        [
            ("a.*.c", "a.b.c", ("b",)),
            ("a.*.c", "a.b.b.c", None),
            ("a.**.c", "a.b.b.c", ("b.b",)),
            ("a.**", "a.b.c", ("b.c",)),
            ("a.**", "a", None),
            ("a.b", "a.b", ()),
            ("a.b", "axb", None),
            ("fc*.w", "fc1.w", ("1",)),
        ],
    )
    def test_a_star_is_one_component_and_two_are_any_number(self, pattern, name, expected):
        assert match(pattern, name) == expected

    def test_filling_keeps_the_order(self):
        assert fill("x.*.y.**", ("1", "a.b")) == "x.1.y.a.b"


class TestRules:
    def test_rename_carries_the_wildcards_over(self):
        source = {"old.3.weight": numbers(2)}
        found = run(source, Rename("old.*.*", "new.*.layer.*"), new__3__layer__weight=numbers(2))
        assert torch.equal(found.state["new.3.layer.weight"], numbers(2))

    def test_the_first_rule_that_fits_decides(self):
        rules = (Rename("a.b", "special"), Rename("a.*", "*"))
        found = run(
            {"a.b": numbers(1), "a.c": numbers(1)}, *rules, special=numbers(1), c=numbers(1)
        )
        assert found.report.used == {"a.b": ("special",), "a.c": ("c",)}

    def test_rename_can_change_the_tensor(self):
        rule = Rename("a", "b", lambda value: value.flatten())
        assert torch.equal(run({"a": numbers(2, 2)}, rule, b=numbers(4)).state["b"], numbers(4))

    @pytest.mark.parametrize("dim", [0, 1])
    def test_parts_join_whatever_their_order(self, dim):
        whole = numbers(4, 4)
        first, second = whole.chunk(2, dim)
        parts = {"x.k": second, "x.q": first}
        rule = Join(("*.q", "*.k"), "*.qk", dim)
        joined = convert(parts, KeyMap("test", (rule,)), {"x.qk": whole})
        assert torch.equal(joined.state["x.qk"], whole)

    def test_dropped_and_kept_are_reported_with_their_reasons(self):
        rules = (Drop("step.*", "a counter"), Keep("head.**", "not in the source"))
        found = run({"step.a": numbers(1)}, *rules, head__weight=numbers(2))
        assert found.state == {}
        assert found.report.dropped == {"step.a": "a counter"}
        assert found.report.kept == {"head.weight": "not in the source"}
        assert "1 dropped, 1 targets kept" in str(found.report)

    def test_the_same_tensor_under_two_names_is_taken_once(self):
        source = {"a.w": numbers(2), "b.w": numbers(2)}
        found = run(source, Rename("a.*", "*"), Rename("b.*", "*"), w=numbers(2))
        assert found.report.aliases == ["b.w"]
        assert found.report.parameters == 2


class TestMisfits:
    def test_all_are_listed_at_once(self):
        source = {"renamed.weight": numbers(2), "small": numbers(2), "good": numbers(1)}
        rules = [Rename(name, name) for name in ("weight", "small", "good")]
        with pytest.raises(CheckpointError) as caught:
            run(source, *rules, weight=numbers(2), small=numbers(3), good=numbers(1))
        text = str(caught.value)
        assert "3 misfits" in text
        assert "unknown source tensor renamed.weight (2,)" in text
        assert "nothing in the source fills weight" in text
        assert "misshapen small: the source gives (2,), the model has (3,)" in text
        assert "good" not in text

    @pytest.mark.parametrize(
        ("source", "rules", "targets", "message"),
        [
            (
                {"a": numbers(1), "b": numbers(1, start=5)},
                (Rename("*", "w"),),
                {"w": numbers(1)},
                "b and a are both w and differ",
            ),
            ({"a": numbers(1)}, (Rename("*", "*.x"),), {}, r"the model has no a.x \(from a\)"),
            (
                {"a": numbers(1)},
                (Join(("a", "b"), "w"),),
                {"w": numbers(2)},
                r"missing source tensor \['b'\] for w",
            ),
            (
                {"a": numbers(2, 2), "b": numbers(2, 3)},
                (Join(("a", "b"), "w"),),
                {"w": numbers(4, 2)},
                "of w do not join",
            ),
        ],
    )
    def test_each_kind(self, source, rules, targets, message):
        with pytest.raises(CheckpointError, match=message):
            convert(source, KeyMap("test", rules), targets)


class Lazy(Mapping[str, Tensor]):
    """Counts how often each tensor is read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors, self.reads = tensors, dict.fromkeys(tensors, 0)

    def __getitem__(self, name: str) -> Tensor:
        self.reads[name] += 1
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_a_lazy_source_is_read_once_a_tensor():
    source = Lazy({"a": numbers(2), "b": numbers(2), "c": numbers(1)})
    rules = (Join(("a", "b"), "ab"), Rename("c", "c"))
    run(source, *rules, ab=numbers(4), c=numbers(1))
    assert source.reads == {"a": 1, "b": 1, "c": 1}


def test_meta_tensors_are_checked_by_shape():
    with torch.device("meta"):
        source = {"a": torch.empty(2, 3), "again": torch.empty(2, 3), "b": torch.empty(1, 3)}
        targets = {"ab": torch.empty(3, 3), "w": torch.empty(2, 3)}
    rules = (Rename("again", "w"), Join(("a", "b"), "ab"))
    assert convert(source, KeyMap("test", rules), targets).state["ab"].is_meta
