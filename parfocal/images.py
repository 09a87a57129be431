"""Decoding pictures: one contract for everything that enters, so that boxes fit what the model saw.

Whatever comes in, `load_image` gives 8-bit RGB that stands upright (EXIF orientation applied), with
transparency laid over white, and refuses what it cannot decode whole and within the limits. The
result carries no metadata, so that loading it again changes nothing. No setting of PIL is touched,
and calls may run in threads.

Shapes: H rows, W columns of pixels.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from parfocal.boxes import Frame
from parfocal.errors import ConfigError, ImageError

ImageSource: TypeAlias = str | Path | bytes | BinaryIO | Image.Image | NDArray[Any]

# Bitmap formats that PIL decodes by itself, tried in this order: those first that PIL has at
# hand before importing all of its plugins. EPS, for one, is left out, as it would start a program.
# MPO files are read as JPEG.
FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO")

_ORIENTATION_TAG: Final = 0x0112
_PICTURE_BRANDS: Final = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """How large a picture may be.

    PIL refuses more than twice `PIL.Image.MAX_IMAGE_PIXELS` by itself, and warns from there on up;
    that holds as well.

    Args:
        max_pixels: width times height, checked before decoding.
        max_bytes: of the encoded file; nothing more is read.
        min_side: of the shorter side, in pixels.

    Raises:
        ConfigError: if a limit is not a whole number of 1 or more.
    """

    max_pixels: int = 178_000_000
    max_bytes: int = 200 * 2**20
    min_side: int = 1

    def __post_init__(self) -> None:
        """Check the limits."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ConfigError(
                    f"ImageLimits.{field.name} is {value!r}; it must be a whole number of 1 or "
                    f"more."
                )


DEFAULT_LIMITS: Final = ImageLimits()


def load_image(source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a picture to upright 8-bit RGB.

    EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits,
    and of an animation the first frame is taken. Boxes of this picture live in `image_frame` of the
    result.

    Args:
        source: a path, the bytes of a file, a file opened with "rb" (read from where it stands,
            left open), a PIL image (copied; of an animation its current frame), or an array
            uint8[H, W], uint8[H, W, 1], uint8[H, W, 3] (RGB) or uint8[H, W, 4] (RGBA).
        limits: how large it may be.

    Returns:
        A new RGB image without metadata.

    Raises:
        ImageError: if there is nothing to decode, it cannot be decoded whole, or it exceeds the
            limits.

    >>> import numpy as np
    >>> image = load_image(np.zeros((2, 3, 4), dtype=np.uint8))  # all transparent
    >>> image.mode, image.size, image.getpixel((0, 0))
    ('RGB', (3, 2), (255, 255, 255))
    """
    if isinstance(source, Image.Image):
        return _normalised(source, "the PIL image", limits)
    if isinstance(source, np.ndarray):
        return _normalised(_from_array(source), "the array", limits)
    data, name = _read_bytes(source, limits)
    return _decoded(data, name, limits)


def stored_size(path: str | Path) -> tuple[int, int, int]:
    """Read a picture's header: its width and height as stored and its EXIF orientation, 1 to 8.

    `Warp.exif` leads from there to the upright picture. No pixel is decoded, so this is quick and
    says nothing about whether the rest of the file is sound.

    Raises:
        ImageError: if the file is not there or is no picture.
    """
    name = f"the picture {_shortened(str(path))!r}"
    try:
        with Image.open(_existing(str(path), name), formats=FORMATS) as opened:
            orientation = _orientation(opened)
            width, height = opened.size
            if opened.format == "TIFF" and 5 <= orientation <= 8:
                width, height = height, width  # Pillow gives the upright size of a TIFF
            return width, height, orientation if orientation in _UPRIGHT else 1
    except ImageError:
        raise
    except UnidentifiedImageError as err:
        raise ImageError(f"{name} is not a picture that parfocal can read.") from err
    except Exception as err:  # plugins raise whatever broken headers lead to
        raise _broken(name, err) from err


def image_frame(image: Image.Image, index: int = 0) -> Frame:
    """The frame of an upright picture: its pixels, as `load_image` gave them.

    Args:
        image: from `load_image`.
        index: which of several pictures of one sample it is; 0 for the first.

    >>> image_frame(Image.new("RGB", (640, 427)), index=1)
    Frame(name='image1', width=640.0, height=427.0)
    """
    name = f"image{index}" if index > 0 else "image"
    return Frame(name, image.width, image.height)


def image_digest(image: Image.Image) -> str:
    """SHA-256 of mode, size and pixels as 64 hex digits, whatever file they came from.

    >>> image_digest(Image.new("RGB", (2, 1)))[:8]
    'f582c36a'
    """
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _read_bytes(source: object, limits: ImageLimits) -> tuple[bytes, str]:
    """The encoded bytes, at most max_bytes of them, and what to call them in messages."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), "the given bytes"
    elif isinstance(source, (str, Path)):
        name = f"the picture {_shortened(str(source))!r}"
        data = _read_path(str(source), name, limits)
    elif hasattr(source, "read"):
        name = "the opened file"
        data = _read_stream(source, name, limits)
    else:
        raise ImageError(
            f"a picture cannot be loaded from {type(source).__name__}. Pass a path, bytes, a file "
            f"opened with 'rb', "
            "a PIL image, or a numpy array uint8[H, W, 3] (for a torch tensor: permute to H, W, C "
            "and call .numpy())."
        )
    if not data:
        hint = " Was it read before? Call seek(0)." if name == "the opened file" else ""
        raise ImageError(
            f"{name} is empty (0 bytes).{hint or ' Fetch or export the picture again.'}"
        )
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"{name} has more than {limits.max_bytes} bytes, the limit. Save it smaller, or allow "
            f"more with "
            "ImageLimits(max_bytes=...)."
        )
    return data, name


