"""Predictor: what may be asked, what is encoded once, which box is whose, what comes back."""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef
from parfocal.errors import ConfigError, DataError, DialectError, FrameError, ShapeError
from parfocal.images import image_frame
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor
from parfocal.predict.generating import _ends_in_words
from parfocal.predict.predictor import Predictor

SHORT = {"max_new_tokens": 3}
BOX, OTHER = [5, 10, 30, 45], [40, 50, 90, 90]


@pytest.fixture
def picture(pictures):
    return pictures[0]  # 96 x 96


@pytest.fixture
def questions(monkeypatch) -> list[str]:
    """The questions that reach the model, as the text that it reads."""
    asked: list[str] = []
    render = ParfocalProcessor.render_question

    def spy(self, *args):
        asked.append(render(self, *args))
        return asked[-1]

    monkeypatch.setattr(ParfocalProcessor, "render_question", spy)
    return asked


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """The number of pictures in each call of the towers."""
    sizes: list[int] = []
    encode = ParfocalForConditionalGeneration.encode

    def spy(self, pixel_values):
        sizes.append(len(pixel_values[0]))
        return encode(self, pixel_values)

    monkeypatch.setattr(ParfocalForConditionalGeneration, "encode", spy)
    return sizes


@pytest.fixture
def say(monkeypatch):
    """Put words into a model's mouth, each token with probability one half.

    The call returns the options that generation is asked with.
    """

    def install(predictor: Predictor, text: str) -> dict:
        seen: dict = {}
        ids = predictor.processor.tokenizer.encode(text, add_special_tokens=False)

        def generate(self, input_ids, **options):
            seen.update(options)
            size = self.config.text_config.vocab_size
            scores = [torch.zeros(len(input_ids), size) for _ in ids]
            for step, token in enumerate(ids):
                scores[step][:, token] = math.log(size - 1)
            said = torch.tensor([ids] * len(input_ids))
            return SimpleNamespace(sequences=torch.cat((input_ids, said), dim=1), scores=scores)

        monkeypatch.setattr(ParfocalForConditionalGeneration, "generate", generate)
        return seen

    return install


# Regions in questions


@pytest.mark.parametrize(
    ("question", "read"),
    [
        ("What is [region 0]?", "What is <roi><r0></roi><refer_feat>?"),
        (
            "Is [region 1] like [region 0]?",
            "Is <roi><r1></roi><refer_feat> like <roi><r0></roi><refer_feat>?",
        ),
        (
            "  What is [region 1]?  ",
            "What is <roi><r1></roi><refer_feat>? <roi><r0></roi><refer_feat>",
        ),
        ("What?", "What? <roi><r0></roi><refer_feat> <roi><r1></roi><refer_feat>"),
    ],
    ids=["one named", "both named", "the first is appended", "both are appended"],
)
def test_boxes_are_named_where_the_question_says_or_at_its_end(
    tiny_predictor, picture, questions, question, read
):
    boxes = [BOX] if question == "What is [region 0]?" else [BOX, OTHER]
    answer = tiny_predictor.ask(picture, question, boxes, **SHORT)
    assert questions == [read]
    assert answer.regions.to_json() == boxes


@pytest.mark.parametrize("boxes", [None, [], [BOX]], ids=["none", "empty", "one"])
def test_naming_a_box_that_was_not_given_is_refused(tiny_predictor, picture, boxes):
    with pytest.raises(FrameError, match=r"\[region 1\] but [01] boxes were given"):
        tiny_predictor.ask(picture, "What is [region 1]?", boxes)


def test_a_grounded_question_may_not_name_more_boxes_than_given(tiny_predictor, picture):
    question = GroundedText.of("What is ", RegionRef(1), "?")
    with pytest.raises(DialectError, match="region 1"):
        tiny_predictor.ask(picture, question, [BOX])
    with pytest.raises(DialectError, match="region 1"):
        tiny_predictor.ask(picture, question)


def test_the_users_boxes_are_the_first_regions(tiny_predictor, picture):
    answer = tiny_predictor.ask(picture, "Where is it?", [OTHER, BOX], **SHORT)
    assert answer.proposals.xyxy[:2] == pytest.approx(np.array([OTHER, BOX], float), abs=1e-3)
    assert answer.proposals.frame == image_frame(picture)


