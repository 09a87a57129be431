"""Run a recipe: one folder holds everything the run needs, so that it restarts from there alone.

- OUT/recipe.json: the resolved recipe
- OUT/run.json: versions, code and data that the run began with
- OUT/runtime.json: folders and sizes of the machine it runs on
- OUT/start/: config and processor the run began with
- OUT/STAGE/: checkpoints and metrics.jsonl of a stage; `model.safetensors` when it is done
- OUT/model/: the finished model, bfloat16, ready for `parfocal.load`
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import GenerationConfig

from parfocal.data.mixing import OpenMixture, open_mixture, task_views
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import Sample
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.scenes.expressions import COMPARISONS
from parfocal.data.scenes.turns import words_for
from parfocal.errors import ConfigError
from parfocal.images import image_digest
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.train.augment import AUGMENTS
from parfocal.train.data import (
    AnswerCollator,
    ConversationCollator,
    ConversationDataset,
    DetectionCollator,
    ObjectCollator,
    SceneDataset,
    score_heads_of,
)
from parfocal.train.detection import DetectionObjective
from parfocal.train.feature_cache import FeatureCache, fill
from parfocal.train.language import LanguageObjective
from parfocal.train.mixture_data import Collate, EndlessBatches, MixtureLoader
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.record import differences, run_record
from parfocal.train.runtime import Runtime
from parfocal.train.trainer import JsonLog, divide, num_workers, run_stage
from parfocal.train.validate import proposal_recall
from parfocal.train.weights import load_parts

logger = logging.getLogger(__name__)


def start_run(
    recipe: Recipe,
    config: ParfocalConfig,
    processor: ParfocalProcessor,
    out: Path,
    processes: int | None = None,
    resume: bool = False,
    runtime: Runtime | None = None,
) -> Path:
    """Train a recipe into `out`; returns the folder of the finished model.

    Args:
        recipe: what to train.
        config: of the model; its `token_ids` are the processor's.
        processor: of the model.
        out: the run's folder; created when it does not exist.
        processes: data-parallel processes; one a GPU, or one a core (at most two) on a CPU when
            None.
        resume: go on with the run in `out`, which must hold the same recipe.
        runtime: of the machine; when None, what the run had before, or the defaults.

    Raises:
        ConfigError: if `out` holds a run and `resume` is off, or holds another recipe, or if
            `recipe.generation` has a setting that `generate` does not know.
    """
    unknown = GenerationConfig().update(**recipe.generation)
    if unknown:
        raise ConfigError(
            f"recipe {recipe.name!r}: generation has {sorted(unknown)}, which are no settings of "
            "Transformers' generate; see GenerationConfig for those that are."
        )
    saved = out / "recipe.json"
    runtime = runtime or Runtime.of(out)
    if saved.exists():
        if not resume:
            raise ConfigError(
                f"{out} already holds a run; add --resume to go on with it, "
                "or choose another folder."
            )
        before, now = json.loads(saved.read_text(encoding="utf-8")), json.loads(recipe.to_json())
        changed = list(differences(before, now))
        if changed:
            raise ConfigError(
                f"{out} was started with another recipe: {'; '.join(changed)}. "
                "Resume with the same settings, or start another run in another folder."
            )
    else:
        out.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(out / "start")
        processor.save_pretrained(out / "start")
        record = run_record(
            {stage.name: data_fingerprint(recipe, stage, runtime) for stage in recipe.stages}
        )
        (out / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        saved.write_text(recipe.to_json() + "\n", encoding="utf-8")
    runtime.save(out)
    _launch(out, processes or _default_processes())
    return out / "model"


def data_fingerprint(recipe: Recipe, stage: Stage, runtime: Runtime) -> dict[str, Any]:
    """Return what tells one stage's data from another's.

    It is the fingerprint of a mixture, or the range of scenes with their first and last ones.

    Args:
        recipe: whose stage it is.
        stage: one of them.
        runtime: says where the files are.
    """
    if stage.mixture is not None:
        return open_stage(recipe, stage, runtime).fingerprint()
    first = _first_scene(recipe, stage)
    reader = SceneReader("train", first + stage.samples, recipe.sides)
    digest = hashlib.sha256()
    for index in (first, len(reader) - 1):
        sample = reader[index]
        digest.update(image_digest(sample.open_image()).encode())
        digest.update(json.dumps(sample.regions.to_json()).encode())
    return {
        "source": "scenes", "split": "train", "first": first, "count": stage.samples,
        "sha256_of_first_and_last": digest.hexdigest(),
    }  # fmt: skip


def open_stage(recipe: Recipe, stage: Stage, runtime: Runtime) -> OpenMixture:
    """Open the mixture of a stage: its files in the run's data folder, its seed with the recipe's.

    Raises:
        ConfigError, DataError: as `open_mixture` does.
    """
    mixture = stage.mixture.under(runtime.data)
    mixture = dataclasses.replace(mixture, seed=mixture.seed + recipe.seed)
    return open_mixture(mixture, task_views(mixture))


def counted(stage: Stage, mixture: OpenMixture) -> Stage:
    """Return the stage with its `samples`: as many as the mixture has rows in all its epochs."""
    if stage.samples:
        return stage
    return dataclasses.replace(stage, samples=max(1, round(stage.epochs * mixture.rows())))


def _first_scene(recipe: Recipe, stage: Stage) -> int:
    """Stages see different scenes: each begins where the one before it ended."""
    before = recipe.stages[: recipe.stages.index(stage)]
    return sum(item.samples for item in before if item.mixture is None)


def _default_processes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return min(2, os.cpu_count() or 1)


def _launch(out: Path, processes: int) -> None:
    command = [sys.executable, "-m", "parfocal.train.worker", str(out)]
    environment = dict(os.environ)
    if processes > 1:
        spread = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        command[2:2] = spread
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise ConfigError(
            f"training in {out} stopped with exit code {code}; the log above says why. "
            "--resume goes on."
        )


def work(out: Path) -> None:
    """Train all stages of the run in `out`; every process of the run calls this.

    Each stage begins with the file that the one before it left, so a run that goes on and one that
    never stopped do the same.
    """
    recipe = Recipe.from_json((out / "recipe.json").read_text(encoding="utf-8"))
    runtime = Runtime.of(out)
    processor = ParfocalProcessor.from_pretrained(out / "start")
    before: Path | None = None
    for stage in recipe.stages:
        done = out / stage.name / "model.safetensors"
        if not done.exists():
            model = _model(out, recipe, before)
            weights = _train(model, processor, recipe, stage, out / stage.name, runtime)
            if _is_main():
                trained = _model(out, recipe, before)
                _take(trained, weights, stage.start_share)
                _report(trained, processor, stage, out / stage.name)
                _save_whole(trained, done)
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
        before = done
    if _is_main():
        model = _model(out, recipe, before)
        model.generation_config.update(**recipe.generation)
        model.to(torch.bfloat16).save_pretrained(out / "model")
        processor.save_pretrained(out / "model")


def _model(out: Path, recipe: Recipe, before: Path | None) -> ParfocalForConditionalGeneration:
    """Build the model as a stage begins with it: from the stage before, or from the start."""
    torch.manual_seed(recipe.seed)
    model = ParfocalForConditionalGeneration(ParfocalConfig.from_pretrained(out / "start"))
    if before is None:
        load_parts(model, recipe.weights)
    else:
        load_model(model, str(before))
    for part in (model.vision, model.proposer):
        if part is not None:
            part.to(memory_format=torch.channels_last)  # convolutions are about twice as fast so
    # faster backward than fused attention on a CPU with packed masks
    model.text.set_attn_implementation("eager")
    return model


def _take(
    model: ParfocalForConditionalGeneration, weights: Mapping[str, Tensor], start_share: float
) -> None:
    """Fill a model with trained weights, or with a mean of these and its own."""
    values = _numbers(model)
    own = [value.clone() for value in values] if start_share else []
    model.load_state_dict(dict(weights))
    for value, before in zip(values if start_share else [], own, strict=True):
        value.lerp_(before, start_share)


def _numbers(model: ParfocalForConditionalGeneration) -> list[Tensor]:
    """What a mean of two models is taken of: weights and statistics, tied ones once."""
    values = (*model.parameters(), *model.buffers())
    return [value.detach() for value in values if value.is_floating_point()]


def _save_whole(model: ParfocalForConditionalGeneration, path: Path) -> None:
    """Write the weights so that the file is complete whenever it exists."""
    part = path.with_suffix(".part")
    save_model(model, str(part))
    os.replace(part, path)


def _train(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    recipe: Recipe,
    stage: Stage,
    out: Path,
    runtime: Runtime,
) -> dict[str, Tensor]:
    torch.manual_seed(recipe.seed)  # of the objective's heads, whatever stages ran before
    if stage.mixture is None:
        objective, dataset, collator = _on_scenes(model, processor, recipe, stage)
    else:
        opened = open_stage(recipe, stage, runtime)
        stage = counted(stage, opened)
        objective, dataset = _on_mixture(model, processor, recipe, stage, opened, runtime)
        collator = None
    return run_stage(
        objective, stage, recipe, dataset, collator, out, micro_batch=runtime.micro_batch or None,
        trackers=runtime.trackers,
    )  # fmt: skip


def _on_scenes(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    recipe: Recipe,
    stage: Stage,
) -> tuple[nn.Module, Dataset[Sample], Any]:
    """Objective, data and collator of a stage on seeded scenes."""
    first = _first_scene(recipe, stage)
    reader = SceneReader("train", first + stage.samples, recipe.sides)
    if stage.objective == "detection":
        find = DetectionObjective(model, len(KINDS))
        return find, SceneDataset(reader, first), ObjectCollator(processor)
    dataset = ConversationDataset(reader, processor.dialect, recipe.seed, first)
    answer = build_language_objective(model, processor, stage.region_loss_weight)
    return answer, dataset, ConversationCollator(processor)


def _on_mixture(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    recipe: Recipe,
    stage: Stage,
    opened: OpenMixture,
    runtime: Runtime,
) -> tuple[nn.Module, EndlessBatches]:
    """Objective and batches of a stage on files."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    micro, _ = divide(stage, world, runtime.micro_batch or None)
    collate: Collate
    objective: nn.Module
    if stage.objective == "detection":
        heads = score_heads_of(model.config.proposer.score_heads)
        collate = DetectionCollator(processor, heads, AUGMENTS[stage.augment], recipe.seed)
        objective = DetectionObjective(model, num_kinds=0)
    else:
        cache = None
        if runtime.features and not stage.trains("vision"):
            cache = _remembered(model, processor, recipe, stage, opened, Path(runtime.features))
        collate = AnswerCollator(processor, stage.max_length, cache)
        objective = LanguageObjective(
            model,
            region_weight=stage.region_loss_weight,
            offer_ground_boxes=stage.offer_ground_boxes,
        )
    rank = int(os.environ.get("RANK", "0"))
    loader = MixtureLoader(opened, micro, collate, num_workers(recipe), rank=rank, world=world)
    return objective, EndlessBatches(loader)


