"""Grounding DINO: names by their place in the sentence, and a tiny real network around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from parfocal.detectors.grounding_dino import GroundingDinoDetector, compose, tokens_of
from parfocal.errors import ConfigError, ImageError

PICTURE = Image.new("RGB", (100, 50))


class Recorded(nn.Module):
    """Gives chosen probabilities to the tokens of every sentence, and one box a row."""

    def __init__(self, like: nn.Module, probs: list[list[float]]) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config, self.dtype = like.config, torch.float32
        self.logits = torch.tensor(probs).logit()

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> SimpleNamespace:
        batch, rows = len(input_ids), len(self.logits)
        box = torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(batch, rows, 4)
        return SimpleNamespace(logits=self.logits.expand(batch, -1, -1), pred_boxes=box)


def stubbed(real: GroundingDinoDetector, probs: list[list[float]]) -> GroundingDinoDetector:
    return GroundingDinoDetector(Recorded(real.model, probs), real.processor, threshold=0.3)


def test_a_sentence_knows_where_its_names_stand() -> None:
    sentence = compose(["A  Cat", "St. Bernard", "dog "])
    assert sentence.text == "a cat. st bernard. dog."
    assert [sentence.text[first:last] for first, last in sentence.spans] == [
        "a cat",
        "st bernard",
        "dog",
    ]
    assert sentence.labels == ("A  Cat", "St. Bernard", "dog ")
    with pytest.raises(ConfigError, match=r"cannot look for ' \. '"):
        compose(["cat", " . "])


def test_tokens_of_a_name_leave_out_stops_and_special_tokens() -> None:
    offsets = [(0, 0), (0, 3), (4, 7), (7, 8), (9, 12), (12, 13), (0, 0), (0, 0)]
    assert tokens_of(compose(["red car", "dog"]), offsets) == [[1, 2], [4]]


# Tokens of "red car. blue car.": [CLS] red car . blue car . [SEP]
def test_a_shared_word_does_not_decide_between_two_names(
    grounding_dino: GroundingDinoDetector,
) -> None:
    probs = [[0.9, 0.10, 0.45, 0.9, 0.40, 0.43, 0.9, 0.9]]  # mean 0.275 against 0.415
    [boxes] = stubbed(grounding_dino, probs).detect([PICTURE], ["red car", "Blue Car"])
    assert boxes.labels == ("Blue Car",)
    np.testing.assert_allclose(boxes.scores, [0.43], atol=1e-6)
    np.testing.assert_allclose(boxes.xyxy, [[40, 15, 60, 35]], atol=1e-4)


def test_stops_and_special_tokens_never_make_a_box(grounding_dino: GroundingDinoDetector) -> None:
    probs = [[0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.9, 0.9], [0.1, 0.31, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]]
    [boxes] = stubbed(grounding_dino, probs).detect([PICTURE], ["red car", "blue car"])
    assert boxes.labels == ("red car",)


def test_a_batch_gives_what_single_pictures_give(
    grounding_dino: GroundingDinoDetector, photos: list[Image.Image]
) -> None:
    labels = [["cat", "dog"], ["red car"], ["dog", "bus", "blue car"], []]
    together = grounding_dino.detect(photos, labels, clip=False)
    assert [len(boxes) > 0 for boxes in together] == [True, True, True, False]
    for photo, row, boxes in zip(photos[:3], labels, together, strict=False):
        [single] = grounding_dino.detect([photo], [row], clip=False)
        assert single.labels == boxes.labels
        np.testing.assert_allclose(single.xyxy, boxes.xyxy, atol=1e-3)
        np.testing.assert_allclose(single.scores, boxes.scores, atol=1e-4)


def test_a_single_name_gets_the_boxes_that_transformers_gives(
    grounding_dino: GroundingDinoDetector, photos: list[Image.Image]
) -> None:
    inputs = grounding_dino.processor(images=photos[1], text=[["cat"]], return_tensors="pt")
    with torch.no_grad():
        output = grounding_dino.model(**inputs)
    [theirs] = grounding_dino.processor.post_process_grounded_object_detection(
        output, inputs["input_ids"], 0.0, 0.0, [photos[1].size[::-1]]
    )
    [ours] = grounding_dino.detect([photos[1]], ["cat"], threshold=0.0, clip=False)
    scores = output.logits.sigmoid()[0, :, 1]  # [CLS] cat . [SEP]
    order = torch.argsort(scores, descending=True, stable=True)
    np.testing.assert_allclose(ours.xyxy, theirs["boxes"][order], atol=1e-3)
    np.testing.assert_allclose(ours.scores, scores[order], atol=1e-5)


def test_names_beyond_one_sentence_are_asked_in_several(
    grounding_dino: GroundingDinoDetector, photos: list[Image.Image]
) -> None:
    names = ["red car", "blue car", "dog", "st bernard", "tree", "bus", "cat"]  # 16 tokens at most
    sentences = grounding_dino._sentences(names)
    assert len(sentences) == 2
    assert [label for sentence in sentences for label in sentence.labels] == names
    parts = [
        grounding_dino.detect(photos[:1], sentence.labels, threshold=0.0)[0]
        for sentence in sentences
    ]
    [whole] = grounding_dino.detect(photos[:1], names, threshold=0.0)
    assert len(whole) == sum(len(part) for part in parts)
    assert set(whole.labels) == {label for part in parts for label in part.labels}
    assert np.all(np.diff(whole.scores) <= 0)


def test_a_name_longer_than_a_sentence_is_refused(
    grounding_dino: GroundingDinoDetector, photos: list[Image.Image]
) -> None:
    name = " ".join(["red car"] * 8)
    with pytest.raises(ConfigError, match="at most 16 tokens"):
        grounding_dino.detect(photos[:1], ["cat", name])


@pytest.mark.parametrize("name", ["\u200b", "\x00", "\ufffd"])
def test_a_name_that_the_tokenizer_erases_is_refused(
    name: str, grounding_dino: GroundingDinoDetector
) -> None:
    with pytest.raises(ConfigError, match="no word is in it"):
        grounding_dino.detect([PICTURE], ["cat", name])
    grounding_dino.detect([PICTURE], [f"cat{name}"])


@pytest.mark.parametrize("size", [(1000, 4), (3, 900)])
def test_a_picture_that_resizing_would_erase_is_refused(
    size: tuple[int, int], grounding_dino: GroundingDinoDetector
) -> None:
    with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} is too thin"):
        grounding_dino.detect([PICTURE, Image.new("RGB", size)], ["cat"])
