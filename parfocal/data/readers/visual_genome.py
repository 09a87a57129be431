"""Visual Genome 1.0 to 1.4: regions, objects, relationships, questions and answers.

Every file lists pictures with their rows; sizes are in image_data.json. Boxes are x, y, width and
height in pixels, from 0; some are negative, leave their picture or have no area. Pictures lie in
VG_100K and VG_100K_2, or merged into one folder.

Fields are spelled differently between files and versions: `w` or `width`, `name` or `names`,
`image_id` or `id`. A phrase of a region may hold for other things of the picture as well.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from parfocal.boxes import Boxes
from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.fields import need, need_int, need_number, need_rows, need_text
from parfocal.data.readers.pictures import Placed
from parfocal.data.readers.spill import Spill
from parfocal.data.readers.stream import json_items
from parfocal.data.sample import JSON, Sample, Turn
from parfocal.dialects.grounded import UNPLACED, GroundedText
from parfocal.errors import DataError

_FOLDERS = ("VG_100K", "VG_100K_2")

Row = dict[str, Any]


@dataclass(frozen=True)
class _Picture:
    """A picture and what a file says of it.

    Attributes:
        number: id in Visual Genome.
        placed: where it is.
        meta: its identity, here and in COCO.
        rows: regions, objects, relationships or questions.
    """

    number: int
    placed: Placed
    meta: dict[str, JSON]
    rows: list[Row]


@dataclass
class VgReader(Reader):
    """What the four readers share: the join of a file with the table of pictures."""

    licence: ClassVar[str] = "CC-BY-4.0 (annotations); pictures under Flickr terms"
    rows_name: ClassVar[str]

    def samples(self) -> Iterator[Sample]:
        """Yield pictures in the order of the file."""
        with Spill() as table:
            table.add(_sizes(self.paths[0]))
            count = 0
            for record in json_items(self.paths[1]):
                count += 1
                picture = self._picture(record, table)
                if picture is not None:
                    yield from self.picture_samples(picture)
        if not count:
            raise DataError(f"{self.paths[1]} lists no pictures. Is it {self.files[1]}?")

    @abstractmethod
    def picture_samples(self, picture: _Picture) -> Iterator[Sample]:
        """Yield the Samples of one picture."""

    def of_picture(
        self,
        native: int,
        picture: _Picture,
        turns: tuple[Turn, ...] = (),
        regions: Boxes = UNPLACED,
        **meta: JSON,
    ) -> Sample:
        """Build a Sample of a picture."""
        return self.sample(
            native,
            (picture.placed.ref,),
            turns=turns,
            regions=regions,
            meta={**picture.meta, **meta},
        )

    def _picture(self, record: Any, table: Spill) -> _Picture | None:
        path = self.paths[1]
        number = need_int(path, record, "image_id", "id")
        rows = need_rows(path, record, self.rows_name)
        stated = table.of(number)
        if not stated:
            self.skip("pictures that image_data.json does not list")
            return None
        width, height, folder, coco_id = stated[0]
        placed = self.pictures.place(vg_names(number, folder), (width, height))
        if isinstance(placed, str):
            self.skip(placed)
            return None
        meta: dict[str, JSON] = {"image_key": f"vg:{number}"}
        if coco_id is not None:
            meta["coco_id"] = coco_id
        return _Picture(number, placed, meta, rows)


@dataclass
class VgRegionsReader(VgReader):
    """A Sample a picture; its regions are labelled with their descriptions."""

    source: ClassVar[str] = "vg_regions"
    files: ClassVar[tuple[str, ...]] = ("image_data.json", "region_descriptions.json")
    rows_name: ClassVar[str] = "regions"

    def picture_samples(self, picture: _Picture) -> Iterator[Sample]:
        """Yield one Sample; pictures without regions have none."""
        path = self.paths[1]
        phrases = [_tidy(need_text(path, row, "phrase")) for row in picture.rows]
        described = [index for index, phrase in enumerate(phrases) if phrase]
        self.skip("regions without words", len(phrases) - len(described))
        regions, kept = self.kept_regions(
            [_corners(path, picture.rows[index]) for index in described],
            [phrases[index] for index in described],
            picture.placed,
        )
        rows = [picture.rows[described[index]] for index in kept]
        ids: list[JSON] = [need_int(path, row, "region_id", "id") for row in rows]
        yield self.of_picture(picture.number, picture, regions=regions, region_ids=ids)


@dataclass
class VgObjectsReader(VgReader):
    """A Sample a picture; its objects are labelled regions, by the first of their names."""

    source: ClassVar[str] = "vg_objects"
    files: ClassVar[tuple[str, ...]] = ("image_data.json", "objects.json")
    rows_name: ClassVar[str] = "objects"

    def picture_samples(self, picture: _Picture) -> Iterator[Sample]:
        """Yield one Sample; pictures without objects have no regions."""
        path = self.paths[1]
        named = [(row, name) for row in picture.rows if (name := _name(path, row))]
        self.skip("objects without a name", len(picture.rows) - len(named))
        regions, kept = self.kept_regions(
            [_corners(path, row) for row, _ in named], [name for _, name in named], picture.placed
        )
        ids: list[JSON] = [need_int(path, named[index][0], "object_id", "id") for index in kept]
        yield self.of_picture(picture.number, picture, regions=regions, object_ids=ids)


@dataclass
class VgRelationshipsReader(VgReader):
    """A Sample a picture: the objects that are related are its labelled regions.

    `meta["relations"]` lists [subject, predicate, object], the outer two as indices of regions.
    Predicates and names are in lower case, with single spaces.
    """

    source: ClassVar[str] = "vg_relationships"
    files: ClassVar[tuple[str, ...]] = ("image_data.json", "relationships.json")
    rows_name: ClassVar[str] = "relationships"

    def picture_samples(self, picture: _Picture) -> Iterator[Sample]:
        """Yield one Sample; pictures without relations have no regions."""
        things = _Things(self.paths[1])
        triples = [triple for row in picture.rows if (triple := self._triple(row, things))]
        distinct = dict.fromkeys(triples)
        self.skip("relations that are stated twice", len(triples) - len(distinct))
        regions, kept = self.kept_regions(things.boxes, things.names, picture.placed)
        place = {old: new for new, old in enumerate(kept)}
        relations: list[JSON] = [
            [place[subject], predicate, place[object_]]
            for subject, predicate, object_ in distinct
            if subject in place and object_ in place
        ]
        self.skip("relations that lost a box", len(distinct) - len(relations))
        ids: list[JSON] = [things.ids[index] for index in kept]
        yield self.of_picture(
            picture.number, picture, regions=regions, relations=relations, object_ids=ids
        )

    def _triple(self, row: Row, things: _Things) -> tuple[int, str, int] | None:
        """Indices of subject and object in `things`, None if a word is missing."""
        path = self.paths[1]
        predicate = _tidy(need_text(path, row, "predicate")).lower()
        subject, object_ = need(path, row, "subject"), need(path, row, "object")
        if not predicate:
            self.skip("relations without a predicate")
            return None
        if not (_name(path, subject) and _name(path, object_)):
            self.skip("relations of things without a name")
            return None
        return things.index(subject), predicate, things.index(object_)


class _Things:
    """The objects of a picture's relationships, each once.

    An object is told by its id and box: some files give one id several boxes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[float, ...], int] = {}
        self.boxes: list[list[float]] = []  # xyxy, pixels as stored
        self.names: list[str] = []
        self.ids: list[int] = []

    def index(self, row: Row) -> int:
        """Where an object is in the lists, added if it is new."""
        number = need_int(self._path, row, "object_id", "id")
        box = _corners(self._path, row)
        index = self._known.setdefault((number, *box), len(self.ids))
        if index == len(self.ids):
            self.boxes.append(box)
            self.names.append(_name(self._path, row))
            self.ids.append(number)
        return index


