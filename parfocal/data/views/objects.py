"""Object images: which regions can be shown as pictures of their own, and questions with options.

An object image is a crop of picture 0, a little larger than its box. Its colours are left alone:
jitter belongs to training, where every epoch can draw its own. It is never flipped, which would
turn left into right.

Source: TinyGroundingGPT, sections 3.1 and 3.2 (filter) and Fig. 10 (options); the numbers are ours,
the paper names none.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parfocal.boxes import Boxes, iou
from parfocal.data.views.base import QuestionView, leave_out, require_count, require_kinds
from parfocal.data.views.draw import Draw
from parfocal.dialects.grounded import GroundedText, ObjectRef
from parfocal.errors import ConfigError

NO_CHOICE = "objects without others to choose from"  # a reason to leave a question out


@dataclass(frozen=True)
class ObjectRules:
    """What makes a good object image.

    Args:
        min_area: of a box, as a fraction of its picture.
        max_area: the same.
        min_side: of a box, pixels.
        max_iou: overlap of two object images of one question.
        max_scale: how much larger than its box an object image may be; the factor is drawn from
            1.0 up.
    """

    min_area: float = 0.005
    max_area: float = 0.75
    min_side: float = 24.0
    max_iou: float = 0.3
    max_scale: float = 1.2

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.min_area < self.max_area <= 1:
            raise ConfigError(
                f"min_area is {self.min_area!r}, max_area {self.max_area!r}; they must be "
                "fractions of the picture, 0 to 1, the first smaller."
            )
        if not self.min_side >= 1 or not 0 <= self.max_iou < 1 or not self.max_scale >= 1:
            raise ConfigError(
                f"min_side is {self.min_side!r}, max_iou {self.max_iou!r}, max_scale "
                f"{self.max_scale!r}; they must be 1 or more pixels, 0 to below 1, and 1 or more."
            )

    def usable(self, boxes: Boxes) -> list[int]:
        """The rows that are neither too small nor too large to be shown alone."""
        share = boxes.area / (boxes.frame.width * boxes.frame.height)
        sides = boxes.xywh[:, 2:].min(axis=1)
        good = (share >= self.min_area) & (share <= self.max_area) & (sides >= self.min_side)
        return [int(row) for row in np.flatnonzero(good)]

    def crop(self, box: Boxes, draw: Draw) -> Boxes:
        """What an object image of one box shows: the box, scaled about its centre, in the picture.

        Args:
            box: one row.
            draw: decides the scale.
        """
        scaled = box.cxcywh
        scaled[:, 2:] *= draw.uniform(1.0, self.max_scale)
        return Boxes.from_cxcywh(scaled, box.frame).clip()

    def distinct(self, crop: Boxes, others: Boxes) -> bool:
        """Whether an object image can be told from others by where it is."""
        return not (iou(crop, others) > self.max_iou).any()


@dataclass(frozen=True)
class Options:
    """Object images to choose from.

    Attributes:
        crops: in the order of their letters.
        right: the row of the right one.
    """

    crops: Boxes
    right: int

    @property
    def letter(self) -> str:
        """The letter of the right one."""
        return string.ascii_lowercase[self.right]

    def text(self, first: int = 1) -> GroundedText:
        """The options as they stand in a question, such as "a. <object1>; b. <object2>.", as spans.

        Args:
            first: number of the first one among the object images of the question.
        """
        parts: list[str | ObjectRef] = []
        for row in range(len(self.crops)):
            parts += [
                f"{'; ' if row else ''}{string.ascii_lowercase[row]}. ",
                ObjectRef(first + row),
            ]
        return GroundedText.of(*parts, ".")


@dataclass(frozen=True)
class ObjectView(QuestionView):
    """A view that shows object images.

    Args:
        asks: the kinds of question to ask, of `known`; all of them if empty.
        options: how many object images to choose from, at most; two or more.
        rules: what makes a good one.
    """

    known: ClassVar[tuple[str, ...]]

    asks: Sequence[str] = ()
    options: int = 2  # Fig. 10 (prompt 2): "only two objects"
    rules: ObjectRules = ObjectRules()

    def __post_init__(self) -> None:
        """Check the options."""
        object.__setattr__(self, "asks", require_kinds(self.asks, self.known))
        require_count("options", self.options, 2, len(string.ascii_lowercase))
        super().__post_init__()

    def showable(self, boxes: Sequence[Boxes], skipped: Counter[str]) -> list[int]:
        """Which of these boxes, one row each, can be shown as object images."""
        rows = self.rules.usable(Boxes.concat(boxes)) if boxes else []
        reason = "objects that are too small or too large to be shown"
        leave_out(skipped, reason, len(boxes) - len(rows))
        return rows

    def choices(
        self, right: Boxes, wrong: Sequence[Boxes], draw: Draw, shown: Boxes | None = None
    ) -> Options | None:
        """Put other object images beside the right one.

        Args:
            right: what the right one shows.
            wrong: boxes of wrong answers, one row each; all of them showable.
            draw: decides which, how large and in which order.
            shown: what another object image of the question shows.

        Returns:
            Two options or more, all apart from each other; None if there are no two.
        """
        crops = right
        apart = right if shown is None else Boxes.concat([right, shown])
        for box in draw.shuffled(wrong):
            crop = self.rules.crop(box, draw)
            if self.rules.distinct(crop, apart):
                crops, apart = Boxes.concat([crops, crop]), Boxes.concat([apart, crop])
                if len(crops) == self.options:
                    break
        if len(crops) < 2:
            return None
        order = list(draw.shuffled(range(len(crops))))
        return Options(crops[order], order.index(0))

    def answer(self, options: Options, draw: Draw) -> GroundedText:
        """What names the right option: "The answer is a."."""
        return self.ask("answer", draw, letter=options.letter)
