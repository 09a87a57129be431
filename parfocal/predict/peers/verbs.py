"""The verbs of a peer: ask, locate, describe, propose and chat, each with its batched form.

A subclass says which verbs its family can do (`can`), puts a task into the family's words
(`question_for`) and answers a list of questions (`_answer`). The rest is written once: pictures are
opened, boxes checked, and a verb that the family cannot do is refused by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import PIL.Image

from parfocal.boxes import Boxes
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError
from parfocal.images import load_image
from parfocal.predict.answer import Answer
from parfocal.predict.asking import (
    best,
    check_lengths,
    name_bare_boxes,
    no_objects,
    no_video,
    read_boxes,
    read_phrase,
    read_question,
)
from parfocal.predict.peers.files import Checkpoint
from parfocal.predict.peers.talk import PeerChat
from parfocal.predict.protocol import BoxesLike, ObjectsLike, Picture
from parfocal.predict.seeing import is_visual_video

Task = Literal["ask", "locate", "locate all", "describe", "describe regions", "propose"]
Verb = Literal["ask", "locate", "describe", "describe regions", "propose", "chat"]

_CALLS: dict[Verb, str] = {
    "ask": "ask(image, question)",
    "locate": "locate(image, phrase)",
    "describe": "describe(image)",
    "describe regions": "describe(image, boxes)",
    "propose": "propose(image)",
    "chat": "chat(image)",
}


@dataclass(frozen=True)
class Ask:
    """One question about one picture, on its way to a model.

    Attributes:
        task: what is wanted.
        image: upright RGB.
        question: in the family's words; its RegionRefs count `regions`.
        regions: the user's boxes, pixels of `image`.
        phrase: what to locate; "" for other tasks.
        history: earlier questions and answers about the picture, as the family writes them.
    """

    task: Task
    image: PIL.Image.Image
    question: GroundedText
    regions: Boxes
    phrase: str = ""
    history: tuple[tuple[str, str], ...] = ()

    @property
    def expects_boxes(self) -> bool:
        """True if an answer without boxes, and without "there is none", is a problem."""
        return self.task in ("locate", "locate all", "propose")


class PeerPredictor(ABC):
    """A model of another family behind the verbs of `Predictor`; `parfocal.load` makes one.

    Attributes:
        family: as people write it.
        can: the verbs that the family can do.
        hint: a sentence for users who asked for what it cannot do.
        model: the network.
        name: for answers and reports.
        takes_video: no peer does.
    """

    family: ClassVar[str]
    can: ClassVar[frozenset[Verb]]
    hint: ClassVar[str]
    model: Any
    name: str
    takes_video: bool = False

    @classmethod
    @abstractmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        """Load a checkpoint of the family.

        Raises:
            CheckpointError: if its files do not fit together.
            ConfigError: if the family cannot speak the checkpoint's dialect.
        """

    @abstractmethod
    def question_for(self, task: Task, phrase: str = "") -> GroundedText:
        """The family's words for a task; RegionRef(0) is the region to describe."""

    @abstractmethod
    def _answer(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        """Answer questions, all of one task."""

    # single forms

    def ask(
        self,
        image: Picture,
        question: str | GroundedText,
        boxes: BoxesLike = None,
        *,
        objects: ObjectsLike = None,
        **options: Any,
    ) -> Answer:
        """Answer a question.

        Args:
            image: file, bytes, PIL picture or uint8 array.
            question: words; `[region 0]` in them names the first of `boxes`. Boxes that are not
                named are named at the end.
            boxes: regions the question is about, xyxy in pixels of the picture.
            objects: object images; no peer reads any.
            options: of generation, such as `max_new_tokens`, `num_beams`, `do_sample`,
                `temperature`, `top_p`, `seed`, `streamer`.

        Raises:
            ConfigError: if the family answers no questions, or reads no boxes or objects.
        """
        return self.ask_batch([image], [question], [boxes], objects=[objects], **options)[0]

    def locate(self, image: Picture, phrase: str, *, all: bool = False, **options: Any) -> Answer:
        """Find what `phrase` names; `Answer.text.is_nothing` when the model says it is not there.

        Args:
            image: file, bytes, PIL picture or uint8 array.
            phrase: a name or a referring expression.
            all: find every instance.
            options: as in `ask`.
        """
        return self.locate_batch([image], [phrase], all=all, **options)[0]

    def describe(
        self, image: Picture, boxes: BoxesLike = None, **options: Any
    ) -> Answer | list[Answer]:
        """Describe the picture or, given boxes, each region in its order."""
        if boxes is None:
            return self.describe_batch([image], **options)[0]
        return self.describe_regions_batch([image], [boxes], **options)[0]

    def propose(self, image: Picture, top: int = 20) -> Boxes:
        """Return up to `top` boxes of things, best first, in pixels of the picture."""
        return self.propose_batch([image], top)[0]

    def chat(self, image: Picture) -> PeerChat:
        """Start a conversation about one picture."""
        self._require("chat")
        return PeerChat(self, self.open([image])[0])

    # batched forms

    def ask_batch(
        self,
        images: Sequence[Picture],
        questions: Sequence[str | GroundedText],
        boxes: Sequence[BoxesLike] | None = None,
        *,
        objects: Sequence[ObjectsLike] | None = None,
        **options: Any,
    ) -> list[Answer]:
        """Answer one question a picture; see `ask`."""
        self._require("ask")
        given = [None] * len(images) if boxes is None else boxes
        check_lengths(images=images, questions=questions, boxes=given)
        if any(own is not None and len(own) for own in objects or ()):
            raise no_objects(self.name)
        asks = []
        for image, question, own in zip(self.open(images), questions, given, strict=True):
            regions = read_boxes(image, own)
            asks.append(Ask("ask", image, self.understand(question, len(regions)), regions))
        return self._answer(asks, options)

    def locate_batch(
        self,
        images: Sequence[Picture],
        phrases: Sequence[str],
        *,
        all: bool = False,
        **options: Any,
    ) -> list[Answer]:
        """Find one phrase a picture; see `locate`."""
        self._require("locate")
        check_lengths(images=images, phrases=phrases)
        task: Task = "locate all" if all else "locate"
        names = [read_phrase(phrase) for phrase in phrases]
        asks = [
            Ask(task, image, self.question_for(task, name), read_boxes(image, None), name)
            for image, name in zip(self.open(images), names, strict=True)
        ]
        answers = self._answer(asks, options)
        return [name_bare_boxes(answer, name) for answer, name in zip(answers, names, strict=True)]

    def describe_batch(self, images: Sequence[Picture], **options: Any) -> list[Answer]:
        """Describe whole pictures."""
        self._require("describe")
        return self._answer(self._of_pictures("describe", images), options)

    def describe_regions_batch(
        self, images: Sequence[Picture], boxes: Sequence[BoxesLike], **options: Any
    ) -> list[list[Answer]]:
        """Describe every box of every picture, one question a box: k boxes in, k answers out."""
        self._require("describe regions")
        check_lengths(images=images, boxes=boxes)
        question = self.question_for("describe regions")
        opened = self.open(images)
        regions = [read_boxes(*pair) for pair in zip(opened, boxes, strict=True)]
        asks = [
            Ask("describe regions", image, question, region)
            for image, own in zip(opened, regions, strict=True)
            for region in own
        ]
        answers = iter(self._answer(asks, options) if asks else [])
        return [[next(answers) for _ in own] for own in regions]

    def propose_batch(self, images: Sequence[Picture], top: int = 20) -> list[Boxes]:
        """Return proposals of every picture; in the model's own order where they have no scores."""
        self._require("propose")
        answers = self._answer(self._of_pictures("propose", images), {})
        return [best(answer.boxes, top) for answer in answers]

    # shared work

    def open(self, images: Sequence[Picture]) -> list[PIL.Image.Image]:
        """Load pictures; one that is given several times (the same object) is loaded once.

        Raises:
            ConfigError: for a video.
        """
        images = list(images)  # held: what a lazy sequence gives anew must not share an identity
        if any(map(is_visual_video, images)):
            raise no_video(self.name)
        opened = {id(image): load_image(image) for image in {id(i): i for i in images}.values()}
        return [opened[id(image)] for image in images]

    def understand(self, question: str | GroundedText, num_boxes: int) -> GroundedText:
        """The user's question, its regions as references; see `read_question`."""
        return read_question(question, num_boxes)

    def _of_pictures(self, task: Task, images: Sequence[Picture]) -> list[Ask]:
        check_lengths(images=images)
        question = self.question_for(task)
        opened = self.open(images)
        return [Ask(task, image, question, read_boxes(image, None)) for image in opened]

    def _require(self, verb: Verb) -> None:
        if verb not in self.can:
            able = ", ".join(call for name, call in _CALLS.items() if name in self.can)
            raise ConfigError(
                f"{self.family} ({self.name}) cannot {_CALLS[verb]}; it can {able}. "
                f"{self.hint} Another family may be able to."
            )


def no_choice(why: str) -> ConfigError:
    """Make the error of a model that was told to speak another dialect and cannot."""
    return ConfigError(
        f"{why}. Leave dialect out: it is for checkpoints of chat models, such as Qwen-VL and "
        "InternVL, that were taught to write boxes in another way than their family."
    )
