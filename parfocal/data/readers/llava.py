r"""LLaVA-style conversation files: one JSON list of pictures with questions and answers.

    [{"id": "1", "image": "coco/train2017/000000033471.jpg",
      "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                        {"from": "gpt", "value": "A bus."}]}]

Most instruction sets come like this. Ids are strings or numbers and not unique, so that Samples are
named by their row. A row may have no picture, one, or a list of them; sizes are in the picture
files alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from parfocal.data.readers.base import Reader
from parfocal.data.readers.conversations import Conversation, read_conversation
from parfocal.data.readers.layouts import image_key, picture_names
from parfocal.data.readers.pictures import Placed
from parfocal.data.readers.stream import json_items
from parfocal.data.readers.text_boxes import BoxFrame, FrameTest, TextBoxes
from parfocal.data.sample import JSON, ImageRef, Role, Sample, Turn
from parfocal.dialects import GroundedText
from parfocal.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_ROLES: tuple[Role, Role] = ("user", "assistant")


@dataclass
class Shown:
    """What a row shows.

    Attributes:
        refs: its pictures, or the frames of its video; none for words alone.
        keys: a name across datasets for each picture, or for the video.
        placed: its picture, if there is exactly one.
    """

    refs: tuple[ImageRef, ...] = ()
    keys: tuple[str, ...] = ()
    placed: Placed | None = None


@dataclass
class LlavaReader(Reader):
    """A Sample a row: its pictures, and the questions with their answers.

    In meta, `row` is the row's place in the file and `picture_row` its place among the rows that
    show something, both from 0; `id` is its own id.

    Args:
        boxes: what numbers in brackets, `[0.25, 0.4, 0.75, 0.8]`, are fractions of: the picture
            `padded` to a square, or the `image` itself; they become Phrases with boxes in pixels,
            and questions whose boxes do not fit are left out. `text` leaves the words as they are.

    Attributes:
        frame_test: what the boxes of the last iteration say about their frame.
    """

    home: ClassVar[str] = ""  # the set (see `layouts`) of paths in no known folder; "" is `source`

    boxes: BoxFrame = "text"
    frame_test: FrameTest = field(default_factory=FrameTest, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sources and the option."""
        super().__post_init__()
        if self.boxes not in get_args(BoxFrame):
            raise ConfigError(
                f"boxes is {self.boxes!r}, must be one of {', '.join(get_args(BoxFrame))}."
            )

    def samples(self) -> Iterator[Sample]:
        """Yield rows in the order of the file."""
        words = TextBoxes(self.boxes)
        self.frame_test = words.test
        number, showing = -1, 0
        for number, row in enumerate(json_items(self.paths[0])):
            where = f"{self.paths[0]}: row {number}"
            if not isinstance(row, dict):
                raise DataError(f"{where} is {row!r}, must be an object with `conversations`.")
            shows = bool(row.get("image") or row.get("video"))
            meta: dict[str, JSON] = {"row": number}
            if shows:
                meta["picture_row"] = showing
                showing += 1
            sample = self._sample(row, meta, words, where)
            if sample is not None:
                yield sample
        if number < 0:
            raise DataError(f"{self.paths[0]} is no list of rows, or an empty one.")
        self._warn(words.test)

    def shown(self, row: dict[str, Any], where: str) -> Shown | str:
        """Find what a row shows, or say why it cannot be had: a reason for `skip`."""
        if row.get("video"):
            return "rows with a video, which the reader llava_video reads"
        paths, home = read_paths(row, "image", where), self.home or self.source
        found: list[Placed] = []
        for index, path in enumerate(paths):
            placed = self.pictures.place(picture_names(path, home), index=index)
            if isinstance(placed, str):
                return placed
            found.append(placed)
        keys = tuple(image_key(path, home) for path in paths)
        refs = tuple(placed.ref for placed in found)
        return Shown(refs, keys, found[0] if len(found) == 1 else None)

    def _sample(
        self, row: dict[str, Any], meta: dict[str, JSON], words: TextBoxes, where: str
    ) -> Sample | None:
        shown = self.shown(row, where)
        if isinstance(shown, str):
            self.skip(shown)
            return None
        said = read_conversation(row.get("conversations"), bool(shown.refs), where)
        for reason, count in said.dropped.items():
            self.skip(reason, count)
        turns = self._turns(said, words, shown.placed)
        if not turns:
            self.skip("rows without a question and its answer")
            return None
        native = row.get("id")
        if native is not None:
            meta["id"] = str(native)
        if shown.keys:
            meta["image_key"] = shown.keys[0]
        if len(shown.keys) > 1:
            meta["image_keys"] = list(shown.keys)
        name = meta["row"] if native is None else f"{meta['row']}:{native}"
        return self.sample(name, shown.refs, turns=turns, meta=meta)

    def _turns(
        self, said: Conversation, words: TextBoxes, placed: Placed | None
    ) -> tuple[Turn, ...]:
        turns: list[Turn] = []
        for pair in said.rounds:
            texts = [words.read(text, placed) if placed else GroundedText.of(text) for text in pair]
            misfit = next((text for text in texts if isinstance(text, str)), None)
            if misfit is not None:
                self.skip(misfit)
                continue
            for role, text in zip(_ROLES, texts, strict=True):
                # a question may be the picture alone: it stays, or its answer would answer nothing
                if isinstance(text, GroundedText) and (text.spans or role == "user"):
                    turns.append(Turn(role, text))
        return tuple(turns)

    def _warn(self, test: FrameTest) -> None:
        meant = "padded" if test.padded else "image"
        if self.boxes != "text" and test.padded is not None and meant != self.boxes:
            logger.warning(
                "%s: %d of %d boxes in oblong pictures reach into the padding of the square, so "
                "that they seem to be fractions of another frame than stated. Look at some, and "
                "try boxes=%r.",
                self.source, test.outside, test.tested, meant,
            )  # fmt: skip


