"""RefCOCO, RefCOCO+ and RefCOCOg as published: refs(*).p, a pickle of Python 2, and instances.json.

A reference is a thing in a picture, with some sentences; a Sample is one sentence, as in every
evaluation. Boxes are [x, y, width, height], pixels, from 0. `file_name` of a reference counts its
annotations (COCO_train2014_000000581857_16.jpg) and names no file: the table of pictures does.

The pictures of all three are COCO's train2014; their splits differ, so that a train picture of one
may be a test picture of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from parfocal.data.readers.base import Reader, xywh_to_xyxy
from parfocal.data.readers.coco import coco_names
from parfocal.data.readers.coco_format import read_categories
from parfocal.data.readers.fields import need, need_box, need_int, need_rows, need_text
from parfocal.data.readers.pickles import read_pickle
from parfocal.data.readers.pictures import Placed
from parfocal.data.readers.stream import json_items
from parfocal.data.sample import JSON, Sample
from parfocal.errors import ConfigError, DataError

NativeSplit = Literal["train", "val", "testA", "testB", "test"]
Official = Literal["refcoco", "refcoco+", "refcocog"]

# Sentences a split. Those of refs(google).p differ; its RefCOCOg splits share pictures.
# Source: Yu et al. (arXiv:1608.00272) for RefCOCO and RefCOCO+, split by UNC; RefCOCOg by UMD.
SENTENCES: dict[str, dict[str, int]] = {
    "refcoco": {"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcoco+": {"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog": {"train": 80_512, "val": 4_896, "test": 9_602},
}
OFFICIAL_FILES = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}

Row = dict[str, Any]


@dataclass
class RefCocoReader(Reader):
    """A Sample a sentence: one region, labelled with the sentence.

    Args:
        only: yield this split of the dataset alone; all if None. Samples say the dataset's own
            split unless `split` is given.
        official: which dataset this is. Its number of sentences is then checked before anything is
            read, and the Samples' ids and meta name it.
    """

    source: ClassVar[str] = "refcoco"
    licence: ClassVar[str] = "research use (annotations); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("refs(*).p", "instances.json")

    only: NativeSplit | None = None
    official: Official | None = None

    def __post_init__(self) -> None:
        """Check the options as well."""
        super().__post_init__()
        if self.official is not None and self.official not in SENTENCES:
            raise ConfigError(f"official is {self.official!r}, must be {', '.join(SENTENCES)}.")

    def samples(self) -> Iterator[Sample]:
        """Yield sentences in the order of the references."""
        refs = self._references()
        table = _Instances(self.paths[0], self.paths[1], refs)
        for ref in refs:
            annotation, image = table.of(ref)
            sentences = need_rows(self.paths[0], ref, "sentences")
            file_name = need_text(self.paths[1], image, "file_name")
            placed = self.pictures.place(
                [*coco_names(image["id"], file_name), f"mscoco/images/train2014/{file_name}"],
                (image["width"], image["height"]),
            )
            if isinstance(placed, str):
                self.skip(placed, len(sentences))
                continue
            for sentence in sentences:
                yield from self._sample(ref, sentence, annotation, placed)

    def _sample(self, ref: Row, sentence: Row, annotation: Row, placed: Placed) -> Iterator[Sample]:
        """One Sample, or none if the sentence is empty or its box is."""
        path = self.paths[0]
        text = need_text(path, sentence, "sent").strip()
        if not text:
            self.skip("sentences without words")
            return
        regions = self.regions([xywh_to_xyxy(annotation["bbox"])], [text], placed)
        if not len(regions):
            return
        sent_id = need_int(path, sentence, "sent_id")
        meta: dict[str, JSON] = {
            "image_key": f"coco:{annotation['image_id']}",
            "split": ref["split"],
            "ref_id": need_int(path, ref, "ref_id"),
            "ann_id": annotation["id"],
            "sent_id": sent_id,
            "raw": need_text(path, sentence, "raw"),
            "category": annotation["category"],
            "area": annotation["area"],
            "iscrowd": annotation["iscrowd"],
        }
        native = str(sent_id)
        if self.official is not None:  # sentences of the three datasets have the same numbers
            meta["dataset"] = self.official
            native = f"{self.official}:{sent_id}"
        yield self.sample(
            native, (placed.ref,), regions=regions, meta=meta, split=self.split or ref["split"]
        )

    def _references(self) -> list[Row]:
        """The references of the wanted split, counted if the dataset is known."""
        path = self.paths[0]
        refs = read_pickle(path)
        if not isinstance(refs, list):
            raise DataError(f"{path} holds a {type(refs).__name__}, not a list of references.")
        counts: Counter[str] = Counter()
        for ref in refs:
            counts[need_text(path, ref, "split")] += len(need_rows(path, ref, "sentences"))
        if self.only is not None and self.only not in counts:
            raise ConfigError(
                f"{path} has no split {self.only!r}; there are {', '.join(sorted(counts))}."
            )
        if self.official is not None:
            self._check_counts(counts, SENTENCES[self.official])
        return [ref for ref in refs if self.only in (None, ref["split"])]

    def _check_counts(self, counts: Counter[str], official: dict[str, int]) -> None:
        wanted = sorted(counts.keys() | official) if self.only is None else [self.only]
        wrong = [split for split in wanted if counts[split] != official.get(split, 0)]
        if wrong:
            listed = ", ".join(
                f"{split}: {counts[split]:,} instead of {official.get(split, 0):,}"
                for split in wrong
            )
            raise DataError(
                f"{self.paths[0]} does not have the sentences of {self.official} ({listed}). "
                f"Give {self.official}/{OFFICIAL_FILES[self.official or '']}, or leave `official` "
                "out to read another set."
            )


class _Instances:
    """What instances.json says of the references: their annotations and pictures.

    Args:
        refs_path: for errors.
        path: instances.json.
        refs: those that will be asked for; nothing else is kept.
    """

    def __init__(self, refs_path: Path, path: Path, refs: list[Row]) -> None:
        self._refs_path, self._path = refs_path, path
        names = read_categories(path)
        wanted = {need_int(refs_path, ref, "ann_id") for ref in refs}
        self._annotations = {
            row["id"]: _annotation(path, row, names)
            for row in json_items(path, "annotations")
            if need_int(path, row, "id") in wanted
        }
        wanted = {need_int(refs_path, ref, "image_id") for ref in refs}
        self._images = {
            row["id"]: {name: need(path, row, name) for name in _IMAGE}
            for row in json_items(path, "images")
            if need_int(path, row, "id") in wanted
        }

    def of(self, ref: Row) -> tuple[Row, Row]:
        """Return annotation and picture of a reference."""
        annotation = self._annotations.get(ref["ann_id"])
        image = self._images.get(ref["image_id"])
        if annotation is None or image is None or annotation["image_id"] != image["id"]:
            raise DataError(
                f"{self._refs_path}: reference {ref.get('ref_id')!r} is annotation "
                f"{ref['ann_id']} of picture {ref['image_id']}, which {self._path} does not have. "
                "Take both files from the same folder."
            )
        return annotation, image


_IMAGE = ("id", "file_name", "width", "height")


def _annotation(path: Path, row: Row, names: dict[int, str]) -> Row:
    category = need_int(path, row, "category_id")
    if category not in names:
        raise DataError(f"{path}: annotation {row['id']} has the unknown category {category!r}.")
    return {
        "id": row["id"],
        "image_id": need(path, row, "image_id"),
        "bbox": need_box(path, row, "bbox"),
        "category": names[category],
        "area": row.get("area"),
        "iscrowd": row.get("iscrowd", 0),
    }
