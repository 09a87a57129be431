"""Sample: one example, whatever it came from; the only thing that readers make and processors eat.

A Sample holds pictures, the user's regions and turns of GroundedText. It never holds markup: that
is a dialect's business. On disk a Sample is one JSON object (`schema.py`); in memory its boxes know
their frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import PIL.Image

from parfocal.boxes import Boxes, Frame
from parfocal.data.schema import rule_findings, structure_findings
from parfocal.dialects.grounded import UNPLACED, GroundedText
from parfocal.errors import DataError, ParfocalError
from parfocal.images import load_image
from parfocal.video import load_frames

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class ImageRef:
    """A picture by its file, by its pixels, or as a crop of another picture of the same Sample.

    Attributes:
        path: file, relative to the images folder; None if the picture is in memory or cut from its
            parent.
        width: pixels after decoding (EXIF orientation applied).
        height: the same.
        parent: the image that this object image is a crop of.
        crop: xyxy of the crop, pixels of the parent; width and height may differ from it (zoom).
        pixels: the picture itself; in memory only, never written, not compared.
        video_frame: the file is a video, of which this is the frame of that number, from 0.
        encoded: the bytes that `pixels` were decoded from, where they are no file of their own; in
            memory only, like them.
    """

    path: str | None
    width: int
    height: int
    parent: int | None = None
    crop: tuple[float, float, float, float] | None = None
    pixels: PIL.Image.Image | None = field(default=None, compare=False, repr=False)
    video_frame: int | None = None
    encoded: bytes | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check sides, the crop's shape, the frame, and that pixels have the declared size."""
        for name, side in (("width", self.width), ("height", self.height)):
            if isinstance(side, bool) or not isinstance(side, int) or side < 1:
                raise DataError(
                    f"ImageRef.{name} is {side!r}, must be a positive integer (pixels)."
                )
        if self.path == "":
            raise DataError("ImageRef.path is empty, must be a file name or None.")
        if self.crop is not None:
            crop = tuple(float(value) for value in self.crop)
            if len(crop) != 4 or not all(map(math.isfinite, crop)):
                raise DataError(
                    f"ImageRef.crop is {self.crop!r}, must be four numbers x1, y1, x2, y2."
                )
            object.__setattr__(self, "crop", crop)
        number = self.video_frame
        whole = isinstance(number, int) and not isinstance(number, bool)
        if number is not None and (not whole or number < 0):
            raise DataError(f"ImageRef.video_frame is {number!r}, must be an integer from 0.")
        if self.pixels is not None:
            self._checked(self.pixels, "pixels")

    def frame(self, index: int = 0) -> Frame:
        """The frame of this picture as image `index` of its Sample: "image", "image1", ..."""
        return Frame(f"image{index}" if index else "image", self.width, self.height)

    def open(self, root: str | Path | None = None) -> PIL.Image.Image:
        """The picture, RGB; a frame of a video decodes all of it (see `Sample.open_images`).

        Args:
            root: the images folder that `path` is relative to; the working folder if None.

        Raises:
            ImageError: if the file cannot be read.
            DataError: if the file has another size than declared, or there is no file.
        """
        if self.pixels is not None:
            return self.pixels
        if self.path is None:
            raise DataError(
                "this image has neither a file nor pixels. A crop is opened through its Sample: "
                "sample.open_image(index, root)."
            )
        source = Path(root or ".") / self.path
        if self.video_frame is None:
            return self._checked(load_image(source), self.path)
        return self._checked(load_frames(source, [self.video_frame])[0], self.path)

    def _checked(self, image: PIL.Image.Image, name: str) -> PIL.Image.Image:
        if image.size != (self.width, self.height):
            raise DataError(_size_message(name, image.size, self))
        return image


def _size_message(name: str, size_wh: tuple[int, int], ref: ImageRef) -> str:
    return (
        f"{name} is {size_wh[0]}x{size_wh[1]}, declared as {ref.width}x{ref.height}. Declare the "
        "size after decoding (EXIF orientation applied), boxes must be in its pixels."
    )


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: Role
    text: GroundedText

    def __post_init__(self) -> None:
        """Check role and text."""
        if self.role not in ("user", "assistant"):
            raise DataError(f"Turn.role is {self.role!r}, must be 'user' or 'assistant'.")
        if not isinstance(self.text, GroundedText):
            raise DataError(
                f"Turn.text is a {type(self.text).__name__}, must be GroundedText: "
                "GroundedText.of('words', Phrase('a dog', boxes))."
            )


