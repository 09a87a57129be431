"""What is wrong with a stage before it runs: all of it is collected, and nothing is fetched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.integrations import get_available_reporting_integrations

from parfocal.data.leaks import load_benchmarks
from parfocal.data.mixing import OpenMixture, task_views
from parfocal.data.mixture import LOCAL_BUILDERS, MixtureSource
from parfocal.data.mixture_sources import OpenSource
from parfocal.data.scenes.catalogue import KINDS
from parfocal.errors import ConfigError, ParfocalError
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.train.adapters import add_adapters
from parfocal.train.arguments import divide
from parfocal.train.context import StageContext
from parfocal.train.costs import meta_model
from parfocal.train.detection import DetectionObjective
from parfocal.train.language import LanguageObjective
from parfocal.train.optimizers import check_names
from parfocal.train.parameters import check_divisible, freeze
from parfocal.train.quantize import check_installed, check_layers
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.rows import check_rows
from parfocal.train.runtime import Runtime
from parfocal.train.stages import check_aligned, open_stage, scored_rows

ROWS = 3  # of each source, whose pictures are opened


@dataclass
class Findings:
    """What was found so far.

    Attributes:
        problems: sentences, each about something that would stop the run.
        to_fetch: what the run would fetch from a network.
    """

    problems: list[str] = field(default_factory=list)
    to_fetch: list[str] = field(default_factory=list)

    def attempt(self, run: Callable[[], Any], where: str = "") -> Any:
        """Return what `run` does, or None and note what it complains of."""
        try:
            return run()
        except (ParfocalError, OSError) as err:
            self.problems.append(f"{where}{err}")
            return None


def check_settings(recipe: Recipe, runtime: Runtime) -> None:
    """Refuse settings that would only fail at the end of the run, or say nothing to its stages.

    Raises:
        ConfigError: naming them, and what there is.
    """
    unknown = GenerationConfig().update(**recipe.generation)
    if unknown:
        raise ConfigError(
            f"recipe {recipe.name!r}: generation has {sorted(unknown)}, which are no settings of "
            "Transformers' generate; see GenerationConfig for those that are."
        )
    if runtime.features and not any(
        stage.mixture is not None and stage.objective == "language" for stage in recipe.stages
    ):
        raise ConfigError(
            f"recipe {recipe.name!r}: features are kept of language stages that read files "
            "(mixture), and it has none. Leave --features out."
        )
    available = get_available_reporting_integrations()
    absent = [name for name in runtime.trackers if name not in available]
    if absent:
        raise ConfigError(
            f"tracker {absent[0]!r} is not known to Transformers or not installed; here are "
            f"{sorted(available)}. Install it, or give --track none."
        )
    names = [stage.name for stage in recipe.stages]
    missing = [name for name in runtime.stages if name not in names]
    if missing:
        raise ConfigError(
            f"recipe {recipe.name!r} has no stage {missing[0]!r}; its stages are {names}."
        )


def check_benchmarks(recipe: Recipe, known: Collection[str]) -> None:
    """Refuse benchmarks that could only fail when all stages are done.

    Raises:
        ConfigError: if one is not among those that are `known` to run without being told of data,
            or none of its pictures are to be asked about.
    """
    for name in recipe.benchmarks:
        if name not in known:
            raise ConfigError(
                f"there is no benchmark {name!r} that a recipe can run; choose from "
                f"{sorted(known)}, and run others on the finished model, with `parfocal eval`."
            )
    limit = recipe.benchmark_limit
    if limit is not None and limit < 1:
        raise ConfigError(
            f"benchmark_limit is {limit}, must be 1 or more, or none for whole benchmarks."
        )


def check_stages(
    recipe: Recipe,
    stages: Sequence[Stage],
    config: ParfocalConfig,
    runtime: Runtime,
    divides: bool = False,
    here: bool = True,
) -> None:
    """Refuse what would stop a stage when it begins, which may be hours after the first one does.

    Args:
        recipe: of the run.
        stages: of it, those that are to be trained now.
        config: of its model.
        runtime: says how many processes divide a step, and where files are.
        divides: processes are to hold parts of the weights, gradients or moments.
        here: they are trained on this machine, now.

    Raises:
        ConfigError: naming all that is wrong.
    """
    found = Findings()
    for stage in stages:
        objective = prepare(meta_model(config), stage, found)
        found.attempt(partial(_open_scores, StageContext(recipe, stage, runtime)))
        if here:
            check_machine(stage, objective, runtime, divides, found)
    if found.problems:
        raise ConfigError(" ".join(found.problems))


def check_machine(
    stage: Stage, objective: nn.Module, runtime: Runtime, divides: bool, found: Findings
) -> tuple[int, int] | None:
    """Look for what a stage needs of the machine that it is to train on.

    Args:
        stage: to be trained.
        objective: of `prepare`.
        runtime: says how many processes divide a step.
        divides: processes are to hold parts of the weights, gradients or moments.
        found: is told what is missing.

    Returns:
        As `divide` does; None if a step does not come out even.
    """
    if stage.lora is not None and stage.lora.quantized:
        found.attempt(check_installed, f"stage {stage.name!r}: ")
    if divides:
        found.attempt(partial(check_divisible, stage, objective))
    micro, world = runtime.micro_batch or None, max(1, runtime.processes)
    parts: tuple[int, int] | None = found.attempt(partial(divide, stage, world, micro))
    return parts


def prepare(model: ParfocalForConditionalGeneration, stage: Stage, found: Findings) -> nn.Module:
    """Add the stage's adapters to a model on the meta device, and freeze what it freezes.

    Prefixes that name no parameter are passed over. Nothing is quantised: shapes stay as they are.

    Returns:
        The objective, as far as the names of its parameters go.
    """
    lora, where = stage.lora, f"stage {stage.name!r}: "
    if lora is not None and lora.quantized:
        found.attempt(lambda: check_layers(model.text), where)
    with torch.device("meta"):
        if lora is not None:
            found.attempt(lambda: add_adapters(model.text, lora), where)
        own = found.attempt(partial(_objective, model, stage), where)
        objective = LanguageObjective(model) if own is None else own
    found.attempt(partial(check_rows, model, stage.first_row), where)
    if stage.mixture is None and stage.objective == "language":
        found.attempt(partial(check_aligned, model.config, stage.alignment_weight), where)
    try:
        freeze(objective, stage)
    except ConfigError:
        known: list[str] = []
        for prefix in stage.trainable:
            before = len(found.problems)
            one = dataclasses.replace(stage, trainable=(prefix,))
            found.attempt(partial(freeze, objective, one))
            if len(found.problems) == before:
                known.append(prefix)
        freeze(objective, dataclasses.replace(stage, trainable=tuple(known)))
    else:  # otherwise what the optimiser names may be what they meant
        found.attempt(partial(check_names, objective, stage))
    return objective


def _objective(model: ParfocalForConditionalGeneration, stage: Stage) -> nn.Module:
    """The objective that a stage trains, as far as the names of its parameters go."""
    if stage.objective == "detection":
        return DetectionObjective(model, 0 if stage.mixture is not None else len(KINDS))
    aligned = stage.mixture is None and stage.alignment_weight
    return LanguageObjective(model, [[0]], [[[0]]]) if aligned else LanguageObjective(model)


def open_data(
    recipe: Recipe, stage: Stage, runtime: Runtime, found: Findings
) -> OpenMixture | None:
    """Open a stage's mixture and the pictures of the first rows of each source.

    Returns:
        None for a stage on scenes, and where something is wrong or would have to be fetched.
    """
    if stage.mixture is None:
        return None
    mixture, scored = stage.mixture.under(runtime.data), stage.eval_mixture
    remote = [source for source in mixture.sources if _is_remote(source)]
    far = [source for source in scored.sources if _is_remote(source)] if scored else []
    found.to_fetch += [f"source {item.name!r}: dataset {item.path}" for item in (*remote, *far)]
    if not far:
        found.attempt(partial(_open_scores, StageContext(recipe, stage, runtime)))
    refused = ""
    if not remote:
        try:
            opened = open_stage(StageContext(recipe, stage, runtime))
        except (ParfocalError, OSError) as err:
            refused = f"stage {stage.name!r}: {err}"
        else:
            for source in opened.sources:
                _check_rows(source, found)
            return opened
    before = len(found.problems)
    local = [source for source in mixture.sources if source not in remote]
    sources = [found.attempt(partial(OpenSource, source, mixture.seed)) for source in local]
    found.attempt(partial(task_views, mixture))
    found.attempt(partial(load_benchmarks, mixture.benchmarks))
    if refused and len(found.problems) == before:  # all of them together
        found.problems.append(refused)
    for source in sources:
        if source is not None:
            _check_rows(source, found)
    return None


def _open_scores(context: StageContext) -> None:
    """Open what a stage is scored on.

    Raises:
        ConfigError: if that is not possible.
    """
    stage = context.stage
    if stage.eval_samples and stage.eval_mixture is not None:
        try:
            scored_rows(context)
        except (ParfocalError, OSError) as err:
            raise ConfigError(f"stage {stage.name!r}: eval_mixture: {err}") from err


def _is_remote(source: MixtureSource) -> bool:
    """Whether opening it asks a network; see `parfocal.data.rows.hub`."""
    elsewhere = any("://" in name for name in source.files)
    return source.kind == "hub" and (source.path not in LOCAL_BUILDERS or elsewhere)


def _check_rows(source: OpenSource, found: Findings) -> None:
    def look(row: int) -> None:
        source.read(row).open_images()

    for row in range(min(ROWS, len(source))):
        found.attempt(partial(look, row), f"source {source.name!r}: ")
