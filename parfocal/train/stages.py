"""What a stage is made of: its data, its collator and its objective; and its training.

A stage reads seeded scenes, which have no files, or a mixture of files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.utils.data import Dataset

from parfocal.data.mixing import OpenMixture, open_mixture, task_views
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import Sample
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.expressions import COMPARISONS
from parfocal.data.scenes.turns import words_for
from parfocal.errors import ConfigError, DataError
from parfocal.images import image_digest
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.outputs import Perception
from parfocal.models.processing import ParfocalProcessor
from parfocal.train.arguments import divide, num_workers
from parfocal.train.augment import AUGMENTS
from parfocal.train.callbacks import JsonLog, Validation
from parfocal.train.context import StageContext
from parfocal.train.data import (
    AnswerCollator,
    ConversationCollator,
    DetectionCollator,
    ObjectCollator,
    SceneDataset,
    conversations,
    score_heads_of,
)
from parfocal.train.detection import DetectionObjective
from parfocal.train.feature_cache import FeatureCache, fill, kept_for
from parfocal.train.grouping import WINDOW
from parfocal.train.language import LanguageObjective
from parfocal.train.mixture_data import Collate, EndlessBatches, MixtureLoader
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.runtime import device, divides_weights, process_rank, world_size
from parfocal.train.trainer import run_stage
from parfocal.train.unseen import blank_picture
from parfocal.train.validate import Samples, check_scorable, pointing_accuracy, proposal_recall

logger = logging.getLogger(__name__)

_LAST = "final"  # marks scores of what a stage has left in its log

VALIDATION_SIDE = 256  # longer side of validation scenes, pixels


def data_fingerprint(context: StageContext) -> dict[str, Any]:
    """Return what tells one stage's data from another's.

    It is the fingerprint of a mixture, or the range of scenes with their first and last ones.
    """
    if context.stage.mixture is not None:
        return open_stage(context).fingerprint()
    reader, first = _training_scenes(context)
    digest = hashlib.sha256()
    for index in (first, len(reader) - 1):
        sample = reader[index]
        digest.update(image_digest(sample.open_image()).encode())
        digest.update(json.dumps(sample.regions.to_json()).encode())
    return {
        "source": "scenes", "split": "train", "first": first, "count": context.stage.samples,
        "sha256_of_first_and_last": digest.hexdigest(),
    }  # fmt: skip


def scenes_of(recipe: Recipe, split: str, count: int) -> SceneReader:
    """Return the first scenes of a split as a recipe has them; those to be scored on are large."""
    sides = recipe.sides if split == "train" else (VALIDATION_SIDE,)
    return SceneReader(split, count, sides, kinds=recipe.kinds, num_objects=recipe.num_objects)


def open_stage(context: StageContext) -> OpenMixture:
    """Open the mixture of a stage: its files in the run's data folder, its seed with the recipe's.

    Raises:
        ConfigError, DataError: as `open_mixture` does.
    """
    mixture = context.stage.mixture.under(context.runtime.data)
    mixture = dataclasses.replace(mixture, seed=mixture.seed + context.recipe.seed)
    return open_mixture(mixture, task_views(mixture))


def counted(stage: Stage, mixture: OpenMixture) -> Stage:
    """Return the stage with its `samples`: as many as its steps take for all its epochs.

    The last batch of an epoch, which may be short, is a step, as for the Hugging Face Trainer: a
    step that is not divided sees every Sample as often as there are epochs.
    """
    if stage.samples:
        return stage
    once, size = mixture.samples(), stage.batch_size
    whole = int(stage.epochs)
    steps = whole * -(-once // size) + round((stage.epochs - whole) * once) // size
    return dataclasses.replace(stage, samples=max(1, steps) * size)


def _training_scenes(context: StageContext) -> tuple[SceneReader, int]:
    """Scenes up to the last one of a stage, and the number of its first.

    Stages see different scenes: each begins where the one before it ended.
    """
    recipe, stage = context.recipe, context.stage
    before = recipe.stages[: recipe.stages.index(stage)]
    first = sum(item.samples for item in before if item.mixture is None)
    return scenes_of(recipe, "train", first + stage.samples), first


def train_stage(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    context: StageContext,
    out: Path,
) -> dict[str, Tensor]:
    """Train one stage of a recipe.

    Args:
        model: as the stage begins with it; changed in place.
        processor: of the model.
        context: of the stage.
        out: the stage's folder.

    Returns:
        As `run_stage` does: the weights afterwards, in the main process.
    """
    torch.manual_seed(context.recipe.seed)  # of the objective's heads, whatever stages ran before
    if context.stage.mixture is None:
        objective, dataset, collator = _on_scenes(model, processor, context)
    else:
        opened = open_stage(context)
        context = dataclasses.replace(context, stage=counted(context.stage, opened))
        objective, dataset = _on_mixture(model, processor, context, opened)
        collator = None
    stage, callbacks = context.stage, []
    rows = validation_rows(context, processor)  # now: what is wrong with them is not for the end
    if rows is not None and stage.eval_every:
        callbacks.append(Validation(stage, partial(validate, model, processor, stage, rows), out))
    return run_stage(objective, context, dataset, collator, out, callbacks)


def score_stage(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    context: StageContext,
    out: Path,
) -> None:
    """Score what a stage has left, if on anything, and write it behind the lines of its log."""
    stage, rows = context.stage, validation_rows(context, processor)
    if rows is None:
        return
    if stage.mixture is not None:
        stage = counted(stage, open_stage(context))
    scores = validate(model.to(device()), processor, stage, rows)
    logger.info("stage %s: %s", stage.name, scores)
    JsonLog(out / "metrics.jsonl").write(stage.steps, {**scores, _LAST: True})


def is_scored(out: Path) -> bool:
    """Whether the log of a stage in `out` ends with scores of what the stage has left."""
    path = out / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return bool(lines) and f'"{_LAST}"' in lines[-1]


def validation_rows(context: StageContext, processor: ParfocalProcessor) -> Samples | None:
    """What a stage is scored on; None if on nothing."""
    recipe, stage = context.recipe, context.stage
    if not stage.eval_samples:
        return None
    if stage.mixture is None:
        reader = scenes_of(recipe, "validation", stage.eval_samples)
        if stage.objective == "detection":
            return reader
        return conversations(reader, processor, recipe.seed)
    return None if stage.eval_mixture is None else scored_rows(context)


def scored_rows(context: StageContext) -> list[Sample]:
    """Read what a stage's `eval_mixture` holds, as many rows as are scored.

    Raises:
        ConfigError, DataError: if its files cannot be read, or ask for nothing that is scored.
    """
    stage = context.stage
    mixture = stage.eval_mixture.under(context.runtime.data)
    opened = open_mixture(mixture, task_views(mixture))
    rows = list(itertools.islice(opened.iterate(), stage.eval_samples))
    for row in rows:
        gone = [ref.path for ref in row.images if ref.path and not Path(ref.path).is_file()]
        if gone:
            raise DataError(f"sample {row.id!r}: there is no picture {gone[0]}.")
    check_scorable(rows, stage.objective)
    return rows


def validate(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    stage: Stage,
    rows: Samples,
) -> dict[str, float]:
    """Score what a stage is about: proposals, or answers that point."""
    measure = proposal_recall if stage.objective == "detection" else pointing_accuracy
    return measure(model, processor, rows)


def _on_scenes(
    model: ParfocalForConditionalGeneration, processor: ParfocalProcessor, context: StageContext
) -> tuple[nn.Module, Dataset[Sample], Any]:
    """Objective, data and collator of a stage on seeded scenes."""
    stage, (reader, first) = context.stage, _training_scenes(context)
    if stage.objective == "detection":
        find = DetectionObjective(model, len(KINDS))
        return find, SceneDataset(reader, first), ObjectCollator(processor)
    dataset = conversations(reader, processor, context.recipe.seed, first)
    answer = build_language_objective(
        model, processor, stage.region_loss_weight, stage.alignment_weight
    )
    return answer, dataset, ConversationCollator(processor, stage.row_length)


def _on_mixture(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    context: StageContext,
    opened: OpenMixture,
) -> tuple[nn.Module, EndlessBatches]:
    """Objective and batches of a stage on files, whose `samples` are known."""
    recipe, stage = context.recipe, context.stage
    micro, _ = divide(stage, world_size(), context.runtime.micro_batch or None)
    window = WINDOW if stage.group_by_length else 0
    collate: Collate
    objective: nn.Module
    if stage.objective == "detection":
        heads = score_heads_of(model.config.proposer.score_heads)
        collate = DetectionCollator(processor, heads, AUGMENTS[stage.augment], recipe.seed)
        objective = DetectionObjective(model, num_kinds=0)
    else:
        cache = None
        if context.runtime.features and kept_for(stage):
            ahead = window * micro  # rows of the last window may come before earlier ones
            cache = _remembered(model, processor, context, opened, ahead)
        elif context.runtime.features:
            logger.warning(
                "stage %s trains parts that see, so no features are kept for it", stage.name
            )
        collate = AnswerCollator(
            processor, stage.max_length, cache, recipe.seed, stage.row_length, model.num_slots
        )
        objective = LanguageObjective(
            model,
            region_weight=stage.region_loss_weight,
            offer_ground_boxes=stage.offer_ground_boxes,
        )
        if divides_weights():
            objective.blank = _blank(model, seen=cache is not None)
    loader = MixtureLoader(
        opened,
        micro,
        collate,
        num_workers(recipe),
        rank=process_rank(),
        world=world_size(),
        window=window,
    )
    return objective, EndlessBatches(loader)


@torch.no_grad()
def _blank(model: ParfocalForConditionalGeneration, seen: bool) -> list[Tensor] | Perception:
    """What a batch of words alone looks at, as batches have pictures: as they are, or as `seen`."""
    blank = blank_picture(model.config)
    if not seen:
        return blank
    where = next(model.vision.parameters()).device
    return model.perceive([value.to(where) for value in blank])


def _remembered(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    context: StageContext,
    opened: OpenMixture,
    ahead: int,
) -> FeatureCache:
    """Compute the features of all pictures of a stage, each process its own share of them.

    Those of all rows that come: a view may leave out a row this time, and use it the next time.
    `ahead` more Samples are looked at, which the last batches may hold.
    """
    stage, rank, world = context.stage, process_rank(), world_size()
    for part in (model.vision, model.proposer, model.refiner):
        if part is not None:  # what is computed; the language model may be too large for one device
            part.to(device())
    cache = FeatureCache(Path(context.runtime.features), model, context.recipe.bf16)
    if opened.expands:  # which rows come depends on the workers: all that may come
        read: Iterator[Sample] = opened.rows_once().iterate(0, rank, world)
    else:
        read = itertools.islice(
            _epoch_after_epoch(opened, rank, world), -(-stage.samples // world) + ahead
        )
    count = fill(cache, model, processor, read)
    logger.info("stage %s: features of %d pictures computed", stage.name, count)
    _wait_for_all()
    cache.refresh()
    return cache


def _epoch_after_epoch(opened: OpenMixture, rank: int, world: int) -> Iterator[Sample]:
    """A process's Samples; they end where two epochs in a row hold none, which training refuses."""
    empty = 0
    for epoch in itertools.count():
        empty += 1
        for sample in opened.iterate(epoch, rank, world):
            empty = 0
            yield sample
        if empty > 1:
            return


