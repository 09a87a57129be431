"""What one row of a data file may hold: a JSON schema, and the rules a schema cannot say.

`SAMPLE_SCHEMA` is published as `sample.schema.json` beside this file (draft 2020-12).
`structure_findings` walks a row along it and names every misfit, with near-misses of misspelt keys;
`rule_findings` then checks what relates fields to each other. Both report all they find and raise
nothing; `Sample` and `parfocal data check` are built on them.

Boxes are xyxy pixels of the decoded picture.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parfocal.images import DEFAULT_LIMITS

EDGE_SLACK = (
    1e-3  # pixels that a box may leave its picture by: float noise of a Warp and its inverse
)
_LIMIT = 1e9  # no coordinate or side is larger; also keeps 1e999 out

_NUMBER = {"type": "number", "minimum": -_LIMIT, "maximum": _LIMIT}
_SIDE = {"type": "integer", "minimum": 1, "maximum": int(_LIMIT)}
_INDEX = {"type": "integer", "minimum": 0, "maximum": int(_LIMIT)}
_STRING = {"type": "string"}
_BOX = {"$ref": "#/$defs/box"}
_BOXES = {"type": "array", "items": _BOX}


def _object(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


SAMPLE_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "parfocal sample",
    "description": (
        "One training or evaluation example, one JSON object a line. Boxes are [x1, y1, x2, y2] in "
        "pixels of the decoded picture (EXIF orientation applied)."
    ),
    **_object(
        ["id", "images", "turns"],
        id={"type": "string", "minLength": 1, "description": "unique in the file"},
        images={"type": "array", "items": {"$ref": "#/$defs/image"}},
        regions={
            **_BOXES,
            "description": "the user's boxes in image 0; turns refer to them by index",
        },
        region_labels={"type": "array", "items": _STRING, "description": "a label each region"},
        turns={"type": "array", "items": {"$ref": "#/$defs/turn"}},
        source={**_STRING, "description": "the dataset or program the row comes from"},
        split=_STRING,
        licence=_STRING,
        meta={
            "type": "object",
            "description": (
                "anything else, kept; `image_key` names the picture across datasets (coco:391895)"
            ),
        },
    ),
    "$defs": {
        "box": {"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4},
        "image": _object(
            ["path", "width", "height"],
            path={
                "type": ["string", "null"],
                "minLength": 1,
                "description": "relative to the images folder; null for a crop of the parent",
            },
            width=_SIDE,
            height=_SIDE,
            parent={**_INDEX, "description": "the image that this object image is a crop of"},
            crop={**_BOX, "description": "where in the parent, pixels of the parent"},
            video_frame={
                **_INDEX,
                "description": "the file is a video, this is its frame of that number, from 0",
            },
        ),
        "turn": _object(
            ["role", "spans"],
            role={"type": "string", "enum": ["user", "assistant"]},
            spans={"type": "array", "items": {"$ref": "#/$defs/span"}},
        ),
        "span": {
            "oneOf": [
                {"$ref": "#/$defs/text"},
                {"$ref": "#/$defs/phrase"},
                {"$ref": "#/$defs/region"},
                {"$ref": "#/$defs/object"},
                {"$ref": "#/$defs/nothing"},
            ]
        },
        "text": _object(["type", "text"], type={"const": "text"}, text=_STRING),
        "phrase": _object(
            ["type", "text", "boxes"],
            type={"const": "phrase"},
            text={**_STRING, "description": 'the words; "" for bare boxes'},
            boxes={**_BOXES, "description": "none for a phrase that is to be located"},
            image={**_INDEX, "description": "the image that the boxes are in; 0 if left out"},
            scores={"type": "array", "items": _NUMBER, "description": "a confidence each box"},
        ),
        "region": _object(["type", "index"], type={"const": "region"}, index=_INDEX),
        "object": _object(
            ["type", "image"],
            type={"const": "object"},
            image={**_INDEX, "minimum": 1, "description": "the image that shows the object"},
        ),
        "nothing": _object(["type"], type={"const": "nothing"}, phrase=_STRING),
    },
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a row.

    Attributes:
        kind: a short name to count by, for example "unknown_field".
        at: where in the row, for example "turns[0].spans[1]".
        detail: what is wrong, the value, and what is allowed.
    """

    kind: str
    at: str
    detail: str

    def __str__(self) -> str:
        return f"{self.at}: {self.detail}" if self.at else self.detail


