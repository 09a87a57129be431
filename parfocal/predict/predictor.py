"""Predictor: a model and its processor behind the verbs ask, locate, describe, propose and chat.

Every verb has a batched form, and the single form is the batched form of one: a batch of N gives
what N singles give. Boxes go in and come out in pixels of the picture that was given.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import BaseStreamer

from parfocal.boxes import Boxes, Warp
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import DataError
from parfocal.images import image_frame, load_image
from parfocal.models.decoding import LiveRegions
from parfocal.models.modeling import ImageFeatures, ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor, TextBatch
from parfocal.models.proposer import Regions
from parfocal.predict.answer import Answer
from parfocal.predict.asking import (
    check_lengths,
    name_bare_boxes,
    read_boxes,
    read_objects,
    read_phrase,
    read_question,
)
from parfocal.predict.chat import Chat
from parfocal.predict.protocol import BoxesLike, ObjectsLike, Picture

MAX_NEW_TOKENS = 192


@dataclass
class _Scene:
    """Pictures of a batch, each encoded once, and which picture each row is about.

    Attributes:
        images: the different pictures.
        warps: from each picture's pixels to the unit square of the model's input.
        rows: index of each row's picture.
        features: of the pictures.
        seconds: spent on preparing and encoding them.
    """

    images: list[PIL.Image.Image]
    warps: list[Warp]
    rows: list[int]
    features: ImageFeatures
    seconds: float

    def warp(self, row: int) -> Warp:
        return self.warps[self.rows[row]]

    def image(self, row: int) -> PIL.Image.Image:
        return self.images[self.rows[row]]


class Predictor:
    """A loaded model that answers questions about pictures; make one with `parfocal.load`.

    Args:
        model: put into evaluation mode here.
        processor: the one it was trained with.
        name: for answers and reports.
    """

    def __init__(
        self, model: ParfocalForConditionalGeneration, processor: ParfocalProcessor, name: str
    ) -> None:
        self.model, self.processor, self.name = model.eval(), processor, name

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
            objects: object images, for models that read them: boxes to cut out, or pictures. The
                words name them from 1, as in the options "a. [object 1]; b. [object 2]".
            options: `max_new_tokens`, `num_beams`, `do_sample`, `temperature`, `top_p`, `seed`,
                `streamer`.
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
        """Return up to `top` object boxes with scores, best first, in pixels of the picture."""
        return self.propose_batch([image], top)[0]

    def chat(self, image: Picture) -> Chat:
        """Start a conversation about one picture."""
        return Chat(self, load_image(image))

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
        """Answer one question a picture; see `ask`.

        A picture that is given several times (the same object) is encoded once.
        """
        boxes = [None] * len(images) if boxes is None else boxes
        objects = [None] * len(images) if objects is None else objects
        check_lengths(images=images, questions=questions, boxes=boxes, objects=objects)
        scene = self._see(images)
        regions = [read_boxes(scene.image(row), own) for row, own in enumerate(boxes)]
        crops = [read_objects(scene.image(row), own) for row, own in enumerate(objects)]
        asked = [
            read_question(text, len(own), num_objects=len(shown))
            for text, own, shown in zip(questions, regions, crops, strict=True)
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
        regions = [read_boxes(scene.image(row), None) for row in range(len(images))]
        answers = self._answer(
            scene, questions, regions, unique=True, expects_boxes=True, **options
        )
        return [name_bare_boxes(answer, name) for answer, name in zip(answers, names, strict=True)]

    def describe_batch(self, images: Sequence[Picture], **options: Any) -> list[Answer]:
        """Describe whole pictures with grounded phrases."""
        scene = self._see(images)
        regions = [read_boxes(scene.image(row), None) for row in range(len(images))]
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
                    regions.append(part)
        spread = replace(scene, rows=[scene.rows[row] for row in owners])
        answers = self._answer(spread, questions, regions, **options) if owners else []
        return [
            [answer for owner, answer in zip(owners, answers, strict=True) if owner == row]
            for row in range(len(images))
        ]

    def propose_batch(self, images: Sequence[Picture], top: int = 20) -> list[Boxes]:
        """Return proposals of every picture; see `propose`."""
        scene = self._see(images)
        with torch.inference_mode():
            regions = self.model.propose(scene.features[scene.rows])
        found = [self._region_boxes(regions, row, scene) for row in range(len(images))]
        return [boxes[np.argsort(-boxes.scores, kind="stable")[:top]] for boxes in found]

    # the one path that all verbs take

    def _see(self, images: Sequence[Picture]) -> _Scene:
        """Load and encode every different picture once."""
        if not images:
            raise DataError("no pictures were given.")
        unique: dict[int, int] = {}
        rows = [unique.setdefault(id(image), len(unique)) for image in images]
        first = {number: index for index, number in reversed(list(enumerate(rows)))}
        pictures = [load_image(images[first[number]]) for number in range(len(unique))]
        started = time.perf_counter()
        pixel_values, warps = self.processor.pixel_values(pictures)
        with torch.inference_mode():
            features = self.model.encode([self._float(value) for value in pixel_values])
        return _Scene(pictures, warps, rows, features, time.perf_counter() - started)

    def _answer(
        self,
        scene: _Scene,
        questions: list[GroundedText],
        regions: list[Boxes],
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
            questions: one a row; their RegionRefs count the row's `regions`.
            regions: the user's boxes of each row, pixels of its picture.
            unique: name no region twice.
            expects_boxes: an answer without boxes is a problem.
            history: earlier (question, answer) strings of each row, in the dialect.
            objects: the object images of each row; ObjectRefs count them from 1.
            options: as in `ask`.
        """
        started = time.perf_counter()
        warps = [scene.warp(row) for row in range(len(questions))]
        text = self.processor.ask(questions, regions, warps, history, None, objects)
        text = text.to(self.model.device)
        with torch.inference_mode():
            features = scene.features[scene.rows]
            chosen = None
            if self.model.num_slots:
                chosen = self.model.propose(features, text.user_boxes, text.user_mask)
            generated, confidence = self._generate(text, features, chosen, unique, options)
        timing = {"encode": scene.seconds, "generate": time.perf_counter() - started}
        answers = []
        for row, question in enumerate(questions):
            frame = image_frame(scene.image(row))
            proposals = Boxes.empty(frame)
            if chosen is not None:
                proposals = self._region_boxes(chosen, row, scene, confidence)
            view = self.processor.view(frame, warps[row], proposals)
            parsed = self.processor.decode(generated[row], view, expects_boxes)
            answers.append(
                Answer(
                    question=question,
                    text=parsed.text,
                    image=scene.image(row),
                    proposals=proposals,
                    problems=parsed.problems,
                    timing=dict(timing),
                    model=self.name,
                    regions=regions[row] if len(regions[row]) else None,
                )
            )
        return answers

    def _regions(self, scene: _Scene, own: Boxes) -> Boxes:
        """Return the slots that one picture and the user's boxes give, pixels of the picture."""
        if not self.model.num_slots:
            return own
        user_boxes, user_mask = self.processor.unit_boxes([own], [scene.warp(0)])
        device = self.model.device
        with torch.inference_mode():
            regions = self.model.propose(
                scene.features[scene.rows], user_boxes.to(device), user_mask.to(device)
            )
        return self._region_boxes(regions, 0, scene)

    def _generate(
        self,
        text: TextBatch,
        features: ImageFeatures,
        regions: Regions | None,
        unique: bool,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None]:
        """Generate the answers.

        Args:
            text: the questions, left-padded.
            features: of each row's picture.
            regions: of each row, or None for a model without them.
            unique: name no region twice.
            options: as in `ask`.

        Returns:
            New tokens int[B, N] and, with regions, how sure the model was of each slot that it
            named, float[B, R].
        """
        model, chosen = self.model, dict(options)
        seed = chosen.pop("seed", None)
        if seed is not None:
            torch.manual_seed(seed)
        streamer: BaseStreamer | None = chosen.pop("streamer", None)
        processors, extra = LogitsProcessorList(), {}
        input_ids, attention_mask = text.input_ids, text.attention_mask
        if regions is not None:
            attention_mask = model.live_mask(input_ids, attention_mask, regions.mask)
            first = model.config.token_ids.first_region
            processors.append(LiveRegions(first, regions.mask, input_ids.shape[1], unique))
            extra["region_features"] = regions.features
        if text.object_pixels is not None:
            pixels = [self._float(value) for value in text.object_pixels]
            extra["object_features"] = model.encode_objects(pixels, text.object_mask)
        output = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            image_features=model.image_tokens(features, regions),
            logits_processor=processors,
            return_dict_in_generate=True,
            output_scores=True,
            streamer=streamer,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            eos_token_id=self.processor.stop_ids,
            **{"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False, **extra, **chosen},
        )
        tokens = output.sequences[:, input_ids.shape[1] :]
        if regions is None or model.config.token_ids.first_region < 0:
            return tokens, None  # a family that names no regions
        return tokens, self._confidence(tokens, output, regions)

    def _confidence(self, tokens: Tensor, output: Any, regions: Regions) -> Tensor:
        """Weigh the slots' scores by the probability of their names where they were first named.

        Args:
            tokens: int[B, N], the new tokens.
            output: of `generate`, with scores.
            regions: of each row.

        Returns:
            float[B, R]; slots that were not named keep their scores.
        """
        first, slots = self.model.config.token_ids.first_region, regions.mask.shape[1]
        scores = regions.scores.clone()
        beams = getattr(output, "beam_indices", None)
        for step in reversed(range(tokens.shape[1])):  # backwards, so that the first mention stays
            named = tokens[:, step] - first
            for row in torch.nonzero((named >= 0) & (named < slots))[:, 0].tolist():
                source = row if beams is None else int(beams[row, step])
                probability = output.scores[step][source].float().softmax(-1)[tokens[row, step]]
                scores[row, named[row]] = regions.scores[row, named[row]] * probability
        return scores

    def _region_boxes(
        self, regions: Regions, row: int, scene: _Scene, scores: Tensor | None = None
    ) -> Boxes:
        """Return the live slots of a row in pixels of its picture, clipped to it."""
        live, warp = regions.mask[row], scene.warp(row)
        values = (regions.scores if scores is None else scores)[row][live].float().cpu().numpy()
        centred = regions.boxes[row][live].double().cpu().numpy()
        boxes = Boxes.from_cxcywh(centred, warp.target, scores=values)
        return warp.inverse().apply(boxes).clip()

    def _float(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, self.model.dtype)
