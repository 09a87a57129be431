"""ParfocalForConditionalGeneration: the wiring of all parts into one model.

Its life is three steps: `encode` (once an image), `propose` (regions of it), `forward` (text).
Regions fill a fixed number of slots with a mask, so every shape is static; dead slots are masked
out of attention and get no position, which makes the numbers equal to a layout that holds live
regions only.

Shapes: B rows, L tokens, T image tokens, R region slots, K object images of O tokens, D text width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou
from transformers import AutoModelForCausalLM, Cache, GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from parfocal.errors import ShapeError
from parfocal.models.config import ParfocalConfig, TokenIds
from parfocal.models.fusion import FusionInputs, build_fusion
from parfocal.models.multiscale_mean import build_merge
from parfocal.models.objects import object_tokens, pool_tokens
from parfocal.models.projector import Projector
from parfocal.models.proposer import (
    Candidates,
    Regions,
    build_proposer,
    offer_ground_boxes,
    select_regions,
)
from parfocal.models.refine import build_refiner
from parfocal.models.regions import build_regions
from parfocal.models.vision import VisionFeatures, VisionTowers

FOUND_IOU = 0.5  # a box and a region show the same thing from here on


@dataclass
class ImageFeatures:
    """Everything that depends on the picture alone; compute it once, ask many questions.

    Attributes:
        image: float[B, T, D], projected tokens.
        levels: float[B, C_l, G_l, G_l] each, prepared for the region encoder.
        candidates: the proposer's suggestions, or None without a proposer.
        tokens: float[B, C, G, G], the map that regions read or are read by (`regions.merge`), or
            None where the two do not meet before the text.
    """

    image: Tensor
    levels: list[Tensor]
    candidates: Candidates | None
    tokens: Tensor | None = None

    def __getitem__(self, rows: Any) -> ImageFeatures:
        """Select rows (for several questions about one picture: repeat its row)."""
        candidates = self.candidates and Candidates(
            self.candidates.boxes[rows], self.candidates.scores[rows], None
        )
        tokens = None if self.tokens is None else self.tokens[rows]
        levels = [level[rows] for level in self.levels]
        return ImageFeatures(self.image[rows], levels, candidates, tokens)


@dataclass
class Perception:
    """What towers and proposer make of pictures, before anything is fitted to a language model.

    Where they are frozen, it can be computed once and kept.

    Attributes:
        vision: maps of the towers.
        candidates: the proposer's suggestions, or None without a proposer.
    """

    vision: VisionFeatures
    candidates: Candidates | None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Perception:
        """Return the same on another device, without what a proposer's loss needs."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        maps = {
            item.name: [move(value) for value in getattr(self.vision, item.name)]
            for item in fields(self.vision)
        }
        candidates = self.candidates
        if candidates is not None:
            candidates = Candidates(move(candidates.boxes), move(candidates.scores), None)
        return Perception(VisionFeatures(**maps), candidates)