def structure_findings(row: object) -> Iterator[Finding]:
    """Everything in a decoded JSON value that does not follow `SAMPLE_SCHEMA`, in reading order.

    Example:
        >>> print(*structure_findings({"id": "a", "images": [], "turn": []}), sep="; ")
        unknown field 'turn', did you mean 'turns'?; the field 'turns' is missing
    """
    yield from _walk(row, SAMPLE_SCHEMA, "")


def _walk(value: object, schema: Mapping[str, Any], at: str) -> Iterator[Finding]:
    if "$ref" in schema:
        if schema is _BOX and _is_sound_box(value):
            return  # nearly all of a row is boxes
        schema = SAMPLE_SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "oneOf" in schema:
        branch = _branch(value, schema["oneOf"])
        if isinstance(branch, Finding):
            yield Finding(branch.kind, at, branch.detail)
        else:
            yield from _walk(value, branch, at)
        return
    if "const" in schema:
        return  # settled when the branch was chosen
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_type(value, name) for name in types):
        detail = f"{_short(value)} is {_type_name(value)}, must be {' or '.join(types)}"
        yield Finding("wrong_type", at, detail)
    elif isinstance(value, dict):
        yield from _walk_object(value, schema, at)
    elif isinstance(value, list):
        yield from _walk_array(value, schema, at)
    else:
        yield from _walk_scalar(value, schema, at)


def _is_sound_box(value: object) -> bool:
    """Whether a value is four numbers within the limits; boxes that are not are then explained."""
    return (
        type(value) is list
        and len(value) == 4
        and all(type(side) in (float, int) and -_LIMIT <= side <= _LIMIT for side in value)
    )


