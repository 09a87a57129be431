"""Where the regions of a picture stand among a row's slots, and which of them answers name.

Shapes: B rows, L tokens, R region slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parfocal.models.config import TokenIds
from parfocal.models.matching import match_boxes
from parfocal.models.proposer import Regions
from parfocal.models.text_batch import IGNORED, TextBatch


def scatter_slots(
    regions: Regions,
    num_user: Tensor,
    generator: torch.Generator | Sequence[torch.Generator],
    keep_order: bool = False,
) -> Regions:
    """Scatter proposals over all slots behind the user's, so that every region name is learned.

    For training only.

    Args:
        regions: from `select_regions`, without features.
        num_user: int[B], user boxes of each row, which keep their slots.
        generator: on the CPU; decides the places. One of each row, or one of all.
        keep_order: spread the proposals out without changing their order, in every second row, or
            if the row's own generator says so; the others stay as they are when pictures are asked
            about.
    """
    order = []
    for row in range(regions.mask.shape[0]):
        first, slots = int(num_user[row]), regions.mask.shape[1]
        drawn = generator if isinstance(generator, torch.Generator) else generator[row]
        places = torch.randperm(slots - first, generator=drawn)  # of each slot behind them
        if keep_order:
            live = int(regions.mask[row].sum()) - first
            increasing = places[:live].sort().values
            one = drawn is generator  # of all rows
            spread = row % 2 if one else int(torch.randint(2, (), generator=drawn))
            places = torch.cat((increasing, places[live:])) if spread else places.sort().values
        order.append(torch.cat((torch.arange(first), first + places.argsort())))
    index = torch.stack(order).to(regions.mask.device)
    boxes = regions.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Regions(boxes, regions.scores.gather(1, index), regions.mask.gather(1, index))


def resolve_boxes(
    text: TextBatch, regions: Regions, ids: TokenIds, threshold: float
) -> tuple[Tensor, Tensor]:
    """Replace every `<ground_box>` by the name of the region slot that overlaps its box best.

    A turn with a box that no slot matches is not learned from: the model cannot name what was not
    proposed.

    Args:
        text: packed rows with labels and ground boxes.
        regions: the slots of each row, with their mask.
        ids: of the placeholders.
        threshold: `ProposerConfig.match_threshold`.

    Returns:
        input_ids and labels, int[B, L] each, new tensors.
    """
    input_ids, labels = text.input_ids.clone(), text.labels.clone()
    slots = match_boxes(text.ground_boxes, text.ground_mask, regions, threshold)
    rows, columns = torch.nonzero(input_ids == ids.ground_box, as_tuple=True)
    order = torch.cat([slots[row][text.ground_mask[row]] for row in range(len(slots))])
    names = ids.first_region + order.clamp(min=0)
    input_ids[rows, columns] = names
    labels[rows, columns] = torch.where(labels[rows, columns] == IGNORED, IGNORED, names)
    for row, column in zip(rows[order < 0].tolist(), columns[order < 0].tolist(), strict=True):
        labels[row][text.turn[row] == text.turn[row, column]] = IGNORED
    return input_ids, labels
