"""COCO instances, 2014 and 2017: boxes of 80 kinds of things.

Files of 2014 are named `COCO_train2014_%012d.jpg`, those of 2017 `%012d.jpg`, with the same ids and
the same pixels; either will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.coco_format import read_categories, read_images
from parfocal.data.sample import Sample


@dataclass
class CocoReader(Reader):
    """A Sample a picture; its objects are labelled regions.

    Args:
        crowds: keep `iscrowd` annotations, which mark groups, labelled like single things.
    """

    source: ClassVar[str] = "coco"
    licence: ClassVar[str] = "CC-BY-4.0 (annotations); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("instances_*.json",)

    crowds: bool = False

    def samples(self) -> Iterator[Sample]:
        """Yield pictures in the order of the file."""
        path = self.paths[0]
        names = read_categories(path)
        for image, rows in read_images(path, _kept):
            placed = self.pictures.place(
                coco_names(image["id"], image["file_name"]), (image["width"], image["height"])
            )
            if isinstance(placed, str):
                self.skip(placed)
                continue
            used = [row for row in rows if self.crowds or not row["iscrowd"]]
            self.skip("crowds", len(rows) - len(used))
            yield Sample(
                self.sample_id(image["id"]),
                (placed.ref,),
                (),
                self.regions(
                    [xywh_to_xyxy(row["bbox"]) for row in used],
                    [names[row["category_id"]] for row in used],
                    placed,
                ),
                self.source,
                self.split,
                self.licence,
                {"image_key": f"coco:{image['id']}"},
            )


def coco_names(image_id: int, *stated: str) -> list[str]:
    """Return the paths under which a COCO picture may be stored, as stated first.

    Args:
        image_id: of COCO.
        stated: the names that the dataset uses.
    """
    number = f"{image_id:012d}.jpg"
    folders = ("train2017", "val2017", "train2014", "val2014")
    names = [*stated, number]
    for folder in folders:
        name = number if folder.endswith("2017") else f"COCO_{folder}_{number}"
        names += [f"{folder}/{name}", f"coco/{folder}/{name}", name]
    return list(dict.fromkeys(names))


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "bbox": row["bbox"], "category_id": row["category_id"], "iscrowd": row.get("iscrowd", 0)
    }  # fmt: skip
