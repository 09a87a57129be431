"""The decode contract: every kind of picture that is taken, and everything that is refused."""

from __future__ import annotations

import doctest
import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

import parfocal.images
from parfocal.boxes import Boxes, Frame, Warp
from parfocal.errors import ConfigError, DataError, ImageError
from parfocal.images import FORMATS, ImageLimits, image_digest, image_frame, load_image, stored_size

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(size=(13, 9)):
    """White with a red rectangle at (2, 1, 7, 4)."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (2, 1, 7, 4))
    return image


def noise(height=64, width=64):
    values = np.arange(height * width * 3, dtype=np.uint32) * 2654435761 >> 7
    return Image.fromarray((values % 256).astype(np.uint8).reshape(height, width, 3))


def red_box(image):
    ys, xs = np.nonzero(np.asarray(image)[:, :, 1].astype(int) < 100)
    return [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]


def png(width, height, depth, colour, rows, *chunks):
    """A PNG from raw parts, for kinds that PIL does not write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    middle = b"".join(chunk(kind, data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + middle + body + chunk(b"IEND", b"")


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_exif_orientation_is_applied_once(value, kind, options, tmp_path):
    path = tmp_path / "turned"
    path.write_bytes(encoded(picture(), kind, exif=orientation(value), **options))
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    image = load_image(path)
    assert image.size == expected.size
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    assert stored_size(path) == (13, 9, value)
    warp = Warp.exif(Frame("stored", 13, 9), value)
    assert warp.target == image_frame(image)
    assert warp.apply(Boxes([[2, 1, 7, 4]], warp.source)).to_json() == [red_box(image)]
    assert image_digest(load_image(image)) == image_digest(image)


def test_a_name_that_no_file_can_have_is_an_image_error():
    with pytest.raises(ImageError, match="cannot be"):
        stored_size(300 * "a")


@pytest.mark.parametrize("exif", [orientation(0), orientation(9), b"Exif\0\0nonsense"])
def test_meaningless_orientation_leaves_the_picture_as_it_is(exif):
    data = encoded(picture(), "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(load_image(data)), np.asarray(picture()))


def palette(transparency=None):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    options = {} if transparency is None else {"transparency": transparency}
    return lambda kind="PNG": encoded(image, kind, **options)


def pair(mode, left, right, kind="PNG", **options):
    image = Image.new(mode, (2, 1), left)
    image.putpixel((1, 0), right)
    return lambda: encoded(image, kind, **options)


def grey16(*values, kind="PNG"):
    return lambda: encoded(Image.fromarray(np.array([values], dtype=np.uint16)), kind)


def integers32(*values):
    return lambda: encoded(Image.fromarray(np.array([values], dtype=np.int32)), "TIFF")


BLUE = (0, 0, 255)
KINDS = {
    "rgb": (pair("RGB", RED, BLUE), RED, BLUE),
    "rgb-bmp": (pair("RGB", RED, BLUE, "BMP"), RED, BLUE),
    "rgb-ppm": (pair("RGB", RED, BLUE, "PPM"), RED, BLUE),
    "rgb-jpeg2000": (pair("RGB", RED, BLUE, "JPEG2000"), RED, BLUE),
    "rgb-with-tRNS": (pair("RGB", RED, BLUE, transparency=BLUE), RED, WHITE),
    "rgba-clear": (pair("RGBA", (255, 0, 0, 255), (9, 9, 9, 0)), RED, WHITE),
    "rgba-half": (pair("RGBA", (255, 0, 0, 128), (0, 0, 0, 128)), (255, 127, 127), (127,) * 3),
    "rgba-webp": (pair("RGBA", (255, 0, 0, 255), (9, 9, 9, 0), "WEBP", lossless=True), RED, WHITE),
    "palette": (palette(), RED, BLUE),
    "palette-gif": (lambda: palette()("GIF"), RED, BLUE),
    "palette-tRNS-index": (palette(1), RED, WHITE),
    "palette-tRNS-table": (palette(bytes([255, 128])), RED, (127, 127, 255)),
    "palette-gif-transparent": (lambda: palette(0)("GIF"), WHITE, BLUE),
    "grey": (pair("L", 0, 200), BLACK, (200,) * 3),
    "grey-tRNS": (pair("L", 0, 200, transparency=0), WHITE, (200,) * 3),
    "grey-alpha": (pair("LA", (7, 255), (7, 0)), (7,) * 3, WHITE),
    "one-bit": (pair("1", 0, 1), BLACK, WHITE),
    "one-bit-tiff": (pair("1", 0, 1, "TIFF"), BLACK, WHITE),
    "one-bit-tRNS": (pair("1", 0, 1, transparency=0), WHITE, WHITE),
    "cmyk-tiff": (pair("CMYK", (0, 0, 0, 0), (0, 255, 255, 0), "TIFF"), WHITE, RED),
    "grey16-ends": (grey16(0, 65535), BLACK, WHITE),
    "grey16-rounds": (grey16(128, 129), BLACK, (1, 1, 1)),
    "grey16-not-clipped": (grey16(256, 32896), (1, 1, 1), (128,) * 3),
    "grey16-tiff": (grey16(257, 514, kind="TIFF"), (1,) * 3, (2,) * 3),
    "grey16-ppm": (lambda: b"P5 2 1 65535\n\x00\x00\xff\xff", BLACK, WHITE),
    "grey16-tRNS": (
        lambda: png(2, 1, 16, 0, [b"\x01\x01\x80\x80"], (b"tRNS", b"\x01\x01")),
        WHITE,
        (128,) * 3,
    ),
    "rgb16-tRNS": (
        lambda: png(2, 1, 16, 2, [b"\x80" * 6 + b"\xff\xff" + b"\0" * 4], (b"tRNS", b"\x80" * 6)),
        WHITE,
        RED,
    ),
    "integers32": (integers32(0, 65535), BLACK, WHITE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_rgb(kind, tmp_path):
    build, left, right = KINDS[kind]
    path = tmp_path / "picture"
    path.write_bytes(build())
    image = load_image(path)
    assert (image.mode, image.size, image.info) == ("RGB", (2, 1), {})
    assert [image.getpixel((0, 0)), image.getpixel((1, 0))] == [left, right]


@pytest.mark.parametrize("colour", [(0, 0, 0, 0), (0, 255, 255, 0), (255, 0, 255, 0)])
def test_cmyk_jpeg_is_not_inverted(colour):
    data = encoded(Image.new("CMYK", (8, 8), colour), "JPEG", quality=100)
    expected = [255 - ink for ink in colour[:3]]
    np.testing.assert_allclose(load_image(data).getpixel((4, 4)), expected, atol=3)


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("YCbCr", (76, 85, 255)), ("HSV", (0, 255, 255)), ("RGBa", (255, 0, 0, 255))],
)
def test_other_modes_of_pil_images(mode, colour):
    np.testing.assert_allclose(
        load_image(Image.new(mode, (2, 2), colour)).getpixel((1, 1)), RED, atol=2
    )


def test_premultiplied_grey_is_laid_over_white():
    assert load_image(Image.new("LA", (1, 1), (100, 0)).convert("La")).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert load_image(data).getpixel((3, 3)) == RED


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_loads(kind):
    size = (32, 32) if kind == "ICO" else (9, 5)
    image = load_image(encoded(Image.new("RGB", size, RED), kind))
    assert image.size == size
    np.testing.assert_allclose(image.getpixel((4, 4)), RED, atol=6)


def test_of_a_stereo_photo_the_first_picture_is_taken():
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(load_image(data).getpixel((3, 3)), RED, atol=6)


def test_one_pixel_is_a_picture():
    assert load_image(encoded(Image.new("RGB", (1, 1), RED))).getpixel((0, 0)) == RED


def test_every_source_gives_the_same_picture(tmp_path):
    path = tmp_path / "p.png"
    data = encoded(noise())
    path.write_bytes(data)
    with path.open("rb") as stream:
        sources = [path, str(path), data, bytearray(data), io.BytesIO(data), stream, noise()]
        digests = {image_digest(load_image(source)) for source in [*sources, np.asarray(noise())]}
        assert not stream.closed
    assert digests == {image_digest(noise())}


@pytest.mark.parametrize(
    ("shape", "pixel"),
    [((2, 3), (7, 7, 7)), ((2, 3, 1), (7, 7, 7)), ((2, 3, 3), (7, 7, 7)), ((2, 3, 4), (248,) * 3)],
)
def test_arrays_of_every_shape(shape, pixel):
    array = np.full(shape, 7, dtype=np.uint8)
    image = load_image(array)
    array[:] = 99
    assert (image.mode, image.size, image.getpixel((1, 1))) == ("RGB", (3, 2), pixel)


def test_array_views_are_read_in_their_own_order():
    array = np.asarray(picture())
    np.testing.assert_array_equal(np.asarray(load_image(array[::-1, ::-1])), array[::-1, ::-1])


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((2, 2, 3)), r"\* 255\)\.round\(\)"),
        (np.zeros((2, 2, 3), dtype=np.float32), "float32"),
        (np.zeros((2, 2), dtype=bool), r"astype\(np\.uint8\) \* 255"),
        (np.zeros((2, 2), dtype=np.uint16), "uint16; pictures must be uint8"),
        (np.zeros((3, 5, 5), dtype=np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 5, 5, 3), dtype=np.uint8), "one picture of the batch"),
        (np.zeros((5, 5, 2), dtype=np.uint8), r"\(5, 5, 2\)"),
        (np.zeros(5, dtype=np.uint8), r"\(5,\)"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "no pixels"),
    ],
    ids=["float64", "float32", "bool", "uint16", "channels-first", "batch", "two", "flat", "empty"],
)
def test_other_arrays_are_refused_with_a_hint(array, hint):
    with pytest.raises(ImageError, match=hint):
        load_image(array)


