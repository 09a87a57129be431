"""RAM++: the tagger that names what is in a picture out of a fixed list of tags.

Every tag is a set of description embeddings. They are weighed by how well they fit the picture,
summed, and the sum asks the picture's tokens (cross-attention, no self-attention between tags)
whether the tag is there. Swin comes from Transformers; the decoder is written out here, as the
layers of Transformers always start with self-attention.

Shapes: B pictures, S input side, N Swin tokens (row-major grid), C their width, P projected width,
T tags, K descriptions a tag, D decoder width.

Source: RAM++ (arXiv:2310.15200); official ram/models/ram_plus.py (commit 7cb804a).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel

from parfocal.detectors.base import in_parts
from parfocal.detectors.weights import device_of, digest_of, digest_of_text
from parfocal.errors import CheckpointError, ConfigError, ShapeError


@dataclass(frozen=True)
class RamPlusConfig:
    """Sizes of the network; the defaults are those of the released `ram_plus_swin_large_14m.pth`.

    Attributes:
        image_size: side of the square input in pixels.
        patch_size: side of a patch in pixels.
        embed_dim: width of Swin's first stage; it doubles with every stage.
        depths: blocks a stage.
        num_heads: attention heads a stage.
        window_size: side of an attention window in tokens.
        mlp_ratio: of Swin's blocks.
        swin_norm_eps: of Swin's layer norms.
        projection_size: width of picture tokens and description embeddings (P).
        num_tags: T.
        num_descriptions: K.
        decoder_size: D.
        decoder_layers: number of them.
        decoder_heads: of their cross-attention.
        decoder_ffn_size: width inside their feed-forward block.
        decoder_norm_eps: of their layer norms.
        image_mean: subtracted from RGB in 0 to 1.
        image_std: what the difference is divided by.

    Raises:
        ConfigError: if Swin's last grid is smaller than its window, or the heads do not divide the
            decoder's width.
    """

    image_size: int = 384
    patch_size: int = 4
    embed_dim: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (6, 12, 24, 48)
    window_size: int = 12
    mlp_ratio: float = 4.0
    swin_norm_eps: float = 1e-5
    projection_size: int = 512
    num_tags: int = 4585
    num_descriptions: int = 51
    decoder_size: int = 768
    decoder_layers: int = 2
    decoder_heads: int = 4
    decoder_ffn_size: int = 3072
    decoder_norm_eps: float = 1e-12
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Check what the network could not survive."""
        grid = self.image_size // self.patch_size // 2 ** (len(self.depths) - 1)
        if grid < self.window_size:
            raise ConfigError(
                f"RamPlusConfig: the last stage has a grid of {grid}x{grid} tokens, smaller than "
                f"window_size {self.window_size}. Use a larger image_size or a smaller window."
            )
        if self.decoder_size % self.decoder_heads:
            raise ConfigError(
                f"RamPlusConfig: decoder_size {self.decoder_size} is not a multiple of "
                f"decoder_heads {self.decoder_heads}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RamPlusConfig:
        """Read the JSON form; ConfigError names an unknown key."""
        known = [item.name for item in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"RamPlusConfig has no field {unknown[0]!r}. Its fields: {known}.")
        frozen: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**frozen)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @property
    def swin(self) -> SwinConfig:
        """The backbone's config."""
        return SwinConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            embed_dim=self.embed_dim,
            depths=list(self.depths),
            num_heads=list(self.num_heads),
            window_size=self.window_size,
            mlp_ratio=self.mlp_ratio,
            layer_norm_eps=self.swin_norm_eps,
        )