@dataclass
class VgQasReader(VgReader):
    """A Sample a question, with its answer; no boxes.

    The objects of question and answer are left out: as regions they would give the answer away.
    """

    source: ClassVar[str] = "vg_qas"
    files: ClassVar[tuple[str, ...]] = ("image_data.json", "question_answers.json")
    rows_name: ClassVar[str] = "qas"

    def picture_samples(self, picture: _Picture) -> Iterator[Sample]:
        """Yield the questions of a picture in the order of the file."""
        path = self.paths[1]
        for row in picture.rows:
            question = _tidy(need_text(path, row, "question"))
            answer = _tidy(need_text(path, row, "answer"))
            if not (question and answer):
                self.skip("questions or answers without words")
                continue
            turns = (
                Turn("user", GroundedText.of(question)), Turn("assistant", GroundedText.of(answer))
            )  # fmt: skip
            yield self.of_picture(need_int(path, row, "qa_id", "id"), picture, turns)


def vg_names(image_id: int, folder: str | None = None) -> list[str]:
    """Return the paths under which a picture of Visual Genome may be stored.

    Args:
        image_id: of Visual Genome.
        folder: VG_100K or VG_100K_2, tried first; None if it is not known.
    """
    number = f"{image_id}.jpg"
    names = [f"{folder}/{number}"] if folder else []
    names.append(number)
    for name in _FOLDERS:
        names += [f"{name}/{number}", f"vg/{name}/{number}"]
    names += [f"vg/{number}", f"images/{number}"]
    return list(dict.fromkeys(names))


def _sizes(path: Path) -> Iterator[tuple[int, list[int | str | None]]]:
    """Id and [width, height, folder, id in COCO] of every picture of image_data.json."""
    count = 0
    for row in json_items(path):
        count += 1
        parts = str(row.get("url", "")).split("/") if isinstance(row, dict) else []
        folder = next((part for part in parts if part in _FOLDERS), None)
        size_wh = need_int(path, row, "width"), need_int(path, row, "height")
        yield need_int(path, row, "image_id", "id"), [*size_wh, folder, row.get("coco_id")]
    if not count:
        raise DataError(f"{path} lists no pictures. Is it image_data.json?")


def _corners(path: Path, row: Row) -> list[float]:
    """The box of a region or object, xyxy, pixels as stored."""
    return xywh_to_xyxy([
        need_number(path, row, "x"),
        need_number(path, row, "y"),
        need_number(path, row, "w", "width"),
        need_number(path, row, "h", "height"),
    ])  # fmt: skip


def _name(path: Path, row: Row) -> str:
    """The first name of an object, in lower case; "" if it has none."""
    names = need(path, row, "names", "name")
    listed = [names] if isinstance(names, str) else need_rows(path, row, "names", "name")
    tidied = (_tidy(str(name)).lower() for name in listed)
    return next(filter(None, tidied), "")


def _tidy(text: str) -> str:
    """Without spaces around, and single ones within."""
    return " ".join(text.split())
