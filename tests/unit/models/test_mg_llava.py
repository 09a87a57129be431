"""MG-LLaVA's plan at a toy size: rows with pictures and without, its merges, saving, learning."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError, ShapeError
from parfocal.images import image_frame
from parfocal.models.modeling import ParfocalForConditionalGeneration, rows_of
from parfocal.models.presets import vary
from parfocal.models.presets_mg_llava import mg_llava
from parfocal.models.processing import PromptTemplate, build_processor
from parfocal.models.templates import VICUNA
from parfocal.models.tokenizers import END, train_tokenizer

LOW = {
    "backbone": {
        "model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    },
    "image_size": 28, "token_layer": -2, "input_from": 1,
}  # fmt: skip
HIGH = {
    "backbone": {"model_type": "convnext", "hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1]},
    "image_size": 64, "level_layers": (1, 2, 3, 4),
}  # fmt: skip
VARIANTS = {
    "as released": {},
    "b2f": {"regions": {"merge": "b2f_attention"}},
    "f2b": {"regions": {"merge": "f2b_attention"}},
    "concat": {"fusion": {"kind": "concat"}},
    "mining": {"fusion": {"kind": "patch_info_mining"}},
    "resampler": {"fusion": {"kind": "resampler", "heads": 2}, "projector": {"depth": 0}},
}
TEMPLATE = PromptTemplate(opening="<user>", first=".", user="<user>", assistant="<answer>", end=END)


def build(variant: str = "as released"):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["what is it?"] * 3, get_dialect("plain"), TEMPLATE, 0, 300)
    size = len(tokenizer)
    text = {
        "model_type": "llama", "vocab_size": size, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    base = vary(mg_llava(text), {"vision": {"towers": [LOW, HIGH]}, "proposer": {"max_regions": 3}})
    model = ParfocalForConditionalGeneration(vary(base, VARIANTS[variant])).eval()
    for value in model.parameters():  # so that parts which start at zero do something
        if value.requires_grad and value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3)
    return model, build_processor(tokenizer, model.config, TEMPLATE, model.num_image_tokens)


def inputs_of(model, processor, rows):
    """Inputs of `forward` for rows of (question, [(picture, boxes)])."""
    shown = [pair for _, pictures in rows for pair in pictures]
    counts = [len(pictures) for _, pictures in rows]
    images = [image for image, _ in shown]
    values: dict = {}
    pixels, warps = processor.pixel_values(images) if images else ([], [])
    boxes = [
        Boxes(own, image_frame(image)) if own else Boxes.empty(image_frame(image))
        for image, own in shown
    ]
    asked = [GroundedText.of(question) for question, _ in rows]
    text = processor.ask(asked, boxes, warps, pictures=counts)
    mask = text.attention_mask
    if images:
        features = model.encode(pixels)
        regions = model.propose(features, text.user_boxes, text.user_mask)
        mask = model.live_mask(text.input_ids, mask, rows_of(regions.mask, counts))
        values["image_features"] = rows_of(model.image_tokens(features, regions), counts)
        if regions.features is not None:
            values["region_features"] = rows_of(regions.features, counts)
    return {"input_ids": text.input_ids, "attention_mask": mask, **values}


def pictures():
    generator = torch.Generator().manual_seed(0)
    sizes = ((40, 30), (30, 44), (64, 64))
    return [
        Image.fromarray(torch.randint(0, 256, (h, w, 3), generator=generator).byte().numpy())
        for w, h in sizes
    ]


def rows():
    first, second, third = pictures()
    return [
        ("what is it?", [(first, [[3, 4, 20, 25], [0, 0, 40, 30]])]),
        ("is it?", []),
        ("what?", [(second, []), (third, [[5, 5, 60, 30]])]),
    ]


@pytest.mark.parametrize("variant", ["as released", "f2b", "b2f"])
@torch.inference_mode()
def test_rows_with_pictures_without_and_with_several_equal_each_alone(variant):
    model, processor = build(variant)
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
    model, processor = build()
    pixels, _ = processor.pixel_values(pictures()[:1])
    regions = model.propose(model.encode(pixels))
    assert regions.mask.tolist() == [[True, False, False]]
    assert not regions.boxes.any()
    assert regions.features[0, 0].any()


@torch.inference_mode()
def test_in_f2b_the_regions_change_the_image_tokens_and_take_no_place():
    model, processor = build("f2b")
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_reaches_every_part_and_saving_is_lossless(variant, tmp_path):
    model, processor = build(variant)
    values = inputs_of(model, processor, rows()[:1])
    labels = values["input_ids"].masked_fill(values["attention_mask"] == 0, -100)
    labels = labels.masked_fill(labels >= model.config.text_config.vocab_size, -100)
    model(**values, labels=labels).loss.backward()
    parts = {
        name.split(".")[0]
        for name, value in model.named_parameters()
        if value.grad is not None and value.grad.abs().sum() > 0
    }
    wanted = {"vision", "regions", "text", "projector", "fusion", "merge"}
    if variant not in ("f2b", "b2f"):
        wanted.discard("merge")
    if variant == "f2b":
        wanted.discard("regions")  # it has no weights of its own there
    if variant == "concat":
        wanted.discard("fusion")
    if variant == "resampler":
        wanted.discard("projector")
    assert parts == wanted

    model.save_pretrained(tmp_path)
    again = ParfocalForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert again.config.regions == model.config.regions
    assert again.config.vision == model.config.vision
    with torch.inference_mode():
        assert torch.equal(again(**values).logits, model(**values).logits)


def test_the_small_view_is_made_of_the_large_one():
    _, processor = build()
    (low, high), _ = processor.picture(pictures()[0])
    assert (low.shape, high.shape) == ((3, 28, 28), (3, 64, 64))
    shrunk = torch.nn.functional.interpolate(high[None], 28, mode="bilinear")[0]
    assert torch.equal(low, shrunk)


def test_padding_is_the_mean_colour_rounded_down():
    _, processor = build()
    mean, std = (torch.tensor(value) for value in (HIGH_MEAN, HIGH_STD))
    (_, high), _ = processor.picture(Image.new("RGB", (64, 32), "white"))
    corner = ((high[:, 0, 0] * std + mean) * 255).round()
    assert corner.tolist() == [int(255 * value) for value in HIGH_MEAN]


HIGH_MEAN = (0.485, 0.456, 0.406)
HIGH_STD = (0.229, 0.224, 0.225)


def test_user_boxes_are_rounded_to_whole_pixels_of_the_large_input():
    _, processor = build()
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
        _, processor = build()
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
    model, _ = build("resampler")
    assert not list(model.projector.parameters())
    text = {"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2}
    config = vary(mg_llava(text), {"vision": {"towers": [LOW, HIGH]}, "projector": {"depth": 0}})
    with pytest.raises(ConfigError, match="depth is 0 but tokens have 8"):
        ParfocalForConditionalGeneration(config)
