"""Decoding videos: a few frames, evenly spread, each upright, as `parfocal.images` gives pictures.

A video is what its first bytes say, whatever its name. Every frame is decoded, so that the frames
taken are those of exact numbers, wherever the key frames are. Needs PyAV, the extra `video`.

Shapes: N frames of a video, T taken.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final, TypeAlias

from PIL import Image

from parfocal.errors import ConfigError, ImageError

logger = logging.getLogger(__name__)

VideoSource: TypeAlias = str | Path | bytes | BinaryIO

FRAMES: Final = 8  # Source: MG-LLaVA's video configs
SUFFIXES: Final = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".flv",
                   ".wmv", ".ogv", ".3gp")  # fmt: skip

# Containers that FFmpeg may read here; playlists, which open other files, are not among them.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg"
_STATES_ITS_LENGTH = {"mov", "mp4", "matroska", "webm"}
_MISSING = 0.1  # of the stated length, from which on a file counts as cut off
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_STARTS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01", b"OggS",
           b"0&\xb2u\x8ef\xcf\x11")  # fmt: skip
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free")
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class VideoLimits:
    """How large a video may be.

    Args:
        max_pixels: width times height of a frame.
        max_seconds: of the video; all of it is decoded, whatever is taken.

    Raises:
        ConfigError: if a limit is not a positive number.
    """

    max_pixels: int = 36_000_000
    max_seconds: float = 3600.0

    def __post_init__(self) -> None:
        """Check the limits."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigError(
                    f"VideoLimits.{field.name} is {value!r}; it must be a positive number."
                )


DEFAULT_LIMITS: Final = VideoLimits()


def load_video(
    source: VideoSource, frames: int = FRAMES, limits: VideoLimits = DEFAULT_LIMITS
) -> list[Image.Image]:
    """Take evenly spread frames, the first and the last among them.

    The rotation that a phone notes beside the frames is applied. Of several video streams the first
    is read. A video of fewer frames than asked for gives some of them several times, in order, as
    the model is used to a fixed number; the log says so.

    Args:
        source: a path, the bytes of a file, or a file opened with "rb".
        frames: how many, T.
        limits: how large it may be.

    Returns:
        T RGB images of one size, without metadata.

    Raises:
        ConfigError: if PyAV is not installed, or `frames` is below 1.
        ImageError: if there is no video in it, it cannot be decoded whole, or it exceeds the
            limits.
    """
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise ConfigError(f"frames is {frames!r}; it must be a whole number of 1 or more.")
    name = _name_of(source)
    av = _import_av()
    total = _count(av, source, name, limits)
    pictures, decoded = _decode(av, source, name, limits, frame_indices(total, frames))
    if decoded != total and decoded:  # packets are not always one a frame; now the number is known
        pictures, decoded = _decode(av, source, name, limits, frame_indices(decoded, frames))
    if not decoded:
        raise ImageError(f"{name} has no frame that can be decoded; fetch or export it again.")
    if decoded < frames:
        logger.info("%s: only %d frames, some of them taken again: %d", name, decoded, frames)
    return [pictures[index] for index in frame_indices(decoded, frames)]


def load_frames(
    source: VideoSource, numbers: Sequence[int], limits: VideoLimits = DEFAULT_LIMITS
) -> list[Image.Image]:
    """Take the frames of these numbers, decoding the video once.

    Args:
        source: as for `load_video`.
        numbers: from 0, in any order, repeated or not.
        limits: how large it may be.

    Returns:
        An RGB image a number, upright, without metadata.

    Raises:
        ConfigError: if PyAV is not installed.
        ImageError: as for `load_video`, and if the video has fewer frames.
    """
    name = _name_of(source)
    av = _import_av()
    _count(av, source, name, limits)
    pictures, total = _decode(av, source, name, limits, numbers)
    missing = [number for number in numbers if number not in pictures]
    if missing:
        raise ImageError(
            f"{name} has {total} frames, there is no frame {missing[0]} (they count from 0). Is it "
            "the same file as when the numbers were noted?"
        )
    return [pictures[number] for number in numbers]


@dataclass(frozen=True)
class VideoShape:
    """How many frames a video has, and the size of all of them upright, in pixels."""

    frames: int
    width: int
    height: int


