"""What a recipe will do, before it does it: counts, tokens, work, memory, hours, and what is wrong.

Nothing is trained, fetched or kept in memory. `parfocal.train.costs` has the formulas of work and
memory, `parfocal.train.checks` what is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from parfocal.data.mixing import OpenMixture
from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.info import part_modules, prefill_flops
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.train.checks import (
    Findings,
    check_benchmarks,
    check_machine,
    check_settings,
    open_data,
    prepare,
)
from parfocal.train.costs import (
    Memory,
    Row,
    host_memory,
    meta_model,
    process_memory,
    row_flops,
)
from parfocal.train.feature_cache import entry_bytes, free_bytes, kept_for
from parfocal.train.measure import measure
from parfocal.train.parameters import trainable_counts
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.runtime import Runtime, attention
from parfocal.train.stages import counted
from parfocal.train.start import start_problems
from parfocal.train.turn_attention import attention_for
from parfocal.train.typed import build

SCHEMA = "parfocal.plan/1"
TFLOPS = 100.0  # of a GPU, assumed where nobody says: what it reaches is not known beforehand
CPU_TFLOPS = 0.05  # of a core: about what the whole of mini reached, 0.98 PFLOP in 145 min on two
FOR_GPUS = 10**9  # parameters from which on a model is planned for GPUs, also where none is


@dataclass(frozen=True)
class PartPlan:
    """What a stage does with one part of the model.

    Attributes:
        name: of the part, as `parfocal info` has it.
        trained: parameters that train, adapters included.
        frozen: parameters that do not.
        flops: work of a mean row in this part, forward and backward; None where rows are not known.
    """

    name: str
    trained: int
    frozen: int
    flops: int | None


@dataclass(frozen=True)
class FeaturesPlan:
    """What `--features` keeps for a stage.

    Attributes:
        picture: bytes of one, in float32.
        pictures: how many, if each row shows another; None where rows are not known.
        size: bytes of them all.
    """

    picture: int
    pictures: int | None
    size: int | None


@dataclass(frozen=True)
class StagePlan:
    """What a stage will do; None where it cannot be known.

    Attributes:
        name: of the stage.
        objective: what it trains towards.
        trained: parameters that train, adapters included.
        frozen: parameters that do not.
        parts: both by part.
        samples: that it sees.
        steps: of the optimiser.
        batch_size: Samples a step.
        micro_batch: Samples that a process computes at a time.
        accumulation: such batches a process and step.
        row: the mean row.
        tokens: of all samples.
        flops: of all samples, forward and backward.
        memory: of a process.
        host: bytes of the machine itself, with all processes on it; see `host_memory`.
        hours: at the plan's rate.
        features: that are kept; None where none are.
    """

    name: str
    objective: str
    trained: int
    frozen: int
    parts: tuple[PartPlan, ...]
    samples: int | None
    steps: int | None
    batch_size: int
    micro_batch: int | None
    accumulation: int | None
    row: Row | None
    tokens: int | None
    flops: int | None
    memory: Memory | None
    host: int | None
    hours: float | None
    features: FeaturesPlan | None


@dataclass(frozen=True)
class Plan:
    """What a recipe will do.

    Attributes:
        recipe: its name.
        budget: which of its sizes.
        model: name of the preset.
        processes: that share every step.
        tflops: what each of them is assumed to reach, in TFLOP/s.
        device: that memory is counted for: a GPU where one is here, and for large models.
        attention: of the language model there.
        stages: in order.
        to_fetch: what the run would fetch from a network.
        problems: sentences about what would stop the run.
        free: bytes on the disk of the features; None where none are kept.
    """

    recipe: str
    budget: str
    model: str
    processes: int
    tflops: float
    device: Literal["cuda", "cpu"]
    attention: str
    stages: tuple[StagePlan, ...]
    to_fetch: tuple[str, ...]
    problems: tuple[str, ...]
    free: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Read decoded JSON of `to_json`.

        Raises:
            ConfigError: if it is no plan.
        """
        if values.get("schema") != SCHEMA:
            raise ConfigError(f"this is no plan: its schema is {values.get('schema')!r}.")
        found: Plan = build(cls, {key: item for key, item in values.items() if key != "schema"})
        return found


