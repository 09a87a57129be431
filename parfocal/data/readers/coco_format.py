"""The COCO file format, in which most box datasets come: pictures, annotations, categories.

One JSON object; pictures and annotations are joined on disk, so that files of any size do. Boxes
are [x, y, width, height], pixels, from 0. `CocoFormatReader` is all that its datasets share.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader, inexhaustive, without, xywh_to_xyxy
from parfocal.data.readers.fields import need_box, need_int, need_text
from parfocal.data.readers.spill import Spill
from parfocal.data.readers.stream import json_items
from parfocal.data.sample import JSON, Sample
from parfocal.errors import DataError

Row = dict[str, Any]


@dataclass
class CocoFormatReader(Reader):
    """A Sample a picture, with boxes or without; its objects are labelled regions.

    A dataset says what its pictures are called and which they are. Labels are the names of its
    categories, with blanks for the underscores that join words in some. `meta` lists as
    `not_exhaustive_categories` those of which a box was left out.
    """

    # A flag of annotations -> the option of the reader that keeps those for which it is set.
    flags: ClassVar[Mapping[str, str]] = {}
    name_field: ClassVar[str] = "file_name"

    @abstractmethod
    def names(self, image: Row) -> list[str]:
        """Return the paths under which a picture may be stored, the usual one first."""

    @abstractmethod
    def image_key(self, image: Row) -> str:
        """Return which picture it is, across datasets."""

    def notes(
        self, image: Row, categories: Mapping[int, str], unboxed: Sequence[str]
    ) -> dict[str, JSON]:
        """Return what `meta` says of a picture besides its key.

        Args:
            image: the picture.
            categories: id -> label.
            unboxed: labels of the boxes that were left out.
        """
        return inexhaustive(*unboxed)

    def categories(self) -> dict[int, str]:
        """Return id -> label."""
        names = read_categories(self.paths[0])
        return {number: name.replace("_", " ") for number, name in names.items()}

    def pairs(self, categories: Mapping[int, str]) -> Iterator[tuple[Row, list[Row]]]:
        """Yield every picture with its annotations: `bbox`, `label` and the flags."""
        path = self.paths[0]
        waiting = 0

        def keep(row: Row) -> Row:
            nonlocal waiting
            waiting += 1
            where = f"{path}: annotation {row.get('id')!r}"
            return self.kept(row, label_of(row.get("category_id"), categories, where), where)

        for image, rows in read_images(path, keep):
            need_text(f"{path}: picture {image['id']}", image, self.name_field)
            waiting -= len(rows)
            yield image, rows
        self.skip("annotations of pictures that the file does not list", max(waiting, 0))

    def kept(self, row: Row, label: str, where: str) -> Row:
        """Return what is needed of an annotation.

        Args:
            row: the annotation.
            label: of its box.
            where: what messages call it.

        Raises:
            DataError: if its box is not four numbers.
        """
        box = need_box(where, row, "bbox")
        return {"bbox": box, "label": label, **{flag: row.get(flag, 0) for flag in self.flags}}

    def left_out(self, image: Row, row: Row) -> str:
        """Return why an annotation is not wanted, "" if it is."""
        unwanted = (option for flag, option in self.flags.items() if row[flag])
        return next((option for option in unwanted if not getattr(self, option)), "")

    def samples(self) -> Iterator[Sample]:
        """Yield pictures in the order of the file."""
        categories = self.categories()
        for image, rows in self.pairs(categories):
            where = f"{self.paths[0]}: picture {image['id']}"
            size_wh = need_int(where, image, "width"), need_int(where, image, "height")
            placed = self.pictures.place(self.names(image), size_wh)
            if isinstance(placed, str):
                self.skip(placed)
                continue
            used, unboxed = [], []
            for row in rows:
                if reason := self.left_out(image, row):
                    self.skip(reason)
                    unboxed.append(row["label"])
                else:
                    used.append(row)
            labels = [row["label"] for row in used]
            regions, kept = self.kept_regions(
                [xywh_to_xyxy(row["bbox"]) for row in used], labels, placed
            )
            unboxed += without(labels, kept)
            notes = self.notes(image, categories, unboxed)
            yield self.sample(
                image["id"],
                (placed.ref,),
                regions=regions,
                meta={"image_key": self.image_key(image), **notes},
            )


def read_categories(path: Path) -> dict[int, str]:
    """Return id -> name; ids have gaps, so always look names up here.

    Raises:
        DataError: if the file has no categories.
    """
    names = {}
    for row in json_items(path, "categories"):
        where = f"{path}: a category"
        names[need_int(where, row, "id")] = need_text(where, row, "name")
    if not names:
        raise DataError(f"{path} has no `categories`. Is it a COCO instances file?")
    return names


def read_images(
    path: Path, keep: Callable[[Row], Row], annotations: str = "annotations"
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield every picture with its annotations, in the order of the file.

    Args:
        path: the file.
        keep: what is needed of an annotation; segmentations are large.
        annotations: name of the array.

    Raises:
        DataError: if an annotation does not say of which picture it is, a picture has no id, or
            the file has no pictures.
    """
    with Spill() as table:
        rows = json_items(path, annotations)
        table.add((_image_id(row, path), keep(row)) for row in rows)
        count = 0
        for image in json_items(path, "images"):
            count += 1
            yield image, table.of(need_int(f"{path}: picture number {count}", image, "id"))
    if not count:
        raise DataError(f"{path} has no `images`. Is it a COCO instances file?")


def label_of(number: object, categories: Mapping[int, str], where: str) -> str:
    """Return the label of a category.

    Args:
        number: its id, as an annotation or picture states it.
        categories: id -> label.
        where: what messages call that annotation or picture.

    Raises:
        DataError: if there is no such category.
    """
    if not isinstance(number, int) or number not in categories:
        raise DataError(f"{where} has category {number!r}, which `categories` does not list.")
    return categories[number]


def _image_id(row: Row, path: Path) -> int:
    number = row.get("id") if isinstance(row, dict) else None
    return need_int(f"{path}: annotation {number}", row, "image_id")