def read_paths(row: dict[str, Any], key: str, where: str) -> list[str]:
    """Return the paths that a row names: none, one, or a list of them.

    Raises:
        DataError: if they are no text.
    """
    value = row.get(key) or []
    paths = value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) and path for path in paths):
        raise DataError(f"{where}: `{key}` is {value!r}, must be a path or a list of paths.")
    return paths


@dataclass
class LlavaPretrainReader(LlavaReader):
    """LLaVA-Pretrain, 558 K (LAION, CC, SBU) and 595 K (CC3M): a caption a picture."""

    source: ClassVar[str] = "llava_pretrain"
    licence: ClassVar[str] = "captions of BLIP; pictures under the terms of LAION, CC3M and SBU"
    files: ClassVar[tuple[str, ...]] = ("blip_laion_cc_sbu_558k.json (or chat.json of 595 K)",)
    home: ClassVar[str] = "llava_pretrain"


@dataclass
class LlavaInstructReader(LlavaReader):
    """LLaVA-Instruct 150 K and its parts: conversations about COCO's pictures."""

    source: ClassVar[str] = "llava_instruct"
    licence: ClassVar[str] = "CC-BY-NC-4.0 (words, by GPT-4); pictures under Flickr terms"
    files: ClassVar[tuple[str, ...]] = ("llava_instruct_150k.json (or one of its parts)",)
    home: ClassVar[str] = "coco"


@dataclass
class LlavaMix665kReader(LlavaReader):
    """LLaVA-1.5's mixture, with question sets merged by picture, boxes as text, words alone."""

    source: ClassVar[str] = "llava_mix665k"
    licence: ClassVar[str] = "CC-BY-NC-4.0 (LLaVA-Instruct); other parts under their own terms"
    files: ClassVar[tuple[str, ...]] = ("llava_v1_5_mix665k.json",)

    boxes: BoxFrame = "padded"


@dataclass
class ShareGpt4vReader(LlavaReader):
    """ShareGPT4V's captions by GPT-4V, and its version of LLaVA-1.5's mixture."""

    source: ClassVar[str] = "sharegpt4v"
    licence: ClassVar[str] = "CC-BY-NC-4.0 (words); pictures of people and places: academic use"
    files: ClassVar[tuple[str, ...]] = (
        "sharegpt4v_instruct_gpt4-vision_cap100k.json (or sharegpt4v_mix665k_*.json)",
    )

    boxes: BoxFrame = "padded"


@dataclass
class ShareGpt4vPretrainReader(LlavaReader):
    """ShareGPT4V-PT: captions by ShareCaptioner of COCO's, LLaVA-Pretrain's, SA-1B's pictures."""

    source: ClassVar[str] = "sharegpt4v_pretrain"
    licence: ClassVar[str] = "CC-BY-NC-4.0 (words); SA-1B's pictures: research"
    files: ClassVar[tuple[str, ...]] = ("share-captioner_coco_lcs_sam_1246k_1107.json",)


@dataclass
class AllavaCaptionReader(LlavaReader):
    """ALLaVA-Caption-4V: captions of LAION's or Vision-FLAN's pictures."""

    source: ClassVar[str] = "allava_caption"
    licence: ClassVar[str] = "CC-BY-NC-4.0"
    files: ClassVar[tuple[str, ...]] = ("ALLaVA-Caption-{LAION,VFLAN}-4V.json",)


@dataclass
class AllavaInstructReader(LlavaReader):
    """ALLaVA-Instruct-4V: questions and answers on LAION's or Vision-FLAN's pictures."""

    source: ClassVar[str] = "allava_instruct"
    licence: ClassVar[str] = "CC-BY-NC-4.0"
    files: ClassVar[tuple[str, ...]] = ("ALLaVA-Instruct-{LAION,VFLAN}-4V.json",)
