"""Runs command lines in process, with a predictor that answers from a table instead of a model."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import parfocal.predict
from parfocal.boxes import Boxes
from parfocal.cli import main
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase
from parfocal.errors import CheckpointError, DataError
from parfocal.eval.scenes import (
    AbsentExpression,
    Count,
    Expression,
    Scene,
    SceneObject,
    SceneSet,
)
from parfocal.images import image_frame
from parfocal.predict import Answer
from parfocal.predict.asking import read_question


@dataclass(frozen=True)
class Result:
    """What a command line left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    def run_words(*words: str | Path, stdin: str | io.TextIOBase = "") -> Result:
        lines = io.StringIO(stdin) if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", lines)
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run_words


class TablePredictor:
    """Finds "the car" at one place and nothing else; names every region "a thing"."""

    name = "table"

    def answer(self, image: Image.Image, question: str, text: GroundedText, *problems: Problem):
        none = Boxes.empty(image_frame(image))
        return Answer(question, text, image, none, problems, {"generate": 0.1}, self.name)

    def car(self, image: Image.Image) -> Phrase:
        return Phrase("the car", Boxes([[10, 20, 30, 40]], image_frame(image), scores=[0.875]))

    def ask(
        self,
        image: Image.Image,
        question: str,
        boxes: Boxes | None = None,
        objects: list | None = None,
        **options: Any,
    ) -> Answer:
        if options:
            return self.answer(image, question, GroundedText.of(f"options {options}"))
        if objects is not None:
            sizes = [getattr(shown, "size", shown) for shown in objects]
            return self.answer(image, question, GroundedText.of(f"objects {sizes}"))
        if question == "unplaced":
            return self.answer(image, question, GroundedText.of("see ", Phrase("a dog"), "!"))
        if question == "broken":
            text = GroundedText.of("I see <r99>")
            return self.answer(image, question, text, Problem("unknown_region", "<r99> of 20"))
        count = 0 if boxes is None else len(boxes)
        return self.answer(image, question, GroundedText.of(f"{count} boxes and ", self.car(image)))

    def locate(self, image: Image.Image, phrase: str, **options: Any) -> Answer:
        if options:
            seen = Problem("no_box", f"options {options}")
            return self.answer(image, phrase, GroundedText.of("here"), seen)
        if phrase == "unread":
            return self.answer(image, phrase, GroundedText.of("here"), Problem("no_box", "'here'"))
        found = self.car(image) if phrase == "the car" else Nothing(phrase)
        return self.answer(image, phrase, GroundedText.of(found))

    def locate_batch(
        self, images: Sequence[Image.Image], phrases: Sequence[str], **options: Any
    ) -> list[Answer]:
        pairs = zip(images, phrases, strict=True)
        return [self.locate(image, phrase, **options) for image, phrase in pairs]

    def describe(self, image: Image.Image, boxes: Boxes | None = None, **options: Any) -> Any:
        if options:
            return self.answer(image, "describe", GroundedText.of(f"options {options}"))
        if boxes is None:
            return self.answer(image, "describe", GroundedText.of("I see ", self.car(image), "."))
        things = [GroundedText.of(f"a thing {row}") for row in range(len(boxes))]
        return [self.answer(image, "what", thing) for thing in things]

    def propose(self, image: Image.Image, top: int = 20) -> Boxes:
        boxes = [[1, 2, 3, 4], [5, 6, 50, 60]][:top]
        return Boxes(boxes, image_frame(image), scores=[0.9, 0.1][:top])

    def chat(self, image: Image.Image) -> TableChat:
        return TableChat(self, image)


class TableChat:
    """Counts its turns, to show that they share a history."""

    def __init__(self, predictor: TablePredictor, image: Image.Image) -> None:
        self.predictor, self.image, self.turns = predictor, image, 0

    def ask(self, question: str) -> Answer:
        self.turns += 1
        if question == "refused":
            raise DataError("the table does not take this.")
        text = GroundedText.of(f"{self.turns}: ", *read_question(question, 0).spans)
        return self.predictor.answer(self.image, question, text)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Replaces the model by the table; lists what was loaded."""
    loads: list[tuple[str, ...]] = []

    def load(
        name: str, device: str = "auto", *, finder: object = None, dialect: str | None = None
    ) -> TablePredictor:
        if name != "mini":
            raise CheckpointError(f"there is no model {name!r}. The bundled model is 'mini'.")
        assert finder is None
        loads.append((name, device) if dialect is None else (name, device, dialect))
        return TablePredictor()

    monkeypatch.setattr(parfocal.predict, "load", load)
    return loads


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A picture of 100 x 80 pixels."""
    path = tmp_path / "scene.png"
    Image.new("RGB", (100, 80), (90, 120, 60)).save(path)
    return path


@pytest.fixture
def tiny_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SceneSet:
    """Replaces the bundled scenes by one that has everything the demo shows."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    cars = [SceneObject("car", (10, 20, 30, 40)), SceneObject("car", (50, 20, 90, 70))]
    scene = Scene(
        id="a",
        file="a.png",
        width=100,
        height=80,
        objects=(*cars, SceneObject("tree", (0, 0, 9, 9))),
        expressions=(
            Expression("the tree", "unique", "", 2),
            Expression("the car", "twin", "leftmost", 0),
        ),
        absent=(AbsentExpression("the dog", "other"),),
        counts=(Count("cars", "car", 2),),
        regions=(0, 2),
    )
    with zipfile.ZipFile(folder / "scenes.zip", "w") as archive:
        buffer = io.BytesIO()
        Image.new("RGB", (100, 80)).save(buffer, "PNG")
        archive.writestr("a.png", buffer.getvalue())
    split = SceneSet(folder, (scene,), "", 1)
    for home in ("parfocal.eval.scenes", "parfocal.eval.benchmarks.scenes"):
        monkeypatch.setattr(f"{home}.load_scenes", lambda limit=None: split)
    return split