def _walk_object(value: dict[str, Any], schema: Mapping[str, Any], at: str) -> Iterator[Finding]:
    properties = schema.get("properties")
    if properties is None:
        return
    for key, entry in value.items():
        if key in properties:
            yield from _walk(entry, properties[key], f"{at}.{key}" if at else key)
        else:
            close = difflib.get_close_matches(key, properties, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"fields: {', '.join(properties)}"
            yield Finding("unknown_field", at, f"unknown field {key!r}, {hint}")
    for key in schema["required"]:
        if key not in value:
            yield Finding("missing_field", at, f"the field {key!r} is missing")


def _walk_array(value: list[Any], schema: Mapping[str, Any], at: str) -> Iterator[Finding]:
    wanted = schema.get("minItems", len(value))  # the only bounded array is a box of four
    if len(value) != wanted:
        detail = f"{_short(value)} has {len(value)} entries, must have {wanted}"
        yield Finding("wrong_value", at, detail)
    for index, entry in enumerate(value):
        yield from _walk(entry, schema["items"], f"{at}[{index}]")


def _walk_scalar(value: Any, schema: Mapping[str, Any], at: str) -> Iterator[Finding]:
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(map(repr, schema["enum"]))
        yield Finding("wrong_value", at, f"{_short(value)} is not one of {allowed}")
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield Finding("wrong_value", at, "must not be empty")
    bounded = isinstance(value, int | float) and "minimum" in schema
    if bounded and not schema["minimum"] <= value <= schema["maximum"]:
        detail = f"{_short(value)} is not in {schema['minimum']:g}..{schema['maximum']:g}"
        yield Finding("wrong_value", at, detail)


def _branch(value: object, refs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | Finding:
    """The alternative whose "type" the value names."""
    if not isinstance(value, dict):
        return Finding("wrong_type", "", f"{_short(value)} is {_type_name(value)}, must be object")
    if "type" not in value:
        return Finding("missing_field", "", "the field 'type' is missing")
    names = [ref["$ref"].rpartition("/")[2] for ref in refs]
    if value["type"] not in names:
        detail = f"type {_short(value['type'])} is not one of {', '.join(names)}"
        return Finding("wrong_value", "", detail)
    return refs[names.index(value["type"])]


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def _is_type(value: object, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and not isinstance(value, bool)


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return next((name for name in _TYPES if _is_type(value, name)), type(value).__name__)


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, dict) else f"an object with {len(value)} fields"
    return text if len(text) <= 60 else text[:57] + "..."


def box_findings(
    boxes: Sequence[Sequence[float]], size_wh: tuple[float, float], at: str
) -> Iterator[Finding]:
    """Swapped corners, boxes without area and boxes that leave a picture.

    Args:
        boxes: xyxy rows, pixels.
        size_wh: width and height of the picture, pixels.
        at: where the rows stand.
    """
    width, height = size_wh
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        shown = f"box {[x1, y1, x2, y2]}"
        here = f"{at}[{index}]"
        if x2 < x1 or y2 < y1:
            axis = "x2 < x1" if x2 < x1 else "y2 < y1"
            yield Finding("swapped_corners", here, f"{shown} has {axis}, must be x1, y1, x2, y2")
        elif x1 == x2 or y1 == y2:
            yield Finding("degenerate_box", here, f"{shown} has no area")
        left, right = min(x1, x2), max(x1, x2)
        top, bottom = min(y1, y2), max(y1, y2)
        over = max(right - width, bottom - height, -left, -top)
        if over > EDGE_SLACK:
            detail = f"{shown} leaves its picture ({width:g}x{height:g}) by {over:g} pixels"
            yield Finding("outside_image", here, detail)


def placed_boxes(row: Mapping[str, Any]) -> Iterator[tuple[str, int, list[list[float]]]]:
    """(place in the row, index of the picture, xyxy rows) of every set of boxes of a sound row."""
    if row.get("regions"):
        yield "regions", 0, row["regions"]
    for t, turn in enumerate(row["turns"]):
        for s, span in enumerate(turn["spans"]):
            if span["type"] == "phrase" and span["boxes"]:
                yield f"turns[{t}].spans[{s}].boxes", span.get("image", 0), span["boxes"]
    for i, image in enumerate(row["images"]):
        if "crop" in image and "parent" in image:
            yield f"images[{i}].crop", image["parent"], [image["crop"]]


def rule_findings(row: Mapping[str, Any]) -> Iterator[Finding]:
    """What a row of sound structure breaks of the rules between its fields."""
    images = row["images"]
    for i, image in enumerate(images):
        yield from _image_findings(image, i, images)
    for at, image_index, boxes in placed_boxes(row):
        if image_index < len(images):
            image = images[image_index]
            yield from box_findings(boxes, (image["width"], image["height"]), at)
        else:
            detail = f"boxes are in image {image_index}, the row has {len(images)} images"
            yield Finding("bad_image_ref", at, detail)
    labels, num_regions = row.get("region_labels"), len(row.get("regions", []))
    if labels is not None and len(labels) != num_regions:
        detail = f"{len(labels)} labels for {num_regions} regions, must be as many"
        yield Finding("wrong_value", "region_labels", detail)
    for t, turn in enumerate(row["turns"]):
        for s, span in enumerate(turn["spans"]):
            yield from _span_findings(span, num_regions, len(images), f"turns[{t}].spans[{s}]")


def _image_findings(
    image: Mapping[str, Any], index: int, images: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    at = f"images[{index}]"
    if image["path"] is None and image["width"] * image["height"] > DEFAULT_LIMITS.max_pixels:
        size, most = f"{image['width']}x{image['height']}", DEFAULT_LIMITS.max_pixels
        yield Finding("too_large", at, f"a crop of {size} has more than {most} pixels")
    if ("parent" in image) != ("crop" in image):
        yield Finding("missing_field", at, "parent and crop come together: give both or neither")
    elif "parent" in image:
        parent = image["parent"]
        if parent >= len(images) or "parent" in images[parent]:
            detail = (
                f"parent {parent} must be another of the {len(images)} images, not itself a crop"
            )
            yield Finding("bad_image_ref", at, detail)
    if "video_frame" in image and (image["path"] is None or "parent" in image):
        detail = "video_frame needs the path of a video, and no parent: crop a frame by its index"
        yield Finding("wrong_value", at, detail)


def _span_findings(
    span: Mapping[str, Any], num_regions: int, num_images: int, at: str
) -> Iterator[Finding]:
    if span["type"] == "region" and span["index"] >= num_regions:
        detail = f"region {span['index']} is not there, the row has {num_regions} (from 0)"
        yield Finding("bad_region_ref", at, detail)
    if span["type"] == "object" and span["image"] >= num_images:
        detail = f"object image {span['image']} is not there, the row has {num_images} (from 0)"
        yield Finding("bad_image_ref", at, detail)
    if span["type"] == "phrase" and not span["boxes"] and not span["text"].strip():
        yield Finding("empty_phrase", at, "a phrase needs words or boxes, this one has neither")
    scores = span.get("scores")
    if scores is not None and len(scores) != len(span["boxes"]):
        detail = f"{len(scores)} scores for {len(span['boxes'])} boxes, must be as many"
        yield Finding("wrong_value", at, detail)
