"""Grounding DINO (also MM-Grounding-DINO): detection by one sentence of names (Transformers).

Footguns that this file takes care of: the network scores tokens, not names, and Transformers glues
together whatever tokens are above a threshold, which gives merged ("cat dog"), partial or empty
labels; here the tokens of each name are known by their place in the sentence. Names may not
contain the full stop that separates them. The backbone sees the padding of a batch, so only
pictures that are resized to the same shape share one.

Shapes: B pictures, Q candidate boxes, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert
from transformers import (
    AutoModelForZeroShotObjectDetection,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
)

from parfocal.boxes import Boxes
from parfocal.detectors.base import (
    Labels,
    best_first,
    boxes_of,
    in_parts,
    labels_per_image,
    no_boxes,
)
from parfocal.detectors.weights import device_of, digest_of
from parfocal.errors import ConfigError, ImageError

SEPARATOR: Final = "."


@dataclass(frozen=True)
class Sentence:
    """Names as one prompt.

    Attributes:
        text: "a cat. dog."
        labels: the names as they were given.
        spans: of each name in the text, first and past-the-last character.
    """

    text: str
    labels: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


def compose(labels: Sequence[str]) -> Sentence:
    """Names as the network was trained to read them: lower case, each closed by a full stop.

    Full stops inside a name become blanks.

    Raises:
        ConfigError: if nothing is left of a name.

    >>> compose(["A cat", "St. Bernard "])
    Sentence(text='a cat. st bernard.', labels=('A cat', 'St. Bernard '), spans=((0, 5), (7, 17)))
    """
    text, spans = "", []
    for label in labels:
        words = " ".join(label.lower().replace(SEPARATOR, " ").split())
        if not words:
            raise _no_word(label)
        text += " " if text else ""
        spans.append((len(text), len(text) + len(words)))
        text += words + SEPARATOR
    return Sentence(text, tuple(labels), tuple(spans))


def _no_word(label: str) -> ConfigError:
    return ConfigError(f"Grounding DINO cannot look for {label!r}: no word is in it. Leave it out.")


class GroundingDinoDetector:
    """Grounding DINO behind the `Detector` protocol.

    A box bears the name whose tokens score best on average, and scores what the best token of that
    name scores. An average alone would rank long names below short ones; the best token alone
    would confuse "red car" with "blue car". Where more names are given than fit one sentence, the
    network is asked several times, and an object may then be found under a name of each.

    Args:
        model: the network.
        processor: its processor; its tokenizer must be a fast one.
        threshold: boxes must score above it where a call gives no other.
        batch_size: pictures a forward pass.

    Example:
        >>> detector = load_detector("grounding_dino")  # doctest: +SKIP
        >>> detector.detect([load_image("street.jpg")], ["bus", "red car"])  # doctest: +SKIP
    """

    HUB_ID: Final = "IDEA-Research/grounding-dino-base"
    MODEL_TYPES: Final = ("grounding-dino", "mm-grounding-dino")
    NETWORK: Final = AutoModelForZeroShotObjectDetection

    def __init__(
        self,
        model: GroundingDinoForObjectDetection,
        processor: GroundingDinoProcessor,
        threshold: float = 0.25,
        batch_size: int = 4,
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.threshold, self.batch_size = threshold, batch_size

    @property
    def identity(self) -> dict[str, Any]:
        """What the boxes depend on."""
        return {
            "kind": self.model.config.model_type,
            "weights": digest_of(self.model),
            "threshold": self.threshold,
            "image_size": dict(self.processor.image_processor.size),
        }

    def detect(
        self,
        images: Sequence[Image.Image],
        labels: Labels,
        threshold: float | None = None,
        clip: bool = True,
    ) -> list[Boxes]:
        """See `Detector.detect`.

        Raises:
            ConfigError: if a name has no words or does not fit a sentence, or the lists do not go
                with the pictures.
            ImageError: if a picture is so thin that nothing of it is left when it is resized.
        """
        names = labels_per_image(labels, len(images))
        least = self.threshold if threshold is None else threshold
        found: list[list[Boxes]] = [[] for _ in images]
        for batch in self._batches(images, names):
            rows = [row for row, _ in batch]
            sentences = [sentence for _, sentence in batch]
            pictures = [images[row] for row in rows]
            results = self._detect(pictures, sentences, least, clip)
            for row, boxes in zip(rows, results, strict=True):
                found[row].append(boxes)
        return [_joined(parts, image) for parts, image in zip(found, images, strict=True)]

    def _batches(
        self, images: Sequence[Image.Image], names: Sequence[tuple[str, ...]]
    ) -> Iterator[Sequence[tuple[int, Sentence]]]:
        """(picture, sentence) pairs whose pictures have the same size."""
        groups: dict[tuple[int, int], list[tuple[int, Sentence]]] = {}
        for row, (image, labels) in enumerate(zip(images, names, strict=True)):
            sentences = self._sentences(labels)
            if sentences:
                self._refuse_thin(image)
            for sentence in sentences:
                groups.setdefault(image.size, []).append((row, sentence))
        for group in groups.values():
            yield from in_parts(group, self.batch_size)

    def _sentences(self, labels: Sequence[str]) -> list[Sentence]:
        """As few sentences as hold the names, in their order."""
        limit = self.model.config.max_text_len
        found: list[Sentence] = []
        waiting: list[str] = []
        for label in labels:
            if waiting and self._num_tokens(compose([*waiting, label]).text) > limit:
                found.append(compose(waiting))
                waiting = []
            waiting.append(label)
            if len(waiting) == 1 and self._num_tokens(compose(waiting).text) > limit:
                raise ConfigError(
                    f"Grounding DINO reads at most {limit} tokens; the name {label!r} alone is "
                    "longer. Shorten it."
                )
        if waiting:
            found.append(compose(waiting))
        for sentence in found:
            self._refuse_erased(sentence)
        return found

    def _refuse_erased(self, sentence: Sentence) -> None:
        """Refuse names of which the tokenizer leaves nothing, such as a blank without width."""
        text = self.processor.tokenizer(sentence.text, return_offsets_mapping=True)
        tokens = tokens_of(sentence, text["offset_mapping"])
        for label, own in zip(sentence.labels, tokens, strict=True):
            if not own:
                raise _no_word(label)

    def _refuse_thin(self, image: Image.Image) -> None:
        """Refuse a picture whose shorter side would round to nothing."""
        size = dict(self.processor.image_processor.size)
        longest = size.get("longest_edge")
        if longest and round(longest * min(image.size) / max(image.size)) < 1:
            raise ImageError(
                f"a picture of {image.width}x{image.height} is too thin for Grounding DINO: at "
                f"{longest} pixels length nothing of the other side is left. Cut it into parts."
            )

    def _num_tokens(self, text: str) -> int:
        return len(self.processor.tokenizer(text)["input_ids"])

    @torch.inference_mode()
    def _detect(
        self,
        images: Sequence[Image.Image],
        sentences: Sequence[Sentence],
        threshold: float,
        clip: bool,
    ) -> list[Boxes]:
        device, dtype = device_of(self.model), self.model.dtype
        pixels = self.processor.image_processor(images=list(images), return_tensors="pt")
        text = self.processor.tokenizer(
            [sentence.text for sentence in sentences],
            padding=True,
            return_tensors="pt",
            return_token_type_ids=True,
            return_offsets_mapping=True,
        )
        offsets = text.pop("offset_mapping").tolist()
        output = self.model(
            pixel_values=pixels["pixel_values"].to(device, dtype),
            pixel_mask=pixels["pixel_mask"].to(device),
            **{key: value.to(device) for key, value in text.items()},
        )
        probs = output.logits.float().sigmoid().cpu()  # [B, Q, at least L]
        xyxy = box_convert(output.pred_boxes.float().cpu(), "cxcywh", "xyxy")
        return [
            _read(sentence, spans, row_probs, row_xyxy, image, threshold, clip)
            for sentence, spans, row_probs, row_xyxy, image in zip(
                sentences, offsets, probs, xyxy, images, strict=True
            )
        ]


def tokens_of(sentence: Sentence, offsets: Sequence[Sequence[int]]) -> list[list[int]]:
    """The tokens of each name, by where they stand in the text.

    Args:
        sentence: the prompt.
        offsets: first and past-the-last character of each token; equal for special tokens.
    """
    return [
        [
            index
            for index, (start, end) in enumerate(offsets)
            if first <= start < end <= last  # special tokens and padding are empty
        ]
        for first, last in sentence.spans
    ]


def _read(
    sentence: Sentence,
    offsets: Sequence[Sequence[int]],
    probs: Tensor,
    xyxy_unit: Tensor,
    image: Image.Image,
    threshold: float,
    clip: bool,
) -> Boxes:
    tokens = tokens_of(sentence, offsets)
    means = torch.stack([probs[:, row].mean(dim=-1) for row in tokens], dim=-1)  # [Q, names]
    peaks = torch.stack([probs[:, row].amax(dim=-1) for row in tokens], dim=-1)
    best = means.argmax(dim=-1, keepdim=True)
    scores = peaks.gather(-1, best)[:, 0]
    keep = scores > threshold
    labels = [sentence.labels[index] for index in best[keep, 0].tolist()]
    sides = torch.tensor([*image.size, *image.size])
    return boxes_of(xyxy_unit[keep] * sides, scores[keep], labels, image, clip)


def _joined(parts: Sequence[Boxes], image: Image.Image) -> Boxes:
    """Boxes of several sentences as one, best score first."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return no_boxes(image)
    boxes = Boxes.concat(list(parts))
    return boxes[best_first(boxes)]
