"""The Qwen-VL dialects, whose four generations count in three frames.

| dialect | box | numbers |
|---|---|---|
| qwen_vl | `<ref>a cat</ref><box>(x1,y1),(x2,y2)</box>` | 999ths of the picture |
| qwen2_vl | the same between other tags | 1000ths of the picture |
| qwen2_5_vl | `{"bbox_2d": [x1, y1, x2, y2], "label": "a cat"}` | pixels of the resized picture |
| qwen3_vl | the same | 1000ths of the picture |

The same text means different boxes, and no number tells which: the frame belongs to the checkpoint.

Source: QwenLM repositories (README, eval_mm/evaluate_grounding.py, qwen-vl-finetune, cookbooks, and
the maintainers in QwenLM/Qwen3-VL#676, #991, #1486, #1721); `smart_resize` of Transformers.
Deviates: Qwen-VL's README says [0, 1000), its evaluation divides by 999, as here. Alibaba's pages
give 0 to 999 for Qwen3-VL, the cookbook 0 to 1000, as here. "none" for absence is ours in the first
two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import ClassVar

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects.base import View
from parfocal.dialects.grid import Grid
from parfocal.dialects.grounded import Span
from parfocal.dialects.json_boxes import JsonBoxes
from parfocal.dialects.peer import Questions
from parfocal.dialects.points import POINT_TAG, tag_spans
from parfocal.dialects.reader import Reader, read_numbers
from parfocal.dialects.tagged import Tagged, Tags
from parfocal.errors import ConfigError

MAX_ASPECT = 200  # smart_resize refuses longer pictures

_PAIR = re.compile(r"\(([^()]*)\)")
_CORNER = r"\(\s*[0-9.+\-]+\s*,\s*[0-9.+\-]+\s*\)"
_CORNERS = rf"{_CORNER}\s*,\s*{_CORNER}"


def smart_resize(
    width: int, height: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The size that the family's preprocessor resizes a picture to.

    Sides become multiples of `factor`, about as many pixels as before, within the two bounds.

    Args:
        width: of the picture, pixels.
        height: of the picture, pixels.
        factor: 28 for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL.
        min_pixels: least area. The preprocessor of Transformers calls it "shortest_edge".
        max_pixels: greatest area, likewise "longest_edge".

    Returns:
        width and height, pixels.

    Raises:
        ConfigError: if one side is more than 200 times the other.

    >>> smart_resize(640, 480, factor=28, min_pixels=3136, max_pixels=12845056)
    (644, 476)

    Source: Transformers 5.23 models/qwen2_vl/image_processing_qwen2_vl.py smart_resize.
    Deviates: width comes first.
    """
    if max(width, height) / min(width, height) > MAX_ASPECT:
        raise ConfigError(
            f"the picture is {width}x{height}, one side more than {MAX_ASPECT} times the other. "
            "The family does not take such pictures: cut it into parts."
        )
    # round() is to even at halves, as in the official code: 70 / 28 = 2.5 gives 2.
    sides = [round(side / factor) * factor for side in (width, height)]
    if math.prod(sides) > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        sides = [max(factor, math.floor(s / shrink / factor) * factor) for s in (width, height)]
    elif math.prod(sides) < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        sides = [math.ceil(side * grow / factor) * factor for side in (width, height)]
    return sides[0], sides[1]


class CornerPairs(Tagged):
    """What the first two generations share: `(x1,y1),(x2,y2)` in a group for each box."""

    def write_box(self, numbers: tuple[str, ...]) -> str:
        """Corners in parentheses."""
        opening, closing = self.tags.box
        pairs = (f"({x},{y})" for x, y in zip(numbers[::2], numbers[1::2], strict=True))
        return f"{opening}{','.join(pairs)}{closing}"

    def read_group(
        self, inside: str, whole: str, cut: bool, reader: Reader, view: View
    ) -> list[Boxes] | None:
        """Pairs of corners, or one point."""
        pairs = _PAIR.findall(inside)
        if cut and len(pairs) % 2:
            pairs.pop()  # half a box
        if not pairs and not cut:
            reader.note("wrong_arity", f"{whole!r} holds no box")
        rows = (",".join(pairs[i : i + 2]) for i in range(0, len(pairs), 2))
        boxes = (self.place(read_numbers(row), whole, reader) for row in rows)
        return [box for box in boxes if box is not None]