def test_pil_images_are_copied_and_left_alone():
    given = picture()
    given.info["note"] = "mine"
    given.getexif()[0x0112] = 6
    before = image_digest(given)
    loaded = load_image(given)
    loaded.paste(BLACK, (0, 0, 9, 9))
    assert image_digest(given) == before
    assert (given.info["note"], given.getexif()[0x0112], given.size) == ("mine", 6, (13, 9))
    assert loaded.size == (9, 13)


def test_pil_animation_keeps_its_place():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as opened:
        opened.seek(1)
        assert load_image(opened).getpixel((3, 3)) == BLUE
        assert opened.tell() == 1


def test_closed_pil_image_is_an_image_error(tmp_path):
    path = tmp_path / "p.png"
    picture().save(path)
    with Image.open(path) as opened:
        pass
    with pytest.raises(ImageError, match="the PIL image cannot be decoded"):
        load_image(opened)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_files_are_refused(kind, share, tmp_path):
    data = encoded(noise(), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"cut\.bin"):
        load_image(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"just some words\n", "not a picture that parfocal can read"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged or cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", "git lfs pull"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "render it to PNG"),
        (b"<!DOCTYPE html><html></html>", "looks like a web page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture"),
        (encoded(noise())[:200] + b"\0" * 400, "cannot be decoded.*damaged or cut off"),
    ],
    ids=["empty", "text", "signature", "lfs", "svg", "html", "eps", "zeroed"],
)
def test_what_is_no_picture_is_refused_in_one_paragraph(data, message, tmp_path):
    path = tmp_path / "thing.png"
    path.write_bytes(data)
    for source in (path, data, io.BytesIO(data)):
        with pytest.raises(ImageError, match=message) as caught:
            load_image(source)
        text = str(caught.value)
        assert "\n" not in text
        assert " at 0x" not in text
        assert isinstance(caught.value, DataError)


