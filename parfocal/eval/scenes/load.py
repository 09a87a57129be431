"""Reads `scenes.jsonl` and `scenes.zip` into checked values; an error names file and line."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parfocal.boxes import Boxes, Frame
from parfocal.errors import ConfigError, DataError, FrameError, ImageError, ShapeError
from parfocal.images import load_image

if TYPE_CHECKING:
    from PIL import Image

SCENES_FOLDER = Path(__file__).parent
_EXPRESSION_KINDS = ("unique", "twin")


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene: its name, its box (pixels), and which share of it is in sight."""

    name: str
    xyxy: tuple[float, ...]
    visible: float = 1.0


@dataclass(frozen=True)
class Expression:
    """Words that mean exactly one object.

    Attributes:
        text: such as "the leftmost apple".
        kind: "unique" if no other object has the target's name, else "twin".
        relation: what the words rely on, such as "leftmost", "largest", "second" or "left of"; ""
            for the bare name.
        target: index of the object.
    """

    text: str
    kind: str
    relation: str
    target: int


@dataclass(frozen=True)
class AbsentExpression:
    """Words that mean nothing in this scene; `kind` says how they miss."""

    text: str
    kind: str


@dataclass(frozen=True)
class Count:
    """How many objects have this name; `text` is the plural to ask with."""

    text: str
    name: str
    n: int


@dataclass(frozen=True)
class Scene:
    """One held-out picture and all that is asked about it; `regions` index objects to name."""

    id: str
    file: str
    width: int
    height: int
    objects: tuple[SceneObject, ...]
    expressions: tuple[Expression, ...] = ()
    absent: tuple[AbsentExpression, ...] = ()
    counts: tuple[Count, ...] = ()
    regions: tuple[int, ...] = ()

    @property
    def frame(self) -> Frame:
        """The picture's frame."""
        return Frame("image", self.width, self.height)

    @property
    def boxes(self) -> Boxes:
        """One box an object, in order, with the names as labels."""
        return Boxes(
            [list(thing.xyxy) for thing in self.objects],
            self.frame,
            labels=[thing.name for thing in self.objects],
        )

    def num_twins(self, target: int) -> int:
        """How many objects have the name of this one, itself included."""
        return sum(thing.name == self.objects[target].name for thing in self.objects)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Scene:
        """Build and check one scene.

        Raises:
            DataError: with the reason; the caller adds file and line.
        """
        try:
            scene = cls(
                id=str(row["id"]),
                file=str(row["file"]),
                width=int(row["width"]),
                height=int(row["height"]),
                objects=tuple(
                    SceneObject(
                        str(o["name"]),
                        tuple(float(v) for v in o["xyxy"]),
                        float(o.get("visible", 1.0)),
                    )
                    for o in row["objects"]
                ),
                expressions=tuple(
                    Expression(
                        str(e["text"]),
                        str(e["kind"]),
                        str(e.get("relation") or ""),
                        int(e["target"]),
                    )
                    for e in row["expressions"]
                ),
                absent=tuple(
                    AbsentExpression(str(a["text"]), str(a["kind"])) for a in row["absent"]
                ),
                counts=tuple(
                    Count(str(c["text"]), str(c["name"]), int(c["n"])) for c in row["counts"]
                ),
                regions=tuple(int(index) for index in row["regions"]),
            )
            _check_scene(scene)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            reason = f"the key {err} is missing" if isinstance(err, KeyError) else str(err)
            raise DataError(reason) from err
        return scene


