"""Objectives: modules that own the model and its loss; the loop is `objective(**batch).loss`.

Shapes: B pictures, N annotated objects (padded), R region slots, K kinds of object, D text width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence

from parfocal.models.config import TokenIds
from parfocal.models.modeling import (
    ImageFeatures,
    ParfocalForConditionalGeneration,
    match_boxes,
)
from parfocal.models.packing import additive, packed_attention
from parfocal.models.processing import IGNORED, TextBatch
from parfocal.models.proposer import DenseOutput, Regions, select_regions
from parfocal.train.detection_losses import (
    DetectionTarget,
    dense_box_loss,
    dense_targets,
    ltrb_to_xyxy,
    object_gaussians,
    penalty_reduced_focal,
    set_prediction_loss,
)
from parfocal.train.refinement import jittered, refinement_terms


@dataclass
class ObjectiveOutput:
    """A loss to descend and the named terms behind it (detached, for the log)."""

    loss: Tensor
    terms: dict[str, Tensor]


class DetectionObjective(nn.Module):
    """Find the objects and tell them apart.

    The terms: proposals, kinds on the finest level, kinds and likeness of regions, and the second
    look at boxes if the model takes one: features that are to place a side must learn to.
    The class heads live here, not in the model: they only teach the features to tell kinds apart.
    """

    jitter = 0.04  # of a box's sides: regions are learned from boxes as imprecise as proposals
    refine_jitter = 0.06  # the second look is learned from somewhat worse ones

    def __init__(self, model: ParfocalForConditionalGeneration, num_kinds: int) -> None:
        super().__init__()
        self.model = model
        self.cell_kind = nn.Conv2d(model.vision.level_channels[0], num_kinds, 1)
        self.region_kind = nn.Linear(model.config.regions.hidden_size, num_kinds)

    def forward(
        self, pixel_values: list[Tensor], boxes: Tensor, mask: Tensor, labels: Tensor
    ) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            pixel_values: one float[B, 3, S, S] a tower.
            boxes: float[B, N, 4], cxcywh, unit frame.
            mask: bool[B, N], False in padding.
            labels: int[B, N], kinds.
        """
        features = self.model.vision(pixel_values)
        candidates = self.model.proposer(features.proposer)
        if isinstance(candidates.training, DenseOutput):
            terms = dense_terms(candidates.training, boxes, mask)
        else:
            head = self.model.config.proposer.score_heads[0]
            targets = [
                DetectionTarget(row[live], head) for row, live in zip(boxes, mask, strict=True)
            ]
            terms = {"proposer": set_prediction_loss(candidates.training, targets)["total"]}
        terms["cell_kind"] = self._cell_kind_loss(features.levels[0], boxes, mask, labels)
        terms.update(self._region_terms(features.levels, boxes, mask, labels))
        if self.model.refiner is not None:
            start = jittered(boxes, self.refine_jitter)
            refined = self.model.refiner.refine(features.levels, start)
            terms.update(refinement_terms(refined, boxes, mask.float()))
        loss = torch.stack(list(terms.values())).sum()
        return ObjectiveOutput(loss, {name: term.detach() for name, term in terms.items()})

    def _cell_kind_loss(self, level: Tensor, boxes: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        logits = self.cell_kind(level).float()
        gaussians = object_gaussians(boxes, mask, (level.shape[-2], level.shape[-1]))
        strength, owner = gaussians.max(dim=1)  # [B, G, G] each, over the N objects
        rows, down, across = torch.nonzero(strength > 0.3, as_tuple=True)
        chosen = logits.permute(0, 2, 3, 1)[rows, down, across]
        return mean_cross_entropy(chosen, labels[rows, owner[rows, down, across]])

    def _region_terms(
        self, levels: list[Tensor], boxes: Tensor, mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        imprecise = jittered(boxes, self.jitter)
        maps = self.model.regions.prepare(levels)
        appearance = self.model.regions.appearance(maps, imprecise)  # [B, N, H]
        live, kinds = appearance[mask], labels[mask]
        logits = self.region_kind(live).float()
        terms = {"region_kind": mean_cross_entropy(logits, kinds)}
        context = self.model.regions.context
        if context is not None:
            terms["likeness"] = _likeness_loss(context.similarity(live[None])[0], kinds)
        return terms


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of float[n, K] logits; 0, not NaN, for a batch that holds none."""
    return cross_entropy(logits, labels, reduction="sum") / max(1, len(labels))


def _likeness_loss(pairs: Tensor, kinds: Tensor) -> Tensor:
    """Return the cross entropy of "same kind"; alike and different pairs weigh the same in all.

    Args:
        pairs: float[n, n], logits; the diagonal does not count.
        kinds: int[n].
    """
    same = (kinds[:, None] == kinds[None, :]).float()
    other = 1 - torch.eye(len(kinds), device=kinds.device)
    loss = binary_cross_entropy_with_logits(pairs, same, reduction="none") * other
    alike, different = same * other, (1 - same) * other
    alike_mean = (loss * alike).sum() / alike.sum().clamp(min=1)
    return alike_mean + (loss * different).sum() / different.sum().clamp(min=1)


def dense_terms(output: DenseOutput, boxes: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Losses of the dense proposer: objectness (penalty-reduced focal) and boxes (GIoU and L1).

    Args:
        output: of the dense head.
        boxes: float[B, N, 4], cxcywh, unit frame, the objects.
        mask: bool[B, N], False in padding.
    """
    targets = dense_targets(boxes, mask, (output.logits.shape[1], output.logits.shape[2]))
    predicted = ltrb_to_xyxy(output.ltrb)
    return {
        "objectness": penalty_reduced_focal(output.logits, targets.heatmap),
        "boxes": dense_box_loss(predicted, targets.boxes, targets.weights),
    }


def scatter_slots(
    regions: Regions, num_user: Tensor, generator: torch.Generator, keep_order: bool = False
) -> Regions:
    """Scatter proposals over all slots behind the user's, so that every region name is learned.

    For training only.

    Args:
        regions: from `select_regions`, without features.
        num_user: int[B], user boxes of each row, which keep their slots.
        generator: on the CPU; decides the places.
        keep_order: spread the proposals out without changing their order, in every second row; the
            others stay as they are when pictures are asked about.
    """
    order = []
    for row in range(regions.mask.shape[0]):
        first, slots = int(num_user[row]), regions.mask.shape[1]
        places = torch.randperm(slots - first, generator=generator)  # of each slot behind them
        if keep_order:
            live = int(regions.mask[row].sum()) - first
            increasing = places[:live].sort().values
            places = torch.cat((increasing, places[live:])) if row % 2 else places.sort().values
        order.append(torch.cat((torch.arange(first), first + places.argsort())))
    index = torch.stack(order).to(regions.mask.device)
    boxes = regions.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Regions(boxes, regions.scores.gather(1, index), regions.mask.gather(1, index))


class TextAnchors(nn.Module):
    """Words and phrases as directions in token-embedding space: the mean of their tokens.

    Args:
        token_ids: of each phrase; as long as each is.
        scale: what similarities are multiplied by at first; learned.
    """

    def __init__(self, token_ids: Sequence[Sequence[int]], scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        ids = [torch.tensor(row) for row in token_ids]
        mask = [torch.ones(len(row)) for row in token_ids]
        self.register_buffer("token_ids", pad_sequence(ids, batch_first=True), persistent=False)
        self.register_buffer("token_mask", pad_sequence(mask, batch_first=True), persistent=False)

    def forward(self, vectors: Tensor, table: nn.Module) -> Tensor:
        """Return the scaled cosine float[n, P] of vectors float[n, D] with the P phrases.

        Args:
            vectors: to compare.
            table: int[...] -> float[..., D], the token embeddings.
        """
        tokens = table(self.token_ids).float() * self.token_mask[..., None]
        phrases = normalize(tokens.sum(1) / self.token_mask.sum(1, keepdim=True), dim=-1)
        return normalize(vectors.float(), dim=-1) @ phrases.T * self.log_scale.exp()


class LanguageObjective(nn.Module):
    """Answer questions about packed scenes, and keep region vectors close to words for them.

    Two terms align regions with words by cosine similarity: which kind's name a region is closest
    to, and which of several of a name is closest to "topmost", "largest" and the like. Without them
    the language model takes many times longer to connect regions and words, and some comparisons
    stay at chance.

    Args:
        model: trains.
        names: token ids of every kind's name.
        comparisons: token ids of the words for every one of `COMPARISONS`.
        region_weight: how much the name of a region counts in an answer; other tokens count 1. Few
            tokens of an answer point, most only have to be well-formed.
    """

    alignment_weight = 0.5

    def __init__(
        self,
        model: ParfocalForConditionalGeneration,
        names: Sequence[Sequence[int]],
        comparisons: Sequence[Sequence[Sequence[int]]],
        region_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.model, self.region_weight = model, region_weight
        self.names = TextAnchors(names, scale=12.0)
        words = [(index, word) for index, group in enumerate(comparisons) for word in group]
        self.words = TextAnchors([word for _, word in words], scale=12.0)
        self.word_bias = nn.Parameter(torch.tensor(-2.0))
        meaning = torch.tensor([index for index, _ in words])  # which comparison a word means
        self.register_buffer("meaning", meaning, persistent=False)
        self.generator = torch.default_generator  # checkpoints hold its state, and no other's

    def train(self, mode: bool = True) -> LanguageObjective:
        """Keep the frozen towers in evaluation mode: their statistics must not move."""
        super().train(mode)
        for part in (self.model.vision, self.model.proposer):
            if not any(value.requires_grad for value in part.parameters()):
                part.eval()
        return self

    def forward(
        self,
        pixel_values: list[Tensor],
        text: TextBatch,
        boxes: Tensor,
        mask: Tensor,
        labels: Tensor,
        compared: Tensor,
    ) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            pixel_values: one float[B, 3, S, S] a tower.
            text: from `ParfocalProcessor.pack`.
            boxes: float[B, N, 4], cxcywh, unit frame, the scene's objects.
            mask: bool[B, N], False in padding.
            labels: int[B, N], kinds.
            compared: float[B, N, C], from `compared_objects`.
        """
        model = self.model
        features = model.encode(pixel_values)
        regions = self._shuffled_regions(features, text)
        input_ids, targets = resolve_boxes(text, regions, model.config.token_ids)
        live = model.live_mask(input_ids, text.attention_mask, regions.mask)
        allowed, positions = packed_attention(text.turn, live)
        hidden = model.text.base_model(
            inputs_embeds=model.embed(
                input_ids, model.image_tokens(features, regions), regions.features
            ),
            position_ids=positions,
            attention_mask=additive(allowed, torch.float32),
            use_cache=False,
        ).last_hidden_state
        answers = targets[:, 1:] != IGNORED
        logits = model.get_output_embeddings()(hidden[:, :-1][answers])  # on answers only
        terms = {
            "answer": self._answer_loss(logits.float(), targets[:, 1:][answers]),
            **self._alignment(regions, boxes, mask, labels, compared),
        }
        aligned = terms["names"] + terms["comparisons"]
        loss = terms["answer"] + self.alignment_weight * aligned
        return ObjectiveOutput(loss, {name: value.detach() for name, value in terms.items()})

    def _answer_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted mean cross entropy of float[n, V] logits; 0, not NaN, if nothing is learned."""
        first = self.model.config.token_ids.first_region
        names = (targets >= first) & (targets < first + self.model.config.proposer.max_regions)
        weights = torch.where(names, self.region_weight, 1.0)
        losses = cross_entropy(logits, targets, reduction="none")
        return (losses * weights).sum() / weights.sum().clamp(min=1)

    def _shuffled_regions(self, features: ImageFeatures, text: TextBatch) -> Regions:
        """Choose regions as `propose` does, scatter them over the slots, describe them."""
        config = self.model.config.proposer
        chosen = select_regions(features.candidates, text.user_boxes, text.user_mask, config)
        scattered = scatter_slots(
            chosen, text.user_mask.sum(1), self.generator, config.order == "left_to_right"
        )
        return self.model.describe_regions(features, scattered)

    def _alignment(
        self, regions: Regions, boxes: Tensor, mask: Tensor, labels: Tensor, compared: Tensor
    ) -> dict[str, Tensor]:
        """Hold the regions that match an object against the words for it."""
        slots = match_boxes(boxes, mask, regions)
        rows, columns = torch.nonzero(slots >= 0, as_tuple=True)
        vectors = regions.features[rows, slots[rows, columns]]
        table = self.model.get_input_embeddings()
        truth = compared[rows, columns][:, self.meaning]  # [n, words]
        told = truth >= 0
        fits = self.words(vectors, table) + self.word_bias
        missed = binary_cross_entropy_with_logits(fits[told], truth[told], reduction="sum")
        return {
            "names": mean_cross_entropy(self.names(vectors, table), labels[rows, columns]),
            "comparisons": missed / max(1, int(told.sum())),
        }


def resolve_boxes(text: TextBatch, regions: Regions, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Replace every `<ground_box>` by the name of the region slot that overlaps its box best.

    A turn with a box that no slot matches is not learned from: the model cannot name what was not
    proposed.

    Args:
        text: packed rows with labels and ground boxes.
        regions: the slots of each row, with their mask.
        ids: of the placeholders.

    Returns:
        input_ids and labels, int[B, L] each, new tensors.
    """
    input_ids, labels = text.input_ids.clone(), text.labels.clone()
    slots = match_boxes(text.ground_boxes, text.ground_mask, regions)
    rows, columns = torch.nonzero(input_ids == ids.ground_box, as_tuple=True)
    order = torch.cat([slots[row][text.ground_mask[row]] for row in range(len(slots))])
    names = ids.first_region + order.clamp(min=0)
    input_ids[rows, columns] = names
    labels[rows, columns] = torch.where(labels[rows, columns] == IGNORED, IGNORED, names)
    for row, column in zip(rows[order < 0].tolist(), columns[order < 0].tolist(), strict=True):
        labels[row][text.turn[row] == text.turn[row, column]] = IGNORED
    return input_ids, labels