@dataclass(frozen=True)
class Sample:
    """One example: pictures, regions and a conversation about them.

    Attributes:
        id: unique in its file.
        images: pictures; none for a conversation in words alone. Phrases point into image k by the
            frame `images[k].frame(k)`, ObjectRef(k) shows it as the image of an object.
        turns: the conversation, in order; none for a row of boxes without words.
        regions: the user's boxes, pixels of image 0; RegionRef(k) is row k. May carry labels.
        source: the dataset or program it comes from.
        split: "train", "val", ...
        licence: of the picture and words, as the source states it.
        meta: anything else that is JSON.
        seen: how often a mixture gave its row before, so that what is drawn for it can be another
            thing each time; in memory only, never written, not compared.

    Raises:
        DataError: if a rule of `schema.py` is broken.

    Example:
        >>> from parfocal.dialects import Phrase
        >>> image = ImageRef("dog.jpg", 640, 480)
        >>> dog = Phrase("the dog", Boxes([[10, 20, 110, 220]], image.frame()))
        >>> sample = Sample("1", (image,), (Turn("assistant", GroundedText.of(dog)),))
        >>> Sample.from_json(sample.to_json()) == sample
        True
    """

    id: str
    images: tuple[ImageRef, ...]
    turns: tuple[Turn, ...]
    regions: Boxes = UNPLACED
    source: str = ""
    split: str = ""
    licence: str = ""
    meta: Mapping[str, JSON] = field(default_factory=dict)
    seen: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check all that `from_json` would, so that a Sample can always be written and read."""
        object.__setattr__(self, "images", tuple(self.images))
        object.__setattr__(self, "turns", tuple(self.turns))
        object.__setattr__(self, "meta", dict(self.meta))
        frames = self.frames
        if len(self.regions) == 0:
            object.__setattr__(self, "regions", Boxes.empty(frames[0]) if frames else UNPLACED)
        elif not frames or self.regions.frame != frames[0]:
            raise DataError(_frame_message(self.id, "regions", self.regions.frame, frames[:1]))
        for turn in self.turns:
            for phrase in turn.text.phrases:
                if len(phrase.boxes) and phrase.boxes.frame not in frames:
                    name = f"phrase {phrase.text!r}"
                    raise DataError(_frame_message(self.id, name, phrase.boxes.frame, frames))
        _raise_first(self._row(), f"sample {self.id!r}")

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frame of each picture, in order."""
        return tuple(image.frame(index) for index, image in enumerate(self.images))

    def open_image(self, index: int = 0, root: str | Path | None = None) -> PIL.Image.Image:
        """Picture `index`, RGB; a crop without a file is cut out of its parent and zoomed.

        Raises:
            ImageError: if the file cannot be read.
            DataError: if there is no file or it has another size than declared.
        """
        image = self.images[index]
        if image.pixels is not None or image.path is not None:
            return image.open(root)
        if image.parent is None or image.crop is None:
            return image.open(root)  # raises, naming what is missing
        parent = self.open_image(image.parent, root)
        return cut(parent, image.crop, (image.width, image.height))

    def open_images(self, root: str | Path | None = None) -> list[PIL.Image.Image]:
        """All pictures, in order; a file that several crops or frames come from is read once.

        Raises:
            ImageError: if a file cannot be read.
            DataError: if there is no file or it has another size than declared.
        """
        frames = self._video_frames(root)
        opened = [
            image
            if image.parent is not None
            else replace(image, pixels=frames.get(index) or image.open(root))
            for index, image in enumerate(self.images)
        ]
        whole = replace(self, images=tuple(opened))
        return [whole.open_image(index, root) for index in range(len(opened))]

    def _video_frames(self, root: str | Path | None) -> dict[int, PIL.Image.Image]:
        """The frames of videos by index of the image, each video decoded once."""
        wanted: dict[str, dict[int, int]] = {}  # path -> index of the image -> number of the frame
        for index, image in enumerate(self.images):
            if image.path and image.video_frame is not None and image.pixels is None:
                wanted.setdefault(image.path, {})[index] = image.video_frame
        found: dict[int, PIL.Image.Image] = {}
        for path, numbers in wanted.items():
            pictures = load_frames(Path(root or ".") / path, list(numbers.values()))
            for index, picture in zip(numbers, pictures, strict=True):
                found[index] = self.images[index]._checked(picture, path)
        return found

    def to_json(self) -> dict[str, Any]:
        """The row that `sample.schema.json` describes.

        Raises:
            DataError: if a picture exists in memory only.
        """
        for index, image in enumerate(self.images):
            if image.path is None and image.parent is None:
                raise DataError(
                    f"sample {self.id!r}: image {index} is in memory only. Save it to a file and "
                    "put its name into ImageRef.path before writing the sample."
                )
        return self._row()

    def _row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": self.id,
            "images": [_image_to_json(image) for image in self.images],
            "regions": self.regions.to_json(),
        }
        if self.regions.labels is not None and len(self.regions):
            row["region_labels"] = list(self.regions.labels)
        row["turns"] = [{"role": turn.role, "spans": turn.text.to_json()} for turn in self.turns]
        names = ("source", "split", "licence")
        return row | {name: getattr(self, name) for name in names} | {"meta": dict(self.meta)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "") -> Sample:
        """Inverse of `to_json`.

        Args:
            row: a decoded JSON object.
            where: file and line, for error messages.

        Raises:
            DataError: if the row is not valid; the message starts with `where`.
        """
        _raise_first(row, where)
        try:
            return cls._build(row)
        except ParfocalError as err:
            raise DataError(f"{where}: {err}" if where else str(err)) from err

    @classmethod
    def _build(cls, row: Mapping[str, Any]) -> Sample:
        images = tuple(_image_from_json(image) for image in row["images"])
        frames = [image.frame(index) for index, image in enumerate(images)]
        regions = UNPLACED
        if row.get("regions"):
            regions = Boxes(row["regions"], frames[0], labels=row.get("region_labels"))
        turns = tuple(
            Turn(turn["role"], GroundedText.from_json(turn["spans"], frames))
            for turn in row["turns"]
        )
        words = {name: row.get(name, "") for name in ("source", "split", "licence")}
        return cls(row["id"], images, turns, regions, meta=row.get("meta", {}), **words)


