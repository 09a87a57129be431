"""Run a recipe: one folder holds everything the run needs, so that it restarts from there alone.

- OUT/recipe.json: the resolved recipe
- OUT/run.json: versions and code that the run began with, and the data of every stage it began
- OUT/runtime.json: folders and sizes of the machine it runs on, and how many processes share it
- OUT/accelerate.yaml: what Accelerate is configured with, if it starts them
- OUT/run.lock, OUT/work.lock: held by the processes that train in it
- OUT/start/: config and processor the run began with
- OUT/STAGE/: checkpoints and metrics.jsonl of a stage; `model.safetensors` when it is done
- OUT/model/: the finished model, bfloat16, ready for `parfocal.load`
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from parfocal.data.outputs import atomic_file, make_folder
from parfocal.errors import ConfigError, ParfocalError
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.train.adapters import merged
from parfocal.train.checkpoints import newest, sync
from parfocal.train.checks import check_settings, check_stages
from parfocal.train.context import StageContext
from parfocal.train.costs import meta_model
from parfocal.train.parameters import check_divisible
from parfocal.train.processes import (
    ACCELERATE,
    LOCKS,
    command_of,
    default_processes,
    divided_states,
    launch,
    sole_run,
)
from parfocal.train.quantize import linear_layers
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.record import differences, recipe_changes, run_record
from parfocal.train.runtime import RUNTIME, Runtime, divides_weights, process_rank
from parfocal.train.stages import data_fingerprint, is_scored, score_stage, train_stage
from parfocal.train.start import start_problems
from parfocal.train.turn_attention import attention_for
from parfocal.train.weights import load_parts

logger = logging.getLogger(__name__)

SAVED, RECORD = "recipe.json", "run.json"


def start_run(
    recipe: Recipe,
    config: ParfocalConfig,
    processor: ParfocalProcessor,
    out: Path,
    resume: bool = False,
    runtime: Runtime | None = None,
    accelerate: Path | None = None,
    begin: bool = True,
    overrides: Sequence[str] = (),
) -> Path:
    """Train a recipe into `out`; returns the folder of the finished model.

    Args:
        recipe: what to train.
        config: of the model; its `token_ids` are the processor's.
        processor: of the model.
        out: the run's folder; created when it does not exist.
        resume: go on with the run in `out`, which must hold the same recipe.
        runtime: of the machine; when None, what the run had before, or the defaults. Where it
            names no number of processes there is one a GPU, or one a core (at most two) on a CPU.
        accelerate: configuration file of Accelerate; when None, the one that the run had before,
            or none, and every process holds the whole model.
        begin: False only prepares the folder, so that `accelerate launch -m parfocal.train.worker
            OUT` can start it on many machines.
        overrides: that made `recipe` of the one of its name; they are recorded.

    Raises:
        ConfigError: if `out` holds a run and `resume` is off, or holds another recipe, or if
            `recipe.generation` has a setting that `generate` does not know, or `runtime` names a
            stage that the recipe does not have or a tracker that is not installed, or a stage
            cannot train as it says (`check_stages`) or with what it starts from
            (`start_problems`), or `out` cannot be made, holds other things that the run would write
            over, or another process trains in it.
    """
    runtime = runtime or (Runtime.of(out) if (out / SAVED).exists() else Runtime())
    if begin:
        count = runtime.processes or default_processes()
        runtime = replace(runtime, processes=count)
    accelerate = accelerate or configuration_of(out)
    check_settings(recipe, runtime)
    divided, left = divided_states(accelerate) if begin else (), _left(recipe, out, runtime)
    missing = start_problems(meta_model(config), recipe, left, _done(recipe, out))
    if missing:
        raise ConfigError(" ".join(missing))
    check_stages(recipe, left, config, runtime, bool(divided), begin)
    if not (out / SAVED).exists():
        _check_free(recipe, out)
        make_folder(out)
    with sole_run(out, LOCKS[0]):
        with sole_run(out, LOCKS[1]):  # a worker that was started by hand
            _prepare(recipe, config, processor, out, resume, runtime, accelerate, overrides)
        if begin:
            launch(out, count, command_of(out, count, configuration_of(out), recipe.bf16))
    return out / "model"


def _prepare(
    recipe: Recipe,
    config: ParfocalConfig,
    processor: ParfocalProcessor,
    out: Path,
    resume: bool,
    runtime: Runtime,
    accelerate: Path | None,
    overrides: Sequence[str],
) -> None:
    """Write what the processes of a run start from; the arguments are those of `start_run`."""
    begun = (out / SAVED).exists()
    if begun:
        _check_same(recipe, out, resume)
    else:
        for name in (RECORD, ACCELERATE):
            (out / name).unlink(missing_ok=True)  # of a run that did not come to begin
        config.save_pretrained(out / "start")
        processor.save_pretrained(out / "start")
    _record(recipe, runtime, out, overrides)
    runtime.save(out)
    if accelerate is not None:
        text = accelerate.read_bytes()
        with atomic_file(out / ACCELERATE) as file:
            file.write(text)
    if not begun:
        with atomic_file(out / SAVED) as file:  # last: now it is a run
            file.write(f"{recipe.to_json()}\n".encode())


def configuration_of(out: Path) -> Path | None:
    """The configuration of Accelerate that the run in `out` has; None where there is none."""
    path = out / ACCELERATE
    return path if path.exists() and (out / SAVED).exists() else None


def _left(recipe: Recipe, out: Path, runtime: Runtime) -> tuple[Stage, ...]:
    """The stages that are to be trained now: those asked for that are not done."""
    return tuple(
        stage
        for stage in recipe.stages
        if not _weights_of(out, stage).exists()
        and (not runtime.stages or stage.name in runtime.stages)
    )


def _record(recipe: Recipe, runtime: Runtime, out: Path, overrides: Sequence[str]) -> None:
    """Write down what the run is made with: versions once, the data of stages before they train.

    The data of stages that are not to be trained now need not be here.
    """
    if not (out / RECORD).exists():
        _write_record(out, run_record({}, overrides))
    for stage in _left(recipe, out, runtime):
        _record_data(out, StageContext(recipe, stage, runtime))


def _record_data(out: Path, context: StageContext) -> None:
    """Write down what a stage is to read, which is not to change once it has begun.

    Raises:
        ConfigError: if it did.
    """
    record, name = _read_record(out), context.stage.name
    now, known = json.loads(json.dumps(data_fingerprint(context))), record["data"].get(name)
    if known == now:
        return
    if known is not None and newest(out / name) is not None:
        raise ConfigError(
            f"the data of stage {name!r} are others than when it began: "
            f"{'; '.join(differences(known, now))}. Put back what it read, or remove {out / name} "
            "to begin it again."
        )
    record["data"][name] = now
    _write_record(out, record)


def _read_record(out: Path) -> dict[str, Any]:
    """What the run in `out` recorded; as if it began now, where nothing was."""
    if not (out / RECORD).exists():
        return run_record({})
    record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
    return record


def _write_record(out: Path, record: Mapping[str, Any]) -> None:
    with atomic_file(out / RECORD) as file:
        file.write(f"{json.dumps(record, indent=2)}\n".encode())


def _check_free(recipe: Recipe, out: Path) -> None:
    """Refuse a folder that is no run's and holds what the run would write over."""
    names = ["model", "eval", *(stage.name for stage in recipe.stages)]
    if not (out / LOCKS[0]).exists():  # else a run of ours was cut off before it began
        names += ["start", RECORD, ACCELERATE, RUNTIME]
    taken = [name for name in names if (out / name).exists()]
    if taken:
        raise ConfigError(
            f"{out} is no folder of a run, and the run would write over what is in it: "
            f"{', '.join(taken)}. Choose another folder."
        )


