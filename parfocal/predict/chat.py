"""Chat: several questions about one picture, each seeing the ones before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import PIL.Image

from parfocal.boxes import Boxes, Warp
from parfocal.dialects.grounded import GroundedText, ObjectRef, RegionRef, Span
from parfocal.errors import DialectError
from parfocal.images import image_frame
from parfocal.predict.answer import Answer
from parfocal.predict.asking import read_boxes, read_question

if TYPE_CHECKING:
    from parfocal.predict.predictor import Predictor
    from parfocal.predict.protocol import BoxesLike, ObjectsLike


@dataclass
class Chat:
    """A conversation about one picture; models trained on single turns see one turn at a time.

    Attributes:
        predictor: answers the questions.
        image: what they are about.
        answers: so far, in order.
        regions: the boxes given with each question, pixels of `image`.
        objects: the object images given with each question.
    """

    predictor: Predictor
    image: PIL.Image.Image
    answers: list[Answer] = field(default_factory=list)
    regions: list[Boxes] = field(default_factory=list)
    objects: list[list[PIL.Image.Image]] = field(default_factory=list)

    def ask(
        self,
        question: str,
        boxes: BoxesLike = None,
        *,
        objects: ObjectsLike = None,
        **options: Any,
    ) -> Answer:
        """Ask the next question; see `Predictor.ask`.

        `[region 0]` is always the first of the `boxes` given with this question, `[object 1]` the
        first of its `objects`; those of earlier questions are known from the history.
        """
        predictor, processor = self.predictor, self.predictor.processor
        crops = predictor._read_objects(self.image, objects)
        given = read_boxes(self.image, boxes)
        new = given.replace(scores=None, labels=None)  # which other boxes may not have
        if processor.settings.template.independent_turns or not self.answers:
            answer = predictor.ask(self.image, question, boxes, objects=crops, **options)
        else:
            scene, beside = predictor._see([self.image]), predictor.model.num_slots > 0
            own = Boxes.concat([*self.regions, new])
            shown = [*chain.from_iterable(self.objects), *crops]
            asked = _shifted(
                read_question(question, len(new), num_objects=len(crops), beside=beside),
                len(own) - len(new),
                len(shown) - len(crops),
            )
            before = self._history(scene.warp(0), predictor._regions(scene, own))
            answer = predictor._answer(
                scene, [asked], [(own,)], history=[before], objects=[shown], **options
            )[0]
        self.answers.append(answer)
        self.regions.append(new)
        self.objects.append(crops)
        return answer

    def _history(self, warp: Warp, regions: Boxes) -> list[tuple[str, str]]:
        """Write the questions and answers so far in the dialect, with the names of this pass."""
        render = self.predictor.processor.dialect.render
        turns = []
        for answer in self.answers:
            view = self.predictor.processor.view(image_frame(self.image), warp, regions)
            asked = answer.question
            question = GroundedText.of(asked) if isinstance(asked, str) else asked
            try:
                said = render(answer.text, view)
            except DialectError:  # not well formed, or a proposal of then is no region of now
                said = answer.text.plain
            turns.append((render(question, view), said))
        return turns


def _shifted(question: GroundedText, boxes: int, objects: int) -> GroundedText:
    """Count references on from earlier turns' boxes and objects, which come first."""

    def shift(span: Span) -> Span:
        if isinstance(span, RegionRef):
            return RegionRef(span.index + boxes)
        return ObjectRef(span.image + objects) if isinstance(span, ObjectRef) else span

    return GroundedText(tuple(map(shift, question.spans)))
