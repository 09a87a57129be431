"""One stage of a recipe on the Hugging Face Trainer: optimiser, schedule, losses, checkpoints."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback

from parfocal.errors import TrainingError
from parfocal.train.adapters import add_adapters
from parfocal.train.arguments import training_arguments
from parfocal.train.callbacks import JsonLog, StageProgress
from parfocal.train.checkpoints import (
    best,
    check_sharing,
    newest,
    part_folder,
    prune,
    publish,
    step_of,
    write_sharing,
)
from parfocal.train.context import StageContext
from parfocal.train.mixture_data import EndlessBatches
from parfocal.train.objectives import ObjectiveOutput
from parfocal.train.optimizers import build_optimizer
from parfocal.train.parameters import (
    check_divisible,
    freeze,
    load_divided,
    load_whole,
    trainable_counts,
)
from parfocal.train.quantize import quantize, quantized_names
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.rows import held_rows

logger = logging.getLogger(__name__)


class StageTrainer(Trainer):
    """A Trainer whose model is an objective; logs the objective's named terms beside the loss."""

    stage: Stage
    recipe: Recipe
    _counts: dict[str, float] | None = None
    _batches: Sequence[Mapping[str, Any]] = ()

    def get_train_dataloader(self) -> Any:
        """Return batches of a mixture as they are; make a loader of anything else."""
        if isinstance(self.train_dataset, EndlessBatches):
            return self.train_dataset
        return super().get_train_dataloader()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Take the batches of a step, and count what its mean loss is over."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if isinstance(self.train_dataset, EndlessBatches):
            batches = send_to_device(batches, self.args.device)
        if self.recipe.loss_mean == "step" and batches:
            self._counts = self._counted(batches)
        self._batches = batches
        return batches, items

    def _counted(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Each process's and batch's share of what all batches of the step hold."""
        own = [self.model.counts(batch) for batch in batches]
        names = sorted(own[0])
        held = torch.tensor([[counts[name] for name in names] for counts in own])
        whole = self.accelerator.reduce(held.sum(0).to(self.args.device), "sum")
        # processes and batches are averaged afterwards
        shares = whole / (self.args.world_size * len(batches))
        return dict(zip(names, shares.tolist(), strict=True))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Run the objective on one batch."""
        counts = {} if self._counts is None else {"counts": self._counts}
        output: ObjectiveOutput = model(**inputs, **counts)
        for name, value in output.terms.items():
            self._terms[name].append(float(value))
        if not torch.isfinite(output.loss):
            self._stop_at(inputs, output)
        return (output.loss, output) if return_outputs else output.loss

    def _stop_at(self, inputs: dict[str, Any], output: ObjectiveOutput) -> None:
        """Keep the batch whose loss is no number, and stop: nothing good comes after it.

        Raises:
            TrainingError: always.
        """
        step, path = self.state.global_step + 1, self._keep(inputs)
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in output.terms.items())
        loss = float(output.loss.detach())
        raise TrainingError(
            f"stage {self.stage.name!r}: the loss of step {step} is {loss} ({terms}). "
            f"Its batch is in {path}. {self._way_on()}"
        )

    def _way_on(self) -> str:
        """What to do after a number that is none: the same recipe would only get there again."""
        run, names = Path(self.args.output_dir).parent, [stage.name for stage in self.recipe.stages]
        place = names.index(self.stage.name)
        left = [run / name for name in names[:place] if (run / name / "model.safetensors").exists()]
        options = [f"--set weights.model={folder}" for folder in left[-1:]]
        options += [f"--stage {name}" for name in names[place:]] if left else []
        start = f", which may start where this stage did: {' '.join(options)}" if left else ""
        return (
            "Look for a broken row: when it is mended, --resume goes on from the last checkpoint. "
            "A run keeps its recipe, so a lower learning rate or max_grad_norm needs another --out"
            f"{start}."
        )

    def _keep(self, inputs: Any) -> Path:
        """Write a batch, or several, to a file beside the checkpoints."""
        step, rank = self.state.global_step + 1, self.args.process_index
        path = Path(self.args.output_dir) / f"not-finite-step-{step}-rank-{rank}.safetensors"
        save_file(dict(_tensors(inputs)), str(path))
        return path

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of every term since the last log."""
        for name, values in self._terms.items():
            if values:
                logs[name] = round(sum(values) / len(values), 4)
        self._terms.clear()
        share = self.state.epoch
        if isinstance(self.train_dataset, EndlessBatches):
            self.state.epoch = float(self.train_dataset.loader.epoch)  # not the share of the stage
        super().log(logs, *args, **kwargs)
        self.state.epoch = share

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """Save the objective as safetensors, in the main process; tied tables are written once.

        What is quantised is not saved: it follows from what the stage began with.
        """
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        quantized = quantized_names(self.model)
        if state_dict is None and not quantized:
            save_model(self.model, str(folder / "model.safetensors"))
        else:  # `state_dict` was gathered from all processes, where each holds a part
            state = self.model.state_dict() if state_dict is None else state_dict
            owners: dict[int, str] = {}
            for name, value in state.items():
                if name not in quantized:
                    owners.setdefault(value.data_ptr(), name)
            once = {name: state[name].contiguous() for name in owners.values()}
            save_file(once, str(folder / "model.safetensors"))

    def go_on(self, checkpoint: Path | None) -> None:
        """Train the rest of the stage.

        Args:
            checkpoint: to go on from, None for the start.

        Raises:
            TrainingError: if the data end before the steps do.
        """
        with held_rows(self.model.model, self.stage.first_row):
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if self.state.global_step < self.stage.steps:
            raise TrainingError(
                f"stage {self.stage.name!r} ended after {self.state.global_step} of "
                f"{self.stage.steps} steps: its data hold fewer Samples than one step takes. Use "
                "more of them, or a smaller batch."
            )

    def model_weights(self) -> dict[str, Tensor]:
        """The model's weights by name; in the main process, nothing in others.

        Adapters are beside what they are on, and what is quantised is left out; see `merged`.
        """
        if self.is_deepspeed_enabled and self.deepspeed is None:  # nothing was left to train
            state = self.model.state_dict()
        else:
            state = self.accelerator.get_state_dict(self.model_wrapped)
        if not self.is_world_process_zero():
            return {}
        prefix, quantized = "model.", quantized_names(self.model)
        return {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix) and name not in quantized
        }

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint beside its name and give it the name when all of it is on disk."""
        out = Path(self.args.output_dir)
        part = part_folder(out, clear=self.args.should_save)
        self.accelerator.wait_for_everyone()
        self.args.output_dir = str(part)
        try:
            super()._save_checkpoint(model, trial)
            folder = part / f"checkpoint-{self.state.global_step}"
            if self.args.should_save:
                write_sharing(folder, *self.sharing)
            if isinstance(self.train_dataset, EndlessBatches):
                self.train_dataset.save(folder, self.args.process_index)
        finally:
            self.args.output_dir = str(out)
        self.accelerator.wait_for_everyone()  # every process writes its own generator's state
        if self.args.should_save:
            publish(part, out)
            prune(out, self.stage.keep)
        self.accelerator.wait_for_everyone()

    @property
    def sharing(self) -> tuple[int, str]:
        """How many processes share the work, and how."""
        way = "fsdp" if self.is_fsdp_enabled else "ddp"
        return self.args.world_size, "deepspeed" if self.is_deepspeed_enabled else way

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Load what `_save` wrote: strictly, or where processes hold parts, each its own."""
        path = str(Path(resume_from_checkpoint) / "model.safetensors")
        if self.is_fsdp_enabled:
            load_divided(model or self.model, path)
        else:
            load_whole(model or self.model, path)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Stop before a gradient that is no number reaches the weights and a checkpoint.

        Raises:
            TrainingError: if the norm, which is the same in all processes, is not finite.
        """
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            raise TrainingError(
                f"stage {self.stage.name!r}: the gradient of step {self.state.global_step + 1} has "
                f"the norm {float(norm)}, though its loss is finite. Its batches are in "
                f"{self._keep(self._batches)}. {self._way_on()}"
            )
        return norm

    @property
    def _terms(self) -> dict[str, list[float]]:
        if not hasattr(self, "_collected"):
            self._collected: dict[str, list[float]] = defaultdict(list)
        return self._collected

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As the stage says; see `build_optimizer`."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model, self.stage)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        """Linear warm-up, then a cosine to `final_lr_ratio`.

        Deviates: the first step already has a part of the rate, where Transformers' own schedule
        begins with a step of rate 0.
        """
        if self.lr_scheduler is None:
            optim, steps = self.stage.optim, self.stage.steps
            warmup = optim.warmup(steps)

            def factor(step: int) -> float:
                if step < warmup:
                    return (step + 1) / warmup
                done = min(1.0, (step - warmup) / max(1, steps - warmup))
                cosine = 0.5 * (1 + math.cos(math.pi * done))
                return optim.final_lr_ratio + (1 - optim.final_lr_ratio) * cosine

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a nested batch with its path as name."""
    if isinstance(value, Tensor):
        yield name, value.detach().cpu().contiguous()
    elif is_dataclass(value):
        for item in fields(value):
            yield from _tensors(getattr(value, item.name), f"{name}.{item.name}")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _tensors(inner, f"{name}.{index}" if name else str(index))


