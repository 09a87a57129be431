"""Two tiny scenes on disk, and predictors that know, or do not know, what is in them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase
from parfocal.eval.scenes import Scene, SceneSet, load_scenes

ROWS: list[dict[str, Any]] = [
    {
        "id": "s0",
        "width": 100,
        "height": 80,
        "file": "s0.webp",
        "objects": [
            {"name": "apple", "xyxy": [0, 0, 20, 20], "visible": 1.0},
            {"name": "apple", "xyxy": [60, 0, 100, 40], "visible": 0.9},
            {"name": "red car", "xyxy": [30, 50, 50, 70], "visible": 1.0},
        ],
        "expressions": [
            {"text": "the red car", "kind": "unique", "relation": "", "target": 2},
            {"text": "the leftmost apple", "kind": "twin", "relation": "leftmost", "target": 0},
            {"text": "the largest apple", "kind": "twin", "relation": "largest", "target": 1},
        ],
        "absent": [{"text": "the dog", "kind": "other"}, {"text": "the blue car", "kind": "near"}],
        "counts": [{"text": "apples", "name": "apple", "n": 2}],
        "regions": [0, 2],
    },
    {
        "id": "s1",
        "width": 60,
        "height": 60,
        "file": "s1.webp",
        "objects": [{"name": "dog", "xyxy": [5, 5, 55, 55], "visible": 1.0}],
        "expressions": [{"text": "the dog", "kind": "unique", "relation": "", "target": 0}],
        "absent": [{"text": "the apple", "kind": "other"}],
        "counts": [
            {"text": "dogs", "name": "dog", "n": 1},
            {"text": "cats", "name": "cat", "n": 0},
        ],
        "regions": [0],
    },
]


def write_scenes(folder: Path, lines: Iterable[str]) -> Path:
    """The two files; each picture has its own flat colour, by which a fake knows the scene."""
    (folder / "scenes.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with zipfile.ZipFile(folder / "scenes.zip", "w") as archive:
        for index, row in enumerate(ROWS):
            buffer = io.BytesIO()
            picture = Image.new("RGB", (row["width"], row["height"]), (10 * index, 0, 0))
            picture.save(buffer, "WEBP", lossless=True)
            archive.writestr(row["file"], buffer.getvalue())
    return folder


@pytest.fixture
def scenes_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    folder.mkdir()
    return write_scenes(folder, [json.dumps(row) for row in ROWS])


@pytest.fixture
def scene_set(scenes_folder: Path) -> SceneSet:
    return load_scenes(scenes_folder)


def answer(text: GroundedText | str, question: str = "") -> SimpleNamespace:
    grounded = text if isinstance(text, GroundedText) else GroundedText.of(text)
    return SimpleNamespace(question=question, text=grounded, problems=())


class Oracle:
    """Looks everything up in the scenes."""

    name = "oracle"

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = scenes
        self.calls: list[tuple[str, int]] = []

    def scene(self, image: Image.Image) -> Scene:
        return self.scenes[round(image.getpixel((0, 0))[0] / 10)]

    def propose_batch(self, images: Sequence[Image.Image], top: int) -> list[Boxes]:
        self.calls.append(("propose", len(images)))
        return [self.scene(image).boxes.replace(labels=None)[:top] for image in images]

    def locate_batch(self, images: Sequence[Image.Image], phrases: Sequence[str]) -> list[Any]:
        self.calls.append(("locate", len(images)))
        return [self.locate(self.scene(i), p) for i, p in zip(images, phrases, strict=True)]

    def locate(self, scene: Scene, phrase: str) -> Any:
        targets = [e.target for e in scene.expressions if e.text == phrase]
        found = [Phrase(phrase, scene.boxes[target]) for target in targets]
        return answer(GroundedText.of(*(found or [Nothing(phrase)])), f"Locate {phrase}")

    def ask_batch(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Any]:
        self.calls.append(("count", len(images)))
        counts = [
            next(c.n for c in self.scene(i).counts if f"How many {c.text} are there?" == q)
            for i, q in zip(images, questions, strict=True)
        ]
        return [answer(str(n), q) for n, q in zip(counts, questions, strict=True)]

    def describe_regions_batch(
        self, images: Sequence[Image.Image], boxes: Sequence[Boxes]
    ) -> list[list[Any]]:
        return [
            [
                answer(next(f"a {t.name}." for t in self.scene(i).objects if list(t.xyxy) == box))
                for box in own.to_json()
            ]
            for i, own in zip(images, boxes, strict=True)
        ]

    def describe_batch(self, images: Sequence[Image.Image]) -> list[Any]:
        return [
            answer(GroundedText.of(*(Phrase(f"a {b.labels[0]}", b) for b in self.scene(i).boxes)))
            for i in images
        ]


class Garbage:
    """Points at a corner where nothing is, names everything wrong, and never says "none"."""

    name = "garbage"

    def nonsense(self, image: Image.Image) -> Any:
        frame = Frame("image", *image.size)
        corner = Boxes([[frame.width - 1, frame.height - 1, frame.width, frame.height]], frame)
        return answer(GroundedText.of(Phrase("blob", corner)))

    def propose_batch(self, images: Sequence[Image.Image], top: int) -> list[Boxes]:
        return [self.nonsense(image).text.phrases[0].boxes for image in images]

    def locate_batch(self, images: Sequence[Image.Image], phrases: Sequence[str]) -> list[Any]:
        return [self.nonsense(image) for image in images]

    def ask_batch(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Any]:
        return [answer("9") for _ in images]

    def describe_regions_batch(
        self, images: Sequence[Image.Image], boxes: Sequence[Boxes]
    ) -> list[list[Any]]:
        return [[answer("blob")] * len(own) for own in boxes]

    def describe_batch(self, images: Sequence[Image.Image]) -> list[Any]:
        return [self.nonsense(image) for image in images]


@pytest.fixture
def oracle(scene_set: SceneSet) -> Oracle:
    return Oracle(scene_set.scenes)


@pytest.fixture
def garbage() -> Garbage:
    return Garbage()


@pytest.fixture
def rewrite(scenes_folder: Path) -> Callable[[Callable[[list[dict[str, Any]]], object]], Path]:
    """Write the scenes again after a change to the rows."""

    def apply(change: Callable[[list[dict[str, Any]]], object]) -> Path:
        rows = json.loads(json.dumps(ROWS))
        change(rows)
        return write_scenes(scenes_folder, [json.dumps(row) for row in rows])

    return apply