def _read_path(path: str, name: str, limits: ImageLimits) -> bytes:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:", path):
        raise ImageError(
            f"{name} is a web address or data URI, and parfocal opens no connections. Download or "
            f"decode it "
            "yourself, then pass the file's path or its bytes."
        )
    try:
        with _existing(path, name).open("rb") as stream:
            return stream.read(limits.max_bytes + 1)
    except (OSError, ValueError) as err:
        if isinstance(err, ImageError):
            raise
        raise ImageError(
            f"{name} cannot be read: {_reason(err)}. Check the path and its permissions."
        ) from err


def _existing(path: str, name: str) -> Path:
    file = Path(path)
    if not path or not file.exists():
        raise ImageError(
            f"{name} does not exist. Check the path; relative ones start at the working directory."
        )
    if file.is_dir():
        raise ImageError(f"{name} is a directory. Pass one of the files in it.")
    if not file.is_file():
        raise ImageError(f"{name} is not a regular file. Open it yourself and pass its bytes.")
    return file


def _read_stream(source: Any, name: str, limits: ImageLimits) -> bytes:
    try:
        data = source.read(limits.max_bytes + 1)
    except (OSError, ValueError) as err:
        raise ImageError(
            f"{name} cannot be read: {_reason(err)}. Open it with 'rb' and pass it again."
        ) from err
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"{name} gave {type(data).__name__} instead of bytes. Open it with 'rb'.")
    return bytes(data)