# Refusals


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[90, 10, 120, 40]], r"box 0 .* not inside the picture \(96x96\)"),
        ([BOX, [-9, 0, 20, 20]], "box 1 "),
        ([[10, 10, 10, 40]], "box 0 .* empty"),
        ([[200, 200, 300, 300]], "box 0 "),
        ([[30, 10, 5, 45]], "x2 < x1|x1"),
        ([[float("nan"), 0, 1, 1]], "finite|NaN|nan"),
    ],
    ids=["reaches out", "the second", "empty", "elsewhere", "inverted", "not a number"],
)
@pytest.mark.parametrize("door", ["ask", "describe"])
def test_boxes_that_are_not_in_the_picture_are_refused(
    tiny_predictor, picture, boxes, message, door
):
    with pytest.raises(FrameError, match=message):
        if door == "ask":
            tiny_predictor.ask(picture, "What?", boxes)
        else:
            tiny_predictor.describe(picture, boxes)


def test_boxes_of_another_frame_are_refused(tiny_predictor, picture):
    for frame in (Frame("image", 192, 192), Frame("unit", 96, 96)):
        with pytest.raises(FrameError, match="boxes are in frame"):
            tiny_predictor.ask(picture, "What?", Boxes([BOX], frame))


def test_a_box_may_stick_out_by_a_rounding_error(tiny_predictor, picture):
    answer = tiny_predictor.ask(picture, "What?", [[-0.6, 0, 96.9, 96]], **SHORT)
    assert answer.regions.to_json() == [[0, 0, 96, 96]]


@pytest.mark.parametrize("words", ["", "  \n"])
def test_empty_words_are_refused(tiny_predictor, picture, words):
    with pytest.raises(DataError, match="question is empty"):
        tiny_predictor.ask(picture, words)
    with pytest.raises(DataError, match="phrase to locate is empty"):
        tiny_predictor.locate(picture, words)


@pytest.mark.parametrize("words", ["<r1>", "a </p> dog", "the <image>"])
def test_markup_is_refused_at_every_door(tiny_predictor, picture, words):
    with pytest.raises(DialectError, match="markup"):
        tiny_predictor.ask(picture, words)
    with pytest.raises(DialectError, match="markup"):
        tiny_predictor.locate(picture, words)


def test_batches_of_unequal_lengths_are_refused(tiny_predictor, picture):
    two = [picture, picture]
    for call in (
        lambda: tiny_predictor.ask_batch(two, ["What?"]),
        lambda: tiny_predictor.ask_batch(two, ["What?"] * 2, [None]),
        lambda: tiny_predictor.locate_batch(two, ["it"]),
        lambda: tiny_predictor.describe_regions_batch(two, [[BOX]]),
    ):
        with pytest.raises(DataError, match="as many of each"):
            call()


def test_a_batch_of_nothing_is_refused(tiny_predictor):
    with pytest.raises(DataError, match="no pictures"):
        tiny_predictor.propose_batch([])


def test_more_boxes_in_one_question_than_slots_are_refused(tiny_predictor, picture):
    with pytest.raises(ShapeError, match=r"7 user boxes .* 6 region slots"):
        tiny_predictor.ask(picture, "What?", [BOX] * 7)


# Encoding


def test_the_same_picture_is_encoded_once(tiny_predictor, pictures, encoded):
    one, other = pictures[:2]
    answers = tiny_predictor.ask_batch(
        [one, other, one, one], ["Where?", "What?", "What?", "Where?"], **SHORT
    )
    assert encoded == [2]
    assert [answer.image.size for answer in answers] == [(96, 96), (128, 64), (96, 96), (96, 96)]
    assert str(answers[0]) == str(answers[3])
    assert answers[1].proposals.frame == Frame("image", 128, 64)
    assert answers[0].proposals == answers[2].proposals


