"""What the commands share: options, consoles, and the checks that come before a model is loaded."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from parfocal.errors import ConfigError, FrameError

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

    from parfocal.boxes import Boxes
    from parfocal.predict import Predictor

SAVE_SUFFIXES = (".png", ".html", ".json")

ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture file.")]
VisualArgument = Annotated[
    Path, typer.Argument(metavar="IMAGE", help="A picture file, or a video for models that watch.")
]
BoxOption = Annotated[
    list[str] | None,
    typer.Option("--box", metavar="X1,Y1,X2,Y2", help="A region, in pixels; may be repeated."),
]
ModelOption = Annotated[
    str, typer.Option("--model", metavar="M", help="'mini', a model folder, or a hub id.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="D", help="'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
SaveOption = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", help="Also write a .png, .html or .json file."),
]


@dataclass
class Settings:
    """What the options before the verb set."""

    debug: bool = False


def console() -> Console:
    """For results: stdout."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False)


def error_console() -> Console:
    """For everything else: stderr."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


def complain(error: BaseException) -> None:
    """One paragraph about an error on stderr."""
    from rich.text import Text

    name = "" if not isinstance(error, OSError) else f"{type(error).__name__}: "
    message = name + " ".join(str(error).split())
    error_console().print(Text("error: ", "bold red") + Text(message), soft_wrap=True)


def questions(lines: TextIO) -> Iterator[str]:
    """The lines that are not empty, with a prompt on stderr where a person types them."""
    from rich.text import Text

    prompt = lines.isatty()
    while True:
        if prompt:
            error_console().print(Text("? ", "bold"), end="")
        line = lines.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def load_picture(path: Path) -> Image.Image:
    """The decoded, upright picture."""
    from parfocal.images import load_image

    return load_image(path)


def load_visual(path: Path, boxes: Sequence[str] | None) -> Image.Image | Path:
    """The decoded picture; a video stays a file, as not every model takes one.

    Raises:
        FrameError: if boxes come with a video, whose frames would each need their own.
    """
    from parfocal.video import is_video

    if not is_video(path):
        return load_picture(path)
    if boxes:
        raise FrameError(
            "--box is for pictures: in a video things move. Leave it out, or give boxes for every "
            "frame in Python: load(...).ask(video, question, boxes=[...])."
        )
    return path


def load_predictor(model: str, device: str) -> Predictor:
    """Load a model while telling so on stderr."""
    with error_console().status(f"loading {model}"):
        from transformers.utils import logging as hub_logging

        from parfocal import predict

        hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it tears the status line
        return predict.load(model, device=device)


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Read one `--box`.

    Raises:
        FrameError: unless it is four finite numbers with x1 < x2 and y1 < y2.

    Example:
        >>> parse_box("10,20, 30.5,40")
        (10.0, 20.0, 30.5, 40.0)
    """
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError as err:
        raise FrameError(
            f"--box {text!r} has something that is not a number. Write four numbers in pixels, "
            "such as --box 10,20,110,70."
        ) from err
    if len(numbers) != 4:
        raise FrameError(
            f"--box {text!r} has {len(numbers)} numbers, must have four: X1,Y1,X2,Y2 in pixels. "
            "Repeat --box for "
            "further regions."
        )
    x1, y1, x2, y2 = numbers
    if not all(math.isfinite(number) for number in numbers):
        raise FrameError(
            f"--box {text!r} has a number that is not finite. Write pixels, such as "
            "--box 10,20,110,70."
        )
    if x1 >= x2 or y1 >= y2:
        raise FrameError(
            f"--box {text!r} has its corners the wrong way round or no area: X1 < X2 and Y1 < Y2 "
            "are needed. It is "
            "left, top, right, bottom, not x, y, width, height."
        )
    return x1, y1, x2, y2


def parse_boxes(texts: Sequence[str] | None, picture: Image.Image) -> Boxes | None:
    """Read every `--box` of a command; None without any.

    Raises:
        FrameError: if one is malformed or reaches outside the picture.
    """
    if not texts:
        return None
    from parfocal.boxes import Boxes
    from parfocal.images import image_frame

    width, height = picture.size
    rows = [parse_box(text) for text in texts]
    for text, (x1, y1, x2, y2) in zip(texts, rows, strict=True):
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            raise FrameError(
                f"--box {text!r} reaches outside the picture, which is {width}x{height} pixels "
                "after its EXIF rotation. "
                f"Keep X within 0 to {width} and Y within 0 to {height}."
            )
    return Boxes(rows, image_frame(picture))


def check_words(words: str, what: str) -> None:
    """Refuse an empty question or phrase."""
    if not words.strip():
        raise ConfigError(
            f'the {what} is empty. Put the words in quotes, such as "Where is the red car?".'
        )


def check_save(path: Path | None) -> None:
    """Refuse a `--save` that could not be written, before any work is done."""
    if path is None:
        return
    if path.suffix.lower() not in SAVE_SUFFIXES:
        raise ConfigError(
            f"--save {str(path)!r} ends in {path.suffix!r}; the kinds of file are "
            f"{', '.join(SAVE_SUFFIXES)}. "
            "Choose one by the file's ending."
        )
    if not path.parent.is_dir():
        raise ConfigError(
            f"--save {str(path)!r} is in a folder that does not exist. Make "
            f"{str(path.parent)!r} first."
        )


def make_folder(path: Path) -> None:
    """Make the folder of `--out`, with its parents.

    Raises:
        ConfigError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"the folder {str(path)!r} cannot be made: {err.strerror}. Give another --out."
        ) from err
