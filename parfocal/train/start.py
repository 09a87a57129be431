"""What a run starts from: weights that are given, and what stages that are left out would train.

It is looked at before the run's folder is made; nothing is loaded or fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from parfocal.errors import CheckpointError
from parfocal.models.checkpoints.sources import local_folder
from parfocal.train.parameters import under
from parfocal.train.recipe import Recipe, Stage
from parfocal.train.weights import WHOLE, belongs


def start_problems(
    model: nn.Module, recipe: Recipe, left: Sequence[Stage], done: Collection[str]
) -> list[str]:
    """Say what of a run's start is missing.

    Args:
        model: of the recipe, on the meta device.
        recipe: of the run.
        left: stages of it that are to be trained now, in order.
        done: names of those that are done; the weights that the run began with are then not asked
            for.

    Returns:
        A sentence for each thing.
    """
    found = [] if done else _weight_problems(model, recipe)
    random = _untrained(model, recipe, left, done)
    if random:
        stages, parts = (list(dict.fromkeys(names)) for names in zip(*random, strict=True))
        found.append(
            f"stages {stages} are neither done nor asked for, and no weights are given for what "
            f"they would train: {parts}. Train them first, or say where trained weights are, with "
            "--set weights.model=FOLDER or weights.PART=FOLDER."
        )
    return found


def _weight_problems(model: nn.Module, recipe: Recipe) -> list[str]:
    """Look for the parts and the folders of the weights that a run starts from."""
    own, found = list(model.state_dict()), []
    for part, source in recipe.weights.items():
        if not any(belongs(name, part) for name in own):
            names = [WHOLE, *sorted(name for name, _ in model.named_children())]
            found.append(f"weights: there is no part {part!r} among those of {names}.")
        try:
            _look_for(source)
        except (CheckpointError, OSError) as err:
            found.append(f"weights of {part!r}: {err}")
    return found


def _look_for(source: str) -> None:
    """Look for weights, without loading them.

    Raises:
        CheckpointError: if there is no such folder, it is not in the local cache, or holds none.
    """
    folder = local_folder(source)
    kinds = (".safetensors", ".bin", ".pt", ".pth")
    if folder.is_dir() and not any(path.suffix in kinds for path in folder.iterdir()):
        raise CheckpointError(f"{folder} holds no weights ({', '.join(kinds)}).")


def _untrained(
    model: nn.Module, recipe: Recipe, left: Sequence[Stage], done: Collection[str]
) -> list[tuple[str, str]]:
    """Stages that are left out, with each part of theirs that no weights are given for.

    What the last stage that is done left holds whatever those before it trained.
    """
    names = [stage.name for stage in recipe.stages]
    reached = max((place for place, name in enumerate(names) if name in done), default=-1)
    last = names.index(left[-1].name) if left else 0
    own = [
        name
        for name in model.state_dict()
        if not any(belongs(name, part) for part in recipe.weights)
    ]
    return [
        (stage.name, part)
        for stage in recipe.stages[reached + 1 : last]
        if stage not in left
        for part in (*stage.trainable, *(("text",) if stage.lora is not None else ()))
        if any(under(name, part) for name in own)
    ]