def _decoded(data: bytes, name: str, limits: ImageLimits) -> Image.Image:
    """Open, check the size that the header states, then decode."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as err:
        raise ImageError(f"{name} is not a picture that parfocal can read. {_guess(data)}") from err
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageError(
            f"{name} states more pixels than PIL decodes, so it may be a decompression bomb. "
            f"The limit is {limits.max_pixels} pixels; scale the picture down first."
        ) from err
    except Exception as err:  # plugins raise whatever broken headers lead to
        raise _broken(name, err) from err
    with opened:
        return _normalised(opened, name, limits)


def _normalised(image: Image.Image, name: str, limits: ImageLimits) -> Image.Image:
    """A new upright RGB image; the given one keeps its mode, pixels and metadata."""
    _check_size(image, name, limits)
    try:
        image.load()
    except Exception as err:  # decoders raise whatever broken data leads to
        raise _broken(name, err) from err
    _check_size(image, name, limits)  # icons state their true size only now
    try:
        upright = _to_rgb(image, name)
        turn = _UPRIGHT.get(_orientation(image))
        if turn is not None:
            upright = upright.transpose(turn)
    except ImageError:
        raise
    except Exception as err:  # palettes and profiles may be broken too
        raise _broken(name, err) from err
    upright.info = {}
    return upright


def _check_size(image: Image.Image, name: str, limits: ImageLimits) -> None:
    width, height = image.size
    if min(width, height) < limits.min_side:
        raise ImageError(
            f"{name} is {width}x{height} pixels; each side must have at least {limits.min_side}. "
            "Use a larger picture."
        )
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is {width}x{height} = {width * height} pixels, more than the limit of "
            f"{limits.max_pixels}. "
            "Scale it down first, or allow more with ImageLimits(max_pixels=...)."
        )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata does not spoil the pixels; viewers ignore it as well
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise ImageError(
            f"{name} holds floating point values (mode F), for which no white is defined. Scale "
            f"it to 0..255 and "
            "convert it to 8 bits first."
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey16_to_rgb(image, name)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    rgba = _with_8bit_key(image).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _with_8bit_key(image: Image.Image) -> Image.Image:
    """Bring a 16-bit transparent colour to the 8 bits that PIL keeps of the pixels."""
    key = image.info.get("transparency")
    if image.mode != "RGB" or not isinstance(key, tuple) or max(key) <= 255:
        return image
    image = image.copy()
    image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


def _grey16_to_rgb(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)  # [H, W]
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{name} holds 32-bit values from {values.min()} to {values.max()}; only 0 to 65535 "
            f"have a defined "
            "brightness. Scale it to 8 bits first."
        )
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 is 255 * 257
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_array(array: NDArray[Any]) -> Image.Image:
    hint = ""
    if array.dtype.kind == "f":
        hint = " For values from 0 to 1 pass (array * 255).round().astype(np.uint8)."
    elif array.dtype == np.bool_:
        hint = " Pass array.astype(np.uint8) * 255."
    if array.dtype != np.uint8:
        raise ImageError(
            f"the array has dtype {array.dtype}; pictures must be uint8, 0 to 255.{hint}"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = " Channels come last: pass array.transpose(1, 2, 0)."
        elif array.ndim == 4:
            hint = " Pass one picture of the batch at a time."
        raise ImageError(
            f"the array has shape {array.shape}; pictures must be [H, W], [H, W, 1], [H, W, 3] or "
            f"[H, W, 4].{hint}"
        )
    if 0 in array.shape:
        raise ImageError(f"the array has shape {array.shape}, so there are no pixels in it.")
    return Image.fromarray(np.ascontiguousarray(array))


def _guess(data: bytes) -> str:
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")):
        return "Its header is damaged or cut off; fetch or export it again."
    if (data[4:8] == b"ftyp" and data[8:12] not in _PICTURE_BRANDS) or data.startswith(
        b"\x1aE\xdf\xa3"
    ):
        return "It looks like a video: only `ask` takes one; else give one of its frames."
    start = data[:200].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "It is a Git LFS pointer: run git lfs pull to get the file itself."
    if start.startswith((b"<svg", b"<?xml")):
        return "It looks like SVG or XML: render it to PNG first."
    if start.startswith((b"<!doctype", b"<html")):
        return "It looks like a web page: the download has failed, fetch it again."
    return f"Formats are {', '.join(FORMATS)}; convert it to one of them, or fetch it again."


def _broken(name: str, err: Exception) -> ImageError:
    return ImageError(
        f"{name} cannot be decoded: {_reason(err)}. The file is damaged or cut off; fetch or "
        f"export it again."
    )


def _reason(err: Exception) -> str:
    text = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the data", text)
    return _shortened(" ".join(text.split()).rstrip(".")) or type(err).__name__


def _shortened(text: str, length: int = 200) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
