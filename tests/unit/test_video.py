"""Frames of videos: which, how they stand, and what is said of files that hold none."""

from __future__ import annotations

import io
import logging
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from parfocal.errors import ConfigError, ImageError
from parfocal.video import (
    VideoLimits,
    VideoShape,
    frame_indices,
    is_video,
    load_frames,
    load_video,
    video_shape,
)
from tests.unit.clips import STEP, write_clip, write_sound


def numbers_of(frames: list[Image.Image]) -> list[int]:
    """Which frames of a clip these are, by their brightness."""
    return [round(frame.getpixel((frame.width * 3 // 4, frame.height // 2))[0] / STEP)
            for frame in frames]  # fmt: skip


@pytest.mark.parametrize("total", [8, 9, 30, 31, 299, 1801, 107_892])
@pytest.mark.parametrize("frames", [2, 4, 8, 16])
def test_frames_are_those_of_a_truncated_linspace(total, frames):
    expected = np.linspace(0, total - 1, frames)
    close = np.round(expected, 6).astype(int).tolist()  # 7.999... is 8
    assert frame_indices(total, frames) == close
    if frames == 8:
        assert close == expected.astype(int).tolist()
    assert total < frames or len(set(close)) == frames


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "mpeg4"), ("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"),
     ("ts", "libx264")],
)  # fmt: skip
def test_frames_are_exact_in_every_container(tmp_path, suffix, codec):
    if codec not in sys.modules["av"].codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    clip = write_clip(tmp_path / f"clip.{suffix}", codec=codec)
    frames = load_video(clip, 4)
    assert numbers_of(frames) == [0, 2, 5, 8]
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (96, 64))}
    assert frames[0].getpixel((5, 5))[0] > 200 > 60 > frames[0].getpixel((5, 5))[1]


def test_no_frame_is_taken_twice_unless_there_are_too_few(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "parfocal.video"):
        assert numbers_of(load_video(write_clip(tmp_path / "8.mp4", 8))) == list(range(8))
        assert not caplog.records
        short = load_video(write_clip(tmp_path / "3.mp4", 3))
    assert numbers_of(short) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert "only 3 frames, some of them taken again: 8" in caplog.text


