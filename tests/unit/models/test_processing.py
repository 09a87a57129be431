"""The processor: where pixels go, what the prompt holds, what is learned, what comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef
from parfocal.errors import CheckpointError, ConfigError, DataError, DialectError, ImageError
from parfocal.images import image_frame
from parfocal.models.building import token_ids_of
from parfocal.models.config_vision import TowerConfig, VisionConfig
from parfocal.models.frames import prepare_frame, prepare_picture
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import ProcessorSettings, PromptTemplate
from parfocal.models.text_batch import IGNORED
from parfocal.models.tokenizers import END, train_tokenizer

TEMPLATE = PromptTemplate(
    opening="A", between="B", ready="C", user="<user>", assistant="<answer>", turn_end=".", end=END
)
SIZES = [(96, 96), (128, 64), (64, 128), (97, 70), (33, 200), (50, 111), (24, 24)]


def make_processor(
    resize: str = "pad",
    dialect: str = "region_tokens",
    side: int = 96,
    means: tuple[float, ...] = (0.0,),
    layout: str = "summed",
    template: PromptTemplate = TEMPLATE,
) -> ParfocalProcessor:
    """A processor of 4 image tokens and 3 slots, one tower a mean."""
    tokenizer = train_tokenizer(["what is it?"] * 3, get_dialect(dialect), template, 3, 320)
    towers = tuple(
        TowerConfig(image_size=side, image_mean=(mean,) * 3, image_std=(1.0,) * 3) for mean in means
    )
    values = ProcessorSettings(
        vision=VisionConfig(towers=towers, resize=resize), dialect=dialect, template=template,
        num_image_tokens=4, num_slots=3, layout=layout, token_ids=token_ids_of(tokenizer),
    )  # fmt: skip
    return ParfocalProcessor(tokenizer, values)


@pytest.fixture(scope="module")
def processor() -> ParfocalProcessor:
    return make_processor()


@pytest.fixture(scope="module", params=["pad", "squash"])
def numbers(request) -> ParfocalProcessor:
    """A processor that writes boxes as numbers."""
    return make_processor(request.param, "coordinates", side=32)


def ids_of(processor: ParfocalProcessor, text: str) -> list[int]:
    return processor.tokenizer.encode(text, add_special_tokens=False)


# Pictures


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_a_box_is_where_its_pixels_are(resize, size):
    processor = make_processor(resize)
    width, height = size
    block = (width // 4, height // 3, width // 4 + width // 3, height // 3 + height // 2)
    image = Image.new("RGB", size, "black")
    image.paste("white", block)
    (tensor,), warp = processor.picture(image)
    assert tensor.shape == (3, 96, 96)
    light = tensor[0].double().clamp(0, 1)
    box = warp.apply(Boxes([block], image_frame(image)))
    assert (warp.target.width, warp.target.height) == (1, 1)
    rows, columns = torch.nonzero(light > 0.5, as_tuple=True)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert (96 * box.xyxy[0]).tolist() == pytest.approx([float(v) for v in found], abs=1.0)
    # the centre of light is exact to a fraction of a pixel, which edges are not
    centres = torch.arange(96).double() + 0.5
    x, y = (light.sum(0) @ centres) / light.sum(), (light.sum(1) @ centres) / light.sum()
    assert (96 * box.cxcywh[0, :2]).tolist() == pytest.approx([float(x), float(y)], abs=0.15)


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (41, 100)])
def test_padding_is_the_mean_colour_of_each_tower(size):
    processor = make_processor(means=(0.2, 0.8), side=100)
    tensors, warp = processor.picture(Image.new("RGB", size, "white"))
    inside = (100 * warp.apply(Boxes([[0, 0, *size]], Frame("image", *size))).xyxy[0]).round()
    x1, y1, x2, y2 = inside.astype(int)
    for tensor, mean in zip(tensors, (0.2, 0.8), strict=True):
        padding = torch.ones(100, 100, dtype=torch.bool)
        padding[y1:y2, x1:x2] = False
        assert padding.any()
        assert tensor[:, padding].abs().max() < 1 / 255  # normalised: as good as zero
        assert tensor[:, ~padding].min() == pytest.approx(1 - mean, abs=1e-6)


def test_channels_are_normalised_each_on_its_own():
    tower = TowerConfig(image_size=8, image_mean=(0.0, 0.2, 0.4), image_std=(1.0, 0.5, 0.25))
    vision = VisionConfig(towers=(tower,))
    processor = ParfocalProcessor(make_processor().tokenizer, ProcessorSettings(vision=vision))
    (tensor,), _ = processor.picture(Image.new("RGB", (8, 8), (51, 102, 153)))  # 0.2, 0.4, 0.6
    assert tensor[:, 3, 3].tolist() == pytest.approx([0.2, 0.4, 0.8], abs=1e-6)


@pytest.mark.parametrize("video", ["none", "crop", "pad"])
def test_a_picture_that_grows_beyond_measure_on_its_way_is_refused(video):
    tower = TowerConfig(image_size=96, image_mean=(0.0,) * 3, image_std=(1.0,) * 3)
    vision = VisionConfig(towers=(tower,), resize="pad", video=video)
    prepare = prepare_picture if video == "none" else prepare_frame
    with pytest.raises(ImageError, match=r"100000x1, so long that this model would need \d+"):
        prepare(Image.new("RGB", (100_000, 1)), vision)


def test_pictures_of_any_shape_stack(processor):
    images = [Image.new("RGB", size) for size in SIZES]
    tensors, warps = processor.pixel_values(images)
    assert [tuple(tensor.shape) for tensor in tensors] == [(len(SIZES), 3, 96, 96)]
    assert [(warp.source.width, warp.source.height) for warp in warps] == SIZES


SIDES = st.integers(1, 400)
FRACTIONS = st.tuples(*[st.floats(0, 1) for _ in range(4)])


@settings(max_examples=40)
@given(width=SIDES, height=SIDES, corners=FRACTIONS)
def test_there_and_back_is_the_same_box(numbers, width, height, corners):
    _, warp = numbers.picture(Image.new("RGB", (width, height)))
    x = sorted(width * value for value in corners[:2])
    y = sorted(height * value for value in corners[2:])
    boxes = Boxes([[x[0], y[0], x[1], y[1]]], Frame("image", width, height))
    unit = warp.apply(boxes)
    assert unit.xyxy.min() >= -1e-9
    assert unit.xyxy.max() <= 1 + 1e-9
    assert np.abs(warp.inverse().apply(unit).xyxy - boxes.xyxy).max() < 1e-6


# Questions


@settings(max_examples=40)
@given(width=st.integers(8, 400), height=st.integers(8, 400), corners=FRACTIONS)
def test_boxes_survive_the_coordinates_dialect_to_half_a_step(numbers, width, height, corners):
    frame = Frame("image", width, height)
    _, warp = numbers.picture(Image.new("RGB", (width, height)))
    x1, y1 = 0.7 * corners[0] * width, 0.7 * corners[1] * height
    x2, y2 = x1 + (0.1 + 0.2 * corners[2]) * width, y1 + (0.1 + 0.2 * corners[3]) * height
    box = Boxes([[x1, y1, x2, y2]], frame)
    text = numbers.render_question(
        GroundedText.of("It is ", Phrase("a dog", box)), Boxes.empty(frame), warp
    )
    parsed = numbers.decode(ids_of(numbers, text), numbers.view(frame, warp))
    assert parsed.problems == ()
    (phrase,) = parsed.text.phrases
    assert phrase.text == "a dog"
    squash = numbers.settings.vision.resize == "squash"
    sides = np.array([width, height] * 2) if squash else np.full(4, max(width, height))
    assert (np.abs(phrase.boxes.xyxy - box.xyxy)[0] <= 0.0005 * sides + 1e-9).all()


@pytest.mark.parametrize(
    "words",
    [
        "Where is <r3>?",
        "Where is <r0>?",
        "<image>",
        "a <ground_box>",
        "<user>hello",
        "so <answer>yes",
        "stop" + END,
        "<pad>",
        "</roi>",
        "<refer_feat>",
    ],
)
@pytest.mark.parametrize("wrap", [str, Phrase], ids=["text", "phrase"])
def test_markup_in_a_question_is_refused(processor, words, wrap):
    image = Image.new("RGB", (20, 10))
    _, warp = processor.picture(image)
    with pytest.raises(DialectError, match="markup"):
        processor.render_question(
            GroundedText.of(wrap(words)), Boxes.empty(image_frame(image)), warp
        )


def test_grounding_is_the_one_mark_that_a_question_may_hold(processor):
    frame = Frame("image", 20, 10)
    _, warp = processor.picture(Image.new("RGB", (20, 10)))
    text = processor.render_question(
        get_dialect("region_tokens").describe(), Boxes.empty(frame), warp
    )
    assert text.startswith("[grounding]")


@pytest.mark.parametrize(
    "span",
    [RegionRef(0), Phrase("a dog", Boxes([[1, 1, 5, 5]], Frame("image", 20, 10)))],
    ids=["region", "box"],
)
@pytest.mark.parametrize("dialect", ["region_tokens"])
def test_a_question_about_a_box_that_was_not_given_is_refused(dialect, span):
    """Proposals are no user's regions: without boxes, <r0> would name whatever came first."""
    processor = make_processor(dialect=dialect)
    _, warp = processor.picture(Image.new("RGB", (20, 10)))
    with pytest.raises(DialectError, match="region"):
        processor.render_question(
            GroundedText.of("What is ", span, "?"), Boxes.empty(Frame("image", 20, 10)), warp
        )