def _check_same(recipe: Recipe, out: Path, resume: bool) -> None:
    """Refuse to go on with the run in `out` unasked, or with another recipe."""
    if not resume:
        raise ConfigError(
            f"{out} already holds a run; add --resume to go on with it, or choose another folder."
        )
    changed = recipe_changes(out / SAVED, recipe)
    if changed:
        raise ConfigError(
            f"{out} was started with another recipe: {'; '.join(changed)}. "
            "Resume with the same settings; to start anew with these, remove the folder or give "
            "another --out."
        )


def overrides_of(out: Path) -> tuple[str, ...] | None:
    """The overrides that the run in `out` began with; None where it did not record them."""
    given = json.loads((out / RECORD).read_text(encoding="utf-8")).get("overrides")
    return None if given is None else tuple(given)


def finished(recipe: Recipe, out: Path) -> bool:
    """Whether the last stage of the run in `out` is done."""
    return _weights_of(out, recipe.stages[-1]).exists()


def done_stages(recipe: Recipe, out: Path) -> tuple[str, ...]:
    """Names of the stages that the run in `out` has done; none where there is no run.

    Raises:
        ConfigError: if it is a run of another recipe.
    """
    if not (out / SAVED).exists():
        return ()
    _check_same(recipe, out, resume=True)
    return _done(recipe, out)


def _done(recipe: Recipe, out: Path) -> tuple[str, ...]:
    """Names of the stages that have left their weights in `out`."""
    return tuple(stage.name for stage in recipe.stages if _weights_of(out, stage).exists())


def _weights_of(out: Path, stage: Stage) -> Path:
    """What a stage of the run in `out` leaves."""
    return out / stage.name / "model.safetensors"


def work(out: Path) -> None:
    """Train all stages of the run in `out`; every process of the run calls this.

    Each stage begins with the file that the one before it left, so a run that goes on and one that
    never stopped do the same.

    Raises:
        ConfigError: if another process trains in `out`, or processes are to hold parts of the
            weights, which a stage does not allow.
    """
    with sole_run(out, LOCKS[1]) if process_rank() == 0 else nullcontext():
        recipe = Recipe.from_json((out / SAVED).read_text(encoding="utf-8"))
        runtime = Runtime.of(out)
        for stage in _left(recipe, out, runtime) if divides_weights() else ():
            check_divisible(stage)  # before hours of other stages
        if process_rank() == 0 and not finished(recipe, out) and (out / "eval").exists():
            shutil.rmtree(out / "eval")  # of a model that is now trained anew
        _work(out, recipe, runtime)