def plan(
    recipe: Recipe,
    config: ParfocalConfig,
    processor: ParfocalProcessor | None,
    runtime: Runtime,
    *,
    benchmarks: Collection[str],
    tflops: float | None = None,
    done: Collection[str] = (),
    divided: Collection[str] = (),
    problems: Sequence[str] = (),
) -> Plan:
    """Say what a recipe will do, and all that would stop it.

    Args:
        recipe: what would be trained.
        config: of its model.
        processor: of its model; None if its tokenizer is not here, and texts count as their limit.
        runtime: says which stages are run, where the files are and how a step is divided; 0
            processes are one.
        benchmarks: names of those that recipes can run.
        tflops: what a process is assumed to reach, in TFLOP/s; None: `TFLOPS` on GPUs, otherwise
            `CPU_TFLOPS`.
        done: names of stages that are left out, as a run that goes on has them; the weights that it
            began with are then not asked for.
        divided: of `divided_states`: what each process is to hold its part of alone.
        problems: sentences about what is already known to stop it, such as why there is no
            processor.

    Example:
        config, processor = parts_of(recipe)
        plan(recipe, config, processor, Runtime(), benchmarks=BUNDLED).stages[0].steps
    """
    found, model = Findings(list(problems)), meta_model(config).requires_grad_(False)
    found.attempt(lambda: check_settings(recipe, runtime))
    asked = runtime.stages or [stage.name for stage in recipe.stages]
    left = [stage for stage in recipe.stages if stage.name in asked and stage.name not in done]
    found.problems += start_problems(model, recipe, left, done)
    found.attempt(lambda: check_benchmarks(recipe, benchmarks))
    here = torch.cuda.is_available()
    cuda = here or sum(value.numel() for value in model.parameters()) >= FOR_GPUS
    rate = tflops or (TFLOPS if cuda else CPU_TFLOPS)
    planner = _Planner(
        recipe, config, processor, runtime, rate, cuda, prefill_flops(model, 1), divided, found
    )
    stages = tuple(planner.stage(stage) for stage in left)
    free = planner.free(stages) if runtime.features else None
    return Plan(
        recipe=recipe.name,
        budget=recipe.budget,
        model=recipe.model,
        processes=planner.processes,
        tflops=rate,
        device="cuda" if cuda else "cpu",
        attention=attention_for(config.text_config.model_type, cuda),
        stages=stages,
        to_fetch=tuple(dict.fromkeys(found.to_fetch)),
        problems=tuple(dict.fromkeys(found.problems)),
        free=free,
    )


@dataclass(frozen=True)
class _Planner:
    """What all stages share; `forward` is the work of a picture by part."""

    recipe: Recipe
    config: ParfocalConfig
    processor: ParfocalProcessor | None
    runtime: Runtime
    tflops: float
    cuda: bool
    forward: Mapping[str, int]
    divided: Collection[str]
    found: Findings

    @property
    def processes(self) -> int:
        return max(1, self.runtime.processes)

    def stage(self, stage: Stage) -> StagePlan:
        """Plan one stage, on a model of its own, as its adapters are not those of the next."""
        recipe, found, model = self.recipe, self.found, meta_model(self.config)
        objective = prepare(model, stage, found)
        opened = open_data(recipe, stage, self.runtime, found)
        samples = stage.samples
        if opened is not None:
            samples = samples or round(stage.epochs * opened.samples())
            stage = counted(stage, opened)
        division = check_machine(stage, objective, self.runtime, bool(self.divided), found)
        row = measure(recipe, stage, model, self.processor, opened, found)
        parts = self._parts(model, stage, row)
        flops, memory = None, None
        if row is not None and samples:
            flops = samples * sum(part.flops or 0 for part in parts)
        if row is not None and division is not None:
            micro = division[0]
            memory = process_memory(
                model, stage, row, micro, self.processes, recipe.bf16, attention(self.cuda)
            )
            memory = memory.divided(self.divided, self.processes)
        trained, frozen = trainable_counts(model, stage.first_row)
        return StagePlan(
            name=stage.name,
            objective=stage.objective,
            trained=trained,
            frozen=frozen,
            parts=parts,
            samples=samples or None,
            steps=stage.steps if stage.samples else None,
            batch_size=stage.batch_size,
            micro_batch=division and division[0],
            accumulation=division and division[1],
            row=row,
            tokens=round(samples * row.tokens) if row and samples else None,
            flops=flops,
            memory=memory,
            host=host_memory(model, memory, self.processes, self.cuda),
            hours=self._hours(flops),
            features=self._features(stage, model, row, opened, samples),
        )

    def _hours(self, flops: int | None) -> float | None:
        if flops is None:
            return None
        return flops / (self.processes * self.tflops * 1e12) / 3600

    def _features(
        self,
        stage: Stage,
        model: ParfocalForConditionalGeneration,
        row: Row | None,
        opened: OpenMixture | None,
        samples: int,
    ) -> FeaturesPlan | None:
        if not self.runtime.features or not kept_for(stage):
            return None
        picture, pictures = entry_bytes(model), None
        if opened is not None and row is not None:
            rows = sum(map(len, opened.sources))
            pictures = round(row.pictures * (rows if opened.expands else min(rows, samples)))
        return FeaturesPlan(picture, pictures, None if pictures is None else picture * pictures)

    def free(self, stages: Sequence[StagePlan]) -> int:
        """Return what is free where features are kept, and note if they do not fit there."""
        folder, data = Path(self.runtime.features), {}
        mixtures = {stage.name: stage.mixture for stage in self.recipe.stages}
        for stage in stages:
            if stage.features and stage.features.size:
                data[mixtures[stage.name]] = stage.features.size  # once, if stages share pictures
        free, held = free_bytes(folder)
        if sum(data.values()) > free + held:
            self.found.problems.append(
                f"--features keeps up to {sum(data.values()) / 1e9:,.1f} GB, and {folder} has "
                f"{free / 1e9:,.1f} GB free. Name a folder on a larger disk, or leave --features "
                "out."
            )
        return free

    def _parts(
        self, model: ParfocalForConditionalGeneration, stage: Stage, row: Row | None
    ) -> tuple[PartPlan, ...]:
        work = {} if row is None else row_flops(model, stage, row, self.forward)
        modules = {name: part for name, part in part_modules(model).items() if _weighs(part)}
        return tuple(
            PartPlan(
                name,
                *trainable_counts(part, stage.first_row if name == "text" else 0),
                work.get(name),
            )
            for name, part in modules.items()
        )


def _weighs(part: Any) -> bool:
    return any(True for _ in part.parameters())