def video_shape(source: VideoSource, limits: VideoLimits = DEFAULT_LIMITS) -> VideoShape:
    """Decode a video whole to say how many frames there are, exactly, and how large they are.

    Args:
        source: as for `load_video`.
        limits: how large it may be.

    Raises:
        ConfigError: if PyAV is not installed.
        ImageError: as for `load_video`, and if the size changes on the way.
    """
    name = _name_of(source)
    av = _import_av()
    _count(av, source, name, limits)
    sizes: set[tuple[int, int]] = set()

    def note(_: int, frame: Any) -> None:
        turned = _turn(frame) in (90, 270)
        sizes.add((frame.height, frame.width) if turned else (frame.width, frame.height))

    total = _each_frame(av, source, name, limits, note)
    if not sizes:
        raise ImageError(f"{name} has no frame that can be decoded; fetch or export it again.")
    if len(sizes) > 1:
        raise ImageError(f"{name} has frames of {len(sizes)} sizes; export it with one.")
    return VideoShape(total, *sizes.pop())


def frame_indices(total: int, frames: int = FRAMES) -> list[int]:
    """The numbers of `frames` frames among `total`, evenly spread, first and last included.

    Source: official mg_llava/dataset: `linspace(0, total - 1, frames)` without the fractions.
    Deviates: no.

    >>> frame_indices(9, 4), frame_indices(3, 8), frame_indices(100, 1)
    ([0, 2, 5, 8], [0, 0, 0, 0, 1, 1, 1, 2], [0])
    """
    if frames == 1 or total < 1:
        return [0] * min(frames, max(total, 0))
    return [index * (total - 1) // (frames - 1) for index in range(frames)]


def is_video(source: object) -> bool:
    """Tell by the first bytes whether a file holds a video (or sound), not a picture.

    A file that is neither, or cannot be read, counts as a video where its name ends like one, so
    that what is wrong is said of a video. Whatever is no path and no bytes is no video.

    >>> is_video(b"RIFF....AVI LIST"), is_video(b"RIFF....WEBPVP8 ")
    (True, False)
    """
    if isinstance(source, bytes):
        return not _starts_like_a_picture(source) and _starts_like_a_video(source)
    if not isinstance(source, (str, Path)):
        return False
    named = str(source).lower().endswith(SUFFIXES)
    try:
        with Path(source).open("rb") as stream:
            start = stream.read(512)
    except (OSError, ValueError):
        return named
    return not _starts_like_a_picture(start) and (named or _starts_like_a_video(start))


def _starts_like_a_picture(start: bytes) -> bool:
    riff = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return riff or start.startswith(_PICTURES) or _is_picture_box(start)


def _starts_like_a_video(start: bytes) -> bool:
    if start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"AVI "):
        return True
    if start[:1] == b"G" and start[188:189] == b"G":  # packets of a transport stream
        return True
    return start[4:8] in _BOXES


def _is_picture_box(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in _PICTURE_BRANDS


def _import_av() -> ModuleType:
    try:
        import av
    except ImportError as err:
        raise ConfigError(
            "videos need PyAV, which is not installed. Install it with: "
            "pip install 'parfocal[video]'."
        ) from err
    return av


def _name_of(source: object) -> str:
    """What to call a source in messages; ImageError if there is nothing to open."""
    if isinstance(source, bytes):
        return "the given bytes"
    if hasattr(source, "read") and hasattr(source, "seek"):
        return "the opened file"
    if not isinstance(source, (str, Path)):
        raise ImageError(
            f"a video cannot be loaded from {type(source).__name__}. Pass a path, bytes, or a file "
            "opened with 'rb'."
        )
    text = str(source)
    name = f"the video {text if len(text) <= 200 else text[:200] + '...'!r}"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:", text):
        raise ImageError(
            f"{name} is a web address, and parfocal opens no connections. Download it yourself, "
            "then pass the file's path."
        )
    if not Path(text).is_file():
        what = "is no regular file" if Path(text).exists() else "does not exist"
        raise ImageError(f"{name} {what}. Check the path.")
    return name


@contextmanager
def _opened(av: ModuleType, source: Any, name: str) -> Iterator[Any]:
    """An open container; whatever FFmpeg complains about becomes one ImageError."""
    stream: Any = source
    if isinstance(source, bytes):
        stream = io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        stream = Path(source).open("rb")  # noqa: SIM115  # closed below, unless it is the caller's
    try:
        stream.seek(0)
        with av.open(stream, options={"format_whitelist": _FORMATS}) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError, RuntimeError, MemoryError) as err:
        if isinstance(err, ImageError):
            raise
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        raise ImageError(
            f"{name} cannot be read as a video: {' '.join(str(reason).split())}. It is damaged, "
            "cut off or of another kind; fetch or export it again, as MP4 for one."
        ) from err
    finally:
        if stream is not source:
            stream.close()