def _raise_first(row: Mapping[str, Any], where: str) -> None:
    findings = list(structure_findings(row)) or list(rule_findings(row))
    if findings:
        more = f" (and {len(findings) - 1} more in this row)" if len(findings) > 1 else ""
        prefix = f"{where}: " if where else ""
        raise DataError(
            f"{prefix}{findings[0]}{more}. `parfocal data check FILE` lists every problem."
        )


def _frame_message(sample_id: str, name: str, frame: Frame, frames: tuple[Frame, ...]) -> str:
    known = ", ".join(f"{f.name!r} ({f.width:g}x{f.height:g})" for f in frames) or "none"
    return (
        f"sample {sample_id!r}: {name} has boxes in frame {frame.name!r} ({frame.width:g}x"
        f"{frame.height:g}), frames of its pictures: {known}. "
        "Build the boxes in images[k].frame(k)."
    )


def cut(
    parent: PIL.Image.Image, crop: Sequence[float], size_wh: tuple[int, int] | None = None
) -> PIL.Image.Image:
    """Cut an object image out of a picture and zoom it.

    Whole pixels are cut first: the zoom filter would otherwise mix in what is outside.

    Args:
        parent: the picture.
        crop: x1, y1, x2, y2 in its pixels.
        size_wh: of the result, pixels; the crop's own, rounded, if None.
    """
    if size_wh is None:
        size_wh = (max(1, round(crop[2] - crop[0])), max(1, round(crop[3] - crop[1])))
    x1, y1 = max(crop[0], 0.0), max(crop[1], 0.0)
    x2, y2 = min(crop[2], parent.width), min(crop[3], parent.height)
    left, top = math.floor(x1), math.floor(y1)
    whole = parent.crop((left, top, math.ceil(x2), math.ceil(y2)))
    inside = (x1 - left, y1 - top, x2 - left, y2 - top)
    return whole.resize(size_wh, PIL.Image.Resampling.BICUBIC, box=inside)


def _image_to_json(image: ImageRef) -> dict[str, Any]:
    row: dict[str, Any] = {"path": image.path, "width": image.width, "height": image.height}
    if image.parent is not None:
        row["parent"] = image.parent
    if image.crop is not None:
        row["crop"] = list(image.crop)
    if image.video_frame is not None:
        row["video_frame"] = image.video_frame
    return row


def _image_from_json(row: Mapping[str, Any]) -> ImageRef:
    crop = tuple(row["crop"]) if "crop" in row else None
    size_wh, number = (row["width"], row["height"]), row.get("video_frame")
    return ImageRef(row["path"], *size_wh, row.get("parent"), crop, video_frame=number)
