"""The language objective: answer questions about pictures by pointing at their regions.

Shapes: B rows, P pictures of all rows, L tokens, N annotated objects (padded), R region slots, D
text width; of what the language model reads B' rows of L' tokens: fewer where Samples share rows,
and one, of live tokens and a few of padding, where it attends by turns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize, pad
from torch.nn.utils.rnn import pad_sequence

from parfocal.models.matching import match_boxes
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.outputs import ImageFeatures, Perception
from parfocal.models.packing import additive, in_rows, turn_mask, turn_positions
from parfocal.models.proposer import Regions, of_first
from parfocal.models.splicing import rows_of
from parfocal.models.text_batch import IGNORED, TextBatch
from parfocal.train.objectives import ObjectiveOutput
from parfocal.train.slots import resolve_boxes, scatter_slots
from parfocal.train.turn_attention import NAME, lay_out
from parfocal.train.unseen import look_at

# a CPU compiles its products anew for every number of tokens that it has not met
_MULTIPLE = 32


@dataclass
class _Seen:
    """What the language model reads in place of pictures, and what it is to answer.

    Attributes:
        input_ids: int[B, L], boxes of answers named.
        labels: int[B, L], likewise.
        live: int[B, L], 0 at padding and dead region slots.
        image: float[B, T, D].
        vectors: float[B, R, D], of region slots, or None.
        regions: of each picture, or None.
        terms: for the log.
    """

    input_ids: Tensor
    labels: Tensor
    live: Tensor
    image: Tensor
    vectors: Tensor | None
    regions: Regions | None
    terms: dict[str, Tensor]


@dataclass
class _Read:
    """How the language model reads its rows.

    Attributes:
        places: int[B', L'], which of the B L tokens stands where, -1 in padding; None for the B L
            tokens as they are.
        targets: int[B', L' - 1], the label of the next token.
        positions: int[B', L'].
        seeing: arguments of the language model that say which tokens see which.
    """

    places: Tensor | None
    targets: Tensor
    positions: Tensor
    seeing: dict[str, Any]


class LanguageObjective(nn.Module):
    """Answer questions about packed rows; on seeded scenes, keep region vectors close to words.

    On scenes two terms align regions with words by cosine similarity: which kind's name a region is
    closest to, and which of several of a name is closest to "topmost", "largest" and the like.
    Without them a small language model takes many times longer to connect regions and words, and
    some comparisons stay at chance.

    Args:
        model: trains.
        names: token ids of every kind's name; none to learn from answers alone.
        comparisons: token ids of the words for every one of `COMPARISONS`.
        region_weight: how much the name of a region counts in an answer; other tokens count 1. Few
            tokens of an answer point, most only have to be well-formed.
        offer_ground_boxes: let the boxes of answers join the proposals (Groma, section 3.4).
        alignment_weight: how much the terms that align count beside answers.

    Attributes:
        blank: what batches look at in place of pictures and object images that they have none of,
            see `parfocal.train.unseen`; None where nothing has to.
    """

    blank: list[Tensor] | Perception | None = None

    def __init__(
        self,
        model: ParfocalForConditionalGeneration,
        names: Sequence[Sequence[int]] = (),
        comparisons: Sequence[Sequence[Sequence[int]]] = (),
        region_weight: float = 1.0,
        offer_ground_boxes: bool = False,
        alignment_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.model, self.region_weight = model, region_weight
        self.alignment_weight = alignment_weight
        self.offer_ground_boxes = offer_ground_boxes
        self.aligns = bool(names)
        # what FSDP keeps in one piece
        self._no_split_modules = list(getattr(model.text, "_no_split_modules", None) or ())
        if names:
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
            if part is not None and not any(value.requires_grad for value in part.parameters()):
                part.eval()
        return self

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """How much of each term a batch holds: weighted tokens of answers, objects, comparisons."""
        labels = batch["text"].labels
        learned = labels[:, 1:] != IGNORED
        weights = torch.where(self._pointing(labels[:, 1:]), self.region_weight, 1.0)
        counts = {"answer": float(weights[learned].sum())}
        if self.aligns:
            told = batch["compared"][..., self.meaning.to(batch["compared"].device)] >= 0
            counts["names"] = float(batch["mask"].sum())
            counts["comparisons"] = float(told[batch["mask"]].sum())
        return counts

    def forward(
        self,
        pixel_values: list[Tensor] | Perception,
        text: TextBatch,
        boxes: Tensor | None = None,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
        compared: Tensor | None = None,
        *,
        pictures: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            pixel_values: one float[P, 3, S, S] a tower, or what `perceive` made of them; empty
                where no row has a picture.
            text: from `ParfocalProcessor.pack`.
            boxes: float[B, N, 4], cxcywh, unit frame, the scene's objects; this and the next three
                where the objective aligns.
            mask: bool[B, N], False in padding.
            labels: int[B, N], kinds.
            compared: float[B, N, C], from `compared_objects`.
            pictures: number of pictures of each row, in order: 0 for text alone, several for the
                frames of a video; one each when None.
            seeds: of each row, decide which slots its regions get, whatever rows are beside it;
                drawn from the process's generator when None.
            counts: see `Objective`; when None, of what is learned from in this batch.
        """
        model = self.model
        per_row = tuple(pictures or (1,) * len(text.input_ids))
        seen = self._see(pixel_values, text, per_row, seeds)
        objects = None
        if text.object_pixels is not None:
            objects = model.encode_objects(text.object_pixels, text.object_mask)
        read = _read(text, seen, model.text.config._attn_implementation == NAME)
        embeds = model.embed(seen.input_ids, seen.image, seen.vectors, objects)
        if read.places is not None:
            embeds = in_rows(embeds, read.places)
        hidden = model.text.base_model(
            inputs_embeds=embeds,
            position_ids=read.positions,
            use_cache=False,
            **read.seeing,
        ).last_hidden_state
        answers = read.targets != IGNORED
        logits = model.get_output_embeddings()(hidden[:, :-1][answers])  # on answers only
        counts = counts or {}
        terms = {"answer": self._answer_loss(logits.float(), read.targets[answers], counts)}
        loss = terms["answer"]
        if self.aligns:
            terms |= self._alignment(seen.regions, boxes, mask, labels, compared, counts)
            loss = loss + self.alignment_weight * (terms["names"] + terms["comparisons"])
        if self.training:
            loss = loss + self._unseen(pixel_values, text, loss)
        terms |= seen.terms
        return ObjectiveOutput(loss, {name: value.detach() for name, value in terms.items()})

    def _see(
        self,
        pixel_values: list[Tensor] | Perception,
        text: TextBatch,
        pictures: Sequence[int],
        seeds: Sequence[int] | None,
    ) -> _Seen:
        """Encode pictures, choose regions, and name those that answers point at."""
        model, ids = self.model, self.model.config.token_ids
        if not pixel_values:  # rows of text alone
            image = model.get_input_embeddings().weight.new_zeros(
                len(text.input_ids), 0, model.config.text_config.hidden_size
            )
            vectors = None if model.regions is None else image
            return _Seen(text.input_ids, text.labels, text.attention_mask, image, vectors, None, {})
        features = model.encode(pixel_values)
        regions, terms = self._regions(features, text, pictures, seeds)
        image = rows_of(model.image_tokens(features, regions), pictures)
        if regions is None:
            return _Seen(text.input_ids, text.labels, text.attention_mask, image, None, None, terms)
        input_ids, labels = text.input_ids, text.labels
        if ids.first_region >= 0:
            floor = model.config.proposer.match_threshold
            input_ids, labels = resolve_boxes(text, of_first(regions, pictures), ids, floor)
        live = model.live_mask(input_ids, text.attention_mask, rows_of(regions.mask, pictures))
        vectors = None if regions.features is None else rows_of(regions.features, pictures)
        return _Seen(input_ids, labels, live, image, vectors, regions, terms)

    def _unseen(
        self, pixel_values: list[Tensor] | Perception, text: TextBatch, loss: Tensor
    ) -> Tensor:
        """0, with gradients of 0 for what a batch did without, where those are waited for."""
        if self.blank is not None:
            pictures, objects = not pixel_values, text.object_pixels is None
            return look_at(self.model, self.blank, loss.device, pictures, objects)
        if loss.requires_grad:
            return torch.zeros_like(loss)
        # words alone, and nothing that reads them trains
        trained = (value for value in self.parameters() if value.requires_grad)
        return sum((0 * value.sum() for value in trained), torch.zeros_like(loss))

    def _pointing(self, labels: Tensor) -> Tensor:
        """Which labels name a region, or stand for the name of one: bool, the shape of `labels`."""
        ids = self.model.config.token_ids
        slots = self.model.config.proposer.max_regions
        names = (labels >= ids.first_region) & (labels < ids.first_region + slots)
        named = names if ids.first_region >= 0 else torch.zeros_like(names)
        return named | (labels == ids.ground_box) if ids.ground_box >= 0 else named

    def _answer_loss(self, logits: Tensor, targets: Tensor, counts: Mapping[str, float]) -> Tensor:
        """Weighted mean cross entropy of float[n, V] logits; 0, not NaN, if nothing is learned."""
        weights = torch.where(self._pointing(targets), self.region_weight, 1.0)
        losses = cross_entropy(logits, targets, reduction="none")
        whole = counts["answer"] if counts else float(weights.sum())
        return (losses * weights).sum() / max(whole, 1)

    def _regions(
        self,
        features: ImageFeatures,
        text: TextBatch,
        pictures: Sequence[int],
        seeds: Sequence[int] | None,
    ) -> tuple[Regions | None, dict[str, Tensor]]:
        """Choose regions as `propose` does, scatter them over the slots, describe them.

        Returns:
            The regions of each picture, None for a model without them; and, where answers point at
            boxes, which share of them the model proposed on its own.
        """
        model, config = self.model, self.model.config.proposer
        if model.regions is None:
            return None, {}
        owners = [row for row, count in enumerate(pictures) for _ in range(count)]
        user_boxes, user_mask = text.user_boxes, text.user_mask
        ground_boxes, ground_mask = text.ground_boxes[owners], text.ground_mask[owners]
        first = [place == 0 for count in pictures for place in range(count)]
        ground_mask = ground_mask & torch.tensor(first, device=ground_mask.device)[:, None]
        candidates, terms = features.candidates, {}
        chosen = model.choose_regions(features, user_boxes, user_mask)
        if candidates is not None and bool(ground_mask.any()):
            met = match_boxes(ground_boxes, ground_mask, chosen) >= 0
            terms["proposed"] = met.sum() / ground_mask.sum()
        if self.offer_ground_boxes and candidates is not None:
            chosen = model.choose_regions(
                features, user_boxes, user_mask, ground_boxes, ground_mask
            )
        if candidates is not None:
            generators: Sequence[torch.Generator] | torch.Generator = self.generator
            if seeds is not None:
                drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
                generators = [drawn[row] for row in owners]
            keep_order = config.order == "left_to_right"
            chosen = scatter_slots(chosen, user_mask.sum(1), generators, keep_order)
        return model.describe_regions(features, chosen), terms

    def _alignment(
        self,
        regions: Regions,
        boxes: Tensor,
        mask: Tensor,
        labels: Tensor,
        compared: Tensor,
        counts: Mapping[str, float],
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
        named = cross_entropy(self.names(vectors, table), labels[rows, columns], reduction="sum")
        return {
            "names": named / max(1, counts.get("names", len(rows))),
            "comparisons": missed / max(1, counts.get("comparisons", int(told.sum()))),
        }


def _read(text: TextBatch, seen: _Seen, by_turns: bool) -> _Read:
    """Let every Sample, and every turn of it, be read as if it were alone.

    Args:
        text: the batch.
        seen: its tokens.
        by_turns: whether the language model attends by turns, or under a mask.
    """
    turn, live, labels = text.turn, seen.live, seen.labels
    positions, places = turn_positions(turn, live), text.places
    if by_turns:  # padding and dead slots are not read, but for a few that round the length up
        places = torch.nonzero(live.flatten()).T
        places = pad(places, (0, -places.shape[1] % _MULTIPLE), value=-1)
    if places is not None:
        first = live.cumsum(1) <= 1  # no token of its own Sample stands before it
        labels = in_rows(labels.masked_fill(first, IGNORED), places, IGNORED)
        positions = in_rows(positions, places)
    if by_turns:
        layout = lay_out(turn, live, places)
        # any mask of four dimensions is taken as it is; attention by turns looks at the layout
        seeing: dict[str, Any] = {"turns": layout, "attention_mask": layout.prefix_mask}
    else:
        owner = None
        if places is not None:
            owner = places.div(turn.shape[1], rounding_mode="floor")
            turn, live = in_rows(turn, places, -1), in_rows(live, places)
        seeing = {"attention_mask": additive(turn_mask(turn, live, owner), torch.float32)}
    return _Read(places, labels[:, 1:], positions, seeing)


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