def _count(av: ModuleType, source: Any, name: str, limits: VideoLimits) -> int:
    """Check what the header states, and count packets without decoding them."""
    with _opened(av, source, name) as container:
        stream = _video_stream(container, name)
        _check_size(stream.codec_context.width, stream.codec_context.height, name, limits)
        stated = container.duration / av.time_base if container.duration else 0.0
        _check_seconds(stated, name, limits)
        count, end = 0, 0.0
        for packet in container.demux():
            if packet.pts is None or not packet.size:
                continue
            start = packet.stream.start_time or 0
            end = max(end, float((packet.pts - start + (packet.duration or 0)) * packet.time_base))
            _check_seconds(end, name, limits)
            count += packet.stream.index == stream.index and not packet.is_discard
        known = _STATES_ITS_LENGTH & set(container.format.name.split(","))
        if known and end < stated * (1 - _MISSING):
            raise ImageError(
                f"{name} cannot be read whole: of {stated:.1f} seconds it holds {end:.1f}, so it "
                "was cut off. Fetch it again."
            )
    return count


def _decode(
    av: ModuleType, source: Any, name: str, limits: VideoLimits, wanted: Sequence[int]
) -> tuple[dict[int, Image.Image], int]:
    """Decode all frames; return the wanted ones by number, and how many there are."""
    found: dict[int, Image.Image] = {}
    chosen = set(wanted)

    def keep(number: int, frame: Any) -> None:
        if number in chosen:
            found[number] = _upright(frame)

    return found, _each_frame(av, source, name, limits, keep)


def _each_frame(
    av: ModuleType, source: Any, name: str, limits: VideoLimits, use: Callable[[int, Any], None]
) -> int:
    """Decode all frames, give each with its number to `use`, and return how many there are."""
    total = 0
    with _opened(av, source, name) as container:
        stream = _video_stream(container, name)
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            _check_size(frame.width, frame.height, name, limits)
            use(total, frame)
            total += 1
    return total


def _video_stream(container: Any, name: str) -> Any:
    for stream in container.streams.video:
        if not int(stream.disposition) & _COVER:
            return stream
    kinds = " and ".join(sorted({stream.type for stream in container.streams}))
    only = f", only {kinds}" if kinds else " and nothing else"
    raise ImageError(f"{name} has no video in it{only}. Pass a file with moving pictures.")


_COVER = 0x400  # AV_DISPOSITION_ATTACHED_PIC: the picture on a song


def _check_size(width: int, height: int, name: str, limits: VideoLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} has frames of {width}x{height} = {width * height} pixels, more than the limit "
            f"of {limits.max_pixels}. Scale it down, or allow more with "
            "VideoLimits(max_pixels=...)."
        )


def _check_seconds(seconds: float, name: str, limits: VideoLimits) -> None:
    if seconds > limits.max_seconds:
        raise ImageError(
            f"{name} is {seconds:.0f} seconds long, more than the limit of {limits.max_seconds:g}. "
            "Cut it, or allow more with VideoLimits(max_seconds=...)."
        )


def _upright(frame: Any) -> Image.Image:
    """A frame as RGB, turned as the file says."""
    image: Image.Image = frame.to_image()
    image.info = {}
    turn = _TURNS.get(_turn(frame))
    return image if turn is None else image.transpose(turn)


def _turn(frame: Any) -> int:
    """How far a frame is to be turned, counterclockwise: 0, 90, 180 or 270 degrees."""
    degrees: int = frame.rotation
    return round(degrees / 90) * 90 % 360