def test_stream_at_its_end_hints_at_seek():
    stream = io.BytesIO(encoded(picture()))
    stream.read()
    with pytest.raises(ImageError, match=r"seek\(0\)"):
        load_image(stream)


@pytest.mark.parametrize(
    "source",
    [
        "http://example.org/a.png",
        "HTTPS://example.org/a.png",
        "ftp://example.org/a.png",
        "s3://bucket/a.png",
        "file:///tmp/a.png",
        "data:image/png;base64,AAAA",
    ],
)
def test_addresses_are_refused_with_a_hint(source):
    with pytest.raises(ImageError, match=r"opens no connections.*pass the file's path"):
        load_image(source)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(ImageError, match="is a directory"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match=r"gone\.png' does not exist"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="does not exist"):
        load_image("")
    with pytest.raises(ImageError):
        load_image("a\0b.png")
    with pytest.raises(ImageError):
        load_image("x" * 5000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_refused_instead_of_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="not a regular file"):
        load_image(tmp_path / "pipe")


@pytest.mark.parametrize(
    "source", [None, 3, ["a.png"], object()], ids=["none", "int", "list", "object"]
)
def test_other_types_are_refused(source):
    with pytest.raises(ImageError, match=rf"cannot be loaded from {type(source).__name__}"):
        load_image(source)