class Lazy(Sequence):
    """Pictures of one colour each, opened anew on every access and held by nobody."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Image.Image:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Image.new("RGB", (40 + index, 40), (40 * index, 0, 0))


def test_pictures_of_a_lazy_sequence_are_not_taken_for_each_other(tiny_predictor, encoded):
    answers = tiny_predictor.ask_batch(Lazy(), ["What?"] * 6, **SHORT)
    assert encoded == [6]
    assert [answer.image.width for answer in answers] == [40, 41, 42, 43, 44, 45]


def test_regions_of_a_picture_share_its_encoding(tiny_predictor, picture, encoded):
    tiny_predictor.describe(picture, [BOX, OTHER, BOX], **SHORT)
    assert encoded == [1]


def test_pictures_may_come_as_files_bytes_and_arrays(tiny_predictor, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue(), np.asarray(picture)]
    expected = tiny_predictor.propose(picture)
    for kind, found in zip(kinds, tiny_predictor.propose_batch(kinds), strict=True):
        assert found.xyxy == pytest.approx(expected.xyxy, abs=1e-3), type(kind)


# Locate


def test_located_boxes_get_the_phrase_and_a_score(tiny_predictor, picture, say):
    found = tiny_predictor.propose(picture)
    proposed = found[np.argsort(found.cxcywh[:, 0], kind="stable")]  # as they stand in the slots
    seen = say(tiny_predictor, "<roi><r2><r0></roi><end>")
    answer = tiny_predictor.locate(picture, "  the red apple ")
    (phrase,) = answer.phrases
    assert phrase.text == "the red apple"
    assert phrase.boxes == answer.proposals[[2, 0]]
    assert phrase.boxes.xyxy == pytest.approx(proposed.xyxy[[2, 0]], abs=1e-3)
    # the slot's score times the probability of its name; slots that were not named keep theirs
    assert phrase.boxes.scores == pytest.approx(proposed.scores[[2, 0]] / 2, rel=1e-4)
    assert answer.proposals.scores[1] == pytest.approx(proposed.scores[1], rel=1e-4)
    assert [processor.unique for processor in seen["logits_processor"]] == [True]
    assert answer.problems == ()


def test_words_that_the_model_gives_stay(tiny_predictor, picture, say):
    say(tiny_predictor, "<p>two apples</p><roi><r1></roi><end>")
    assert [phrase.text for phrase in tiny_predictor.locate(picture, "apple").phrases] == [
        "two apples"
    ]


def test_what_is_not_there_is_nothing_of_that_name(tiny_predictor, picture, say):
    say(tiny_predictor, "<roi></roi><end>")
    answer = tiny_predictor.locate(picture, "bird")
    assert answer.text == GroundedText.of(Nothing("bird"))
    assert answer.text.is_nothing
    assert len(answer.boxes) == 0
    assert answer.problems == ()


def test_an_answer_without_a_box_is_a_problem_of_locate_only(tiny_predictor, picture, say):
    say(tiny_predictor, "hm<end>")
    assert [p.kind for p in tiny_predictor.locate(picture, "bird").problems] == ["no_box"]
    assert tiny_predictor.ask(picture, "Where?").problems == ()


def test_one_and_all_are_different_questions(tiny_predictor, picture, questions):
    dialect = tiny_predictor.processor.dialect
    tiny_predictor.locate(picture, "apple", **SHORT)
    tiny_predictor.locate(picture, "apple", all=True, **SHORT)
    assert questions == [
        "Locate <p>apple</p> in the image.",
        "Locate all <p>apple</p> in this image.",
    ]
    assert dialect.locate("apple").phrases == (Phrase("apple"),)


# Describe


def test_describing_boxes_gives_an_answer_a_box_in_order(tiny_predictor, picture, questions):
    boxes = [BOX, OTHER, [1, 2, 50, 60]]
    answers = tiny_predictor.describe(picture, boxes, **SHORT)
    assert len(answers) == 3
    for index, (answer, read) in enumerate(zip(answers, questions, strict=True)):
        assert f"<r{index}>" in read
        (reference,) = (span for span in answer.question.spans if isinstance(span, RegionRef))
        assert answer.regions.to_json()[reference.index] == boxes[index]


def test_more_boxes_than_slots_are_asked_in_parts(tiny_predictor, picture):
    boxes = [[index, 2 * index, 40 + index, 50] for index in range(8)]  # six slots
    answers = tiny_predictor.describe(picture, boxes, **SHORT)
    named = []
    for answer in answers:
        (reference,) = (span for span in answer.question.spans if isinstance(span, RegionRef))
        named.append(answer.regions.to_json()[reference.index])
    assert named == boxes
    assert [len(answer.regions) for answer in answers] == [6] * 6 + [2] * 2


def test_each_picture_of_a_batch_has_its_own_boxes(tiny_predictor, pictures):
    first, second, third = tiny_predictor.describe_regions_batch(
        pictures[:3], [[BOX], None, [[1, 1, 9, 9], [3, 3, 30, 30]]], **SHORT
    )
    assert (len(first), second, len(third)) == (1, [], 2)
    assert third[1].image.size == pictures[2].size


def test_no_boxes_no_answers_and_the_whole_picture_without_any(tiny_predictor, picture):
    assert tiny_predictor.describe(picture, [], **SHORT) == []
    answer = tiny_predictor.describe(picture, **SHORT)
    assert answer.question == tiny_predictor.processor.dialect.describe()


# Propose


def test_proposals_are_the_best_first_inside_the_picture(tiny_predictor, pictures):
    every = tiny_predictor.propose_batch(pictures)
    for picture, boxes in zip(pictures, every, strict=True):
        assert boxes.frame == image_frame(picture)
        assert 1 < len(boxes) <= 6
        assert (np.diff(boxes.scores) <= 0).all()
        assert (boxes.xyxy >= 0).all()
        assert (boxes.xyxy[:, 2:] <= picture.size).all()
        assert tiny_predictor.propose(picture, top=2).xyxy == pytest.approx(
            boxes.xyxy[:2], abs=1e-3
        )


# Options


class Counter:
    """A streamer that counts new tokens."""

    def __init__(self) -> None:
        self.pieces = 0

    def put(self, value: torch.Tensor) -> None:
        self.pieces += 1

    def end(self) -> None:
        self.pieces -= 1  # the first piece is the prompt


@pytest.mark.parametrize("count", [1, 4])
def test_no_more_tokens_than_allowed(tiny_predictor, picture, count):
    counter = Counter()
    tiny_predictor.ask(picture, "What?", max_new_tokens=count, streamer=counter)
    assert 1 <= counter.pieces <= count


def test_an_answer_without_an_end_is_said_to_be_cut_off(tiny_predictor, picture, monkeypatch):
    answer = tiny_predictor.ask(picture, "What?", max_new_tokens=2)
    (problem,) = [problem for problem in answer.problems if problem.kind == "truncated"]
    assert "after 2 tokens" in problem.detail
    end = torch.tensor([[tiny_predictor.processor.tokenizer.eos_token_id]])

    def ended(self, input_ids, **options):
        sequences = torch.cat([input_ids, end], dim=1)
        return SimpleNamespace(sequences=sequences, scores=(torch.zeros(1, 1000),))

    monkeypatch.setattr(ParfocalForConditionalGeneration, "generate", ended)
    assert not tiny_predictor.ask(picture, "What?", max_new_tokens=2).problems


def told(answer) -> dict:
    """All of an answer but the time that it took."""
    return {key: value for key, value in answer.to_json().items() if key != "timing"}


@pytest.mark.parametrize("options", [{"streamer": Counter()}, {"do_sample": True, "seed": 1}])
def test_beams_of_the_model_give_way_to_streams_and_samples(
    tiny_predictor, picture, monkeypatch, options
):
    ask = functools.partial(tiny_predictor.ask, picture, "What?", max_new_tokens=6, **options)
    want = told(ask())
    monkeypatch.setattr(tiny_predictor.model.generation_config, "num_beams", 3)
    assert told(ask()) == want


def test_beams_of_the_model_search_unless_told_otherwise(tiny_predictor, picture, monkeypatch):
    ask = functools.partial(tiny_predictor.ask, picture, "What?", max_new_tokens=6)
    greedy, three = told(ask()), told(ask(num_beams=3))
    assert tiny_predictor.decoding == "greedy"
    monkeypatch.setattr(tiny_predictor.model.generation_config, "num_beams", 3)
    assert told(ask()) == three != greedy
    assert tiny_predictor.decoding == "beam search, 3 beams"
    assert told(ask(num_beams=1)) == greedy


def test_beams_read_a_question_once_and_say_what_they_say_when_each_reads_it(
    tiny_predictor, picture, monkeypatch
):
    forward, rows = ParfocalForConditionalGeneration.forward, []

    @functools.wraps(forward)  # generate looks at its signature
    def spy(self, input_ids=None, *args, **options):
        rows.append(tuple(input_ids.shape))
        return forward(self, input_ids, *args, **options)

    monkeypatch.setattr(ParfocalForConditionalGeneration, "forward", spy)
    questions = ["What?", "What is the first thing there?"]
    ask = functools.partial(tiny_predictor.ask_batch, [picture] * 2, questions)
    once = [told(answer) for answer in ask(num_beams=3, max_new_tokens=6)]
    (questions_read, length), *steps = rows
    assert questions_read == 2 and length > 10
    assert set(steps) == {(6, 1)}  # three beams of two questions, token by token
    rows.clear()
    monkeypatch.setattr("parfocal.predict.generating._ends_in_words", lambda *_: False)
    again = [told(answer) for answer in ask(num_beams=3, max_new_tokens=6)]
    assert rows[0] == (6, length + 1)
    assert once == again


HYBRID = {
    "model_type": "lfm2", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False,
    "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


def test_beams_read_a_question_once_with_layers_of_other_caches(make_tiny, picture, monkeypatch):
    """Convolutions remember tokens, too: a beam that lost theirs would say other words."""
    predictor = Predictor(*make_tiny(difference={"text_config": HYBRID}), "hybrid")
    questions = ["What?", "What is the first thing there?"]
    ask = functools.partial(predictor.ask_batch, [picture] * 2, questions, max_new_tokens=6)
    once = [told(answer) for answer in ask(num_beams=3)]
    without = [told(answer) for answer in ask(num_beams=3, use_cache=False)]
    monkeypatch.setattr("parfocal.predict.generating._ends_in_words", lambda *_: False)
    assert once == [told(answer) for answer in ask(num_beams=3)] == without


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_without_a_cache_are_those_with_one(tiny_predictor, picture, beams):
    questions = ["What?", "What is the first thing there?"]
    ask = functools.partial(
        tiny_predictor.ask_batch, [picture] * 2, questions, num_beams=beams, max_new_tokens=6
    )
    with_cache, without = [
        [str(answer) for answer in ask(**options)] for options in ({}, {"use_cache": False})
    ]
    assert with_cache == without


def test_a_question_has_one_answer(tiny_predictor, picture):
    with pytest.raises(ConfigError, match="num_return_sequences is 2, but a question has one"):
        tiny_predictor.ask(picture, "What?", num_return_sequences=2, do_sample=True)


def test_a_question_has_one_answer_whatever_a_checkpoint_says(tiny_predictor, picture, monkeypatch):
    ask = functools.partial(tiny_predictor.ask_batch, [picture] * 2, ["What?", "Where is it?"])
    want = [told(answer) for answer in ask(num_beams=3, max_new_tokens=6)]
    for name, value in {"num_beams": 3, "num_return_sequences": 2}.items():
        monkeypatch.setattr(tiny_predictor.model.generation_config, name, value)
    assert [told(answer) for answer in ask(max_new_tokens=6)] == want


def test_a_question_that_ends_in_a_feature_is_left_to_generate(tiny_predictor):
    ids = tiny_predictor.model.config.token_ids
    word = torch.tensor([[ids.image, 5], [ids.image, 6]])
    assert _ends_in_words(tiny_predictor.model, word)
    for placeholder in (ids.image, ids.region, ids.region_feature):
        assert not _ends_in_words(tiny_predictor.model, torch.tensor([[5, 6], [5, placeholder]]))


def test_options_reach_generation_and_a_seed_decides_sampling(tiny_predictor, picture, monkeypatch):
    seen: list[dict] = []
    generate = ParfocalForConditionalGeneration.generate

    def spy(self, **options):
        seen.append(options)
        return generate(self, **options)

    monkeypatch.setattr(ParfocalForConditionalGeneration, "generate", spy)
    options = {"do_sample": True, "temperature": 3.0, "top_p": 0.9, "max_new_tokens": 8}
    texts = [str(tiny_predictor.ask(picture, "What?", seed=s, **options)) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert {name: seen[0][name] for name in options} == options
    assert "seed" not in seen[0]
    tiny_predictor.ask(picture, "What?", **SHORT)
    assert seen[-1]["do_sample"] is False


def test_scores_are_probabilities_and_names_are_live(tiny_predictor, pictures):
    options = {"do_sample": True, "temperature": 5.0, "seed": 0, "max_new_tokens": 40}
    named = 0
    for answer in tiny_predictor.ask_batch(pictures, ["What?"] * 4, **options):
        kinds = {problem.kind for problem in answer.problems}
        assert "unknown_region_index" not in {
            problem.kind for problem in answer.problems if "<r" in problem.detail[:3]
        }, kinds
        for phrase in answer.phrases:
            named += len(phrase.boxes)
            if len(phrase.boxes):
                assert ((phrase.boxes.scores >= 0) & (phrase.boxes.scores < 1)).all()
    assert named > 0  # the seed makes the model name some


def test_a_model_in_training_is_put_to_answering(make_tiny):
    model, processor = make_tiny()
    assert not Predictor(model.train(), processor, "x").model.training


# Chat


@pytest.fixture
def prompts(monkeypatch) -> list[str]:
    """Everything behind the prefix that the model reads, a string a call."""
    read: list[str] = []
    ask = ParfocalProcessor.ask

    def spy(self, *args):
        batch = ask(self, *args)
        ids = batch.input_ids[0].tolist()[len(self.prefix_ids()) :]
        read.append(self.tokenizer.decode(ids, skip_special_tokens=False))
        return batch

    monkeypatch.setattr(ParfocalProcessor, "ask", spy)
    return read


@pytest.fixture(scope="module")
def single_turns(make_tiny) -> Predictor:
    return Predictor(*make_tiny(template={"independent_turns": True}), "single")


def test_a_chat_remembers(tiny_predictor, picture, prompts, say):
    say(tiny_predictor, "<p>an apple</p><roi><r1></roi><end>")
    chat = tiny_predictor.chat(picture)
    chat.ask("What do you see?")
    chat.ask("Where?")
    chat.ask("And?")
    first = "<user>What do you see?<answer>"
    answer = "<p>an apple</p><roi><r1></roi><end>"
    assert prompts == [
        first,
        f"{first}{answer}<user>Where?<answer>",
        f"{first}{answer}<user>Where?<answer>{answer}<user>And?<answer>",
    ]
    assert [str(item) for item in chat.answers] == ["an apple"] * 3


def test_a_chat_of_a_single_turn_model_asks_anew(single_turns, picture, prompts):
    chat = single_turns.chat(picture)
    chat.ask("What do you see?", **SHORT)
    second = chat.ask("Where is [region 0]?", [BOX], **SHORT)
    assert prompts[1] == "<user>Where is <roi><r0></roi><refer_feat>?<answer>"
    assert str(second) == str(single_turns.ask(picture, "Where is [region 0]?", [BOX], **SHORT))
    assert len(chat.answers) == 2


def test_the_history_of_a_chat_means_the_same_boxes_as_when_it_was_said(
    tiny_predictor, picture, prompts, say
):
    """A name in an earlier turn must name the same pixels in the turn that reads it."""
    slots = tiny_predictor.ask(picture, "What is [region 0]?", [BOX], **SHORT).proposals
    best = 1 + int(slots.scores[1:].argmax())  # stays when another box needs a slot
    prompts.clear()
    say(tiny_predictor, f"<p>an apple</p><roi><r{best}></roi><end>")
    chat = tiny_predictor.chat(picture)
    first = chat.ask("What is [region 0]?", [BOX])
    meant = [BOX, first.boxes.to_json()[0]]
    second = chat.ask("And [region 0]?", [OTHER])
    meant.append(OTHER)
    named = [int(k) for k in re.findall(r"<r(\d+)>", prompts[1])]
    found = second.proposals.xyxy[named]
    assert found == pytest.approx(np.array(meant, float), abs=0.01)


def test_boxes_of_an_answer_may_be_asked_about_before_bare_ones(tiny_predictor, picture):
    chat = tiny_predictor.chat(picture)
    scored = Boxes([BOX], image_frame(picture), scores=[0.5], labels=["apple"])
    chat.ask("What is [region 0]?", scored, **SHORT)
    chat.ask("And [region 0]?", [OTHER], **SHORT)
    assert [len(regions) for regions in chat.regions] == [1, 1]


def test_a_chat_goes_on_after_an_answer_that_is_not_well_formed(
    tiny_predictor, picture, prompts, say
):
    say(tiny_predictor, "<p>an apple</p><r1> </roi><r5><end>")
    chat = tiny_predictor.chat(picture)
    assert chat.ask("What?").problems
    chat.ask("And?")
    assert prompts[1] == "<user>What?<answer>an apple <end><user>And?<answer>"


def test_a_chat_in_numbers_goes_on_after_a_bracket_that_is_no_box(wordy, picture, prompts, say):
    say(wordy["coordinates"], "a dog [0.1, 0.2] here<end>")
    chat = wordy["coordinates"].chat(picture)
    assert chat.ask("What?").problems
    chat.ask("And?")
    assert "a dog [0.1, 0.2] here" in prompts[1]


def test_a_chat_goes_on_when_a_named_proposal_gives_way_to_a_box(
    tiny_predictor, picture, prompts, say
):
    weakest = int(tiny_predictor.ask(picture, "What?", **SHORT).proposals.scores.argmin())
    prompts.clear()
    say(tiny_predictor, f"<p>an apple</p><roi><r{weakest}></roi><end>")
    chat = tiny_predictor.chat(picture)
    chat.ask("What?")
    chat.ask("And [region 0]?", [BOX, OTHER])
    assert prompts[1].startswith("<user>What?<answer>an apple<end><user>And ")


# Models without regions


@pytest.fixture(scope="module")
def wordy(make_tiny):
    """Models that have no proposer and no region encoder, by dialect."""
    plain = {"proposer": {"kind": "none"}, "regions": {"kind": "none"}}
    return {
        dialect: Predictor(*make_tiny(difference=plain, dialect=dialect), dialect)
        for dialect in ("plain", "coordinates")
    }


@pytest.mark.parametrize("dialect", ["plain", "coordinates"])
def test_a_model_without_regions_answers_but_does_not_propose(wordy, picture, dialect):
    answer = wordy[dialect].ask(picture, "What?", **SHORT)
    assert answer.proposals == Boxes.empty(image_frame(picture))
    with pytest.raises(ConfigError, match=f"{dialect} proposes no boxes"):
        wordy[dialect].propose(picture)


def test_numbers_in_questions_and_answers_are_pixels_of_the_picture(
    wordy, pictures, questions, say
):
    say(wordy["coordinates"], "a dog [0.250, 0.375, 0.500, 0.625]<end>")
    answer = wordy["coordinates"].ask(pictures[1], "What is [region 0]?", [[32, 0, 64, 32]])
    # 128 x 64 is padded by 32 above and below
    assert questions == ["What is [0.250, 0.250, 0.500, 0.500]?"]
    assert answer.boxes.to_json() == [[32, 16, 64, 48]]


def test_a_chat_in_numbers_remembers_boxes(wordy, picture, prompts, say):
    say(wordy["coordinates"], "a dog [0.250, 0.375, 0.500, 0.625]<end>")
    chat = wordy["coordinates"].chat(picture)
    chat.ask("What is [region 0]?", [[0, 24, 48, 96]])
    chat.ask("And [region 0]?", [[24, 0, 48, 96]])
    assert prompts[1] == (
        "<user>What is [0.000, 0.250, 0.500, 1.000]?<answer>a dog [0.250, 0.375, 0.500, 0.625]<end>"
        "<user>And [0.250, 0.000, 0.500, 1.000]?<answer>"
    )


def test_many_regions_are_described_in_numbers(wordy, picture):
    boxes = [[index, index, 40, 50] for index in range(8)]
    answers = wordy["coordinates"].describe(picture, boxes, **SHORT)
    assert [answer.regions.to_json()[0] for answer in answers] == boxes


@pytest.mark.parametrize("top", [0, -1, 2.5, "5"])
def test_proposals_are_counted_from_one(tiny_predictor, pictures, top):
    with pytest.raises(ConfigError, match=f"top is {top!r};"):
        tiny_predictor.propose(pictures[0], top=top)


def test_an_option_that_is_none_is_left_out(tiny_predictor, picture):
    bare = tiny_predictor.describe(picture)
    unset = tiny_predictor.describe(picture, max_new_tokens=None, num_beams=None)
    assert unset.text == bare.text
    assert unset.problems == bare.problems


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; give a whole number, 1 or more"),
        ({"max_new_tokens": 5.5}, "max_new_tokens is 5.5; give a whole number"),
        ({"max_new_tokens": 100_000_000}, "the language model reads 512 tokens at most"),
        ({"num_beams": 0}, "num_beams is 0; give a whole number"),
        ({"max_new_token": 4}, "no option 'max_new_token'. Did you mean 'max_new_tokens'"),
        ({"foo": 1}, "no option 'foo'"),
    ],
    ids=["no tokens", "half a token", "too many", "no beams", "misspelt", "unknown"],
)
def test_options_that_generation_has_not_are_refused(tiny_predictor, picture, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_predictor.ask(picture, "What?", **options)
