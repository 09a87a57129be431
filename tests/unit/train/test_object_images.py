"""Questions that show object images reach the language objective, and no other pictures do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample
from parfocal.data.views import apply, build_view
from parfocal.errors import DataError
from parfocal.train.data import AnswerCollator
from parfocal.train.language import LanguageObjective
from tests.unit.models.builders import build_tiny_grounding_gpt


@pytest.fixture
def shown(tmp_path) -> Sample:
    """A question about one object image."""
    Image.effect_noise((90, 60), 90).convert("RGB").save(tmp_path / "a.png")
    image = ImageRef(str(tmp_path / "a.png"), 90, 60)
    boxes = Boxes([[5, 5, 45, 50]], image.frame(), labels=["a hat"])
    sample = Sample("1", (image,), (), boxes)
    (made,) = apply(sample, build_view('text_image(asks=["name"])'), seed=0)
    return made


def test_an_object_image_is_seen_and_answered_about(shown):
    model, processor = build_tiny_grounding_gpt()
    batch = AnswerCollator(processor)([shown, shown])
    assert batch["text"].object_mask.tolist() == [[True], [True]]
    objective = LanguageObjective(model)
    loss = objective(**batch).loss
    loss.backward()
    assert all(torch.isfinite(value).all() for value in model.projector.parameters())
    batch["text"].object_pixels = [values * 0.1 for values in batch["text"].object_pixels]
    assert objective(**batch).loss != loss


def test_a_picture_that_nothing_shows_is_refused(shown):
    _, processor = build_tiny_grounding_gpt()
    more = replace(shown, images=(*shown.images, shown.images[0]))
    with pytest.raises(DataError, match="has 3 pictures; training reads one"):
        AnswerCollator(processor)([more])