def _wait_for_all() -> None:
    """Wait until all processes of the run are here, which may take hours."""
    if world_size() == 1:
        return
    cuda = torch.cuda.is_available()
    PartialState(cpu=not cuda, **({} if cuda else {"backend": "gloo"}))  # if they have not met yet
    group = torch.distributed.new_group(timeout=timedelta(days=7), backend="gloo")
    torch.distributed.barrier(group)


def build_language_objective(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    region_weight: float = 1.0,
    alignment_weight: float = 0.5,
) -> LanguageObjective:
    """Build the objective of scenes: it knows every kind's name and every comparison's words.

    Raises:
        ConfigError: if regions are to be aligned with words and the model's text holds none.
    """
    if not alignment_weight:
        return LanguageObjective(model, region_weight=region_weight)
    check_aligned(model.config, alignment_weight)

    def tokens(words: str) -> list[int]:
        ids: list[int] = processor.tokenizer.encode(f" {words}", add_special_tokens=False)
        return ids

    names = [tokens(kind.name) for kind in KINDS]
    comparisons = [[tokens(word) for word in words_for(relation)] for relation in COMPARISONS]
    return LanguageObjective(
        model, names, comparisons, region_weight, alignment_weight=alignment_weight
    )


def check_aligned(config: ParfocalConfig, weight: float) -> None:
    """Raise ConfigError if regions are to be aligned with words and the text holds no region."""
    if weight and not config.regions.in_text:
        raise ConfigError(
            f"alignment_weight is {weight}, but with regions.kind {config.regions.kind!r} and "
            f"regions.merge {config.regions.merge!r} no region stands in the text; set the stage's "
            "alignment_weight to 0."
        )
