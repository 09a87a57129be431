"""OWLv2: open-vocabulary detection with one text query a name (Transformers).

Footguns that this file takes care of: the network sees the picture padded to a square at the right
and bottom, so its boxes scale by the longer side in both directions and may reach beyond the
picture; and the processor of Transformers pads shorter lists of names with a blank query that can
win, which would make a picture's boxes depend on its neighbours in the batch.

Shapes: B pictures, Q names (queries), L tokens a name, P patches = candidate boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert
from transformers import (
    AutoModelForZeroShotObjectDetection,
    Owlv2ForObjectDetection,
    Owlv2Processor,
)

from parfocal.boxes import Boxes
from parfocal.detectors.base import Labels, boxes_of, in_parts, labels_per_image, no_boxes
from parfocal.detectors.weights import device_of, digest_of
from parfocal.errors import ConfigError


class Owlv2Detector:
    """OWLv2 behind the `Detector` protocol.

    Args:
        model: the network.
        processor: its processor.
        threshold: boxes must score above it where a call gives no other.
        batch_size: pictures a forward pass.

    Example:
        >>> detector = load_detector("owlv2")  # doctest: +SKIP
        >>> detector.detect([load_image("street.jpg")], ["a photo of a bus"])  # doctest: +SKIP
    """

    HUB_ID: Final = "google/owlv2-large-patch14-ensemble"
    MODEL_TYPES: Final = ("owlv2",)
    NETWORK: Final = AutoModelForZeroShotObjectDetection

    def __init__(
        self,
        model: Owlv2ForObjectDetection,
        processor: Owlv2Processor,
        threshold: float = 0.1,
        batch_size: int = 4,
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.threshold, self.batch_size = threshold, batch_size

    @property
    def identity(self) -> dict[str, Any]:
        """What the boxes depend on."""
        size = self.processor.image_processor.size
        return {
            "kind": "owlv2",
            "weights": digest_of(self.model),
            "threshold": self.threshold,
            "image_size": [size["height"], size["width"]],
        }

    def detect(
        self,
        images: Sequence[Image.Image],
        labels: Labels,
        threshold: float | None = None,
        clip: bool = True,
    ) -> list[Boxes]:
        """See `Detector.detect`. Each box bears the name whose query scores best.

        Raises:
            ConfigError: if a name is longer than the network can read, or the lists do not go with
                the pictures.
        """
        names = labels_per_image(labels, len(images))
        least = self.threshold if threshold is None else threshold
        found = [no_boxes(image) for image in images]
        asked = [index for index, row in enumerate(names) if row]
        for rows in in_parts(asked, self.batch_size):
            batch = [images[row] for row in rows], [names[row] for row in rows]
            for row, boxes in zip(rows, self._detect(*batch, least, clip), strict=True):
                found[row] = boxes
        return found

    @torch.inference_mode()
    def _detect(
        self,
        images: Sequence[Image.Image],
        names: Sequence[tuple[str, ...]],
        threshold: float,
        clip: bool,
    ) -> Iterator[Boxes]:
        device, dtype = device_of(self.model), self.model.dtype
        pixels = self.processor.image_processor(images=list(images), return_tensors="pt")
        output = self.model(
            pixel_values=pixels["pixel_values"].to(device, dtype),
            **{key: value.to(device) for key, value in self._queries(names).items()},
        )
        logits = output.logits.float().cpu()  # [B, P, Q]
        xyxy = box_convert(output.pred_boxes.float().cpu(), "cxcywh", "xyxy")  # [B, P, 4]
        for image, row, row_logits, row_xyxy in zip(images, names, logits, xyxy, strict=True):
            scores, best = row_logits[:, : len(row)].max(dim=-1)
            scores = scores.sigmoid()
            keep = scores > threshold
            side = max(image.size)  # of the padded square, whose top left corner is the picture's
            labels = [row[index] for index in best[keep].tolist()]
            yield boxes_of(row_xyxy[keep] * side, scores[keep], labels, image, clip)

    def _queries(self, names: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
        """Token ids and mask, int[B * Q, L]; rows of zeros are no query to the network."""
        length = self.model.config.text_config.max_position_embeddings
        num_queries = max(len(row) for row in names)
        ids = torch.zeros(len(names), num_queries, length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        mask[:, :, 0] = 1  # attention over nothing at all would be NaN
        for index, row in enumerate(names):
            for query, tokens in enumerate(self.processor.tokenizer(list(row))["input_ids"]):
                if len(tokens) > length:
                    raise ConfigError(
                        f"OWLv2 reads names of at most {length} tokens; {row[query]!r} has "
                        f"{len(tokens)}. Shorten it."
                    )
                ids[index, query, : len(tokens)] = torch.tensor(tokens)
                mask[index, query, : len(tokens)] = 1
        return {"input_ids": ids.flatten(0, 1), "attention_mask": mask.flatten(0, 1)}