def test_path_bytes_and_open_file_give_the_same(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    expected = [frame.tobytes() for frame in load_video(str(clip), 3)]
    data = clip.read_bytes()
    stream = io.BytesIO(data)
    for source in (clip, data, stream):
        assert [frame.tobytes() for frame in load_video(source, 3)] == expected
    assert not stream.closed


def test_frames_are_taken_by_number(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    assert numbers_of(load_frames(clip, [8, 0, 3, 3])) == [8, 0, 3, 3]
    even = [frame.tobytes() for frame in load_frames(clip, frame_indices(9))]
    assert even == [frame.tobytes() for frame in load_video(clip)]
    assert load_frames(clip.read_bytes(), []) == []
    with pytest.raises(ImageError, match=r"has 9 frames, there is no frame 9 \(they count"):
        load_frames(clip, [0, 9])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_the_shape_of_a_video(tmp_path, suffix):
    clip = write_clip(tmp_path / f"clip.{suffix}", 11, size=(64, 48))
    assert video_shape(clip) == VideoShape(11, 64, 48)


def with_matrix(data: bytes, *values: int) -> bytes:
    """Write a display matrix into the track header of an MP4."""
    start = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in values)
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return data[:start] + matrix + data[start + 36 :]


@pytest.mark.parametrize(
    ("matrix", "size", "red"),
    [
        ((0, 1, -1, 0), (64, 96), (58, 5)),
        ((-1, 0, 0, -1), (96, 64), (90, 58)),
        ((0, -1, 1, 0), (64, 96), (5, 90)),
    ],
    ids=["a quarter clockwise", "half", "a quarter counterclockwise"],
)
def test_frames_stand_upright(tmp_path, matrix, size, red):
    data = write_clip(tmp_path / "clip.mp4").read_bytes()
    frame = load_video(with_matrix(data, *matrix), 1)[0]
    assert frame.size == size
    assert video_shape(with_matrix(data, *matrix)) == VideoShape(9, *size)
    assert frame.getpixel(red)[0] > 200


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Files without a video that can be read, and what is said of them."""
    tmp_path = tmp_path_factory.mktemp("broken")
    whole = write_clip(tmp_path / "whole.mp4").read_bytes()
    fast = write_clip(tmp_path / "fast.mp4", 60, options={"movflags": "faststart"}).read_bytes()
    mkv = write_clip(tmp_path / "long.mkv", 100).read_bytes()
    return {
        "no index": (whole[: len(whole) // 2], "cannot be read as a video"),
        "cut off": (fast[: len(fast) * 6 // 10], "cannot be read whole: of 6.0 seconds"),
        "cut off, mkv": (mkv[: len(mkv) // 2], "cannot be read whole: of 10.0 seconds"),
        "sound": (write_sound(tmp_path / "a.m4a"), "has no video in it, only audio"),
        "no frames": (write_clip(tmp_path / "0.mp4", 0), "has no "),
        "text": (b"hello " * 50, "cannot be read as a video"),
        "playlist": (b"#EXTM3U\n#EXTINF:1,\nwhole.mp4\n", "cannot be read as a video"),
        "empty": (b"", "cannot be read as a video"),
        "missing": (tmp_path / "none.mp4", "does not exist"),
        "folder": (tmp_path, "is no regular file"),
        "address": ("https://example.org/a.mp4", "parfocal opens no connections"),
        "array": (np.zeros(3), "cannot be loaded from ndarray"),
    }


@pytest.mark.parametrize("kind", [
    "no index", "cut off", "cut off, mkv", "sound", "no frames", "text", "playlist", "empty",
    "missing", "folder", "address", "array",
])  # fmt: skip
def test_what_is_no_video_is_one_paragraph(broken, kind):
    source, message = broken[kind]
    with pytest.raises(ImageError, match=message) as caught:
        load_video(source)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)
    for read in (video_shape, lambda given: load_frames(given, [0])):
        with pytest.raises(ImageError, match=message):
            read(source)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (VideoLimits(max_pixels=6000), "frames of 96x64 = 6144 pixels"),
        (VideoLimits(max_seconds=0.5), "1 seconds long, more than the limit of 0.5"),
    ],
    ids=["pixels", "seconds"],
)
def test_limits(tmp_path, limits, message):
    with pytest.raises(ImageError, match=message):
        load_video(write_clip(tmp_path / "clip.mp4"), limits=limits)


def test_settings_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="max_seconds is 0"):
        VideoLimits(max_seconds=0)
    with pytest.raises(ConfigError, match="frames is 0"):
        load_video(tmp_path, 0)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"parfocal\[video\]"):
        load_video(clip)


def test_a_video_is_told_by_its_content(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    nameless = tmp_path / "clip"
    nameless.write_bytes(clip.read_bytes())
    picture = tmp_path / "picture.mp4"
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    for other in ("mkv", "avi", "ts"):
        assert is_video(write_clip(tmp_path / f"clip.{other}", 20).read_bytes())
    assert is_video(clip)
    assert is_video(str(nameless))
    assert is_video(text)
    assert is_video(tmp_path / "none.mp4")
    assert not is_video(tmp_path / "none.png")
    assert not is_video(picture)
    assert not is_video(Image.new("RGB", (4, 4)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_pictures_are_no_videos(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    assert not is_video(buffer.getvalue())


def test_bytes_of_a_picture_are_no_transport_stream():
    buffer = io.BytesIO()
    picture = Image.new("P", (16, 16))
    picture.putpalette(256 * b"GGG")
    picture.putdata(range(256))
    picture.save(buffer, "GIF")
    assert buffer.getvalue()[188:189] == b"G", "as every packet of a transport stream begins"
    assert not is_video(buffer.getvalue())