@pytest.mark.parametrize("layout", ["summed", "interleaved"])
def test_the_prefix_is_opening_picture_slots_ready(layout):
    processor = make_processor(layout=layout)
    ids = processor.settings.token_ids
    first = ids.first_region
    slots = {
        "summed": [ids.region] * 3,
        "interleaved": [first, ids.region, first + 1, ids.region, first + 2, ids.region],
    }[layout]
    expected = [*ids_of(processor, "A"), *[ids.image] * 4, *ids_of(processor, "B"), *slots]
    assert processor.prefix_ids() == expected + ids_of(processor, "C")


def test_asking_pads_on_the_left_and_ends_with_the_question(processor):
    image = Image.new("RGB", (20, 10))
    frame, (_, warp) = image_frame(image), processor.picture(image)
    own = Boxes([[2, 2, 6, 8]], frame)
    questions = [GroundedText.of("what?"), GroundedText.of("what is ", RegionRef(0), " there?")]
    batch = processor.ask(questions, [Boxes.empty(frame), own], [warp, warp])
    prefix = processor.prefix_ids()
    expected = [
        prefix + ids_of(processor, "<user>what?.<answer>"),
        prefix + ids_of(processor, "<user>what is <roi><r0></roi><refer_feat> there?.<answer>"),
    ]
    width = len(expected[1])
    missing = width - len(expected[0])
    pad = processor.tokenizer.pad_token_id
    assert batch.input_ids.tolist() == [[pad] * missing + expected[0], expected[1]]
    assert batch.attention_mask.tolist() == [[0] * missing + [1] * len(expected[0]), [1] * width]
    assert batch.user_mask.tolist() == [[False], [True]]
    # 20 x 10 is padded by 5 above and below: y 2 to 8 becomes 7 to 13 of 20
    assert batch.user_boxes[1, 0].tolist() == pytest.approx([0.2, 0.5, 0.2, 0.3])
    assert batch.user_boxes[0, 0].tolist() == [0, 0, 0, 0]
    assert batch.labels is None


