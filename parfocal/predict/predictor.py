"""Predictor: a model and its processor behind the verbs ask, locate, describe, propose and chat.

Every verb has a batched form, and the single form is the batched form of one: a batch of N gives
what N singles give. Boxes go in and come out in pixels of the picture that was given.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from parfocal.boxes import Boxes
from parfocal.dialects.base import Parsed
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError, DataError
from parfocal.images import image_frame, load_image
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.proposer import Regions, of_first
from parfocal.models.text_batch import TextBatch
from parfocal.predict.answer import Answer
from parfocal.predict.asking import (
    best,
    check_lengths,
    name_bare_boxes,
    no_boxes,
    no_objects,
    no_proposals,
    no_video,
    read_boxes,
    read_objects,
    read_phrase,
    read_question,
)
from parfocal.predict.chat import Chat
from parfocal.predict.finding import BoxSupply, Finder
from parfocal.predict.generating import generate, note_cut
from parfocal.predict.protocol import BoxesLike, ObjectsLike, Picture, Visual
from parfocal.predict.seeing import Scene, is_visual_video, see


class Predictor:
    """A loaded model that answers questions about pictures; make one with `parfocal.load`.

    Args:
        model: put into evaluation mode here.
        processor: the one it was trained with.
        name: for answers and reports.
        finder: finds the boxes that models like MG-LLaVA, which propose none themselves, read
            beside a picture for which the user gives none; None: they see it without boxes.

    Raises:
        ConfigError: if there is a finder and the model reads no boxes of a detector.
    """

    def __init__(
        self,
        model: ParfocalForConditionalGeneration,
        processor: ParfocalProcessor,
        name: str,
        finder: Finder | None = None,
    ) -> None:
        self.model, self.processor, self.name = model.eval(), processor, name
        self._supply = BoxSupply(model, name, finder)

    @property
    def finder(self) -> Finder | None:
        """What finds the boxes that nobody gives; None: they stay away."""
        return self._supply.finder

    @property
    def takes_video(self) -> bool:
        """True if the model reads several frames at a time."""
        return self.processor.settings.vision.video != "none"

    @property
    def _proposes(self) -> bool:
        return self.model.config.proposer.kind != "none"

    @property
    def decoding(self) -> str:
        """How answers are searched when a call does not say; reports state it."""
        beams = self.model.generation_config.num_beams or 1
        return "greedy" if beams == 1 else f"beam search, {beams} beams"

    # single forms

    def ask(
        self,
        image: Visual,
        question: str | GroundedText,
        boxes: BoxesLike | Sequence[BoxesLike] = None,
        *,
        objects: ObjectsLike = None,
        **options: Any,
    ) -> Answer:
        """Answer a question about a picture or a video.

        A video is shown as evenly spread frames; `Answer.image`, its regions and its proposals are
        those of the first one.

        Args:
            image: file, bytes, PIL picture or uint8 array; or a video: a file, or a list of frames,
                each any of these.
            question: words; `[region 0]` in them names the first of `boxes`. Boxes of a picture
                that are not named are named at the end.
            boxes: regions the question is about, xyxy in pixels of the picture. Of a video: a list
                a frame, of what is in it; those that the model's input does not show are left out.
            objects: object images, for models that read them: boxes to cut out, or pictures. The
                words name them from 1, as in the options "a. [object 1]; b. [object 2]".
            options: `max_new_tokens`, `num_beams`, `do_sample`, `temperature`, `top_p`, `seed`,
                `streamer`.

        Raises:
            ConfigError: for a video, boxes or objects, if the model reads none.
            DataError: if a GroundedText does not name what is seen only where it is named.
        """
        return self.ask_batch([image], [question], [boxes], objects=[objects], **options)[0]

    def locate(self, image: Picture, phrase: str, *, all: bool = False, **options: Any) -> Answer:
        """Find what `phrase` names; `Answer.text.is_nothing` when it is not there.

        Args:
            image: file, bytes, PIL picture or uint8 array.
            phrase: a name or a referring expression, such as "the leftmost red apple".
            all: find every instance.
            options: as in `ask`.
        """
        return self.locate_batch([image], [phrase], all=all, **options)[0]

    def describe(
        self, image: Picture, boxes: BoxesLike = None, **options: Any
    ) -> Answer | list[Answer]:
        """Describe the picture with grounded phrases or, given boxes, each region in its order.

        Args:
            image: file, bytes, PIL picture or uint8 array.
            boxes: regions to describe, xyxy in pixels of the picture.
            options: as in `ask`.

        Returns:
            One Answer for the picture, or a list with one a box.
        """
        if boxes is None:
            return self.describe_batch([image], **options)[0]
        return self.describe_regions_batch([image], [boxes], **options)[0]

    def propose(self, image: Picture, top: int = 20) -> Boxes:
        """Return up to `top` object boxes with scores, best first, in pixels of the picture.

        Raises:
            ConfigError: if the model proposes none, as MG-LLaVA, or `top` is below 1.
        """
        return self.propose_batch([image], top)[0]

    def chat(self, image: Picture) -> Chat:
        """Start a conversation about one picture."""
        if is_visual_video(image):
            self._require_video(False)
        return Chat(self, load_image(image))

    # batched forms

    def ask_batch(
        self,
        images: Sequence[Visual],
        questions: Sequence[str | GroundedText],
        boxes: Sequence[BoxesLike | Sequence[BoxesLike]] | None = None,
        *,
        objects: Sequence[ObjectsLike] | None = None,
        **options: Any,
    ) -> list[Answer]:
        """Answer one question a picture or video; see `ask`.

        A picture that is given several times (the same object) is encoded once.
        """
        boxes = [None] * len(images) if boxes is None else boxes
        objects = [None] * len(images) if objects is None else objects
        check_lengths(images=images, questions=questions, boxes=boxes, objects=objects)
        scene = self._see(images, video=True)
        regions = [scene.read(row, own) for row, own in enumerate(boxes)]
        crops = [self._read_objects(scene.image(row), own) for row, own in enumerate(objects)]
        rows = zip(questions, regions, crops, scene.videos, strict=True)
        asked = [
            read_question(
                text,
                len(own[0]),
                num_objects=len(shown),
                name_all=not video,
                beside=self.model.num_slots > 0,
            )
            for text, own, shown, video in rows
        ]
        return self._answer(scene, asked, regions, objects=crops, **options)

    def locate_batch(
        self,
        images: Sequence[Picture],
        phrases: Sequence[str],
        *,
        all: bool = False,
        **options: Any,
    ) -> list[Answer]:
        """Find one phrase a picture; see `locate`."""
        check_lengths(images=images, phrases=phrases)
        dialect = self.processor.dialect
        write = dialect.locate_all if all else dialect.locate
        names = [read_phrase(phrase) for phrase in phrases]
        questions = [write(name) for name in names]
        scene = self._see(images)
        regions = [scene.read(row, None) for row in range(len(images))]
        answers = self._answer(
            scene, questions, regions, unique=True, expects_boxes=True, **options
        )
        return [name_bare_boxes(answer, name) for answer, name in zip(answers, names, strict=True)]

    def describe_batch(self, images: Sequence[Picture], **options: Any) -> list[Answer]:
        """Describe whole pictures with grounded phrases."""
        scene = self._see(images)
        regions = [scene.read(row, None) for row in range(len(images))]
        questions = [self.processor.dialect.describe()] * len(images)
        return self._answer(scene, questions, regions, unique=True, **options)

    def describe_regions_batch(
        self, images: Sequence[Picture], boxes: Sequence[BoxesLike], **options: Any
    ) -> list[list[Answer]]:
        """Describe every box of every picture: k boxes in, k answers out, in order."""
        check_lengths(images=images, boxes=boxes)
        scene, slots = self._see(images), max(1, self.model.num_slots)
        owners, questions, regions = [], [], []
        for row in range(len(images)):
            own = read_boxes(scene.image(row), boxes[row])
            for start in range(0, len(own), slots):  # more boxes than slots: ask in parts
                part = own[start : start + slots]
                for index in range(len(part)):
                    owners.append(row)
                    questions.append(self.processor.dialect.describe_region(index))
                    regions.append((part,))
        spread = replace(
            scene, rows=[scene.rows[row] for row in owners], videos=[False] * len(owners)
        )
        answers = self._answer(spread, questions, regions, **options) if owners else []
        return [
            [answer for owner, answer in zip(owners, answers, strict=True) if owner == row]
            for row in range(len(images))
        ]

    def propose_batch(self, images: Sequence[Picture], top: int = 20) -> list[Boxes]:
        """Return proposals of every picture; see `propose`."""
        scene = self._see(images)
        if not self._proposes:
            raise no_proposals(self.name)
        with torch.inference_mode():
            regions = self.model.propose(scene.features[scene.order])
        found = [scene.region_boxes(regions, row) for row in range(len(images))]
        return [best(boxes, top) for boxes in found]

    # the one path that all verbs take

    def _see(self, images: Sequence[Visual], video: bool = False) -> Scene:
        """Load and encode every different picture, and video if the verb takes one, once."""
        images = list(images)  # held: what a lazy sequence gives anew must not share an identity
        if not images:
            raise DataError("no pictures were given.")
        if any(map(is_visual_video, images)):
            self._require_video(video)
        return see(self.model, self.processor, images)

    def _require_video(self, verb_takes_it: bool) -> None:
        if not self.takes_video:
            raise no_video(self.name)
        if not verb_takes_it:
            raise ConfigError(
                "a video can be asked about and nothing else. Use ask, or give one of its frames "
                "(parfocal.video.load_video gives a list of them)."
            )

    def _read_objects(self, image: PIL.Image.Image, objects: ObjectsLike) -> list[PIL.Image.Image]:
        """Return the object images; see `read_objects`."""
        crops = read_objects(image, objects)
        if crops and not self.model.num_object_tokens:
            raise no_objects(self.name)
        return crops

    def _check_boxes(self, scene: Scene, regions: Sequence[tuple[Boxes, ...]]) -> None:
        """Refuse boxes that would not reach the model."""
        dialect = self.processor.dialect
        given = [row for row, own in enumerate(regions) if any(map(len, own))]
        if self.model.num_slots or not given:
            return  # every box has a slot
        if not dialect.writes_boxes:
            shows = self.model.num_object_tokens > 0
            instead = "Give it as an object image, objects=[...]" if shows else ""
            raise no_boxes(self.name, dialect.name, instead)
        if any(scene.videos[row] for row in given):
            raise ConfigError(
                f"{self.name} reads boxes in its words, which speak of one picture: it takes none "
                "with a video. Ask about a frame, or leave the boxes out."
            )

    def _answer(
        self,
        scene: Scene,
        questions: list[GroundedText],
        regions: Sequence[tuple[Boxes, ...]],
        *,
        unique: bool = False,
        expects_boxes: bool = False,
        history: list[list[tuple[str, str]]] | None = None,
        objects: list[list[PIL.Image.Image]] | None = None,
        **options: Any,
    ) -> list[Answer]:
        """Ask one question a row of `scene`.

        Args:
            scene: the pictures.
            questions: one a row; their RegionRefs count the first of the row's `regions`.
            regions: the user's boxes of each picture of each row, pixels of the picture.
            unique: name no region twice.
            expects_boxes: an answer without boxes is a problem.
            history: earlier (question, answer) strings of each row, in the dialect.
            objects: the object images of each row; ObjectRefs count them from 1.
            options: as in `ask`.
        """
        self._check_boxes(scene, regions)
        started = time.perf_counter()
        entered = self._supply.complete(scene, regions)
        boxes = [own for row in entered for own in row]
        warps = [scene.warps[index] for index in scene.order]
        text = self.processor.ask(questions, boxes, warps, history, scene.counts, objects)
        generated, confidence, chosen = self._generated(scene, text, unique, options)
        timing = {"encode": scene.seconds, "generate": time.perf_counter() - started}
        answers = []
        for row, question in enumerate(questions):
            frame = image_frame(scene.image(row))
            named = Boxes.empty(frame)
            if chosen is not None:
                named = scene.region_boxes(chosen, row, confidence)
            view = self.processor.view(frame, scene.warp(row), named)
            parsed = self.processor.decode(generated[row], view, expects_boxes)
            parsed = note_cut(parsed, generated[row], self.processor)
            if not (self._proposes or len(entered[row][0])):
                named = Boxes.empty(frame)  # a slot that only fills the place of boxes
            own = regions[row][0]
            answers.append(self._said(scene.image(row), question, parsed, named, own, timing))
        return answers

    def _generated(
        self, scene: Scene, text: TextBatch, unique: bool, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None, Regions | None]:
        """Tokens and confidence as `generate` returns them, and the regions of first pictures."""
        text = text.to(self.model.device)
        with torch.inference_mode():
            features, chosen = scene.features[scene.order], None
            if self.model.num_slots:
                chosen = self.model.propose(features, text.user_boxes, text.user_mask)
            generated, confidence = generate(
                self.model, self.processor, text, features, chosen,
                counts=scene.counts, unique=unique, options=options,
            )  # fmt: skip
            return generated, confidence, chosen and of_first(chosen, scene.counts)

    def _said(
        self,
        image: PIL.Image.Image,
        question: GroundedText,
        parsed: Parsed,
        proposals: Boxes,
        regions: Boxes,
        timing: dict[str, float],
    ) -> Answer:
        return Answer(
            question=question,
            text=parsed.text,
            image=image,
            proposals=proposals,
            problems=parsed.problems,
            timing=dict(timing),
            model=self.name,
            regions=regions if len(regions) else None,
        )

    def _regions(self, scene: Scene, own: Boxes) -> Boxes:
        """Return the slots that one picture and the user's boxes give, pixels of the picture."""
        if not self.model.num_slots:
            return own
        user_boxes, user_mask = self.processor.unit_boxes([own], [scene.warp(0)])
        device = self.model.device
        with torch.inference_mode():
            regions = self.model.propose(
                scene.features[scene.order], user_boxes.to(device), user_mask.to(device)
            )
        return scene.region_boxes(regions, 0)
