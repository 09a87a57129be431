"""The pictures of a dataset: found under the names that people store them by, upright, checked.

Datasets annotate the pixels as they are stored, without EXIF; Samples hold boxes of the upright
picture. `Placed.upright` is the Warp between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parfocal.boxes import Frame, Warp
from parfocal.data.sample import ImageRef
from parfocal.errors import DataError, ImageError
from parfocal.images import stored_size


@dataclass(frozen=True)
class Placed:
    """A picture of a dataset.

    Attributes:
        ref: names it in a Sample.
        upright: from its stored pixels, in which datasets annotate, to the upright picture.
    """

    ref: ImageRef
    upright: Warp


class Pictures:
    """Finds pictures in a folder, or believes what the dataset says if there is no folder.

    Args:
        root: the images folder.

    Raises:
        DataError: if the folder does not exist.
    """

    def __init__(self, root: str | Path | None) -> None:
        self.root = None if root is None else Path(root)
        if self.root is not None and not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder. Give the folder of the pictures.")

    def place(
        self, names: Sequence[str], size_wh: tuple[int, int] | None = None, index: int = 0
    ) -> Placed | str:
        """Look a picture up.

        Args:
            names: its path relative to the folder, in the layouts people use; the first that exists
                is taken.
            size_wh: as the dataset states it, pixels as stored; None if it does not.
            index: which picture of its Sample it will be.

        Returns:
            The picture, or why there is none: a reason for `Reader.skip`.

        Raises:
            DataError: if the size is in the files alone and no folder was given.
        """
        if self.root is None:
            if size_wh is None:
                raise DataError(
                    f"the size of {names[0]!r} is not in the dataset. Give the folder of the "
                    "pictures (images=..., --images DIR)."
                )
            width, height = size_wh
            return _placed(names[0], width, height, 1, index)
        found = first_file(self.root, names)
        if found is None:
            return "pictures that are not in the folder"
        try:
            width, height, orientation = stored_size(self.root / found)
        except ImageError:
            return "files that are no pictures"
        if size_wh is not None and (width, height) != tuple(size_wh):
            return "pictures of another size than the dataset states"
        return _placed(found, width, height, orientation, index)


def first_file(root: Path, names: Sequence[str]) -> str | None:
    """The first of some names under which a folder has a file."""
    return next((name for name in names if _is_file(root / name)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _placed(name: str, width: int, height: int, orientation: int, index: int) -> Placed:
    frame = f"image{index}" if index else "image"
    upright = Warp.exif(Frame("stored", width, height), orientation, frame)
    return Placed(ImageRef(name, int(upright.target.width), int(upright.target.height)), upright)
