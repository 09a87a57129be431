"""MG-LLaVA's plan at a toy size: rows with pictures and without, its merges, templates."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError, ShapeError
from parfocal.images import image_frame
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import vary
from parfocal.models.presets_mg_llava import mg_llava
from parfocal.models.settings import PromptTemplate
from parfocal.models.splicing import rows_of
from parfocal.models.templates import VICUNA
from parfocal.models.tokenizers import END
from tests.unit.models.builders import HIGH, LOW, build_mg_llava, inputs_of, pictures


def rows():
    first, second, third = pictures()
    return [
        ("what is it?", [(first, [[3, 4, 20, 25], [0, 0, 40, 30]])]),
        ("is it?", []),
        ("what?", [(second, []), (third, [[5, 5, 60, 30]])]),
    ]


@pytest.mark.parametrize("variant", ["conv_gate", "conv_gate f2b", "conv_gate b2f"])
@torch.inference_mode()
def test_rows_with_pictures_without_and_with_several_equal_each_alone(variant):
    model, processor = build_mg_llava(variant)
    together = inputs_of(model, processor, rows())
    options = {"max_new_tokens": 5, "do_sample": False}
    logits = model(**together).logits[:, -1]
    said = model.generate(**together, **options)[:, together["input_ids"].shape[1] :]
    for index, row in enumerate(rows()):
        alone = inputs_of(model, processor, [row])
        torch.testing.assert_close(
            model(**alone).logits[0, -1], logits[index], atol=1e-4, rtol=1e-4
        )
        own = model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
        assert own.tolist() == said[index, : len(own)].tolist()


@torch.inference_mode()
def test_a_picture_without_boxes_has_the_empty_box_and_no_other():
    model, processor = build_mg_llava()
    pixels, _ = processor.pixel_values(pictures()[:1])
    regions = model.propose(model.encode(pixels))
    assert regions.mask.tolist() == [[True, False, False]]
    assert not regions.boxes.any()
    assert regions.features[0, 0].any()


@torch.inference_mode()
def test_in_f2b_the_regions_change_the_image_tokens_and_take_no_place():
    model, processor = build_mg_llava("conv_gate f2b")
    assert processor.settings.num_slots == 0
    features = model.encode(processor.pixel_values(pictures()[:1])[0])
    boxes = torch.tensor([[[0.5, 0.5, 0.3, 0.3]]])
    regions = model.propose(features, boxes)
    assert regions.features is None
    seen = model.image_tokens(features, regions)
    other = model.image_tokens(features, model.propose(features, boxes * 0.5))
    assert seen.shape == features.image.shape
    assert not torch.allclose(seen, features.image, atol=1e-3)
    assert not torch.allclose(seen, other, atol=1e-3)


def test_the_small_view_is_made_of_the_large_one():
    _, processor = build_mg_llava()
    (low, high), _ = processor.picture(pictures()[0])
    assert (low.shape, high.shape) == ((3, 28, 28), (3, 64, 64))
    shrunk = torch.nn.functional.interpolate(high[None], 28, mode="bilinear")[0]
    assert torch.equal(low, shrunk)


def test_padding_is_the_mean_colour_rounded_down():
    _, processor = build_mg_llava()
    mean, std = (torch.tensor(value) for value in (HIGH_MEAN, HIGH_STD))
    (_, high), _ = processor.picture(Image.new("RGB", (64, 32), "white"))
    corner = ((high[:, 0, 0] * std + mean) * 255).round()
    assert corner.tolist() == [int(255 * value) for value in HIGH_MEAN]


HIGH_MEAN = (0.485, 0.456, 0.406)
HIGH_STD = (0.229, 0.224, 0.225)


def test_user_boxes_are_rounded_to_whole_pixels_of_the_large_input():
    _, processor = build_mg_llava()
    image = Image.new("RGB", (100, 100))
    own = Boxes([[10.2, 20.7, 50.9, 99.9]], image_frame(image))
    _, warp = processor.picture(image)
    boxes, _ = processor.unit_boxes([own], [warp])
    centre, size = boxes[0, 0, :2] * 64, boxes[0, 0, 2:] * 64
    assert (centre - size / 2).tolist() == pytest.approx([7, 13], abs=1e-4)  # 6.53, 13.25
    assert (centre + size / 2).tolist() == pytest.approx([33, 64], abs=1e-4)  # 32.58, 63.94


class TestTemplates:
    @pytest.fixture
    def processor(self):
        _, processor = build_mg_llava()
        return processor

    def ids(self, processor, text):
        return processor.tokenizer.encode(text, add_special_tokens=False)

    def test_the_picture_stands_inside_the_first_question(self, processor):
        frame = Frame("image", 10, 10)
        batch = processor.ask(
            [GroundedText.of("what?")], [Boxes.empty(frame)], [Warp.to_unit(frame)],
            history=[[("is it?", "it is")]],
        )  # fmt: skip
        tokens = processor.settings.token_ids
        expected = [
            *self.ids(processor, "<user>"),
            *[tokens.image] * 4, *[tokens.region] * 3,
            *self.ids(processor, ".is it?<answer>"),
            *self.ids(processor, f"it is{END}"),
            *self.ids(processor, "<user>what?<answer>"),
        ]  # fmt: skip
        assert batch.input_ids[0].tolist() == expected

    def test_text_alone_has_neither_picture_nor_opening(self, processor):
        batch = processor.ask([GroundedText.of("what?")], [], [], pictures=[0])
        assert batch.input_ids[0].tolist() == self.ids(processor, "<user>what?<answer>")
        assert batch.user_boxes.shape == (0, 0, 4)

    def test_stop_tokens_are_the_ends_that_are_one_token(self, processor):
        assert processor.stop_ids == [processor.tokenizer.eos_token_id]
        template = PromptTemplate(end="what is it?", stops=("<user>",))
        other = type(processor)(
            processor.tokenizer,
            type(processor.settings).from_dict({"template": template, "num_image_tokens": 4}),
        )
        assert other.stop_ids == [
            processor.tokenizer.eos_token_id, *self.ids(processor, "<user>"),
        ]  # fmt: skip

    def test_a_template_is_plain_data(self):
        assert PromptTemplate.from_dict(VICUNA.to_dict()) == VICUNA


def test_rows_must_share_all_pictures():
    with pytest.raises(ShapeError, match="cannot share 3 pictures"):
        rows_of(torch.zeros(3, 2), (1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision": {"levels_from": 2}}, "levels_from is 2"),
        ({"vision": {"towers": [{**LOW, "input_from": 0}, HIGH]}}, r"towers\[0\].input_from is 0"),
        ({"vision": {"levels_from": 0}}, "level_layers"),
        ({"fusion": {"kind": "none"}}, "two towers"),
        ({"fusion": {"kind": "conv_gate", "join": "sum"}}, "join is 'sum'"),
        (
            {"regions": {"kind": "multilevel_roi", "merge": "f2b_attention"}},
            "'multiscale_mean' has",
        ),
    ],
    ids=["no such tower", "own input", "no levels", "unfused", "unknown join", "merge"],
)
def test_config_refuses(change, message):
    text = {"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2}
    base = vary(mg_llava(text), {"vision": {"towers": [LOW, HIGH]}})
    with pytest.raises(ConfigError, match=message):
        vary(base, change)


def test_a_resampler_needs_no_projector_and_others_do():
    model, _ = build_mg_llava("resampler")
    assert not list(model.projector.parameters())
    text = {"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2}
    config = vary(mg_llava(text), {"vision": {"towers": [LOW, HIGH]}, "projector": {"depth": 0}})
    with pytest.raises(ConfigError, match="depth is 0 but tokens have 8"):
        ParfocalForConditionalGeneration(config)
