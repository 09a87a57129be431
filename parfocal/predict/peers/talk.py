"""PeerChat: several questions about one picture to a model of another family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import PIL.Image

from parfocal.boxes import Boxes
from parfocal.predict.answer import Answer
from parfocal.predict.asking import no_objects, read_boxes
from parfocal.predict.protocol import BoxesLike, ObjectsLike

if TYPE_CHECKING:
    from parfocal.predict.peers.generation import GenerativePeer


@dataclass
class PeerChat:
    """A conversation about one picture; families that answer single questions see one at a time.

    Attributes:
        predictor: answers the questions.
        image: what they are about.
        answers: so far, in order.
        regions: the boxes given with each question, pixels of `image`.
    """

    predictor: GenerativePeer
    image: PIL.Image.Image
    answers: list[Answer] = field(default_factory=list)
    regions: list[Boxes] = field(default_factory=list)

    def ask(
        self,
        question: str,
        boxes: BoxesLike = None,
        *,
        objects: ObjectsLike = None,
        **options: Any,
    ) -> Answer:
        """Ask the next question; `[region 0]` is the first of the `boxes` given with it.

        Raises:
            ConfigError: if there are `objects`: no peer reads object images.
        """
        if objects is not None and len(objects):
            raise no_objects(self.predictor.name)
        regions = read_boxes(self.image, boxes)
        answer = self.predictor.follow_up(self, question, regions, options)
        self.answers.append(answer)
        self.regions.append(regions)
        return answer
