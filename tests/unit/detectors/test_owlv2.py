"""OWLv2: a stub network for the numbers, a tiny real one for everything around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from parfocal.detectors.owlv2 import Owlv2Detector
from parfocal.errors import ConfigError


class Recorded(nn.Module):
    """Answers with given logits and boxes."""

    def __init__(self, like: nn.Module, logits: list, cxcywh: list) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config, self.dtype = like.config, torch.float32
        self.logits, self.pred_boxes = torch.tensor(logits), torch.tensor(cxcywh)

    def forward(self, **inputs: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits, pred_boxes=self.pred_boxes)


def stubbed(real: Owlv2Detector, logits: list, cxcywh: list) -> Owlv2Detector:
    return Owlv2Detector(Recorded(real.model, logits, cxcywh), real.processor, threshold=0.5)


def test_boxes_scale_by_the_longer_side_in_both_directions(owlv2: Owlv2Detector) -> None:
    detector = stubbed(owlv2, [[[1.0]]] * 2, [[[0.5, 0.25, 0.5, 0.5]]] * 2)
    wide, tall = Image.new("RGB", (640, 480)), Image.new("RGB", (427, 640))
    boxes = detector.detect([wide, tall], ["cat"], clip=False)
    assert [found.to_json() for found in boxes] == [[[160, 0, 480, 320]]] * 2
    clipped = detector.detect([wide, tall], ["cat"])
    assert clipped[1].to_json() == [[160, 0, 427, 320]]


def test_the_best_query_names_the_box_and_its_score_must_exceed_the_threshold(
    owlv2: Owlv2Detector,
) -> None:
    logits = [[[-1.0, 2.0], [1.0, 0.5], [0.0, -3.0], [-1.0, -1.0]]]
    detector = stubbed(owlv2, logits, [[[0.5, 0.5, 0.2, 0.2]] * 4])
    [boxes] = detector.detect([Image.new("RGB", (50, 50))], ["cat", "dog"])
    assert boxes.labels == ("dog", "cat")  # sigmoid(0.0) is not above 0.5
    np.testing.assert_allclose(boxes.scores, [0.8808, 0.7311], atol=1e-4)
    [more] = detector.detect([Image.new("RGB", (50, 50))], ["cat", "dog"], threshold=0.2)
    assert more.labels == ("dog", "cat", "cat", "cat")


def test_queries_that_only_pad_the_batch_never_win(owlv2: Owlv2Detector) -> None:
    detector = stubbed(owlv2, [[[1.0, 9.0]]] * 2, [[[0.5, 0.5, 0.2, 0.2]]] * 2)
    pictures = [Image.new("RGB", (50, 50))] * 2
    one, two = detector.detect(pictures, [["cat"], ["cat", "dog"]])
    assert one.labels == ("cat",)
    assert two.labels == ("dog",)
    np.testing.assert_allclose(one.scores, [0.7311], atol=1e-4)


def test_a_batch_gives_what_single_pictures_give(
    owlv2: Owlv2Detector, photos: list[Image.Image]
) -> None:
    labels = [["cat", "dog"], [], ["a photo of a bus"], ["tree", "cat", "red car"]]
    together = owlv2.detect(photos, labels, clip=False)
    assert [len(boxes) > 0 for boxes in together] == [True, False, True, True]
    for photo, row, boxes in zip(photos, labels, together, strict=True):
        [single] = owlv2.detect([photo], [row], clip=False)
        assert single.labels == boxes.labels
        np.testing.assert_allclose(single.xyxy, boxes.xyxy, atol=1e-4)
        np.testing.assert_allclose(single.scores, boxes.scores, atol=1e-5)
    assert owlv2.detect([], ["cat"]) == []


def test_a_single_picture_gets_what_transformers_gives(
    owlv2: Owlv2Detector, photos: list[Image.Image]
) -> None:
    names = ["cat", "red car"]
    inputs = owlv2.processor(text=[names], images=photos[1], return_tensors="pt")
    with torch.no_grad():
        output = owlv2.model(**inputs)
    [theirs] = owlv2.processor.post_process_grounded_object_detection(
        output, owlv2.threshold, [photos[1].size[::-1]], [names]
    )
    [ours] = owlv2.detect([photos[1]], names, clip=False)
    order = torch.argsort(theirs["scores"], descending=True, stable=True)
    assert len(ours) == len(order) > 0
    np.testing.assert_allclose(ours.xyxy, theirs["boxes"][order], atol=1e-4)
    assert list(ours.labels) == [theirs["text_labels"][index] for index in order]


def test_a_name_that_is_too_long_is_refused(
    owlv2: Owlv2Detector, photos: list[Image.Image]
) -> None:
    with pytest.raises(ConfigError, match=r"at most 8 tokens; 'a photo of a red car a bus' has 10"):
        owlv2.detect(photos[:1], ["cat", "a photo of a red car a bus"])


def test_identity_follows_weights_and_threshold(owlv2: Owlv2Detector) -> None:
    other = Owlv2Detector(owlv2.model, owlv2.processor, threshold=0.7)
    assert owlv2.identity != other.identity
    assert owlv2.identity["image_size"] == [64, 64]
