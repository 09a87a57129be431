"""Video-ChatGPT's 100 K questions on videos of ActivityNet: [{"q", "a", "video_id"}].

Videos are named by their ids; people have them in several containers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfocal.data.readers.base import Reader
from parfocal.data.readers.clips import Clips, video_names
from parfocal.data.readers.stream import json_items
from parfocal.data.sample import Sample, Turn
from parfocal.dialects import GroundedText
from parfocal.errors import DataError
from parfocal.video import FRAMES

_TEXTS = ("q", "a", "video_id")
_FOLDERS = ("", "videochatgpt_tune/", "videos/", "train/")


@dataclass
class VideoChatGptReader(Reader):
    """A Sample a question; it holds evenly spread frames, the first and last among them.

    Args:
        frames: how many frames of a video.
    """

    source: ClassVar[str] = "video_chatgpt"
    licence: ClassVar[str] = "share-alike and non-commercial variants circulate, check yours"
    files: ClassVar[tuple[str, ...]] = ("VideoInstruct_Dataset.json",)

    frames: int = FRAMES

    def __post_init__(self) -> None:
        """Check the source and the number of frames."""
        super().__post_init__()
        self.clips = Clips(self.images, self.frames)

    def samples(self) -> Iterator[Sample]:
        """Yield questions in the order of the file."""
        number = -1
        for number, row in enumerate(json_items(self.paths[0])):
            question, answer, video = _read(row, f"{self.paths[0]}: row {number}")
            frames = self.clips.place([
                name for folder in _FOLDERS for name in video_names(f"{folder}{video}.mp4")
            ])  # fmt: skip
            if isinstance(frames, str):
                self.skip(frames)
            elif not question or not answer:
                self.skip("rows without a question and its answer")
            else:
                turns = (
                    Turn("user", GroundedText.of(question)),
                    Turn("assistant", GroundedText.of(answer)),
                )
                yield self.sample(
                    f"{number}:{video}",
                    frames,
                    turns=turns,
                    meta={"row": number, "image_key": f"activitynet:{video}"},
                )
        if number < 0:
            raise DataError(f"{self.paths[0]} is no list of rows, or an empty one.")


def _read(row: Any, where: str) -> tuple[str, str, str]:
    """Question, answer and video of a row."""
    values: list[Any] = [row.get(key) for key in _TEXTS] if isinstance(row, dict) else []
    if not values or not all(isinstance(value, str) for value in values):
        raise DataError(f"{where} is {row!r}, must have the texts {', '.join(_TEXTS)}.")
    question, answer, video = (value.strip() for value in values)
    return question, answer, video