class TagDecoderLayer(nn.Module):
    """Post-norm cross-attention to the picture, then a feed-forward block; tags do not interact."""

    def __init__(self, config: RamPlusConfig) -> None:
        super().__init__()
        size, eps = config.decoder_size, config.decoder_norm_eps
        self.num_heads = config.decoder_heads
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(config.projection_size, size)
        self.value = nn.Linear(config.projection_size, size)
        self.attention_output = nn.Linear(size, size)
        self.attention_norm = nn.LayerNorm(size, eps=eps)
        self.ffn_input = nn.Linear(size, config.decoder_ffn_size)
        self.ffn_output = nn.Linear(config.decoder_ffn_size, size)
        self.ffn_norm = nn.LayerNorm(size, eps=eps)

    def forward(self, tags: Tensor, image_embeds: Tensor) -> Tensor:
        """Ask the picture.

        Args:
            tags: float[B, T, D].
            image_embeds: float[B, 1 + N, P]; all of them are attended to.
        """
        mixed = F.scaled_dot_product_attention(
            self._heads(self.query(tags)),
            self._heads(self.key(image_embeds)),
            self._heads(self.value(image_embeds)),
        )
        mixed = mixed.transpose(1, 2).flatten(2)  # [B, T, D]
        tags = self.attention_norm(tags + self.attention_output(mixed))
        return self.ffn_norm(tags + self.ffn_output(F.gelu(self.ffn_input(tags))))

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, T, D/heads]