def _work(out: Path, recipe: Recipe, runtime: Runtime) -> None:
    """Train the stages that are not done, and write the finished model."""
    processor = ParfocalProcessor.from_pretrained(out / "start")
    before: Path | None = None
    for place, stage in enumerate(recipe.stages):
        done = _weights_of(out, stage)
        if not done.exists():
            if runtime.stages and stage.name not in runtime.stages:
                continue
            later = [item.name for item in recipe.stages[place:] if _weights_of(out, item).exists()]
            if later:
                raise ConfigError(
                    f"stage {stage.name!r} is not done, but {later[0]!r}, which comes after it, "
                    f"is. Remove {out / later[0]} to train it again, or choose another folder."
                )
            context = StageContext(recipe, stage, runtime)
            if process_rank() == 0:
                _record_data(out, context)  # they may have changed while other stages trained
            weights = train_stage(_model(out, recipe, before), processor, context, done.parent)
            if process_rank() == 0:
                trained = _model(out, recipe, before)
                _take(trained, weights, stage)
                _save_whole(trained, done)
                score_stage(trained, processor, context, done.parent)
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
        elif process_rank() == 0 and not is_scored(done.parent):
            _score_late(out, processor, StageContext(recipe, stage, runtime))
        before = done
    if process_rank() == 0:
        model = _model(out, recipe, before)
        model.generation_config.update(**recipe.generation)
        _publish(model.to(torch.bfloat16), processor, out / "model")


def _score_late(out: Path, processor: ParfocalProcessor, context: StageContext) -> None:
    """Score a stage that was done, but not scored, when the run was cut off; it stays done."""
    stage = context.stage
    model = _model(out, context.recipe, _weights_of(out, stage))
    try:
        score_stage(model, processor, context, out / stage.name)
    except (ParfocalError, OSError) as err:
        logger.warning("stage %s is done, and cannot be scored: %s", stage.name, err)


def _model(out: Path, recipe: Recipe, before: Path | None) -> ParfocalForConditionalGeneration:
    """Build the model as a stage begins with it: from the stage before, or from the start."""
    # While ZeRO-3 is on, Transformers divides what it builds, which waits for all processes.
    unset_hf_deepspeed_config()
    torch.manual_seed(recipe.seed)
    model = ParfocalForConditionalGeneration(ParfocalConfig.from_pretrained(out / "start"))
    if before is None:
        load_parts(model, recipe.weights)
    else:
        load_model(model, str(before))
    for part in (model.vision, model.proposer):
        # convolutions are about twice as fast so; DeepSpeed can only send what is contiguous
        if part is not None and os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true":
            part.to(memory_format=torch.channels_last)
    model.text.set_attn_implementation(attention_for(model.config.text_config.model_type))
    return model


def _take(
    model: ParfocalForConditionalGeneration, weights: Mapping[str, Tensor], stage: Stage
) -> None:
    """Fill a model, as the stage began with it, with trained weights, or with a mean of both.

    Adapters are added to the weights they are on; those that were quantised are the model's own.
    """
    share, values = stage.start_share, _numbers(model)
    own = [value.clone() for value in values] if share else []
    if stage.lora is not None:
        start = _quantized_weights(model) if stage.lora.quantized else {}
        weights = merged(weights, stage.lora, start)
    model.load_state_dict(dict(weights))
    for value, before in zip(values if share else [], own, strict=True):
        value.lerp_(before, share)


def _quantized_weights(model: ParfocalForConditionalGeneration) -> dict[str, Tensor]:
    """The full-precision weights, by name, of all that a stage may have quantised."""
    layers = linear_layers(model.text)
    return {
        f"text.{name}.{key}": value.detach()
        for name, layer in layers.items()
        for key, value in layer.named_parameters()
    }


def _numbers(model: ParfocalForConditionalGeneration) -> list[Tensor]:
    """What a mean of two models is taken of: weights and statistics, tied ones once."""
    values = (*model.parameters(), *model.buffers())
    return [value.detach() for value in values if value.is_floating_point()]


def _publish(
    model: ParfocalForConditionalGeneration, processor: ParfocalProcessor, folder: Path
) -> None:
    """Write a model so that its folder is complete whenever it exists."""
    part, old = folder.with_suffix(".part"), folder.with_suffix(".old")
    for path in (part, old):
        shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(part, max_shard_size="1000GB")  # one file
    processor.save_pretrained(part)
    for path in (*part.iterdir(), part):
        sync(path)
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def _save_whole(model: ParfocalForConditionalGeneration, path: Path) -> None:
    """Write the weights so that the file is complete whenever it exists."""
    part = path.with_suffix(".part")
    save_model(model, str(part))
    sync(part)
    os.replace(part, path)
