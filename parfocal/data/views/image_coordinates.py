"""I-C of TinyGroundingGPT: an object image is located, a region's object image is chosen.

Source: TinyGroundingGPT, section 3.1 (object images and coordinates) and Fig. 10 (postprocess 2).
Deviates: no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from parfocal.boxes import Boxes
from parfocal.data.sample import Sample
from parfocal.data.views.base import Draft, leave_out
from parfocal.data.views.draw import Draw
from parfocal.data.views.named import bare
from parfocal.data.views.objects import NO_CHOICE, ObjectView
from parfocal.data.views.wording import Slots
from parfocal.dialects.grounded import GroundedText, ObjectRef, Phrase, RegionRef


@dataclass(frozen=True)
class ImageCoordinates(ObjectView):
    """Ask "What is the location of [object 1]?" -> its box, and a region -> its object image.

    The kinds of `asks`; labels play no part, any boxes will do:
        to_coordinates: an object image, answered by the box that it was cut from.
        to_image: a region, answered by one of several object images.
    """

    name: ClassVar[str] = "image_coordinates"
    known: ClassVar[tuple[str, ...]] = ("to_coordinates", "to_image")
    slots: ClassVar[Slots] = {
        "to_coordinates": ("object",), "to_image": ("region", "options"), "answer": ("letter",)
    }  # fmt: skip

    wording: str = "image_coordinates"

    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Ask both ways about every region that can be shown."""
        if len(sample.regions) == 0:
            leave_out(skipped, "samples without regions")
        boxes = [bare(region) for region in sample.regions]
        shown = [boxes[row] for row in self.showable(boxes, skipped)]
        for row in self.order(range(len(shown)), draw):
            others = shown[:row] + shown[row + 1 :]
            for kind in self.kinds(self.asks, draw):
                draft = self._draft(kind, shown[row], others, draw)
                if draft is None:
                    leave_out(skipped, NO_CHOICE)
                else:
                    yield draft

    def _draft(self, kind: str, box: Boxes, others: list[Boxes], draw: Draw) -> Draft | None:
        crop = self.rules.crop(box, draw)
        if kind == "to_coordinates":
            question = self.ask(kind, draw, object=ObjectRef(1))
            return Draft.of(question, GroundedText.of(Phrase("", box)), crops=crop)
        options = self.choices(crop, others, draw)
        if options is None:
            return None
        question = self.ask(kind, draw, region=RegionRef(0), options=options.text())
        return Draft.of(question, self.answer(options, draw), box, options.crops)
