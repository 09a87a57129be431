"""Frames refuse what is not a rectangle."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from parfocal.boxes import Frame
from parfocal.errors import FrameError


@pytest.mark.parametrize(
    "side",
    [0, -1, math.nan, math.inf, 1e200, None, "640", True, 10**400],
    ids=["zero", "negative", "nan", "inf", "huge", "none", "text", "bool", "huge-int"],
)
@pytest.mark.parametrize("which", ["width", "height"])
def test_bad_sides_are_refused_by_name(side, which):
    sides = {"width": 4, "height": 3, which: side}
    with pytest.raises(FrameError, match=rf"the {which} of frame 'image'"):
        Frame("image", **sides)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_frame_needs_a_name(name):
    with pytest.raises(FrameError, match="needs a name"):
        Frame(name, 4, 3)


def test_sides_become_floats_so_that_int_and_float_frames_are_the_same():
    assert Frame("image", 640, np.int64(427)) == Frame("image", 640.0, 427.0)
    assert hash(Frame("image", 640, 427)) == hash(Frame("image", 640.0, 427.0))
    assert type(Frame("image", np.float32(4), 3).width) is float


@pytest.mark.parametrize("other", [("x", 640, 427), ("image", 641, 427), ("image", 640, 428)])
def test_name_and_both_sides_make_a_frame(other):
    assert Frame("image", 640, 427) != Frame(*other)


def test_str_is_what_messages_show():
    assert str(Frame("padded", 640, 427.5)) == "'padded' (640x427.5)"
    assert str(Frame("huge", 12345678, 1)) == "'huge' (12345678x1)"


def test_frames_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Frame("image", 4, 3).width = 5
