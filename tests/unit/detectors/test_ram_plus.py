"""RAM++ around its numbers, which tests/parity compares with the official ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from parfocal.detectors.ram_plus import (
    RamPlus,
    RamPlusConfig,
    RamPlusTagger,
    preprocess,
)
from parfocal.errors import CheckpointError, ConfigError, ShapeError


class LargestResult(TorchDispatchMode):
    """Remembers how many values the largest result of any operation has."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_batches_single_pictures_and_chunks_of_tags_agree(
    ram_plus: RamPlusTagger, photos: list[Image.Image]
) -> None:
    together = ram_plus.probabilities(photos)
    singles = torch.cat([ram_plus.probabilities([photo]) for photo in photos])
    torch.testing.assert_close(together, singles, atol=1e-6, rtol=1e-5)
    pixels = preprocess(photos, ram_plus.model.config)
    with torch.no_grad():
        for chunk in (1, 3, 5, 99):
            torch.testing.assert_close(ram_plus.model(pixels, chunk).sigmoid(), together)
    assert ram_plus.tag(photos) == [("red car", "tree")] * 4
    assert ram_plus.tag([]) == []


def test_weighted_descriptions_are_never_held_all_at_once(ram_plus: RamPlusTagger) -> None:
    model, config = ram_plus.model, ram_plus.model.config
    weights = torch.rand(6, config.num_tags, config.num_descriptions).softmax(-1)
    rows = model.label_embed.unflatten(0, (config.num_tags, -1))
    with torch.no_grad(), LargestResult() as naive:
        expected = (weights[..., None] * rows).sum(2)
    with torch.no_grad(), LargestResult() as ours:
        mixed = model.mix(weights, range(config.num_tags))
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    assert naive.numel == weights.numel() * config.projection_size
    assert ours.numel <= max(rows.numel(), mixed.numel()) < naive.numel


def test_a_tag_fires_strictly_above_its_threshold_unless_silenced(ram_plus: RamPlusTagger) -> None:
    thresholds = (0.5, 0.65, 1.0, 0.2, 0.2)
    tagger = RamPlusTagger(ram_plus.model, ram_plus.tags, thresholds, silenced=[4])
    probabilities = torch.tensor([[0.5, 0.65, 1.0, 0.21, 0.9], [0.51, 0.64, 1.0, 0.2, 0.9]])
    fired = tagger.fired(probabilities)
    assert fired.tolist() == [[False, False, False, True, False], [True] + [False] * 4]


def test_tags_come_in_the_order_of_the_list(ram_plus: RamPlusTagger, photos: list) -> None:
    tagger = RamPlusTagger(ram_plus.model, ("z", "A", "m", "b", "c"), (0.0,) * 5)
    assert tagger.tag(photos[:1]) == [("z", "A", "m", "b", "c")]


def test_lists_of_another_release_are_refused(ram_plus: RamPlusTagger) -> None:
    with pytest.raises(CheckpointError, match="5 tags, the tag list 4 and the threshold list 5"):
        RamPlusTagger(ram_plus.model, ("a", "b", "c", "d"), (0.5,) * 5)
    with pytest.raises(ConfigError, match=r"silenced is \[5\]"):
        RamPlusTagger(ram_plus.model, ram_plus.tags, (0.5,) * 5, silenced=[5])


def test_preprocessing_squashes_and_drops_alpha(ram_plus: RamPlusTagger) -> None:
    config = ram_plus.model.config
    clear = Image.new("RGBA", (70, 20), (255, 0, 51, 0))
    pixels = preprocess([clear], config)
    assert pixels.shape == (1, 3, 32, 32)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(pixels[0, :, 3, 4], expected, atol=1e-6)


def test_impossible_sizes_are_refused(ram_plus: RamPlusTagger) -> None:
    with pytest.raises(ConfigError, match="grid of 8x8 tokens"):
        RamPlusConfig(image_size=256)
    with pytest.raises(ConfigError, match="decoder_heads 5"):
        RamPlusConfig(decoder_heads=5)
    with pytest.raises(ConfigError, match="no field 'image_siz'"):
        RamPlusConfig.from_dict({"image_siz": 384})
    with pytest.raises(ShapeError, match="32x32 pixels"):
        ram_plus.model.encode(torch.zeros(1, 3, 64, 64))


def test_sizes_survive_json() -> None:
    config = RamPlusConfig(depths=(2, 2), num_heads=(1, 2), num_tags=7)
    assert RamPlusConfig.from_dict(config.to_dict()) == config


def test_identity_follows_thresholds_and_tags(ram_plus: RamPlusTagger) -> None:
    model, tags = ram_plus.model, ram_plus.tags
    others = [
        RamPlusTagger(model, tags, (0.1,) * 5),
        RamPlusTagger(model, ("x", *tags[1:]), ram_plus.thresholds.tolist()),
        RamPlusTagger(model, tags, ram_plus.thresholds.tolist(), silenced=[0]),
    ]
    assert all(other.identity != ram_plus.identity for other in others)
    same = RamPlusTagger(model, tags, ram_plus.thresholds.tolist())
    assert same.identity == ram_plus.identity


def test_the_released_sizes_have_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        network = RamPlus(RamPlusConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 329_493_046