def test_history_stands_between_prefix_and_question(processor):
    image = Image.new("RGB", (20, 10))
    frame, (_, warp) = image_frame(image), processor.picture(image)
    batch = processor.ask(
        [GroundedText.of("and?")], [Boxes.empty(frame)], [warp], [[("what?", "it"), ("so?", "no")]]
    )
    turns = f"<user>what?.<answer>it{END}<user>so?.<answer>no{END}<user>and?.<answer>"
    assert batch.input_ids[0].tolist() == processor.prefix_ids() + ids_of(processor, turns)


# Training

FRAME = Frame("image", 40, 40)
DOG, CATS = Boxes([[0, 0, 20, 20]], FRAME), Boxes([[20, 0, 40, 20], [0, 20, 20, 40]], FRAME)


def make_sample(*turns: tuple[str, GroundedText], regions: Boxes | None = None) -> Sample:
    return Sample(
        id="s", images=(ImageRef("a.png", 40, 40),), turns=tuple(Turn(*turn) for turn in turns),
        regions=Boxes.empty(FRAME) if regions is None else regions, source="test", split="train",
        licence="CC0-1.0", meta={},
    )  # fmt: skip


TWO_TURNS = (
    ("user", GroundedText.of("what is it?")),
    ("assistant", GroundedText.of(Phrase("a dog", DOG), " and ", Phrase("cats", CATS))),
    ("user", GroundedText.of("is ", Phrase("it", DOG), " a bird?")),
    ("assistant", GroundedText.of(Nothing("bird"))),
)