class QwenVL(CornerPairs):
    """Qwen-VL's dialect; see the module. The evaluation's question ends inside the answer's box."""

    name = "qwen_vl"
    special_tokens = ("<ref>", "</ref>", "<box>", "</box>")
    grid = Grid(999)
    blank_inside = True
    tags: ClassVar[Tags] = Tags(("<ref>", "</ref>"), ("<box>", "</box>"), _CORNERS, open_ended=True)
    markup = tags.markup
    questions = Questions(
        locate="{}<box>",
        locate_all="Generate the bounding box of {words}",
        describe="Generate the caption in English with grounding:",
        describe_region="Describe {}",
    )


class Qwen2VL(CornerPairs):
    """Qwen2-VL's dialect; see the module."""

    name = "qwen2_vl"
    special_tokens = (
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
    )
    grid = Grid(1000)
    has_points = True
    tags: ClassVar[Tags] = Tags(
        ("<|object_ref_start|>", "<|object_ref_end|>"), ("<|box_start|>", "<|box_end|>"), _CORNERS
    )
    markup = tags.markup
    questions = Questions(
        locate="Locate {}",
        locate_all="Detect all {}",
        describe="Describe the image with grounding.",
        describe_region="Describe {}",
    )


class Qwen25VL(JsonBoxes):
    """Qwen2.5-VL's dialect; see the module.

    `View.coordinates` must be given, `Warp.resize(image, width, height)` with the size that the
    preprocessor made: it hangs on the checkpoint's or the server's bounds. Points are read from
    JSON and from `<points x1= y1= alt=>` tags, and written as JSON.
    """

    name = "qwen2_5_vl"
    factor: ClassVar[int] = 28
    bounds: ClassVar[tuple[int, int]] = (3136, 12845056)  # of published checkpoints, pixels
    grid = Grid(1)
    needs_coordinates = True
    box_key, point_key = "bbox_2d", "point_2d"
    questions = Questions(
        locate="Locate {} in this image and output the bbox coordinates in JSON format.",
        locate_all="Outline the position of each {} and output all the coordinates in JSON format.",
        describe="Describe this image.",
        describe_region="Describe the region {} in this image.",
    )

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> pixels of the picture as published checkpoints resize it."""
        width, height = (max(1, round(side)) for side in (image.width, image.height))
        return Warp.resize(image, *smart_resize(width, height, self.factor, *self.bounds))

    def grids(self, warp: Warp) -> tuple[Grid, Grid]:
        """Pixels of the resized picture; the last one is its side less one."""
        width, height = warp.target.width, warp.target.height
        return Grid(width, top=width - 1), Grid(height, top=height - 1)

    def read(self, output: str, reader: Reader, view: View, ended: bool) -> Iterator[Span]:
        """JSON, or point tags."""
        if POINT_TAG.search(output):
            return tag_spans(output, reader, self.place)
        return super().read(output, reader, view, ended)


class Qwen3VL(JsonBoxes):
    """Qwen3-VL's and Qwen3.5's dialect; see the module."""

    name = "qwen3_vl"
    grid = Grid(1000)
    box_key, point_key = "bbox_2d", "point_2d"
    questions = Questions(
        locate='Locate every object that matches the description "{}" in the image. '
        "Report bbox coordinates in JSON format.",
        locate_all='Locate every instance that belongs to the following categories: "{}". '
        "Report bbox coordinates in JSON format.",
        describe="Describe this image.",
        describe_region="What is inside {}?",
    )
