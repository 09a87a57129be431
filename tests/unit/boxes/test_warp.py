"""Warps: inverse, composition and every constructor, by hand and against PIL."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.errors import ConfigError, FrameError, ShapeError

IMAGE = Frame("image", 640, 427)
quick = settings(max_examples=60, deadline=None)

side = st.integers(1, 3000)
frames = st.builds(Frame, st.sampled_from(["image", "crop"]), side, side)


@st.composite
def boxes_in(draw, frame):
    n = draw(st.integers(0, 4))
    unit = st.floats(-0.5, 1.5, allow_nan=False)
    rows = [sorted([draw(unit), draw(unit)]) + sorted([draw(unit), draw(unit)]) for _ in range(n)]
    unit_rows = [[x1, y1, x2, y2] for x1, x2, y1, y2 in rows]
    return Boxes.from_unit(
        unit_rows, frame, [float(i) for i in range(n)], [str(i) for i in range(n)]
    )


def _crop(draw, frame):
    x1 = draw(st.floats(-0.5, 0.8)) * frame.width
    y1 = draw(st.floats(-0.5, 0.8)) * frame.height
    width = draw(st.floats(0.1, 1)) * frame.width
    height = draw(st.floats(0.1, 1)) * frame.height
    return Warp.crop(frame, (x1, y1, x1 + width, y1 + height))


CONSTRUCTORS = {
    "identity": lambda draw, f: Warp.identity(f),
    "resize": lambda draw, f: Warp.resize(f, draw(side), draw(side)),
    "pad": lambda draw, f: Warp.pad(f, *[draw(st.integers(0, 500)) for _ in range(4)]),
    "pad_to_square": lambda draw, f: Warp.pad_to_square(f, draw(st.booleans())),
    "crop": _crop,
    "flip": lambda draw, f: Warp.flip(f, draw(st.booleans()), draw(st.booleans())),
    "exif": lambda draw, f: Warp.exif(f, draw(st.integers(1, 8))),
    "to_unit": lambda draw, f: Warp.to_unit(f),
}


@st.composite
def warps_from(draw, frame):
    return CONSTRUCTORS[draw(st.sampled_from(sorted(CONSTRUCTORS)))](draw, frame)


def assert_close(a, b):
    assert a.frame == b.frame
    assert a.labels == b.labels
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_allclose(a.xyxy, b.xyxy, rtol=1e-7, atol=1e-7 * a.frame.width)


@pytest.mark.parametrize("kind", sorted(CONSTRUCTORS))
@quick
@given(data=st.data())
def test_every_constructor_comes_back(kind, data):
    frame = data.draw(frames)
    boxes = data.draw(boxes_in(frame))
    warp = CONSTRUCTORS[kind](data.draw, frame)
    there = warp.apply(boxes)
    assert there.frame == warp.target
    assert (there.xyxy[:, 2:] >= there.xyxy[:, :2]).all()
    assert_close(warp.inverse().apply(there), boxes)


@quick
@given(data=st.data())
def test_composition_is_one_after_the_other(data):
    first = data.draw(frames.flatmap(warps_from))
    second = data.draw(warps_from(first.target))
    third = data.draw(warps_from(second.target))
    boxes = data.draw(boxes_in(first.source))
    stepwise = third.apply(second.apply(first.apply(boxes)))
    assert_close(first.then(second).then(third).apply(boxes), stepwise)
    assert_close(first.then(second.then(third)).apply(boxes), stepwise)


@quick
@given(data=st.data())
def test_inverse_of_a_chain(data):
    first = data.draw(frames.flatmap(warps_from))
    chain = first.then(data.draw(warps_from(first.target)))
    boxes = data.draw(boxes_in(first.source))
    assert_close(chain.inverse().apply(chain.apply(boxes)), boxes)
    assert_close(chain.then(chain.inverse()).apply(boxes), boxes)
    assert chain.inverse().source == chain.target


@quick
@given(data=st.data(), kind=st.sampled_from(["identity", "resize", "flip", "exif", "to_unit"]))
def test_the_whole_frame_becomes_the_whole_frame(data, kind):
    frame = data.draw(frames)
    warp = CONSTRUCTORS[kind](data.draw, frame)
    whole = Boxes([[0, 0, frame.width, frame.height]], frame)
    np.testing.assert_allclose(warp.apply(whole).unit, [[0, 0, 1, 1]], atol=1e-9)


@pytest.mark.parametrize(
    ("warp", "expected", "target"),
    [
        (Warp.identity(IMAGE), [64, 20, 128, 40], IMAGE),
        (Warp.resize(IMAGE, 320, 854), [32, 40, 64, 80], Frame("resized", 320, 854)),
        (Warp.pad(IMAGE, 1, 2, 3, 4), [65, 22, 129, 42], Frame("padded", 644, 433)),
        (Warp.pad_to_square(IMAGE), [64, 126, 128, 146], Frame("padded", 640, 640)),
        (Warp.pad_to_square(IMAGE, centre=False), [64, 20, 128, 40], Frame("padded", 640, 640)),
        (Warp.crop(IMAGE, (60, 10, 160, 60)), [4, 10, 68, 30], Frame("crop", 100, 50)),
        (Warp.crop(IMAGE, np.array([-10, -10, 9, 9])), [74, 30, 138, 50], Frame("crop", 19, 19)),
        (Warp.flip(IMAGE), [512, 20, 576, 40], Frame("flipped", 640, 427)),
        (Warp.flip(IMAGE, False, True), [64, 387, 128, 407], Frame("flipped", 640, 427)),
        (Warp.flip(IMAGE, True, True), [512, 387, 576, 407], Frame("flipped", 640, 427)),
        (Warp.exif(IMAGE, 6, "upright"), [387, 64, 407, 128], Frame("upright", 427, 640)),
        (Warp.exif(IMAGE, 8), [20, 512, 40, 576], Frame("image", 427, 640)),
    ],
    ids=[
        "identity",
        "resize",
        "pad",
        "pad-to-square",
        "pad-bottom-right",
        "crop",
        "crop-beyond-the-edge",
        "flip-horizontal",
        "flip-vertical",
        "half-turn",
        "exif-6",
        "exif-8",
    ],
)
def test_constructors_by_hand(warp, expected, target):
    moved = warp.apply(Boxes([[64, 20, 128, 40]], IMAGE, scores=[0.5], labels=["x"]))
    assert moved == Boxes([expected], target, scores=[0.5], labels=["x"])


@pytest.mark.parametrize("size", [(7, 4), (4, 7), (5, 5), (1, 8)])
def test_pad_to_square_puts_the_odd_pixel_right_or_below(size):
    warp = Warp.pad_to_square(Frame("image", *size))
    longest = max(size)
    assert warp.offset == ((longest - size[0]) // 2, (longest - size[1]) // 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_agrees_with_pil(orientation):
    stored = Image.new("RGB", (13, 9))
    stored.paste((255, 0, 0), (2, 1, 7, 4))
    stored.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(stored)
    warp = Warp.exif(Frame("stored", *stored.size), orientation)
    assert warp.target == Frame("image", *upright.size)
    moved = warp.apply(Boxes([[2, 1, 7, 4]], warp.source))
    assert moved.to_json() == [list(upright.getbbox())]


@pytest.mark.parametrize("orientation", [0, 9, -1, None, "6", True])
def test_exif_refuses_what_is_no_orientation(orientation):
    with pytest.raises(ConfigError, match="EXIF orientation is"):
        Warp.exif(IMAGE, orientation)


def test_boxes_of_another_frame_are_refused_with_the_way_out():
    warp = Warp.to_unit(IMAGE)
    with pytest.raises(
        FrameError,
        match=r"boxes are in frame 'unit' \(1x1\), this Warp starts from frame 'image' \(640x427\)"
        r".*warp\.inverse\(\)",
    ):
        warp.apply(Boxes.empty(Frame("unit", 1, 1)))
    with pytest.raises(FrameError, match="sizes disagree"):
        warp.apply(Boxes.empty(Frame("image", 427, 640)))
    with pytest.raises(FrameError, match="another Warp first"):
        warp.apply(Boxes.empty(Frame("crop", 5, 5)))
    with pytest.raises(ShapeError, match="takes Boxes, got list"):
        warp.apply([[0, 0, 1, 1]])


def test_chains_must_meet():
    with pytest.raises(FrameError, match=r"ends in frame 'resized' .* starts from frame 'image'"):
        Warp.resize(IMAGE, 10, 10).then(Warp.flip(IMAGE))
    with pytest.raises(ShapeError, match="takes another Warp"):
        Warp.identity(IMAGE).then(Boxes.empty(IMAGE))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Warp(IMAGE, IMAGE, (0, 1), (0, 0)),
        lambda: Warp(IMAGE, IMAGE, (1, np.nan), (0, 0)),
        lambda: Warp(IMAGE, IMAGE, (1, 1), (0, np.inf)),
        lambda: Warp(IMAGE, IMAGE, 2.0, (0, 0)),
        lambda: Warp(IMAGE, IMAGE, (1, 1), (0, 0, 0)),
        lambda: Warp(IMAGE, IMAGE, ("a", 1), (0, 0)),
        lambda: Warp(IMAGE, None, (1, 1), (0, 0)),
        lambda: Warp.resize((640, 427), 1, 1),
        lambda: Warp.resize(IMAGE, 0, 10),
        lambda: Warp.pad(IMAGE, -1, 0, 0, 0),
        lambda: Warp.pad(IMAGE, 0, 0, np.nan, 0),
        lambda: Warp.crop(IMAGE, (10, 10, 10, 20)),
        lambda: Warp.crop(IMAGE, (10, 10, 20, 5)),
        lambda: Warp.crop(IMAGE, (10, 10, 20, np.nan)),
    ],
)
def test_impossible_warps_are_refused(build):
    with pytest.raises(FrameError):
        build()


@pytest.mark.parametrize("xyxy", [(1, 2, 3), [[0, 0, 1, 1]], "0,0,1,1", Boxes.empty(IMAGE)])
def test_crop_takes_four_numbers(xyxy):
    with pytest.raises(ShapeError, match=r"Warp\.crop"):
        Warp.crop(IMAGE, xyxy)


def test_warps_are_values():
    assert Warp.flip(IMAGE) == Warp.flip(IMAGE)
    assert Warp.flip(IMAGE).inverse() == Warp.flip(Frame("flipped", 640, 427), name="image")
    assert Warp.resize(IMAGE, 1, 1, "unit") == Warp.to_unit(IMAGE)
    assert len({Warp.identity(IMAGE), Warp.identity(IMAGE)}) == 1


@pytest.mark.parametrize("module", ["frame", "boxes", "warp", "ops"])
def test_docstring_examples_are_true(module):
    result = doctest.testmod(importlib.import_module(f"parfocal.boxes.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
