"""LLaVA-style files about videos, such as those of Video-LLaVA: `video` in place of `image`.

Their mixtures also hold rows about pictures and rows of words alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from parfocal.data.readers.clips import Clips, video_names
from parfocal.data.readers.layouts import image_key
from parfocal.data.readers.llava import LlavaReader, Shown, read_paths
from parfocal.video import FRAMES


@dataclass
class LlavaVideoReader(LlavaReader):
    """A Sample a row; of a video it holds evenly spread frames, the first and last among them.

    Args:
        frames: how many frames of a video.
    """

    source: ClassVar[str] = "llava_video"
    licence: ClassVar[str] = (
        "as the parts state; variants of Video-ChatGPT's circulate, check yours"
    )
    files: ClassVar[tuple[str, ...]] = ("a LLaVA-style JSON file with `video`",)

    frames: int = FRAMES

    def __post_init__(self) -> None:
        """Check the sources and the number of frames."""
        super().__post_init__()
        self.clips = Clips(self.images, self.frames)

    def shown(self, row: dict[str, Any], where: str) -> Shown | str:
        """Find the video or pictures of a row."""
        videos = read_paths(row, "video", where)
        if not videos:
            return super().shown(row, where)
        if len(videos) > 1 or row.get("image"):
            return "rows with several videos, or pictures beside a video"
        refs = self.clips.place(video_names(videos[0]))
        return refs if isinstance(refs, str) else Shown(refs, (image_key(videos[0], self.source),))