class RamPlus(nn.Module):
    """The network: pixel values in, one logit a tag out."""

    label_embed: Tensor

    def __init__(self, config: RamPlusConfig) -> None:
        super().__init__()
        self.config = config
        self.swin = SwinModel(config.swin)
        width = config.embed_dim * 2 ** (len(config.depths) - 1)
        self.image_proj = nn.Linear(width, config.projection_size)
        rows = config.num_tags * config.num_descriptions
        # Row = tag * K + description. As stored: not normalised, neither here nor below.
        self.label_embed = nn.Parameter(
            torch.zeros(rows, config.projection_size), requires_grad=False
        )
        self.reweight_scale = nn.Parameter(torch.tensor(0.0))  # natural log of the factor
        self.wordvec_proj = nn.Linear(config.projection_size, config.decoder_size)
        self.decoder = nn.ModuleList(TagDecoderLayer(config) for _ in range(config.decoder_layers))
        self.fc = nn.Linear(config.decoder_size, 1)

    def forward(self, pixel_values: Tensor, tag_chunk: int = 1024) -> Tensor:
        """Score every tag.

        Args:
            pixel_values: float[B, 3, S, S] from `preprocess`.
            tag_chunk: how many tags are worked on at a time, which bounds memory. Tags do not
                interact, so it changes nothing else.

        Returns:
            float32[B, T] logits.

        Raises:
            ShapeError: if the pictures are not S x S.
        """
        image_embeds = self.encode(pixel_values)
        num_tags = self.config.num_tags
        chunks = [range(i, min(i + tag_chunk, num_tags)) for i in range(0, num_tags, tag_chunk)]
        return torch.cat([self.score(image_embeds, chunk) for chunk in chunks], dim=1).float()

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Picture tokens float[B, 1 + N, P], the mean of the final normed tokens first."""
        side = self.config.image_size
        if pixel_values.shape[-2:] != (side, side):
            raise ShapeError(
                f"RamPlus takes pictures of {side}x{side} pixels, got pixel_values of shape "
                f"{tuple(pixel_values.shape)}. Use preprocess(images, config)."
            )
        output = self.swin(pixel_values)
        tokens = torch.cat([output.pooler_output[:, None], output.last_hidden_state], dim=1)
        return self.image_proj(tokens)

    def score(self, image_embeds: Tensor, tags: range) -> Tensor:
        """Logits float[B, len(tags)] of a run of tags, given what `encode` returned."""
        _, weights = self.weigh(image_embeds, tags)
        queries = F.relu(self.wordvec_proj(self.mix(weights, tags)))  # [B, T, D]
        for layer in self.decoder:
            queries = layer(queries, image_embeds)
        return self.fc(queries).squeeze(-1)

    def weigh(self, image_embeds: Tensor, tags: range) -> tuple[Tensor, Tensor]:
        """How well each description of a tag fits the picture.

        Returns:
            Scaled similarities and their softmax over a tag's descriptions, float[B, T, K] each.
        """
        image_cls = image_embeds[:, 0]
        image_cls = image_cls / image_cls.norm(dim=-1, keepdim=True)
        similarity = torch.einsum("bp,tkp->btk", image_cls, self._descriptions(tags))
        logits = self.reweight_scale.exp() * similarity
        return logits, logits.softmax(dim=-1)

    def mix(self, weights: Tensor, tags: range) -> Tensor:
        """Weighted sums of descriptions, float[B, T, P].

        A batched product over tags, [B, K] by [K, P] each: the [B, T, K, P] tensor of weighted
        descriptions (479 MB a picture at the released sizes) never exists.
        """
        return torch.einsum("btk,tkp->btp", weights, self._descriptions(tags))

    def _descriptions(self, tags: range) -> Tensor:
        by_tag = self.label_embed.unflatten(0, (self.config.num_tags, -1))
        return by_tag[tags.start : tags.stop]  # [T, K, P]


def preprocess(images: Sequence[Image.Image], config: RamPlusConfig) -> Tensor:
    """Pictures as float32[B, 3, S, S], bit for bit as the official code makes them.

    Squashed to the square by PIL's bilinear filter, which antialiases. The filter matters: that of
    torch is off by one grey level here and there, enough to turn a tag on or off. Alpha is dropped;
    `load_image` lays it over white, so its pictures have none.
    """
    side = (config.image_size, config.image_size)
    squares = [image.convert("RGB").resize(side, Image.Resampling.BILINEAR) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(square) for square in squares]))
    values = pixels.permute(0, 3, 1, 2).to(torch.float32).div(255)
    mean = torch.tensor(config.image_mean)[:, None, None]
    std = torch.tensor(config.image_std)[:, None, None]
    return (values - mean).div(std).contiguous()


class RamPlusTagger:
    """RAM++ with its tag list and its threshold a tag.

    Args:
        model: the network.
        tags: names, in the order of the network's logits.
        thresholds: a tag fires when its probability is strictly above its own. With 1 it never
            does, which the released list uses to silence ten tags.
        silenced: numbers of further tags that never fire.
        batch_size: pictures a forward pass.

    Raises:
        CheckpointError: if there is not one name and one threshold a tag.

    Example:
        >>> tagger = load_ram_plus("ram_plus")  # doctest: +SKIP
        >>> tagger.tag([load_image("street.jpg")])  # doctest: +SKIP
        [('bus', 'car', 'street')]
    """

    def __init__(
        self,
        model: RamPlus,
        tags: Sequence[str],
        thresholds: Sequence[float],
        silenced: Sequence[int] = (),
        batch_size: int = 4,
    ) -> None:
        num_tags = model.config.num_tags
        if not len(tags) == len(thresholds) == num_tags:
            raise CheckpointError(
                f"the network has {num_tags} tags, the tag list {len(tags)} and the threshold list "
                f"{len(thresholds)}. All three must come from the same release."
            )
        if any(not 0 <= index < num_tags for index in silenced):
            raise ConfigError(f"silenced is {list(silenced)}; numbers go from 0 to {num_tags - 1}.")
        self.model = model.eval()
        self.tags = tuple(tags)
        self.thresholds = torch.tensor(list(thresholds), dtype=torch.float32)
        self.silenced = tuple(sorted(set(silenced)))
        self.batch_size = batch_size

    @property
    def identity(self) -> dict[str, Any]:
        """What the tags depend on."""
        return {
            "kind": "ram_plus",
            "weights": digest_of(self.model),
            "tags": digest_of_text("\n".join(self.tags)),
            "thresholds": digest_of_text(repr(self.thresholds.tolist())),
            "silenced": list(self.silenced),
        }

    def tag(self, images: Sequence[Image.Image]) -> list[tuple[str, ...]]:
        """The tags of each picture, in the order of the list, written as in the list."""
        if not images:
            return []
        return [
            tuple(self.tags[index] for index in row.nonzero().flatten().tolist())
            for row in self.fired(self.probabilities(images))
        ]

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Image.Image]) -> Tensor:
        """float32[B, T] on the CPU, whatever the network runs on."""
        found = []
        for part in in_parts(images, self.batch_size):
            pixels = preprocess(part, self.model.config)
            pixels = pixels.to(device_of(self.model), self.model.fc.weight.dtype)
            found.append(self.model(pixels).sigmoid().cpu())
        return torch.cat(found)

    def fired(self, probabilities: Tensor) -> Tensor:
        """bool[B, T]: which tags are above their thresholds and not silenced."""
        mask = probabilities > self.thresholds
        mask[:, list(self.silenced)] = False
        return mask