@pytest.fixture(scope="module")
def unit_warp(processor):
    return processor.picture(Image.new("RGB", (40, 40)))[1]


def test_only_answers_are_learned(processor, unit_warp):
    batch = processor.pack([make_sample(*TWO_TURNS)], [unit_warp])
    learned = batch.labels[0] != IGNORED
    assert torch.equal(batch.labels[0][learned], batch.input_ids[0][learned])
    first = "<p>a dog</p><roi><ground_box></roi> and <p>cats</p><roi><ground_box><ground_box></roi>"
    assert batch.labels[0][learned].tolist() == ids_of(
        processor, f"{first}{END}<p>bird</p><roi></roi>{END}"
    )
    answers = [ids_of(processor, first + END), ids_of(processor, "<p>bird</p><roi></roi>" + END)]
    questions = [
        ids_of(processor, "<user>what is it?.<answer>"),
        ids_of(processor, "<user>is <p>it</p><roi><ground_box></roi> a bird?.<answer>"),
    ]
    lengths = [len(q) + len(a) for q, a in zip(questions, answers, strict=True)]
    prefix = len(processor.prefix_ids())
    assert batch.turn[0].tolist() == [0] * prefix + [1] * lengths[0] + [2] * lengths[1]
    assert batch.input_ids[0].tolist() == [
        *processor.prefix_ids(),
        *questions[0],
        *answers[0],
        *questions[1],
        *answers[1],
    ]


def test_ground_boxes_are_those_of_the_placeholders_in_order(processor, unit_warp):
    batch = processor.pack([make_sample(*TWO_TURNS)], [unit_warp])
    placeholders = (batch.input_ids == processor.settings.token_ids.ground_box).sum(1)
    assert placeholders.tolist() == batch.ground_mask.sum(1).tolist() == [4]
    dog, cat, other = [0.25, 0.25, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5], [0.25, 0.75, 0.5, 0.5]
    assert batch.ground_boxes[0].tolist() == [dog, cat, other, dog]


def test_rows_of_different_lengths_are_padded_on_the_right(processor, unit_warp):
    short = make_sample(TWO_TURNS[0], ("assistant", GroundedText.of("it")), regions=CATS)
    batch = processor.pack([make_sample(*TWO_TURNS), short], [unit_warp] * 2)
    alone = processor.pack([short], [unit_warp])
    length = alone.input_ids.shape[1]
    for name, fill in (("input_ids", processor.tokenizer.pad_token_id), ("labels", IGNORED),
                       ("turn", -1), ("attention_mask", 0)):  # fmt: skip
        row = getattr(batch, name)[1]
        assert torch.equal(row[:length], getattr(alone, name)[0]), name
        assert (row[length:] == fill).all(), name
        assert len(row) > length
    assert batch.ground_mask.sum(1).tolist() == [4, 0]
    assert batch.user_mask.tolist() == [[False, False], [True, True]]


def test_scores_of_boxes_do_not_matter_for_training(processor, unit_warp):
    """Boxes of answers and boxes of people may stand side by side."""
    scored = Boxes([[0, 0, 20, 20]], FRAME, scores=[0.5])
    turns = (
        TWO_TURNS[0],
        ("assistant", GroundedText.of(Phrase("a dog", scored), " and ", Phrase("cats", CATS))),
    )
    batch = processor.pack([make_sample(*turns)], [unit_warp])
    assert batch.ground_mask.sum() == 3


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (TWO_TURNS[:3], "3 turns"),
        (TWO_TURNS[1:3], "turn 0"),
        ((*TWO_TURNS[:2], TWO_TURNS[0], TWO_TURNS[2]), "turn 2"),
    ],
    ids=["odd", "answer first", "two questions"],
)
def test_turns_must_alternate(processor, unit_warp, turns, message):
    with pytest.raises(DataError, match=f"sample 's'.*{message}"):
        processor.pack([make_sample(*turns)], [unit_warp])


