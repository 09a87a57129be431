"""OpenImages boxes, V4 to V7: 600 kinds of things in 1.9 million pictures, a row a box.

Columns are XMin, XMax, YMin, YMax, in this order, as parts of the picture's sides. The files do not
state the sides, so the pictures are needed. Pictures without boxes are not in the files.

Some pictures lie on their side against what their author meant; the boxes fit them as they lie.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from parfocal.data.readers.base import Reader, inexhaustive, without
from parfocal.data.readers.spill import Spill
from parfocal.data.sample import Sample
from parfocal.errors import DataError

COLUMNS = ("ImageID", "LabelName", "IsGroupOf", "XMin", "YMin", "XMax", "YMax")

Row = dict[str, Any]  # "box": x1, y1, x2, y2, 0 to 1; "label"; "group": whether it holds a group


@dataclass
class OpenImagesReader(Reader):
    """A Sample a picture; its objects are labelled regions.

    `meta` lists as `not_exhaustive_categories` the labels of which a box was left out.

    Args:
        groups: keep `IsGroupOf` boxes, which hold more than five things that touch, labelled like
            single things.
    """

    source: ClassVar[str] = "openimages"
    licence: ClassVar[str] = "CC-BY-4.0 (annotations); CC-BY-2.0 (pictures)"
    files: ClassVar[tuple[str, ...]] = (
        "*-annotations-bbox.csv",
        "class-descriptions-boxable.csv",
    )

    groups: bool = False

    def samples(self) -> Iterator[Sample]:
        """Yield pictures in the order of their first rows."""
        for image_id, rows in _pictures(self.paths[0], _read_labels(self.paths[1])):
            placed = self.pictures.place(openimages_names(image_id))
            if isinstance(placed, str):
                self.skip(placed)
                continue
            used = [row for row in rows if self.groups or not row["group"]]
            self.skip("groups", len(rows) - len(used))
            stored = placed.upright.source
            boxes = np.asarray([row["box"] for row in used]).reshape(-1, 4)
            boxes *= [stored.width, stored.height] * 2
            labels = [row["label"] for row in used]
            regions, kept = self.kept_regions(boxes.tolist(), labels, placed)
            groups = [row["label"] for row in rows if row["group"] and not self.groups]
            yield self.sample(
                image_id,
                (placed.ref,),
                regions=regions,
                meta={
                    "image_key": f"openimages:{image_id}",
                    **inexhaustive(*groups, *without(labels, kept)),
                },
            )


def openimages_names(image_id: str, *stated: str) -> list[str]:
    """Return the paths under which a picture may be stored, as stated first.

    Args:
        image_id: 16 hexadecimal digits.
        stated: the names that the dataset uses.
    """
    folders = ("train", f"train_{image_id[:1]}", "validation", "val", "test")
    name = f"{image_id}.jpg"
    return [*stated, name, *(f"{folder}/{name}" for folder in folders)]


def _pictures(path: Path, labels: Mapping[str, str]) -> Iterator[tuple[str, list[Row]]]:
    """Yield every picture with its rows.

    The published files are in the order of the pictures. Whether this one is, a first pass tells;
    if not, rows are grouped on disk.
    """
    if all(one <= other for (one, _), (other, _) in pairwise(_rows(path, labels))):
        for image_id, rows in groupby(_rows(path, labels), itemgetter(0)):
            yield image_id, [row for _, row in rows]
        return
    with Spill() as table:
        table.add(_rows(path, labels))
        for key in table.keys():  # noqa: SIM118 (no dict)
            yield str(key), table.of(key)


def _rows(path: Path, labels: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    """Yield the id of the picture and what is needed of each row."""
    lines = _lines(path)
    _, header = next(lines, (0, list[str]()))
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(f"{path} has no column {missing[0]}. Give *-annotations-bbox.csv.")
    columns = [header.index(name) for name in COLUMNS]
    for number, line in lines:
        try:
            image_id, label, group, *corners = (line[column] for column in columns)
            row = {
                "box": [float(corner) for corner in corners],
                "label": labels[label],
                "group": int(group) == 1,  # -1 is unknown
            }
        except KeyError as err:
            raise DataError(
                f"{path}:{number}: the class descriptions do not list {label!r}. Give those of the "
                "same release."
            ) from err
        except (IndexError, ValueError) as err:
            raise DataError(f"{path}:{number}: {err}. Fetch the file again.") from err
        yield image_id, row


def _read_labels(path: Path) -> dict[str, str]:
    """Return code -> name; a header, which some releases have, does no harm."""
    labels = {}
    for number, line in _lines(path):
        if len(line) != 2:
            raise DataError(f"{path}:{number}: {len(line)} columns, must be a code and a name.")
        labels[line[0]] = line[1]
    return labels


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number, from 1, and columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            for line in lines:
                if line:
                    yield lines.line_num, line
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{path} is not CSV: {err}. Fetch the file again.") from err
