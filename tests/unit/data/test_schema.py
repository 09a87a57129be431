import copy
import json
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.schema import SAMPLE_SCHEMA, rule_findings, structure_findings

jsonschema = pytest.importorskip("jsonschema")

ROW: dict[str, Any] = {
    "id": "1",
    "images": [
        {"path": "a.png", "width": 64, "height": 48},
        {"path": None, "width": 8, "height": 8, "parent": 0, "crop": [0, 0, 8, 8]},
        {"path": "a.mp4", "width": 8, "height": 8, "video_frame": 3},
    ],
    "regions": [[1, 2, 3, 4]],
    "region_labels": ["dog"],
    "turns": [
        {
            "role": "user",
            "spans": [
                {"type": "text", "text": "a"},
                {"type": "phrase", "text": "b", "boxes": [[1, 2, 3, 4]], "image": 1},
                {"type": "phrase", "text": "c", "boxes": [[1, 2, 3, 4]], "scores": [0.5]},
                {"type": "region", "index": 0},
                {"type": "object", "image": 1},
                {"type": "nothing", "phrase": "cat"},
            ],
        }
    ],
    "source": "s",
    "split": "train",
    "licence": "MIT",
    "meta": {"anything": [1, None]},
}


def test_the_published_file_is_this_schema() -> None:
    text = (resources.files("parfocal.data") / "sample.schema.json").read_text("utf-8")
    assert text == json.dumps(SAMPLE_SCHEMA, indent=2) + "\n"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SAMPLE_SCHEMA)


def test_a_sound_row_has_no_findings() -> None:
    assert [*structure_findings(ROW), *rule_findings(ROW)] == []


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    places = []
    for key, entry in items:
        places.append((*path, key))
        if isinstance(entry, dict | list):
            places.extend(_places(entry, (*path, key)))
    return places


WRONG = st.sampled_from(
    [None, True, "", "x", -1, 0, 2.5, 1e12, [], [1], [1, 2, 3, 4], {}, {"type": "text"}, [[]]]
)


@given(data=st.data())
def test_findings_agree_with_the_jsonschema_library(data: st.DataObject) -> None:
    row = copy.deepcopy(ROW)
    *path, key = data.draw(st.sampled_from(_places(ROW)))
    target = row
    for step in path:
        target = target[step]
    action = data.draw(st.sampled_from(["drop", "replace", "add"]))
    if action == "drop":
        del target[key]
    elif action == "replace":
        target[key] = data.draw(WRONG)
    elif isinstance(target, dict):
        target["extra"] = data.draw(WRONG)
    else:
        target.append(data.draw(WRONG))
    valid = jsonschema.Draft202012Validator(SAMPLE_SCHEMA).is_valid(row)
    assert (list(structure_findings(row)) == []) is valid


@pytest.mark.parametrize("value", [None, 3, "row", [], [ROW], True], ids=repr)
def test_a_row_must_be_an_object(value: object) -> None:
    kinds = [finding.kind for finding in structure_findings(value)]
    assert kinds == ["wrong_type"]


def test_every_misfit_is_reported_with_its_place() -> None:
    row = copy.deepcopy(ROW)
    del row["id"]
    row["turns"][0]["role"] = "system"
    row["turns"][0]["spans"][1]["txt"] = "b"
    row["images"][0]["width"] = "64"
    row["regions"][0] = [1, 2, 3]
    found = {(finding.kind, finding.at) for finding in structure_findings(row)}
    assert found == {
        ("missing_field", ""),
        ("wrong_value", "turns[0].role"),
        ("unknown_field", "turns[0].spans[1]"),
        ("wrong_type", "images[0].width"),
        ("wrong_value", "regions[0]"),
    }


@pytest.mark.parametrize(
    ("change", "kind", "at"),
    [
        pytest.param(
            {"regions": [[3, 2, 1, 4]]}, "swapped_corners", "regions[0]", id="x2 before x1"
        ),
        pytest.param({"regions": [[1, 2, 1, 4]]}, "degenerate_box", "regions[0]", id="no width"),
        pytest.param({"regions": [[1, 2, 3, 49]]}, "outside_image", "regions[0]", id="below"),
        pytest.param({"regions": [[-1, 2, 3, 4]]}, "outside_image", "regions[0]", id="left"),
        pytest.param({"region_labels": []}, "wrong_value", "region_labels", id="labels missing"),
        pytest.param(
            {
                "images": [
                    {"path": "a.png", "width": 64, "height": 48},
                    {"path": None, "width": 60_000, "height": 60_000, "parent": 0}
                    | {"crop": [1, 1, 9, 9]},
                ],
                "turns": [],
            },
            "too_large",
            "images[1]",
            id="a crop that no memory holds",
        ),
    ],
)
def test_rules_between_fields(change: dict[str, Any], kind: str, at: str) -> None:
    found = [(finding.kind, finding.at) for finding in rule_findings(ROW | change)]
    assert found == [(kind, at)]


@pytest.mark.parametrize(
    ("span", "kind"),
    [
        pytest.param({"type": "region", "index": 1}, "bad_region_ref", id="no such region"),
        pytest.param({"type": "object", "image": 3}, "bad_image_ref", id="no such object image"),
        pytest.param({"type": "phrase", "text": " ", "boxes": []}, "empty_phrase", id="empty"),
        pytest.param(
            {"type": "phrase", "text": "a", "boxes": [[0, 0, 1, 1]], "image": 3},
            "bad_image_ref",
            id="no such picture",
        ),
        pytest.param(
            {"type": "phrase", "text": "a", "boxes": [[0, 0, 1, 1]], "scores": []},
            "wrong_value",
            id="scores missing",
        ),
        pytest.param(
            {"type": "phrase", "text": "a", "boxes": [[0, 0, 9, 1]], "image": 1},
            "outside_image",
            id="measured in its own picture",
        ),
    ],
)
def test_rules_of_spans(span: dict[str, Any], kind: str) -> None:
    row = ROW | {"turns": [{"role": "user", "spans": [span]}]}
    assert [finding.kind for finding in rule_findings(row)] == [kind]
