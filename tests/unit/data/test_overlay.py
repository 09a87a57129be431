"""Tags over a picture: words where there is room, numbers alone where there is none."""

from __future__ import annotations

import re

import numpy as np

from parfocal.boxes import Boxes, Frame
from parfocal.data.marks import Mark
from parfocal.data.overlay import overlay

SIZE = (900, 600)
FRAME = Frame("image", *SIZE)


def drawn(count: int) -> list[tuple[Mark, Boxes]]:
    """Small boxes on a grid, far apart while they are few."""
    side = int(np.ceil(np.sqrt(count)))
    corners = [((k % side) * 900 / side + 5, (k // side) * 600 / side + 30) for k in range(count)]
    return [
        (
            Mark(f"r{k}", f"R{k}", "#0072B2", "a dog", True, "a dog"),
            Boxes([[x, y, x + 8, y + 8]], FRAME),
        )
        for k, (x, y) in enumerate(corners)
    ]


def places(html: str) -> list[tuple[float, float]]:
    """Left or right, and top or bottom of every tag, in percent."""
    tags = re.findall(r'class="pf-tag[^"]*".*?style="([^"]*)"', html)
    found = [re.findall(r"(?:left|right|top|bottom):([-\d.]+)%", style)[:2] for style in tags]
    return [(float(across), float(down)) for across, down in found]


def test_a_few_boxes_have_their_words_at_once():
    html = overlay(drawn(4), SIZE, SIZE)
    assert html.count(" pf-wide") == 4


def test_of_very_many_boxes_tags_have_numbers_alone_and_stay_on_the_picture():
    html = overlay(drawn(400), SIZE, SIZE)
    assert " pf-wide" not in html
    found = places(html)
    assert len(found) == 400
    assert all(0 <= value <= 100 for pair in found for value in pair)
    assert html.count("a dog") >= 400  # told by the title, and shown while lit