def _remembered(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    recipe: Recipe,
    stage: Stage,
    opened: OpenMixture,
    folder: Path,
) -> FeatureCache:
    """Compute the features of all pictures of a stage, each process its own share of them."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    cache = FeatureCache(folder, model, not (stage.trains("proposer") or stage.trains("refiner")))
    epochs = itertools.count()
    read = itertools.chain.from_iterable(opened.iterate(epoch, rank, world) for epoch in epochs)
    share = itertools.islice(read, -(-stage.samples // world))
    count = fill(cache, model, processor, share, bf16=recipe.bf16)
    logger.info("stage %s: features of %d pictures computed", stage.name, count)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    cache.refresh()
    return cache


def build_language_objective(
    model: ParfocalForConditionalGeneration,
    processor: ParfocalProcessor,
    region_weight: float = 1.0,
) -> LanguageObjective:
    """Build the objective of scenes: it knows every kind's name and every comparison's words."""

    def tokens(words: str) -> list[int]:
        ids: list[int] = processor.tokenizer.encode(f" {words}", add_special_tokens=False)
        return ids

    names = [tokens(kind.name) for kind in KINDS]
    comparisons = [[tokens(word) for word in words_for(relation)] for relation in COMPARISONS]
    return LanguageObjective(model, names, comparisons, region_weight)


def _report(
    model: ParfocalForConditionalGeneration, processor: ParfocalProcessor, stage: Stage, out: Path
) -> None:
    if stage.eval_samples and stage.mixture is None:
        reader = SceneReader("validation", stage.eval_samples, (256,))
        scores = proposal_recall(model, processor, reader)
        logger.info("stage %s: %s", stage.name, scores)
        JsonLog(out / "metrics.jsonl").write(stage.steps, scores)


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
