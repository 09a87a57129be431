"""Presets: every one builds, saves, reloads equal and learns; variants are differences."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError
from parfocal.images import image_frame
from parfocal.models.building import build_processor, token_ids_of
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.packing import additive, turn_mask, turn_positions
from parfocal.models.presets import PRESETS, get_preset, tiny, vary
from parfocal.models.settings import PromptTemplate
from parfocal.models.tokenizers import END, train_tokenizer

PARTS = ("vision", "fusion", "projector", "proposer", "regions", "token_ids", "dialect")
TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>", end=END)
SMALL = ("mini", "tiny")  # the others are built on the meta device, in their own tests
MODULES = ("vision", "projector", "proposer", "regions", "text")


def assert_equal_configs(one: ParfocalConfig, other: ParfocalConfig) -> None:
    for name in PARTS:
        assert getattr(one, name) == getattr(other, name), name
    texts = [config.text_config.to_dict() for config in (one, other)]
    for text in texts:
        text.pop("dtype", None)  # written when weights are saved
    assert texts[0] == texts[1]


def build(name: str):
    slots = get_preset(name).proposer.max_regions
    sentences = ["Where is the red apple?", "there"] * 3
    tokenizer = train_tokenizer(sentences, get_dialect("region_tokens"), TEMPLATE, slots, 400)
    config = get_preset(name, vocab_size=len(tokenizer))
    config.token_ids = token_ids_of(tokenizer)
    model = ParfocalForConditionalGeneration(config)
    return model, build_processor(tokenizer, config, TEMPLATE, model.num_image_tokens)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_made_anew_each_time(name):
    first, second = get_preset(name), get_preset(name)
    assert_equal_configs(first, second)
    first.text_config.vocab_size += 1
    assert get_preset(name).text_config.vocab_size == second.text_config.vocab_size
    assert get_preset(name, vocab_size=200).text_config.vocab_size == 200


@pytest.mark.parametrize("name", SMALL)
def test_a_preset_builds_saves_reloads_equal_and_takes_a_training_step(name, tmp_path):
    model, processor = build(name)
    model.save_pretrained(tmp_path)
    again = ParfocalForConditionalGeneration.from_pretrained(tmp_path)
    assert_equal_configs(again.config, model.config)
    values = again.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, values[key]), key

    model.train()
    before = copy.deepcopy(model.state_dict())
    loss = training_loss(model, processor)
    assert torch.isfinite(loss)
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    moved = {
        key.split(".")[0]
        for key, value in model.named_parameters()
        if not torch.equal(value, before[key])
    }
    assert moved >= set(MODULES)
    assert all(torch.isfinite(value).all() for value in model.parameters())


def training_loss(model, processor) -> torch.Tensor:
    """Language loss on packed turns, and something for the proposer to learn."""
    images = [Image.effect_noise((60, 40), 90).convert("RGB") for _ in range(2)]
    pixels, warps = processor.pixel_values(images)
    turns = (
        Turn("user", GroundedText.of("Where is the red apple?")),
        Turn("assistant", GroundedText.of("there")),
    )
    samples = [
        Sample(id=str(index), images=(ImageRef("a.png", 60, 40),), turns=turns * (1 + index),
               regions=Boxes([[5, 5, 30, 30]], image_frame(image)), source="test", split="train",
               licence="CC0-1.0", meta={})
        for index, image in enumerate(images)
    ]  # fmt: skip
    batch = processor.pack(samples, warps)
    features = model.encode(pixels)
    regions = model.propose(features, batch.user_boxes, batch.user_mask)
    live = model.live_mask(batch.input_ids, batch.attention_mask, regions.mask)
    allowed, positions = turn_mask(batch.turn, live), turn_positions(batch.turn, live)
    output = model(
        input_ids=batch.input_ids,
        attention_mask=additive(allowed, torch.float32),
        position_ids=positions,
        labels=batch.labels,
        image_features=features.image,
        region_features=regions.features,
    )
    return output.loss + features.candidates.training.logits.square().mean()


def test_an_unknown_preset_lists_the_names():
    with pytest.raises(ConfigError, match="no preset 'huge'; choose one of") as caught:
        get_preset("huge")
    assert all(repr(name) in str(caught.value) for name in PRESETS)


class TestVary:
    def test_changes_the_named_fields_only_and_leaves_its_input_alone(self):
        config = tiny()
        varied = vary(config, {"proposer": {"max_regions": 3}, "dialect": "plain"})
        assert varied.proposer.max_regions == 3
        assert varied.proposer.kind == config.proposer.kind
        assert varied.dialect == "plain"
        assert varied.vision == config.vision
        assert_equal_configs(config, tiny())

    def test_no_difference_is_an_equal_config(self):
        assert_equal_configs(vary(tiny(), {}), tiny())

    def test_a_text_model_is_replaced_whole(self):
        text = {
            "model_type": "llama",
            "vocab_size": 40,
            "hidden_size": 16,
            "num_attention_heads": 2,
        }
        varied = vary(tiny(), {"text_config": text})
        assert varied.text_config.model_type == "llama"
        assert varied.text_config.num_hidden_layers != tiny().text_config.num_hidden_layers

    def test_a_field_of_the_text_model_can_change_alone(self):
        varied = vary(tiny(), {"text_config": {"intermediate_size": 48}})
        assert varied.text_config.intermediate_size == 48
        assert varied.text_config.hidden_size == tiny().text_config.hidden_size

    def test_mentioning_a_part_that_is_not_there_is_refused(self):
        with pytest.raises(ConfigError, match="Did you mean 'fusion'"):
            vary(tiny(), {"fusoin": {"kind": "none"}})
        with pytest.raises(ConfigError, match="Did you mean 'kind'"):
            vary(tiny(), {"fusion": {"knd": "none"}})
