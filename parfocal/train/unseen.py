"""Parts that a batch does without, run all the same where processes divide the weights.

FSDP and DeepSpeed gather and reduce each part in all processes together. One whose batch shows no
picture, or no object image, would leave the others waiting for it. So it looks at a blank one, and
adds nothing of it to the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.outputs import Perception


def blank_picture(config: ParfocalConfig) -> list[Tensor]:
    """One float[1, 3, S, S] a tower, in its mean colour."""
    return [torch.zeros(1, 3, tower.image_size, tower.image_size) for tower in config.vision.towers]


def look_at(
    model: ParfocalForConditionalGeneration,
    blank: list[Tensor] | Perception,
    device: torch.device,
    pictures: bool,
    objects: bool,
) -> Tensor:
    """Run what reads pictures and object images on a blank one.

    Args:
        model: to run.
        blank: from `blank_picture`, or what `perceive` made of it, where batches have that too.
        device: of the batch.
        pictures: whether it shows none.
        objects: whether it shows no object image.

    Returns:
        0, with gradients of 0 for all parts that ran.
    """
    nothing = torch.zeros((), device=device)
    if pictures:
        shown = blank.to(device) if isinstance(blank, Perception) else _on(blank, device)
        features, regions = model.encode(shown), None
        if model.regions is not None:
            none = torch.zeros(1, 0, 4, device=device)
            chosen = model.choose_regions(features, none, none[..., 0].bool())
            regions = model.describe_regions(features, chosen)
            if regions.features is not None:
                nothing = nothing + 0 * regions.features.float().sum()
        nothing = nothing + 0 * model.image_tokens(features, regions).float().sum()
    if objects and model.num_object_tokens:
        crops = [values[None] for values in _on(blank_picture(model.config), device)]
        mask = torch.ones(1, 1, dtype=torch.bool, device=device)
        nothing = nothing + 0 * model.encode_objects(crops, mask).float().sum()
    return nothing


def _on(values: list[Tensor], device: torch.device) -> list[Tensor]:
    return [value.to(device) for value in values]
