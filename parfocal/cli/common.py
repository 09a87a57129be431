"""What the commands share: options, consoles, and the checks that come before a model is loaded."""

from __future__ import annotations

import io
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
    from parfocal.detectors import RegionFinder
    from parfocal.predict.protocol import AnyPredictor

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
DialectOption = Annotated[
    str | None,
    typer.Option(
        "--dialect",
        metavar="NAME",
        help="How a checkpoint writes boxes, where its model_type does not tell.",
    ),
]
ObjectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        metavar="OBJECT",
        help="An object image: X1,Y1,X2,Y2 cut out of IMAGE, or a picture file; may be repeated.",
    ),
]
TaggerOption = Annotated[
    str | None,
    typer.Option(
        "--tagger",
        metavar="T",
        help="Names what --detector looks for: 'coco80', a .txt, or RAM++ or Florence-2 (folder).",
    ),
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        "--detector",
        metavar="D",
        help="Finds boxes for models that read them: OWLv2 or Grounding DINO, a folder or hub id.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--boxes-cache", metavar="DIR", help="Keep found boxes there between runs."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="D", help="'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.")
]
MaxNewTokensOption = Annotated[
    int | None,
    typer.Option("--max-new-tokens", metavar="N", min=1, help="Longest answer, in tokens."),
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


@dataclass(frozen=True)
class FinderParts:
    """What `--tagger`, `--detector` and `--boxes-cache` name."""

    tagger: str
    detector: str
    cache: Path | None


def console() -> Console:
    """For results: stdout; words are printed as they are, `[old]` and `:100:` too."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, emoji=False, markup=False)


def error_console() -> Console:
    """For everything else: stderr."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, emoji=False, markup=False)


def complain(error: BaseException) -> None:
    """One paragraph about an error on stderr."""
    from rich.text import Text

    name = "" if not isinstance(error, OSError) else f"{type(error).__name__}: "
    message = name + " ".join(str(error).split())
    error_console().print(Text("error: ", "bold red") + Text(message), soft_wrap=True)


def questions(lines: TextIO) -> Iterator[str]:
    """The lines that are not empty, with a prompt on stderr where a person types them."""
    from rich.text import Text

    if isinstance(lines, io.TextIOWrapper):  # a line in another encoding is refused when asked
        lines.reconfigure(errors="surrogateescape")
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


def load_predictor(
    model: str, device: str, dialect: str | None = None, parts: FinderParts | None = None
) -> AnyPredictor:
    """Load a model, and the finder of its boxes, while telling so on stderr."""
    from rich.text import Text

    with error_console().status(Text(f"loading {model}")):
        from transformers.utils import logging as hub_logging

        from parfocal import predict

        hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it tears the status line
        finder = None if parts is None else _load_finder(model, device, parts)
        return predict.load(model, device=device, finder=finder, dialect=dialect)


def _load_finder(model: str, device: str, parts: FinderParts) -> RegionFinder:
    from parfocal.detectors import load_finder
    from parfocal.predict.loading import check_finder

    check_finder(model)  # told before a detector is loaded
    return load_finder(parts.tagger, parts.detector, parts.cache, device)


def finder_parts(
    tagger: str | None,
    detector: str | None,
    cache: Path | None,
    boxes: Sequence[str] | None = None,
) -> FinderParts | None:
    """Check the options about finding boxes; None without any.

    Raises:
        ConfigError: if one of them lacks another, or the user gives boxes as well.
    """
    if tagger is None and detector is None:
        if cache is not None:
            raise ConfigError(
                "--boxes-cache keeps what a detector finds, and there is none. Give --tagger and "
                "--detector, or leave it out."
            )
        return None
    if tagger is None or detector is None:
        here, missing = ("detector", "tagger") if tagger is None else ("tagger", "detector")
        raise ConfigError(
            f"--{here} needs --{missing}: the tagger names what may be in a picture, the detector "
            "finds it. As in --tagger coco80 --detector google/owlv2-base-patch16-ensemble."
        )
    if boxes:
        raise ConfigError(
            "--box and --detector were both given: a detector is asked only where there are no "
            "boxes of yours. Leave out one of them."
        )
    return FinderParts(tagger, detector, cache)


def parse_objects(
    texts: Sequence[str] | None, shown: Image.Image | Path
) -> list[Sequence[float] | Image.Image] | None:
    """Read every `--object` of a command; None without any.

    Args:
        texts: boxes and picture files.
        shown: the picture that boxes are cut out of; a video's first frame is known later.

    Raises:
        FrameError: if a box is malformed or reaches outside the picture.
        ImageError: if a picture cannot be read.
    """
    if not texts:
        return None
    found: list[Sequence[float] | Image.Image] = []
    for text in texts:
        if "," not in text or Path(text).is_file():
            found.append(load_picture(Path(text)))
            continue
        box = parse_box(text, "--object")
        if not isinstance(shown, Path):
            _check_inside(text, box, shown, "--object")
        found.append(box)
    return found


def parse_box(text: str, option: str = "--box") -> tuple[float, float, float, float]:
    """Read one `--box`, or a box of another option.

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
            f"{option} {text!r} has something that is not a number. Write four numbers in pixels, "
            f"such as {option} 10,20,110,70."
        ) from err
    if len(numbers) != 4:
        raise FrameError(
            f"{option} {text!r} has {len(numbers)} numbers, must have four: X1,Y1,X2,Y2 in pixels. "
            f"Repeat {option} for further regions."
        )
    x1, y1, x2, y2 = numbers
    if not all(math.isfinite(number) for number in numbers):
        raise FrameError(
            f"{option} {text!r} has a number that is not finite. Write pixels, such as "
            f"{option} 10,20,110,70."
        )
    if x1 >= x2 or y1 >= y2:
        raise FrameError(
            f"{option} {text!r} has its corners the wrong way round or no area: X1 < X2 and "
            "Y1 < Y2 are needed. It is left, top, right, bottom, not x, y, width, height."
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

    rows = [parse_box(text) for text in texts]
    for text, box in zip(texts, rows, strict=True):
        _check_inside(text, box, picture, "--box")
    return Boxes(rows, image_frame(picture))


def _check_inside(text: str, box: Sequence[float], picture: Image.Image, option: str) -> None:
    (x1, y1, x2, y2), (width, height) = box, picture.size
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise FrameError(
            f"{option} {text!r} reaches outside the picture, which is {width}x{height} pixels "
            f"after its EXIF rotation. Keep X within 0 to {width} and Y within 0 to {height}."
        )


def check_words(words: str, what: str) -> None:
    """Refuse an empty question or phrase."""
    if not words.strip():
        raise ConfigError(
            f'the {what} is empty. Put the words in quotes, such as "Where is the red car?".'
        )


def check_save(path: Path | None, image: Path, objects: Sequence[str] | None = None) -> None:
    """Refuse a `--save` that could not be written, before any work is done.

    Args:
        path: of `--save`.
        image: the picture or video that is asked about, which is never written over.
        objects: of `--object`; those that are files are not either.

    Raises:
        ConfigError: if the file's ending, its folder or the file itself is none to write to.
    """
    if path is None:
        return
    if path.exists() and any(_same_file(path, read) for read in (image, *(objects or ()))):
        raise ConfigError(
            f"--save {str(path)!r} is a picture that is asked about, and would be written over. "
            "Give the answer another name."
        )
    if path.suffix.lower() not in SAVE_SUFFIXES:
        raise ConfigError(
            f"--save {str(path)!r} ends in {path.suffix!r}; the kinds of file are "
            f"{', '.join(SAVE_SUFFIXES)}. "
            "Choose one by the file's ending."
        )
    check_place(path)


def check_place(path: Path) -> None:
    """Refuse a `--save` that is a folder, or in none.

    Raises:
        ConfigError: saying which.
    """
    if path.is_dir():
        raise ConfigError(f"--save {str(path)!r} is a folder. Give the name of a file.")
    if not path.parent.is_dir():
        raise ConfigError(
            f"--save {str(path)!r} is in a folder that does not exist. Make "
            f"{str(path.parent)!r} first."
        )


def _same_file(path: Path, read: str | Path) -> bool:
    return Path(read).exists() and path.samefile(read)


def generation_options(max_new_tokens: int | None) -> dict[str, int]:
    """What a command hands on to a verb that answers; what was not said, the model decides."""
    return {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