@dataclass
class ParfocalOutput(ModelOutput):
    """Output of `forward`.

    Attributes:
        loss: float[], mean cross entropy over labels that are not -100, when labels were given.
        logits: float[B, L, V].
        past_key_values: the language model's cache.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None


class ParfocalForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The composable grounded model.

    Example:
        >>> from parfocal.models.presets import tiny
        >>> model = ParfocalForConditionalGeneration(tiny())
        >>> model.num_image_tokens
        9
    """

    config_class = ParfocalConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules: ClassVar[list[str]] = ["MultilevelRoi", "MultiscaleMean"]
    # Quantisers skip these, so that only the language model is squeezed: boxes and features do not
    # survive it, and they are a small share of the weights. A load as float16 keeps them whole too.
    _keep_in_fp32_modules: ClassVar[list[str]] = [
        "vision", "fusion", "projector", "proposer", "refiner", "regions", "merge",
    ]  # fmt: skip

    def __init__(self, config: ParfocalConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision = VisionTowers(config.vision)
        vision = self.vision
        inputs = FusionInputs(
            vision.token_channels,
            vision.token_grids,
            vision.level_channels,
            vision.level_grids,
            width,
        )
        self.fusion = build_fusion(config.fusion, inputs)
        self.projector = Projector(
            config.projector, self.fusion.out_channels, self.fusion.out_grid, width
        )
        self.proposer = build_proposer(config.proposer, self.vision.proposer_channels)
        self.refiner = build_refiner(config.proposer, self.vision.level_channels)
        self.regions = build_regions(config.regions, self.vision.level_channels, width)
        self.merge = build_merge(
            config.regions,
            sum(vision.level_channels),
            vision.token_channels[0],
            self.fusion.out_channels,
        )
        self.num_object_tokens = object_tokens(config.regions, self.projector.num_tokens)
        self.text = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    @property
    def num_image_tokens(self) -> int:
        """Number of language model tokens a picture becomes."""
        return self.projector.num_tokens

    @property
    def num_slots(self) -> int:
        """Number of region slots; 0 for a model without them."""
        return self.config.proposer.max_regions if self.regions is not None else 0

    def _init_weights(self, module: nn.Module) -> None:
        """Leave parts as their constructors made them: each initialises itself."""

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's token table."""
        return self.text.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token table."""
        self.text.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head."""
        return self.text.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's head."""
        self.text.set_output_embeddings(value)

    # Step 1: once an image

    def perceive(self, pixel_values: Sequence[Tensor] | Tensor) -> Perception:
        """Run the towers and the proposer; the argument is that of `encode`."""
        inputs = [pixel_values] if isinstance(pixel_values, Tensor) else list(pixel_values)
        features = self.vision(inputs)
        candidates = self.proposer(features.proposer) if self.proposer is not None else None
        if candidates is not None and self.refiner is not None:
            candidates = self.refiner(features.levels, candidates)
        return Perception(features, candidates)

    def encode(self, pixel_values: Sequence[Tensor] | Tensor | Perception) -> ImageFeatures:
        """Encode pictures.

        Args:
            pixel_values: float[B, 3, S, S] for one tower, or a sequence with one such tensor a
                tower. Of a row with several pictures, such as frames, each is one of the B; see
                `rows_of`. Or what `perceive` made of them.
        """
        seen = pixel_values if isinstance(pixel_values, Perception) else self.perceive(pixel_values)
        features, candidates = seen.vision, seen.candidates
        fused = self.fusion(features.tokens, features.levels)
        image = self.projector(fused)
        read = {"b2f_attention": features.tokens[0], "f2b_attention": fused}
        tokens = read.get(self.config.regions.merge)
        levels = features.levels
        if self.regions is not None:
            levels = self.regions.prepare(levels)
        return ImageFeatures(image, levels, candidates, tokens)

    def encode_objects(self, pixel_values: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Encode object images as pictures are, and average their tokens.

        Args:
            pixel_values: one float[B, K, 3, S, S] a tower, padded.
            mask: bool[B, K], False in padding, which comes last.

        Returns:
            float[B, K * O, D], what `forward` takes as object_features, zeros in padding.

        Raises:
            ShapeError: if the model reads no object images.
        """
        if not self.num_object_tokens:
            raise ShapeError(
                f"this model reads no object images: regions.kind is {self.config.regions.kind!r}, "
                "not 'crop'."
            )
        features = self.vision([values[mask] for values in pixel_values])
        tokens = self.projector(self.fusion(features.tokens, features.levels))
        pooled = pool_tokens(tokens, self.config.regions.merge_crops)
        objects = pooled.new_zeros(*mask.shape, *pooled.shape[1:])
        objects[mask] = pooled
        return objects.flatten(1, 2)

    # Step 2: which boxes

    def propose(
        self,
        features: ImageFeatures,
        user_boxes: Tensor | None = None,
        user_mask: Tensor | None = None,
        ground_boxes: Tensor | None = None,
        ground_mask: Tensor | None = None,
    ) -> Regions:
        """Choose and describe regions: user boxes in their order, then the best proposals.

        Args:
            features: from `encode`.
            user_boxes: float[B, U, 4], cxcywh in the unit frame of the model's square input,
                padded.
            user_mask: bool[B, U]; all True when None.
            ground_boxes: float[B, G, 4] like `user_boxes`, boxes of the answers, which join the
                proposals with `proposer.ground_score`; for training.
            ground_mask: bool[B, G]; all True when None.
        """
        if self.regions is None:
            raise ShapeError(
                f"this model has no region encoder (regions.kind is {self.config.regions.kind!r}); "
                "it can neither take nor propose boxes."
            )
        if user_boxes is None:
            rows = features.image.shape[0]
            user_boxes = features.image.new_zeros(rows, 0, 4, dtype=torch.float32)
        if user_mask is None:
            user_mask = torch.ones(user_boxes.shape[:2], dtype=torch.bool, device=user_boxes.device)
        candidates, config = features.candidates, self.config.proposer
        if ground_boxes is not None and candidates is not None:
            if ground_mask is None:
                ground_mask = torch.ones_like(ground_boxes[..., 0], dtype=torch.bool)
            candidates = offer_ground_boxes(
                candidates, ground_boxes, ground_mask, config.ground_score
            )
        regions = select_regions(candidates, user_boxes, user_mask, config)
        if self.config.regions.never_empty:
            regions.mask[:, 0] = True  # an unused slot holds a box of no size
        return self.describe_regions(features, regions)

    def describe_regions(self, features: ImageFeatures, regions: Regions) -> Regions:
        """Return the same regions with vectors float[B, R, D], None where no text has them."""
        vectors, merge = None, self.config.regions.merge
        if merge == "concat":
            appearance = self.regions.appearance(features.levels, regions.boxes)
            vectors = self.regions.describe(appearance, regions)
        elif merge == "b2f_attention":
            appearance = self.regions.appearance(features.levels, regions.boxes)
            vectors = self.regions.describe(self.merge(appearance, features.tokens), regions)
        return Regions(regions.boxes, regions.scores, regions.mask, vectors)

    def image_tokens(self, features: ImageFeatures, regions: Regions | None) -> Tensor:
        """Return float[B, T, D], what `forward` takes as image_features.

        It is `features.image`, unless the image tokens read the regions (`f2b_attention`).
        """
        if self.config.regions.merge != "f2b_attention" or regions is None:
            return features.image
        appearance = self.regions.appearance(features.levels, regions.boxes)
        return self.projector(self.merge(features.tokens, appearance, regions.mask))

    # Step 3: text

    def embed(
        self,
        input_ids: Tensor,
        image: Tensor,
        regions: Tensor | None,
        objects: Tensor | None = None,
    ) -> Tensor:
        """Look up tokens and put image tokens, objects, region slots and user regions into place.

        Args:
            input_ids: int[B, L].
            image: float[B, T, D]; for rows with other numbers of pictures than one: `rows_of`.
            regions: float[B, R, D], or None for text without region slots; likewise.
            objects: float[B, K * O, D] of `encode_objects`, or None for text without object images.

        Returns:
            float[B, L, D].

        Raises:
            ShapeError: if a row's placeholders do not match the features it should hold.
        """
        ids, embeds = self.config.token_ids, self._look_up(input_ids)
        where = input_ids == ids.image
        embeds = _scatter(embeds, where, image, self.num_image_tokens, "image tokens")
        if ids.object >= 0:
            if objects is None:
                objects = embeds.new_zeros(len(embeds), 0, embeds.shape[-1])
            where = input_ids == ids.object
            embeds = _scatter(embeds, where, objects, self.num_object_tokens, "object tokens")
        if regions is None:
            return embeds
        embeds = self._place_slots(embeds, input_ids, regions, ids)
        return self._place_mentions(embeds, input_ids, regions, ids)

    def _look_up(self, input_ids: Tensor) -> Tensor:
        """Return the tokens' vectors, float[B, L, D]; placeholders may lie beyond the table."""
        ids, rows = self.config.token_ids, self.config.text_config.vocab_size
        for placeholder in (ids.image, ids.region, ids.object):
            if placeholder >= rows:
                input_ids = input_ids.masked_fill(input_ids == placeholder, 0)
        return self.get_input_embeddings()(input_ids)

    def _place_slots(
        self, embeds: Tensor, input_ids: Tensor, regions: Tensor, ids: TokenIds
    ) -> Tensor:
        """Put regions float[B, R, D] into their slots, added to their names when `summed`."""
        where = input_ids == ids.region
        if self.config.regions.layout != "summed":
            return _scatter(embeds, where, regions, self.num_slots, "region slots")
        slots = min(regions.shape[1], self.num_slots)
        names = self.get_input_embeddings().weight[ids.first_region : ids.first_region + slots]
        names = names.repeat(regions.shape[1] // max(1, slots), 1)  # for each picture of a row
        named = regions + names.to(regions.dtype)
        return _scatter(embeds, where, named, self.num_slots, "region slots")

    def _place_mentions(
        self, embeds: Tensor, input_ids: Tensor, regions: Tensor, ids: TokenIds
    ) -> Tensor:
        """Put regions float[B, R, D] where a user's region is mentioned inside the text.

        It is the slot whose index token stands two places before: <rk></roi><refer_feat>.
        """
        if ids.region_feature < 0:
            return embeds
        where = input_ids == ids.region_feature
        slots = input_ids.roll(2, dims=1) - ids.first_region
        known = (slots >= 0) & (slots < regions.shape[1])
        if not torch.compiler.is_compiling() and bool((where & ~known).any()):
            raise ShapeError(
                f"a mention of a region does not follow one of the {regions.shape[1]} region names "
                "by two places; make the inputs with this model's processor."
            )
        return _put(embeds, where, regions, slots)

    def live_mask(self, input_ids: Tensor, attention_mask: Tensor, region_mask: Tensor) -> Tensor:
        """Return attention_mask int[B, L] with the dead region slots of each row switched off.

        Args:
            input_ids: int[B, L].
            attention_mask: int[B, L], 0 at padding.
            region_mask: bool[B, R], live slots; see `rows_of` for rows of several pictures.
        """
        ids, mask = self.config.token_ids, attention_mask.clone()
        where = input_ids == ids.region
        rows, columns = torch.nonzero(where, as_tuple=True)
        counts = where.sum(1)
        alive = _first(region_mask, counts).reshape(-1).to(mask.dtype)
        mask[rows, columns] = alive
        if self.config.regions.layout == "interleaved":
            mask[rows, columns - 1] = alive  # the index token stands right before its slot
        return mask

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        image_features: Tensor | None = None,
        region_features: Tensor | None = None,
        object_features: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> ParfocalOutput:
        """Predict the next token at every position.

        Args:
            input_ids: int[B, L].
            attention_mask: int[B, L] (from `live_mask`), or float[B, 1, L, L] additive for packed
                turns.
            position_ids: int[B, L]; counted over live tokens when None.
            past_key_values: cache of earlier tokens; their features are already in it.
            inputs_embeds: float[B, L, D] instead of input_ids.
            labels: int[B, L], -100 where nothing is learned; shifted inside.
            image_features: float[B, T, D] of `image_tokens`; see `rows_of` for rows of several
                pictures, or of none.
            region_features: float[B, R, D] of `Regions.features`; likewise.
            object_features: float[B, K * O, D] of `encode_objects`.
            logits_to_keep: compute logits for the last n positions only (0: all), or for these
                positions.
            **kwargs: passed on to the language model.
        """
        if inputs_embeds is None:
            if image_features is None or _started(past_key_values):
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                inputs_embeds = self.embed(
                    input_ids, image_features, region_features, object_features
                )
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            counted = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
            position_ids = counted[:, -inputs_embeds.shape[1] :]
        output = self.text(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        logits, loss = output.logits, None
        if labels is not None:
            loss = self.text.loss_function(logits, labels, self.config.text_config.vocab_size)
        return ParfocalOutput(loss=loss, logits=logits, past_key_values=output.past_key_values)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Keep features for the first step only; later steps find them in the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        if _started(inputs.get("past_key_values")):
            for name in ("image_features", "region_features", "object_features"):
                inputs[name] = None
        return inputs


def _started(cache: Cache | None) -> bool:
    """Whether the cache holds tokens already."""
    return cache is not None and bool(cache.get_seq_length() > 0)


def _scatter(embeds: Tensor, where: Tensor, values: Tensor, unit: int, what: str) -> Tensor:
    """Overwrite embeds float[B, L, D] at where bool[B, L] by values float[B, N, D], in order.

    A row takes all of its values or, when it has fewer pictures than others, the first of them, in
    multiples of `unit`; compiled code takes that for granted.
    """
    if not torch.compiler.is_compiling():
        counts = where.sum(1)
        fits = (counts == values.shape[1]) | ((counts < values.shape[1]) & (counts % unit == 0))
        if not bool(fits.all()):
            raise ShapeError(
                f"rows hold {counts.tolist()} placeholders for {values.shape[1]} {what} each; "
                "make the inputs with this model's processor."
            )
    return _put(embeds, where, values, where.cumsum(1) - 1)


def _put(embeds: Tensor, where: Tensor, values: Tensor, place: Tensor) -> Tensor:
    """Overwrite embeds [B, L, D] at where bool[B, L] by values [B, N, D] of index place int[B, L].

    No shape depends on what the tensors hold, so that it compiles in one piece.
    """
    if values.shape[1] == 0:  # no row has a picture
        return embeds
    index = place.clamp(0, values.shape[1] - 1)[..., None].expand(-1, -1, values.shape[2])
    return torch.where(where[..., None], values.gather(1, index).to(embeds.dtype), embeds)


def _first(values: Tensor, counts: Tensor) -> Tensor:
    """Return the first counts[b] of each row of values [B, N, ...]; as they are if that is all."""
    if bool((counts == values.shape[1]).all()):
        return values
    place = torch.arange(values.shape[1], device=values.device)
    return values[place < counts[:, None]]


def rows_of(values: Tensor, pictures: Sequence[int]) -> Tensor:
    """Put what belongs to the pictures of a row side by side.

    Args:
        values: [P, N, ...], one entry a picture: image tokens, region features or region masks.
        pictures: number of pictures of each row, in order; 0 for text alone.

    Returns:
        [B, most * N, ...], zeros where a row has fewer pictures than the one that has most.

    Raises:
        ShapeError: if the numbers do not add up to P.

    Example:
        >>> rows_of(torch.tensor([[1, 2], [3, 4], [5, 6]]), (2, 0, 1)).tolist()
        [[1, 2, 3, 4], [0, 0, 0, 0], [5, 6, 0, 0]]
    """
    if sum(pictures) != len(values):
        raise ShapeError(f"rows of {list(pictures)} pictures cannot share {len(values)} pictures.")
    if all(count == 1 for count in pictures):
        return values
    rows = values.new_zeros(len(pictures), max(pictures, default=0), *values.shape[1:])
    start = 0
    for row, count in enumerate(pictures):
        rows[row, :count] = values[start : start + count]
        start += count
    return rows.flatten(1, 2)


def match_boxes(
    boxes: Tensor, mask: Tensor, regions: Regions, threshold: float = FOUND_IOU
) -> Tensor:
    """Find the region slot of each box: the live one of best overlap, the first of several.

    Args:
        boxes: float[B, G, 4], cxcywh, unit frame of the model's square input, padded.
        mask: bool[B, G], False in padding.
        regions: from `ParfocalForConditionalGeneration.propose`.
        threshold: IoU that a match must reach. With 0 every box has one, the first live slot if it
            overlaps none.

    Returns:
        int[B, G], slot numbers, -1 in padding and where no live slot overlaps enough.

    Source: Groma, official model/groma.py (the arg-max). Deviates: official code has no threshold;
    see `ProposerConfig.match_threshold`.
    """
    slots = []
    for row in range(boxes.shape[0]):
        overlap = box_iou(
            box_convert(boxes[row].float(), "cxcywh", "xyxy"),
            box_convert(regions.boxes[row].float(), "cxcywh", "xyxy"),
        )
        # the IoU of two boxes of no size is no number; a dead slot is worse than no overlap
        overlap = overlap.nan_to_num(0).masked_fill(~regions.mask[row], -1)
        best, slot = overlap.max(dim=1)
        slots.append(torch.where((best >= threshold) & mask[row], slot, -1))
    return torch.stack(slots)
