"""Boxes that a detector found beforehand, from MG-LLaVA's files, as the regions of Samples.

    [{"id": "1", "boxes": [[12, 40, 310, 255]], "scores": [0.71], "labels": ["bus"]}]
    [{"id": "v1", "video": "v1.mp4", "frames": [{"boxes", "scores", "labels"}, ...]}]

A file goes with one instruction file. Its ids are not unique, so that records are taken by their
place in the list, and the ids must then agree. Boxes are corners in pixels of the picture as it is
stored; they may leave it, as the detector had it padded.

Shapes: N boxes of one picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from parfocal.boxes import Boxes
from parfocal.data.readers.base import upright_boxes
from parfocal.data.readers.pictures import Pictures, Placed
from parfocal.data.readers.spill import Spill
from parfocal.data.readers.stream import json_items, json_pairs
from parfocal.data.sample import JSON, ImageRef, Sample
from parfocal.data.selection import MG_LLAVA_IOU, MG_LLAVA_SLOTS, BoxLimits, limit, suppress
from parfocal.errors import ConfigError, DataError, ParfocalError

Join = Literal["row", "picture_row", "id"]
Record = dict[str, Any]

_LIMITS = BoxLimits(most=MG_LLAVA_SLOTS)


@dataclass
class Proposals:
    """A file of boxes, to be added to the Samples of the file that it was made for.

    Args:
        path: the file, a list of records; or one object, id -> record, for `join="id"`.
        join: how a Sample finds its record: by its place among all rows of its file (`row`), among
            those that show something (`picture_row`, for files that leave out rows of words), or by
            its `id`, where records of one id must be the same. What a Sample knows of these is in
            its meta; LLaVA-style readers put it there.
        images: folder of the pictures, to turn boxes upright with those that EXIF turns; without
            it, all of them are believed to be stored upright.
        iou_threshold: of the suppression within a label.
        limits: how many boxes a picture may keep; MG-LLaVA's by default, and no more than its
            models have region slots.
        crowded: tells the Samples whose words leave no room for many boxes; see `BoxLimits`.

    Attributes:
        skipped: what was left out in the last iteration, by reason.

    Source: MG-LLaVA, official mg_llava/dataset/mg_llava_dataset.py: suppression, then the limits,
        then the picture's edge.
    Deviates: boxes are cut at the picture, not at the square around it, and those of which nothing
        is left are dropped; where none is left, nothing is made up. The official code has no last
        limit (`BoxLimits.most`): many labels leave more than 100 boxes there, of which ours keeps
        the 100 best.

    Example:
        >>> reader = LlavaMix665kReader(["mix.json"], images="data")  # doctest: +SKIP
        >>> samples = Proposals("mix_boxes.json").add_to(reader)  # doctest: +SKIP
    """

    path: str | Path
    _: KW_ONLY
    join: Join = "row"
    images: str | Path | None = None
    iou_threshold: float = MG_LLAVA_IOU
    limits: BoxLimits = _LIMITS
    crowded: Callable[[Sample], bool] | None = None
    skipped: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options and that the file is there."""
        self._file = Path(self.path)
        if self.join not in get_args(Join):
            raise ConfigError(f"join is {self.join!r}, must be one of {', '.join(get_args(Join))}.")
        if not self._file.is_file():
            raise DataError(f"{self._file} does not exist. Give MG-LLaVA's file of boxes.")
        self._pictures = Pictures(self.images)
        self._sized = Pictures(None)

    def add_to(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield the Samples with their boxes as labelled regions, best first within a label.

        Samples of words alone come back as they are, and so do those of several pictures, counted.
        Of a video, `regions` are those of the first frame and `frame_regions` gives all.

        Args:
            samples: without regions; by `row` or `picture_row`, in the order of their file.

        Raises:
            DataError: if a Sample has no record, or one with another id or number of frames.
        """
        self.skipped.clear()
        find = self._by_id if self.join == "id" else self._by_place
        for sample, record, where in find(samples):
            yield sample if record is None else self._joined(sample, record, where)

    def _by_place(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Record | None, str]]:
        records = enumerate(self._records())
        at, record = -1, Record()
        for number, sample in enumerate(samples):
            if not sample.images:
                yield sample, None, ""
                continue
            place = sample.meta.get(self.join, number if self.join == "row" else None)
            if not isinstance(place, int) or place < at:
                raise DataError(
                    f"sample {sample.id!r} has the {self.join} {place!r} in its meta, after {at}. "
                    "Give Samples of a LLaVA-style reader in the order of their file."
                )
            while at < place:
                found = next(records, None)
                if found is None:
                    raise DataError(
                        f"{self._file} has {at + 1} records, sample {sample.id!r} wants record "
                        f"{place} (from 0). {_ADVICE}"
                    )
                at, record = found
            where = f"{self._file}: record {place}"
            self._check_identity(sample, record, where)
            yield sample, record, where

    def _by_id(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Record | None, str]]:
        with Spill() as table:
            table.add((str(_key(record)), record) for record in self._records())
            for sample in samples:
                if not sample.images:
                    yield sample, None, ""
                    continue
                key = sample.meta.get("id", _stem(sample.images[0].path))
                found = table.of(str(key))
                if not found:
                    raise DataError(
                        f"{self._file} has no record of the id {key!r}, of sample {sample.id!r}. "
                        "Is it the file that was made for this data?"
                    )
                if any(other != found[0] for other in found):
                    raise DataError(
                        f"{self._file} has {len(found)} records of the id {key!r}, and they "
                        "differ. Join by place: join='row'."
                    )
                yield sample, found[0], f"{self._file}: record of {key!r}"

    def _records(self) -> Iterator[Record]:
        with self._file.open("rb") as file:
            keyed = file.read(4096).lstrip().startswith(b"{")
        if keyed and self.join != "id":
            raise DataError(
                f"{self._file} is an object, id -> record, which has no places. Set join='id'."
            )
        rows = (
            ({"id": key, **value} if isinstance(value, dict) else value)
            for key, value in json_pairs(self._file)
        )
        for number, row in enumerate(rows if keyed else json_items(self._file)):
            if not isinstance(row, dict):
                raise DataError(f"{self._file}: record {number} is {row!r}, must be an object.")
            yield row

    def _check_identity(self, sample: Sample, record: Record, where: str) -> None:
        mine, theirs = sample.meta.get("id"), record.get("id")
        if mine is None or theirs is None:
            mine, theirs = _stem(sample.images[0].path), _stem(record.get("video"))
        if mine is None or theirs is None:
            raise DataError(
                f"{where} and sample {sample.id!r} have no id to compare: `id` in both (of the "
                "Sample in its meta), or `video` and a video."
            )
        if str(mine) != str(theirs):
            raise DataError(
                f"{where} is of {theirs!r}, sample {sample.id!r} of {mine!r}. {_ADVICE}"
            )

    def _joined(self, sample: Sample, record: Record, where: str) -> Sample:
        if len(sample.regions):
            raise DataError(f"sample {sample.id!r} has regions already; boxes would renumber them.")
        frames = record.get("frames")
        is_video = sample.images[0].video_frame is not None
        if not is_video and len(sample.images) > 1:
            self.skipped["records of samples of several pictures"] += 1
            return sample
        parts = frames if is_video else [record]
        if not isinstance(parts, list) or len(parts) != len(sample.images):
            count = len(parts) if isinstance(parts, list) else "no"
            raise DataError(
                f"{where} has boxes of {count} frames, sample {sample.id!r} has "
                f"{len(sample.images)}. Read the videos with as many: frames=..."
            )
        crowded = self.crowded is not None and self.crowded(sample)
        try:
            found = [
                self._chosen(part, self._placed(ref, index), crowded)
                for index, (ref, part) in enumerate(zip(sample.images, parts, strict=True))
            ]
        except (ParfocalError, KeyError, TypeError, AttributeError) as err:
            raise DataError(f"{where}: {_explain(err)}") from err
        meta: dict[str, JSON] = dict(sample.meta)
        if is_video:
            meta["frame_regions"] = [_to_json(boxes) for boxes in found[1:]]
        return replace(sample, regions=found[0], meta=meta)

    def _placed(self, ref: ImageRef, index: int) -> Placed:
        size_wh = (ref.width, ref.height)
        names = [ref.path or "a picture in memory"]
        if self.images is None or ref.path is None or ref.video_frame is not None:
            sized = self._sized.place(names, size_wh, index)
            assert isinstance(sized, Placed)
            return sized
        placed = self._pictures.place(names, index=index)
        if isinstance(placed, str):
            raise DataError(f"{ref.path}: {placed}.")
        if placed.ref != ref:
            raise DataError(
                f"{ref.path} is {placed.ref.width}x{placed.ref.height}, the Sample says "
                f"{ref.width}x{ref.height}."
            )
        return placed

    def _chosen(self, part: Record, placed: Placed, crowded: bool) -> Boxes:
        """The boxes that a model gets to see, in pixels of the upright picture."""
        stored = placed.upright.source
        found = Boxes(part["boxes"], stored, scores=part["scores"], labels=part["labels"])
        kept = limit(suppress(found, self.iou_threshold), self.limits, crowded)
        boxes, rows = upright_boxes(kept.to_json(), placed)
        if len(rows) < len(kept):
            self.skipped["boxes without area inside their picture"] += len(kept) - len(rows)
        labels = kept.labels or ()
        return Boxes(boxes.xyxy, boxes.frame, labels=[labels[row] for row in rows])


def frame_regions(sample: Sample) -> tuple[Boxes, ...]:
    """Return the regions of each picture of a Sample, in its pixels.

    A Sample has regions in its first picture only; those of the further frames of a video, as
    `Proposals` found them, are in `meta["frame_regions"]`.
    """
    frames = sample.frames[1:]
    rest: Any = sample.meta.get("frame_regions", [{"boxes": [], "labels": []}] * len(frames))
    if not isinstance(rest, list) or len(rest) != len(frames):
        raise DataError(
            f"sample {sample.id!r} has {len(sample.images)} pictures, its meta['frame_regions'] "
            "must be a list of one entry less."
        )
    try:
        further = [
            Boxes(entry["boxes"], frame, labels=entry["labels"])
            for frame, entry in zip(frames, rest, strict=True)
        ]
    except (ParfocalError, KeyError, TypeError) as err:
        raise DataError(
            f"sample {sample.id!r}: meta['frame_regions'] holds no boxes and labels: {err}"
        ) from err
    return (sample.regions, *further)


_ADVICE = (
    "Is it the file that was made for this data? If it leaves out rows without a picture, set "
    "join='picture_row'; if its order is another, join='id'."
)


def _to_json(boxes: Boxes) -> JSON:
    rows: list[JSON] = [list(row) for row in boxes.to_json()]
    return {"boxes": rows, "labels": list(boxes.labels or ())}


def _key(record: Record) -> Any:
    return record.get("id", _stem(record.get("video")))


def _stem(path: object) -> str | None:
    return PurePosixPath(path).stem if isinstance(path, str) else None


def _explain(err: Exception) -> str:
    return str(err) if isinstance(err, ParfocalError) else f"not a record of boxes ({err!r})."
