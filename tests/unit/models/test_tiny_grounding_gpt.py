"""TinyGroundingGPT: sizes of its presets, and object images at a toy size."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample, Turn, cut
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText, ObjectRef, Phrase
from parfocal.errors import ConfigError, DataError, DialectError, ShapeError
from parfocal.images import image_frame
from parfocal.models.building import build_processor
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.objects import pool_tokens
from parfocal.models.packing import additive, turn_mask, turn_positions
from parfocal.models.presets import PRESETS, get_preset, vary
from parfocal.models.presets_tiny_grounding_gpt import tiny_grounding_gpt
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.templates import (
    QWEN2_5_CHAT,
    TEMPLATES,
    TINY_GROUNDING_GPT_TEMPLATES,
)
from tests.unit.models.builders import CROP_TEMPLATE, CROP_TOWERS, build_tiny_grounding_gpt

NAMES = [name for name in PRESETS if name.startswith("tiny_grounding_gpt")]
CLIP_L, DINO_L = 303_507_456, 304_368_640
# published sizes of the language models, their width, and whether the head is the token table
TEXT = {
    "tiny_grounding_gpt_1_5b": (1_543_714_304, 1536),
    "tiny_grounding_gpt_3b": (3_085_938_688, 2048),
    "tiny_grounding_gpt_7b": (7_615_616_512, 3584),
    "tiny_grounding_gpt_qwen2_1_5b": (1_543_714_304, 1536),
}


@pytest.fixture(scope="module")
def pair():
    return build_tiny_grounding_gpt()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (height, width, 3), generator=generator)
    return Image.fromarray(values.byte().numpy())


PICTURE = noise(90, 60)
CROPS = [cut(PICTURE, box) for box in ([10, 5, 40, 50], [50, 20, 90, 30], [0, 0, 12, 12])]


# Presets


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_two_towers_a_projector_and_its_language_model(name):
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(get_preset(name))
    text, width = TEXT[name]
    projector = 2048 * width + width + width * width + width
    assert sum(value.numel() for value in model.text.parameters()) == text
    total = sum(value.numel() for value in model.parameters())
    assert total == text + CLIP_L + DINO_L + projector
    if "qwen2" not in name:
        assert f"{total / 1e9:.2f} billion" in PRESETS[name].__doc__
    assert (model.num_image_tokens, model.num_object_tokens, model.num_slots) == (576, 36, 0)


@pytest.mark.slow
def test_a_full_object_has_the_tokens_of_a_picture():
    text = get_preset("tiny_grounding_gpt_3b").text_config.to_dict()
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(tiny_grounding_gpt(text, merge_crops=1))
    assert model.num_object_tokens == model.num_image_tokens == 576


def test_every_preset_has_a_template_and_the_placeholders_lie_beyond_the_tokens():
    assert set(TINY_GROUNDING_GPT_TEMPLATES) == set(NAMES)
    assert set(TINY_GROUNDING_GPT_TEMPLATES.values()) <= set(TEMPLATES.values())
    for name in NAMES:
        config = get_preset(name)
        ids = config.token_ids
        assert (ids.image, ids.object) == (
            config.text_config.vocab_size,
            config.text_config.vocab_size + 1,
        )


def test_a_conversation_is_written_as_qwen_writes_it():
    template = QWEN2_5_CHAT
    one = template.opening + template.first + "Q" + template.turn_end + template.assistant
    assert one == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n\nQ<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.end + template.separator == "<|im_end|>\n"


def test_the_question_for_a_place_is_the_papers():
    asked = get_dialect(get_preset(NAMES[0]).dialect).locate("the red apple")
    assert asked.plain == "Output the coordinate of the red apple"


# Object images


@pytest.mark.parametrize("merge", [1, 2, 4])
@torch.inference_mode()
def test_an_object_is_its_crop_seen_as_a_picture_then_averaged(merge):
    model, processor = build_tiny_grounding_gpt(merge)
    question = GroundedText.of("a. ", ObjectRef(2), "; b. ", ObjectRef(1))
    empty = Boxes.empty(image_frame(PICTURE))
    _, warps = processor.pixel_values([PICTURE])
    text = processor.ask([question], [empty], warps, objects=[CROPS[:2]])
    objects = model.encode_objects(text.object_pixels, text.object_mask)
    shown = [CROPS[1], CROPS[0]]  # in the order of the question
    alone = model.encode(processor.pixel_values(shown)[0]).image
    expected = pool_tokens(alone, merge).reshape(1, -1, 16)
    torch.testing.assert_close(objects, expected)
    if merge == 1:
        torch.testing.assert_close(objects, alone.reshape(1, -1, 16))

    where = text.input_ids[0] == model.config.token_ids.object
    assert int(where.sum()) == 2 * model.num_object_tokens == 2 * (4 // merge) ** 2
    image = model.encode(processor.pixel_values([PICTURE])[0]).image
    embeds = model.embed(text.input_ids, image, None, objects)
    torch.testing.assert_close(embeds[0][where], objects[0])
    is_image = text.input_ids[0] == model.config.token_ids.image
    torch.testing.assert_close(embeds[0][is_image], image[0])


def test_pooling_averages_neighbours_of_both_axes():
    tokens = torch.arange(16.0)[None, :, None]  # a 4 x 4 grid
    assert pool_tokens(tokens, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_tokens(tokens, 4).flatten().tolist() == [7.5]
    assert torch.equal(pool_tokens(tokens, 1), tokens)


def test_a_crop_is_padded_with_each_towers_mean_and_not_distorted(pair):
    _, processor = pair
    (_, dino), _ = processor.picture(Image.new("RGB", (40, 10), "white"))
    mean, std = (torch.tensor(value) for value in ((0.2, 0.4, 0.6), (0.229, 0.224, 0.225)))
    corner, centre = ((dino[:, y, 28] * std + mean) * 255 for y in (0, 28))
    assert corner.round().tolist() == [51, 102, 153]
    assert centre.round().tolist() == [255, 255, 255]


def test_marks_stand_where_the_question_shows_objects(pair):
    model, processor = pair
    ids = model.config.token_ids
    question = GroundedText.of("Which? a. ", ObjectRef(1), " b. ", ObjectRef(2), ".")
    empty = Boxes.empty(image_frame(PICTURE))
    _, warps = processor.pixel_values([PICTURE])
    text = processor.ask([question], [empty], warps, objects=[CROPS])
    encode = processor.tokenizer.encode
    expected = [
        *[ids.image] * 16,
        *encode("<user>Which? a. "), *[ids.object] * 4,
        *encode(" b. "), *[ids.object] * 4,
        *encode(".<answer>"),
    ]  # fmt: skip
    assert text.input_ids[0].tolist() == expected
    assert text.object_mask.tolist() == [[True, True]]


def asked(pair, rows):
    """Inputs of `forward` for rows of (question, object images)."""
    model, processor = pair
    pixels, warps = processor.pixel_values([PICTURE] * len(rows))
    empty = [Boxes.empty(image_frame(PICTURE))] * len(rows)
    text = processor.ask([row[0] for row in rows], empty, warps, objects=[row[1] for row in rows])
    values = {
        "input_ids": text.input_ids,
        "attention_mask": text.attention_mask,
        "image_features": model.encode(pixels).image,
    }
    if text.object_mask is not None:
        values["object_features"] = model.encode_objects(text.object_pixels, text.object_mask)
    return values


ROWS = [
    (GroundedText.of("Which? a. ", ObjectRef(1), " b. ", ObjectRef(2)), CROPS[:2]),
    (GroundedText.of("What is it?"), []),
    (GroundedText.of(ObjectRef(1), " or ", ObjectRef(3), " or ", ObjectRef(1), "?"), CROPS),
    (GroundedText.of("Where is ", ObjectRef(1), "?"), CROPS[2:]),
]


@pytest.mark.parametrize("beams", [1, 2])
@torch.inference_mode()
def test_rows_of_different_numbers_of_objects_equal_each_alone(pair, beams):
    model, _ = pair
    options = {"max_new_tokens": 5, "do_sample": False, "num_beams": beams}
    together = asked(pair, ROWS)
    logits = model(**together).logits[:, -1]
    said = model.generate(**together, **options)[:, together["input_ids"].shape[1] :]
    for index, row in enumerate(ROWS):
        alone = asked(pair, [row])
        torch.testing.assert_close(
            model(**alone).logits[0, -1], logits[index], atol=1e-4, rtol=1e-4
        )
        own = model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
        assert own.tolist() == said[index, : len(own)].tolist()


@torch.inference_mode()
def test_the_answer_depends_on_which_object_stands_where(pair):
    model, _ = pair
    question = ROWS[0][0]
    one, other = (
        model(**asked(pair, [(question, crops)])).logits[0, -1]
        for crops in (CROPS[:2], CROPS[1::-1])
    )
    assert not torch.allclose(one, other, atol=1e-3)


# Training


def samples() -> list[Sample]:
    frame = image_frame(PICTURE)
    place = Phrase("", Boxes([[10, 5, 40, 50]], frame))
    picture = ImageRef(None, 90, 60, pixels=PICTURE)
    objects = (
        ImageRef(None, 30, 45, parent=0, crop=(10, 5, 40, 50)),
        ImageRef(None, 40, 10, parent=0, crop=(50, 20, 90, 30)),
    )
    which = GroundedText.of("Which? a. ", ObjectRef(1), "; b. ", ObjectRef(2))
    where = GroundedText.of("Output the coordinate of ", ObjectRef(1))
    turns = (
        Turn("user", which), Turn("assistant", GroundedText.of("The answer is a.")),
        Turn("user", where), Turn("assistant", GroundedText.of(place)),
    )  # fmt: skip
    words = (
        Turn("user", GroundedText.of("What is it?")), Turn("assistant", GroundedText.of("apple")),
    )  # fmt: skip
    return [
        Sample("1", (picture, *objects), turns, split="train"),
        Sample("2", (picture,), words, split="train"),
    ]


def loss_of(model, processor: ParfocalProcessor, rows: list[Sample]) -> torch.Tensor:
    pixels, warps = processor.pixel_values([row.open_image() for row in rows])
    batch = processor.pack(rows, warps).to("cpu")
    objects = None
    if batch.object_mask is not None:
        objects = model.encode_objects(batch.object_pixels, batch.object_mask)
    allowed = turn_mask(batch.turn, batch.attention_mask)
    positions = turn_positions(batch.turn, batch.attention_mask)
    return model(
        input_ids=batch.input_ids,
        attention_mask=additive(allowed, torch.float32),
        position_ids=positions,
        labels=batch.labels,
        image_features=model.encode(pixels).image,
        object_features=objects,
    ).loss


def test_packed_rows_show_the_crops_of_the_sample(pair):
    model, processor = pair
    rows = samples()
    _, warps = processor.pixel_values([PICTURE, PICTURE])
    batch = processor.pack(rows, warps)
    assert batch.object_mask.tolist() == [[True, True, True], [False, False, False]]
    crops = [rows[0].open_image(index) for index in (1, 2, 1)]
    for found, expected in zip(batch.object_pixels, processor.pixel_values(crops)[0], strict=True):
        assert torch.equal(found[0], expected)
    given = processor.pack(rows, warps, objects=[crops[:2], []])
    assert torch.equal(given.object_pixels[0], batch.object_pixels[0])
    assert {value.device.type for value in batch.to("meta").object_pixels} == {"meta"}
    learned = batch.input_ids[batch.labels != -100]
    assert not (learned >= model.config.text_config.vocab_size).any()
    text = processor.tokenizer.decode(learned)
    assert "The answer is a." in text
    assert "[0.111, 0.222, 0.444, 0.722]" in text  # 15 pixels of padding above


@pytest.mark.parametrize("packing", ["sequence", "parallel"])
def test_a_training_step_reaches_every_part_and_saving_is_lossless(packing, tmp_path):
    model, processor = build_tiny_grounding_gpt(packing=packing)
    model.train()
    before = copy.deepcopy(model.state_dict())
    loss = loss_of(model, processor, samples())
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    moved = {
        ".".join(key.split(".")[:3]) if key.startswith("vision") else key.split(".")[0]
        for key, value in model.named_parameters()
        if not torch.equal(value, before[key])
    }
    assert moved == {"vision.towers.0", "vision.towers.1", "projector", "text"}
    assert torch.isfinite(loss)

    model.eval().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = ParfocalForConditionalGeneration.from_pretrained(tmp_path).eval()
    reader = ParfocalProcessor.from_pretrained(tmp_path)
    assert again.config.regions == model.config.regions
    assert reader.settings == processor.settings
    with torch.inference_mode():
        assert torch.equal(loss_of(again, reader, samples()), loss_of(model, processor, samples()))


# Refusals


def test_an_object_that_was_not_given_is_refused(pair):
    _, processor = pair
    _, warps = processor.pixel_values([PICTURE])
    with pytest.raises(DataError, match=r"\[object 3\] is not there: 2 object images"):
        processor.ask(
            [GroundedText.of(ObjectRef(3))], [Boxes.empty(image_frame(PICTURE))], warps,
            objects=[CROPS[:2]],
        )  # fmt: skip


def test_an_answer_cannot_show_an_object(pair):
    _, processor = pair
    _, warps = processor.pixel_values([PICTURE])
    sample = samples()[0]
    turns = (Turn("user", GroundedText.of("a?")), Turn("assistant", GroundedText.of(ObjectRef(1))))
    with pytest.raises(DialectError, match="cannot stand here"):
        processor.pack([Sample("1", sample.images, turns)], warps)


def test_words_cannot_pose_as_an_object(pair):
    _, processor = pair
    frame = image_frame(PICTURE)
    _, warp = processor.picture(PICTURE)
    with pytest.raises(DialectError, match="'<object1>', the mark of an object image"):
        processor.render_question(GroundedText.of("is <object1> it?"), Boxes.empty(frame), warp)


def test_a_model_without_crops_refuses_objects(tiny_pair):
    model, processor = tiny_pair
    frame = image_frame(PICTURE)
    with pytest.raises(DialectError, match=r"models whose regions\.kind is 'crop'"):
        _, warp = processor.picture(PICTURE)
        processor.render_question(GroundedText.of(ObjectRef(1)), Boxes.empty(frame), warp)
    with pytest.raises(ShapeError, match=r"regions\.kind is 'multilevel_roi'"):
        model.encode_objects([torch.zeros(1, 1, 3, 96, 96)], torch.ones(1, 1, dtype=torch.bool))


def test_objects_without_their_features_are_refused(pair):
    model, _ = pair
    values = asked(pair, ROWS[:1])
    with pytest.raises(ShapeError, match=r"hold \[8\] placeholders for 0 object tokens"):
        model(**{**values, "object_features": None})


def test_squares_must_tile_the_grid_and_the_placeholder_must_be_set(pair):
    model, processor = pair
    config = vary(model.config, {"regions": {"merge_crops": 3}})
    with pytest.raises(ConfigError, match="merge_crops 3 does not divide the 4 x 4"):
        ParfocalForConditionalGeneration(config)
    with pytest.raises(ConfigError, match="merge_crops is 0"):
        vary(model.config, {"regions": {"merge_crops": 0}})
    config = vary(model.config, {"token_ids": {"object": -1}})
    with pytest.raises(ConfigError, match=r"token_ids\.object is not set"):
        build_processor(processor.tokenizer, config, CROP_TEMPLATE, 16)
    with pytest.raises(ConfigError, match="which is 'crop'"):
        vary(model.config, {
            "proposer": {"kind": "dense"},
            "vision": {"towers": [{**CROP_TOWERS[0], "level_layers": [1]}, CROP_TOWERS[1]]},
        })  # fmt: skip
