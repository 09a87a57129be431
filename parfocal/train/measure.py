"""How long the rows of a stage are, before it runs: measured on its first Samples.

Where that cannot be, their text is taken to be as long as it may be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import islice

from PIL import Image
from torch import Tensor

from parfocal.data.mixing import OpenMixture
from parfocal.data.sample import Sample
from parfocal.data.scenes.sprites import art_path
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.pictures import num_pictures
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.text_batch import IGNORED
from parfocal.train.checks import Findings
from parfocal.train.costs import Row, slot_tokens
from parfocal.train.data import AnswerCollator, conversations
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.stages import scenes_of

MEASURED = 16  # Samples of a stage


def measure(
    recipe: Recipe,
    stage: Stage,
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor | None,
    opened: OpenMixture | None,
    found: Findings,
) -> Row | None:
    """Measure the rows of a stage on its first Samples, or take them to be as long as they may be.

    Args:
        recipe: whose stage it is.
        stage: one of them.
        model: of the recipe.
        processor: of the model; None if its tokenizer is not here.
        opened: the stage's mixture, if it could be opened.
        found: is told what cannot be read.

    Returns:
        None where nothing can be measured and no length is given.
    """
    if stage.objective == "detection":
        return Row(0.0, 0.0, 0.0, 0.0, 0, 1.0, 0.0, "pictures")
    slots, where = model.num_slots, f"stage {stage.name!r}: "
    if processor is not None:

        def read() -> Row | None:
            samples = _first_samples(recipe, stage, processor, opened, found)
            return _measured(samples, AnswerCollator(processor, stage.max_length, slots=slots))

        row: Row | None = found.attempt(read, where)
        if row is not None:
            return row
    if not stage.max_length:
        return None
    if opened is None:
        return _at_most(model, stage, [])
    return _at_most(model, stage, found.attempt(partial(_first, opened), where) or [])


def _at_most(
    model: ParfocalForConditionalGeneration, stage: Stage, samples: Sequence[Sample]
) -> Row:
    """Rows with as much text as they may have beside the pictures of Samples, or beside one.

    Tokens of object images are among those of the text, which `max_length` limits.
    """
    shown = [num_pictures(sample) for sample in samples] or [1]
    objects = [len(sample.images) - num_pictures(sample) for sample in samples] or [0]
    pictures, text = sum(shown) / len(shown), stage.max_length
    image, regions = model.num_image_tokens, slot_tokens(model)
    return Row(
        image=pictures * image,
        regions=pictures * regions,
        text=float(text),
        learned=float(text),
        longest=max(shown) * (image + regions) + text,
        pictures=pictures,
        objects=sum(objects) / len(objects) if model.num_object_tokens else 0.0,
        basis="max_length" if samples else "one_picture",
    )


def _first_samples(
    recipe: Recipe,
    stage: Stage,
    processor: ParfocalProcessor,
    opened: OpenMixture | None,
    found: Findings,
) -> list[Sample]:
    """The first Samples of a mixture, or some scenes; none where these cannot be had."""
    if opened is not None:
        return [_blank(sample) for sample in _first(opened)]
    if stage.mixture is not None:
        return []
    if not art_path().exists():
        found.to_fetch.append("the art of the seeded scenes (16 MB)")
        return []
    scenes = scenes_of(recipe, "train", MEASURED)
    asked = conversations(scenes, processor, recipe.seed)
    return [asked[index] for index in range(len(asked))]


def _first(opened: OpenMixture) -> list[Sample]:
    return list(islice(opened.iterate(), MEASURED))


def _blank(sample: Sample) -> Sample:
    """The same Sample with empty pictures of the declared sizes: no file is needed to count."""
    images = [
        image
        if image.path is None and image.parent is not None
        else dataclasses.replace(image, pixels=Image.new("RGB", (image.width, image.height)))
        for image in sample.images
    ]
    return dataclasses.replace(sample, images=tuple(images))


def _measured(samples: list[Sample], collate: AnswerCollator) -> Row | None:
    if not samples:
        return None
    batch = collate(samples)
    text, settings = batch["text"], collate.processor.settings
    ids = settings.token_ids
    per_slot = 2 if settings.layout == "interleaved" else 1
    pictures = sum(batch["pictures"]) / len(samples)
    image = _mean((text.input_ids == ids.image) | (text.input_ids == ids.object))
    slots = pictures * settings.num_slots * per_slot
    return Row(
        image=image,
        regions=slots,
        text=_mean(text.attention_mask) - image - slots,
        learned=_mean(text.labels[:, 1:] != IGNORED),
        longest=int(text.attention_mask.sum(1).max()),
        pictures=pictures,
        objects=0.0 if text.object_mask is None else _mean(text.object_mask),
        basis="measured",
    )


def _mean(counted: Tensor) -> float:
    """Mean over rows of how much is counted in each, [B, L]."""
    return float(counted.double().sum(1).mean())
