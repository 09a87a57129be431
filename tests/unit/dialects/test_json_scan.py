import pytest

from parfocal.dialects.json_scan import find_objects, walk_objects


@pytest.mark.parametrize(
    ("text", "values", "opened"),
    [
        pytest.param('{"a": 1}', [{"a": 1}], [], id="one"),
        pytest.param(
            'x [{"a": {"b": 2}}, {"c": 3}] y', [{"a": {"b": 2}}, {"c": 3}], [], id="outer"
        ),
        pytest.param(
            "{'a': 'it\\'s', 'b': True, 'c': None}",
            [{"a": "it's", "b": True, "c": None}],
            [],
            id="python",
        ),
        pytest.param('{"a": [1, 2,],}', [{"a": [1, 2]}], [], id="commas at the end"),
        pytest.param('{"a": "}{"}', [{"a": "}{"}], [], id="braces in a string"),
        pytest.param('{"a": "x\ny"}', [{"a": "x\ny"}], [], id="line end in a string"),
        pytest.param('[{"a": 1}, {"a": 2', [{"a": 1}], [11], id="cut off"),
        pytest.param(
            '{"l": [{"a": 1}, {"a": 2', [{"a": 1}], [0, 17], id="cut off inside a wrapper"
        ),
        pytest.param('{"a": "never closed', [], [0], id="string cut off"),
        pytest.param("the set {x, y} isn't JSON", [], [], id="braces in prose"),
        pytest.param("a } b", [], [], id="lone brace"),
        pytest.param('{"a": oops}', [None], [], id="balanced, not readable"),
        pytest.param('{"a": ' * 5000 + "1" + "}" * 5000, [None], [], id="too deep to read"),
    ],
)
def test_find_objects(text: str, values: list[object], opened: list[int]) -> None:
    found, start = find_objects(text)
    assert [item.value for item in found] == values
    assert start == opened


def test_walk_is_in_reading_order() -> None:
    value = {"items": [{"n": 1, "more": {"n": 2}}, {"n": 3}], "n": 4}
    assert [part["n"] for part in walk_objects(value)] == [4, 1, 2, 3]
