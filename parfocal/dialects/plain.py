"""The MG-LLaVA dialect: words only.

Boxes are inputs of the model, never part of its text. Rendering leaves out the boxes of phrases;
parsing finds words.

Source: MG-LLaVA (arXiv:2406.17770); it answers ordinary questions, boxes come from a detector
beside the image.
Deviates: no.
"""

from __future__ import annotations

from parfocal.boxes import Frame, Warp
from parfocal.dialects.base import Parsed, View, finish, is_none, strip_end
from parfocal.dialects.grounded import GroundedText, Nothing, ObjectRef, RegionRef
from parfocal.dialects.objects import object_mark


class Plain:
    """Words without boxes; see the module."""

    name = "plain"
    special_tokens: tuple[str, ...] = ()
    writes_boxes = needs_coordinates = False

    def coordinate_frame(self, image: Frame) -> Warp:
        """The identity: the text holds no numbers."""
        return Warp.identity(image)

    def render(self, text: GroundedText, view: View) -> str:
        """Write words, `none`, `[region 0]` for a region and `<object1>` for an object image."""
        spans = (
            object_mark(span.image) if isinstance(span, ObjectRef) else span for span in text.spans
        )
        return GroundedText.of(*spans).plain

    def parse(self, output: str, view: View, expects_boxes: bool = False) -> Parsed:
        """Read words; see `Dialect.parse`."""
        output = strip_end(output)
        text = GroundedText.of(Nothing() if is_none(output) else output)
        return finish(text, [], expects_boxes)

    def locate(self, phrase: str) -> GroundedText:
        """A question in words; the family has no form for a box in an answer."""
        return GroundedText.of(f"Where is {phrase} in the image?")

    def locate_all(self, phrase: str) -> GroundedText:
        """A question in words; the family has no form for a box in an answer."""
        return GroundedText.of(f"Where are all instances of {phrase} in the image?")

    def describe(self) -> GroundedText:
        """A caption."""
        return GroundedText.of("Give me a concise description of the image.")

    def describe_region(self, index: int) -> GroundedText:
        """A region by its number: the family reads boxes beside the image, not in the text."""
        return GroundedText.of("Please describe ", RegionRef(index), " in detail.")