def run_stage(
    objective: nn.Module,
    context: StageContext,
    dataset: Dataset[Any] | EndlessBatches,
    collator: Any,
    out: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Tensor]:
    """Train one stage; checkpoints go to `out`, log lines to `out/metrics.jsonl`.

    Args:
        objective: owns the model; its parameters are changed in place.
        context: of the stage.
        dataset: at least the stage's `samples` examples, or batches without end.
        collator: makes `objective`'s keyword arguments; None where the batches are made.
        out: the stage's folder.
        callbacks: further Trainer callbacks, such as a benchmark's.

    A checkpoint that is already in `out` is continued; one that was cut off while it was written is
    passed over.

    Returns:
        As `StageTrainer.model_weights`: adapters are not merged yet.

    Raises:
        ConfigError: if the batch does not divide among the processes and micro-batches, or a prefix
            of `stage.trainable` names no parameter, or the checkpoint is of other processes.
    """
    stage = context.stage
    _choose_what_trains(objective, context)
    out.mkdir(parents=True, exist_ok=True)
    log = JsonLog(out / "metrics.jsonl")
    trainer = StageTrainer(
        model=objective,
        args=training_arguments(context, out, isinstance(dataset, EndlessBatches)),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[log, StageProgress(stage.name), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # it would write to stdout
    trainer.stage, trainer.recipe = stage, context.recipe
    checkpoint = newest(out)
    reached = 0 if checkpoint is None else step_of(checkpoint)
    if checkpoint is not None and reached < stage.steps:
        check_sharing(checkpoint, *trainer.sharing)
    if trainer.is_world_process_zero():
        log.cut(reached)
    if checkpoint is not None and isinstance(dataset, EndlessBatches):
        dataset.load(checkpoint, trainer.args.process_index)
    if stage.gradient_checkpointing:
        _keep_few_activations(objective.model.text)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        check_divisible(stage, objective)
    if checkpoint is not None and reached >= stage.steps:
        load_whole(objective, str(checkpoint / "model.safetensors"))  # only its end was missing
    else:
        trainer.go_on(checkpoint)
    if stage.best:
        _take_best(objective, stage, out)
    return trainer.model_weights()


def _take_best(objective: nn.Module, stage: Stage, out: Path) -> None:
    """Go back to the checkpoint that scored best, if one was scored."""
    chosen = best(out)
    if chosen is not None:
        logger.info("stage %s: the best checkpoint is %s", stage.name, chosen.name)
        load_whole(objective, str(chosen / "model.safetensors"))


def _choose_what_trains(objective: nn.Module, context: StageContext) -> None:
    """Quantise, add adapters and freeze as the stage says."""
    stage = context.stage
    if stage.lora is not None:
        text = objective.model.text
        if stage.lora.quantized:
            quantize(text, torch.bfloat16 if context.recipe.bf16 else torch.float32)
        add_adapters(text, stage.lora)
    freeze(objective, stage)
    counts = trainable_counts(objective.model, stage.first_row)
    logger.info("stage %s: %d parameters train, %d are frozen", stage.name, *counts)


def _keep_few_activations(text: nn.Module) -> None:
    """Let the language model compute its activations twice."""
    # Transformers gave the switch another name within version 5
    getattr(text, "activation_checkpointing_enable", text.gradient_checkpointing_enable)()