@dataclass(frozen=True)
class SceneSet:
    """Scenes of one folder, in the file's order.

    Attributes:
        folder: where the pictures are.
        scenes: the scenes that were asked for.
        digest: sha256 over both files whole, whatever the limit was.
        available: number of scenes in the file.
    """

    folder: Path
    scenes: tuple[Scene, ...]
    digest: str
    available: int

    def open(self, scenes: Sequence[Scene]) -> dict[str, Image.Image]:
        """Decode the pictures of some scenes.

        Returns:
            RGB pictures by scene id.

        Raises:
            ImageError: if a picture is missing, broken or not of the stated size.
        """
        pictures: dict[str, Image.Image] = {}
        with zipfile.ZipFile(self.folder / "scenes.zip") as archive:
            for scene in scenes:
                where = f"{archive.filename}:{scene.file}"
                try:
                    picture = load_image(archive.read(scene.file))
                except (ImageError, KeyError, zipfile.BadZipFile) as err:
                    raise ImageError(f"{where} cannot be read: {err}. Reinstall parfocal.") from err
                if picture.size != (scene.width, scene.height):
                    raise ImageError(
                        f"{where} has {picture.size[0]}x{picture.size[1]} pixels, scenes.jsonl "
                        "says "
                        f"{scene.width}x{scene.height}. The two files do not belong together; "
                        "reinstall parfocal."
                    )
                pictures[scene.id] = picture
        return pictures


def load_scenes(folder: Path = SCENES_FOLDER, limit: int | None = None) -> SceneSet:
    """Read the held-out scenes.

    Args:
        folder: with `scenes.jsonl` and `scenes.zip`.
        limit: take only the first so many; None takes all.

    Raises:
        DataError: if a file is missing or a scene is broken.
        ConfigError: if the limit is below 1.

    Example:
        >>> load_scenes(limit=3).scenes[0].frame.name  # doctest: +SKIP
        'image'
    """
    if limit is not None and limit < 1:
        raise ConfigError(
            f"the limit is {limit}; it must be at least 1 scene. Leave it out to take all scenes."
        )
    table, archive = folder / "scenes.jsonl", folder / "scenes.zip"
    for file in (table, archive):
        if not file.is_file():
            raise DataError(
                f"the held-out scenes are not in {str(folder)!r}: there is no {file.name}. They "
                "are part of the parfocal "
                "package; reinstall it."
            )
    scenes = _read_table(table)
    if not zipfile.is_zipfile(archive):
        raise DataError(f"{archive} is not a zip file. Reinstall parfocal.")
    digest = hashlib.sha256(table.read_bytes() + archive.read_bytes()).hexdigest()
    return SceneSet(folder, tuple(scenes[:limit]), digest, len(scenes))


def _read_table(path: Path) -> list[Scene]:
    scenes: list[Scene] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise DataError("the line is not a JSON object")
            scene = Scene.from_json(row)
            if scene.id in seen:
                raise DataError(f"the id {scene.id!r} appears twice")
        except ValueError as err:  # DataError is a ValueError, and so is a JSON error
            raise DataError(
                f"{path}:{number} is not a scene: {err}. Repair the line or rebuild the file."
            ) from err
        seen.add(scene.id)
        scenes.append(scene)
    if not scenes:
        raise DataError(f"{path} holds no scene. Rebuild the file.")
    return scenes


def _check_scene(scene: Scene) -> None:
    """Raise DataError for what the types alone do not exclude."""
    if not scene.id or "/" in scene.id:
        raise DataError(f"the id {scene.id!r} is empty or has a slash")
    if not scene.objects:
        raise DataError("there are no objects")
    try:
        boxes = scene.boxes
    except (FrameError, ShapeError) as err:
        raise DataError(str(err)) from err
    if boxes.clip() != boxes:
        raise DataError(f"a box leaves the picture of {scene.width}x{scene.height} pixels")
    names = [thing.name for thing in scene.objects]
    for index in (*scene.regions, *(expression.target for expression in scene.expressions)):
        if not 0 <= index < len(names):
            raise DataError(f"object {index} does not exist; there are {len(names)}")
    _check_claims(scene, names)


def _check_claims(scene: Scene, names: list[str]) -> None:
    """What the expressions and counts say must be true of the objects."""
    for expression in scene.expressions:
        if expression.kind not in _EXPRESSION_KINDS:
            raise DataError(
                f"the expression kind {expression.kind!r} is not one of {_EXPRESSION_KINDS}"
            )
        if (scene.num_twins(expression.target) > 1) != (expression.kind == "twin"):
            raise DataError(
                f"{expression.text!r} is called {expression.kind}, the objects say otherwise"
            )
    for count in scene.counts:
        if names.count(count.name) != count.n:
            raise DataError(
                f"the count of {count.name!r} is {count.n}, the objects say "
                f"{names.count(count.name)}"
            )
