"""The videos of a dataset: found under the names that people store them by, as frames of a Sample.

A Sample holds a video as some of its frames, evenly spread, each of them a picture that names its
number in the file. To know how many there are, a video is decoded once; one that cannot be is told
from one that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from parfocal.data.readers.pictures import first_file
from parfocal.data.sample import ImageRef
from parfocal.errors import ConfigError, DataError, ImageError
from parfocal.video import SUFFIXES, frame_indices, video_shape

KEPT = 20_000  # videos remembered, so that rows about one video decode it once

Frames = tuple[ImageRef, ...]


class Clips:
    """Finds videos in a folder.

    Args:
        root: the folder of the videos.
        frames: how many a Sample holds; a shorter video gives some of them several times.

    Raises:
        ConfigError: if `frames` is below 1.
        DataError: if the folder does not exist.
    """

    def __init__(self, root: str | Path | None, frames: int) -> None:
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise ConfigError(f"frames is {frames!r}; it must be a whole number of 1 or more.")
        self.root = None if root is None else Path(root)
        if self.root is not None and not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder. Give the folder of the videos.")
        self.frames = frames
        self._known: dict[str, Frames | str] = {}

    def place(self, names: Sequence[str]) -> Frames | str:
        """Look a video up.

        Args:
            names: its path relative to the folder, in the layouts people use; the first that exists
                is taken.

        Returns:
            Its frames, in order, or why there are none: a reason for `Reader.skip`.

        Raises:
            DataError: if no folder was given.
            ConfigError: if PyAV is not installed.
        """
        if self.root is None:
            raise DataError(
                f"the size of {names[0]!r} is not in the dataset. Give the folder of the videos "
                "(images=..., --images DIR)."
            )
        found = first_file(self.root, names)
        if found is None:
            return "videos that are not in the folder"
        if found not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[found] = self._look(self.root / found, found)
        return self._known[found]

    def _look(self, file: Path, name: str) -> Frames | str:
        try:
            shape = video_shape(file)
        except ImageError:
            return "videos that cannot be read"
        return tuple(
            ImageRef(name, shape.width, shape.height, video_frame=number)
            for number in frame_indices(shape.frames, self.frames)
        )


def video_names(path: str) -> list[str]:
    """Return the paths under which a video may be stored, as stated first.

    >>> video_names("tune/a.mkv")[:3], len(video_names("a.mp4")) == len(SUFFIXES)
    (['tune/a.mkv', 'tune/a.mp4', 'tune/a.m4v'], True)
    """
    stated = PurePosixPath(path)
    stems = [stated.with_suffix(""), PurePosixPath(stated.stem)]
    names = [path, *(f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES), stated.name]
    return list(dict.fromkeys(names))
