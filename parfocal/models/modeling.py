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
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Cache, GenerationMixin, PreTrainedModel

from parfocal.errors import ShapeError
from parfocal.hub import refuse_gaps
from parfocal.models.config import ParfocalConfig, TokenIds
from parfocal.models.fusion import FusionInputs, build_fusion
from parfocal.models.multiscale_mean import build_merge
from parfocal.models.objects import object_tokens, pool_tokens
from parfocal.models.outputs import ImageFeatures, ParfocalOutput, Perception
from parfocal.models.projector import Projector
from parfocal.models.proposer import Regions, build_proposer, offer_ground_boxes, select_regions
from parfocal.models.refine import build_refiner
from parfocal.models.regions import build_regions
from parfocal.models.splicing import fill, live_mask, place_mentions
from parfocal.models.vision import VisionTowers


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
        config.check_parts()  # again: its parts may have been changed since it was made
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

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Read what `save_pretrained` wrote, as Transformers does.

        Of a folder of adapters, these are checked; of the weights that they change, what is missing
        is not seen, as Transformers reports what it read last.

        Raises:
            CheckpointError: if weights are missing or have another shape, also with
                `ignore_mismatched_sizes`: no part is ever left without numbers in silence. Who asks
                for `output_loading_info` is told instead, and gives them numbers.
        """
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if output_loading_info:
            return model, report
        refuse_gaps(args[0] if args else "the weights", report, spare=True)
        return model

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
        chosen = self.choose_regions(features, user_boxes, user_mask, ground_boxes, ground_mask)
        return self.describe_regions(features, chosen)

    def choose_regions(
        self,
        features: ImageFeatures,
        user_boxes: Tensor,
        user_mask: Tensor,
        ground_boxes: Tensor | None = None,
        ground_mask: Tensor | None = None,
    ) -> Regions:
        """Choose regions as `propose` does, without their vectors; the arguments are the same."""
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
        return regions

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
        embeds = fill(embeds, where, image, self.num_image_tokens, "image tokens")
        if self.num_object_tokens:
            if objects is None:
                objects = embeds.new_zeros(len(embeds), 0, embeds.shape[-1])
            where = input_ids == ids.object
            embeds = fill(embeds, where, objects, self.num_object_tokens, "object tokens")
        if regions is None:
            return embeds
        embeds = self._place_slots(embeds, input_ids, regions, ids)
        return place_mentions(embeds, input_ids, regions, ids)

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
            return fill(embeds, where, regions, self.num_slots, "region slots")
        slots = min(regions.shape[1], self.num_slots)
        names = self.get_input_embeddings().weight[ids.first_region : ids.first_region + slots]
        names = names.repeat(regions.shape[1] // max(1, slots), 1)  # for each picture of a row
        named = regions + names.to(regions.dtype)
        return fill(embeds, where, named, self.num_slots, "region slots")

    def live_mask(self, input_ids: Tensor, attention_mask: Tensor, region_mask: Tensor) -> Tensor:
        """Return attention_mask int[B, L] with the dead region slots of each row switched off.

        Args:
            input_ids: int[B, L].
            attention_mask: int[B, L], 0 at padding.
            region_mask: bool[B, R], live slots; see `rows_of` for rows of several pictures.
        """
        slots = input_ids == self.config.token_ids.region
        interleaved = self.config.regions.layout == "interleaved"
        return live_mask(slots, attention_mask, region_mask, interleaved)

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