def test_files_opened_as_text_are_refused(tmp_path):
    path = tmp_path / "p.ppm"
    path.write_bytes(b"P2 1 1 9 9")
    with path.open(encoding="ascii") as stream, pytest.raises(ImageError, match="str instead of b"):
        load_image(stream)


def test_values_without_a_defined_white_are_refused():
    with pytest.raises(ImageError, match="mode F"):
        load_image(Image.new("F", (2, 2), 0.5))
    with pytest.raises(ImageError, match="from -1 to 65536"):
        load_image(integers32(-1, 65536)())


def test_pixel_cap_is_checked_before_decoding(monkeypatch):
    def fail(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    data = encoded(Image.new("RGB", (20, 10)))
    with pytest.raises(ImageError, match=r"20x10 = 200 pixels, more than the limit of 199"):
        load_image(data, ImageLimits(max_pixels=199))


@pytest.mark.parametrize("source", [picture(), np.asarray(picture()), encoded(picture())])
def test_pixel_limits_hold_for_every_source(source):
    assert load_image(source, ImageLimits(max_pixels=117, min_side=9)).size == (13, 9)
    with pytest.raises(ImageError, match="limit of 116"):
        load_image(source, ImageLimits(max_pixels=116))
    with pytest.raises(ImageError, match=r"13x9 pixels; each side must have at least 10"):
        load_image(source, ImageLimits(min_side=10))


def test_byte_cap(tmp_path):
    data = encoded(noise())
    path = tmp_path / "p.png"
    path.write_bytes(data)
    for source in (path, data, io.BytesIO(data)):
        with pytest.raises(ImageError, match=rf"more than {len(data) - 1} bytes"):
            load_image(source, ImageLimits(max_bytes=len(data) - 1))
    assert load_image(path, ImageLimits(max_bytes=len(data))).size == (64, 64)


def test_byte_cap_stops_reading():
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            assert 0 <= size <= 1001
            return b"\0" * size

    with pytest.raises(ImageError, match="more than 1000 bytes"):
        load_image(Endless(), ImageLimits(max_bytes=1000))


def test_decompression_bomb_is_refused():
    bomb = png(60_000, 60_000, 8, 2, [])
    assert len(bomb) < 200
    with pytest.raises(ImageError, match="178000000"):
        load_image(bomb)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
@pytest.mark.parametrize("name", ["max_pixels", "max_bytes", "min_side"])
def test_limits_are_positive_whole_numbers(name, value):
    with pytest.raises(ConfigError, match=rf"ImageLimits\.{name} is"):
        ImageLimits(**{name: value})


def test_threads_get_what_one_thread_gets():
    data = encoded(noise(), "JPEG", exif=orientation(6))
    settings = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(lambda _: image_digest(load_image(data)), range(16)))
    assert digests == {image_digest(load_image(data))}
    assert settings == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@pytest.mark.parametrize(("index", "name"), [(0, "image"), (1, "image1"), (7, "image7")])
def test_image_frame_numbers_further_pictures(index, name):
    assert image_frame(picture(), index) == Frame(name, 13, 9)


def test_image_digest_sees_mode_size_and_pixels():
    images = [
        Image.new("L", (6, 1)),
        Image.new("L", (1, 6)),
        Image.new("RGB", (2, 1)),
        Image.new("RGB", (2, 1), (0, 0, 1)),
    ]
    assert len({image_digest(image) for image in images}) == 4
    assert image_digest(images[0]) == image_digest(images[0].copy())


def test_docstring_examples_are_true():
    result = doctest.testmod(parfocal.images)
    assert result.attempted > 0
    assert result.failed == 0