# Answers


@pytest.mark.parametrize("tail", ["", END, END + "<pad><pad>", "<pad>", END + "so <roi><r1></roi>"])
def test_nothing_is_read_after_the_end(processor, tail):
    text = "<p>a dog</p><roi><r1></roi>"
    assert processor.text(ids_of(processor, text + tail)) == text
    assert processor.text(torch.tensor(ids_of(processor, text + tail))) == text


def test_decoding_gives_the_boxes_of_the_named_regions(processor):
    view = processor.view(FRAME, None, CATS)
    parsed = processor.decode(ids_of(processor, "<p>a cat</p><roi><r1></roi>" + END), view)
    assert parsed.text.phrases == (Phrase("a cat", CATS[1]),)
    assert parsed.problems == ()


def test_a_missing_box_is_a_problem_only_when_one_was_asked_for(processor):
    view = processor.view(FRAME, None, CATS)
    assert processor.decode(ids_of(processor, "no idea"), view).problems == ()
    (problem,) = processor.decode(ids_of(processor, "no idea"), view, expects_boxes=True).problems
    assert problem.kind == "no_box"


@pytest.mark.parametrize(
    ("dialect", "written"),
    [
        ("coordinates", "What is [0.250, 0.250, 0.500, 0.750]?"),
        ("region_tokens", "What is <roi><r0></roi><refer_feat>?"),
    ],
)
def test_questions_about_a_region_are_packed_as_they_are_asked(dialect, written):
    processor = make_processor(dialect=dialect, resize="squash")
    image = ImageRef("a.png", 80, 40)
    question, answer = GroundedText.of("What is ", RegionRef(0), "?"), GroundedText.of("a dog")
    turns = (Turn("user", question), Turn("assistant", answer))
    sample = Sample("1", (image,), turns, Boxes([[20, 10, 40, 30]], image.frame()))
    _, warps = processor.pixel_values([Image.new("RGB", (80, 40))])
    packed = processor.pack([sample], warps).input_ids[0]
    assert written in processor.tokenizer.decode(packed[packed >= 0])  # slots have no token here
    assert processor.render_question(question, sample.regions, warps[0]) == written


# On disk and between devices


@pytest.mark.parametrize("dialect", ["region_tokens", "coordinates", "plain"])
def test_saving_keeps_settings_and_tokens(dialect, tmp_path):
    processor = make_processor(dialect=dialect, resize="squash", means=(0.1, 0.2))
    processor.save_pretrained(tmp_path / "new" / "folder")
    again = ParfocalProcessor.from_pretrained(tmp_path / "new" / "folder")
    assert again.settings == processor.settings
    assert again.prefix_ids() == processor.prefix_ids()
    text = "<user>what is <roi><r2></roi> \u00e9?<answer>" + END
    assert ids_of(again, text) == ids_of(processor, text)
    assert again.text(ids_of(again, text)) == processor.text(ids_of(processor, text))


def test_a_folder_without_a_processor_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"parfocal_processor\.json"):
        ParfocalProcessor.from_pretrained(tmp_path)


def test_misspelt_settings_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'num_slots'"):
        ProcessorSettings.from_dict({"num_slot": 3})
    with pytest.raises(ConfigError, match="Did you mean 'assistant'"):
        ProcessorSettings.from_dict({"template": {"asistant": ""}})


def test_a_batch_moves_as_a_whole(processor, unit_warp):
    batch = processor.pack([make_sample(*TWO_TURNS)], [unit_warp]).to("meta")
    devices = {value.device.type for value in vars(batch).values() if value is not None}
    assert devices == {"meta"}
    image = Image.new("RGB", (40, 40))
    asked = processor.ask(
        [GroundedText.of("what?")], [Boxes.empty(image_frame(image))], [unit_warp]
    )
    assert asked.to("meta").labels is None
