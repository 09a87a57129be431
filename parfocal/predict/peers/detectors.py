"""Grounding DINO and OWLv2 as predictors: they find what is named, and write nothing.

The work is that of the detectors' own room; here a phrase becomes a name to look for, and boxes
become the phrase of an answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import torch
from torchvision.ops import box_convert

from parfocal.boxes import Boxes
from parfocal.detectors import Detector, load_detector
from parfocal.detectors.base import boxes_of
from parfocal.dialects.base import Parsed
from parfocal.dialects.detections import read_detections
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.errors import ConfigError
from parfocal.predict.answer import Answer
from parfocal.predict.asking import best, check_lengths
from parfocal.predict.peers.files import Checkpoint
from parfocal.predict.peers.verbs import Ask, PeerPredictor, Task, no_choice
from parfocal.predict.protocol import Picture


class DetectorPeer(PeerPredictor):
    """A detector behind the verb `locate`; see the module.

    `locate` gives the best box, with `all` every box above the threshold; `threshold` is its one
    option. Scores are the detector's. Where nothing is above the threshold, the answer is that
    there is none.

    Args:
        detector: finds boxes for names.
        name: for answers and reports.
    """

    can = frozenset({"locate"})
    hint = "It finds what is named and writes no text."

    def __init__(self, detector: Detector, name: str) -> None:
        self.detector, self.name = detector, name
        self.model: Any = detector.model  # type: ignore[attr-defined]

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        """Load a checkpoint of the family."""
        if checkpoint.dialect is not None:
            raise no_choice(f"{cls.family} writes no text and has no dialect")
        folder, device, dtype = checkpoint.folder, checkpoint.device, checkpoint.dtype
        return cls(load_detector(folder, device, dtype), checkpoint.name)

    def question_for(self, task: Task, phrase: str = "") -> GroundedText:
        """The name alone."""
        return GroundedText.of(Phrase(phrase))

    def _answer(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        unknown = sorted(set(options) - {"threshold"})
        if unknown:
            raise ConfigError(f"{self.family} has no option {unknown[0]!r}; it has 'threshold'.")
        started = time.perf_counter()
        found = self.detector.detect(
            [ask.image for ask in asks], [[ask.phrase] for ask in asks], options.get("threshold")
        )
        seconds = time.perf_counter() - started
        return [self._told(ask, boxes, seconds) for ask, boxes in zip(asks, found, strict=True)]

    def _told(self, ask: Ask, boxes: Boxes, seconds: float) -> Answer:
        parsed: Parsed = read_detections(boxes[:1] if ask.task == "locate" else boxes)
        return Answer(
            question=ask.question,
            text=parsed.text,
            image=ask.image,
            proposals=boxes.replace(labels=None),
            problems=parsed.problems,
            timing={"detect": seconds},
            model=self.name,
        )


class GroundingDinoPeer(DetectorPeer):
    """Grounding DINO and MM-Grounding-DINO; scores are those of the phrase's best token."""

    family = "Grounding DINO"


class Owlv2Peer(DetectorPeer):
    """OWLv2; proposals are the boxes of its objectness head, which needs no name."""

    family = "OWLv2"
    can = frozenset({"locate", "propose"})

    def propose_batch(self, images: Sequence[Picture], top: int = 20) -> list[Boxes]:
        """The `top` boxes of each picture that are most likely to hold a thing."""
        check_lengths(images=images)
        processor: Any = self.detector.processor  # type: ignore[attr-defined]
        found = []
        for image in self.open(images):
            pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                pixels = pixels.to(self.model.device, self.model.dtype)
                grid, _ = self.model.image_embedder(pixels)  # [1, rows, columns, D]
                features = grid.flatten(1, 2)
                centred = self.model.box_predictor(features, grid)[0]
                scores = self.model.objectness_predictor(features)[0].float().sigmoid().cpu()
            side = max(image.size)  # of the padded square, whose top left corner is the picture's
            xyxy = box_convert(centred.float().cpu(), "cxcywh", "xyxy") * side
            boxes = boxes_of(xyxy, scores, [""] * len(scores), image, clip=True)
            found.append(best(boxes.replace(labels=None), top))
        return found
