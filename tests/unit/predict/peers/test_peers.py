"""Peers: tiny models of the real classes answer in pixels of the picture, in the words of a family.

What a model reads is taken where the processor hands it over, what it writes is put in its mouth:
both ends are the family's own, whatever the weights say.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from jsonschema import validate
from PIL import Image

from parfocal.cli import main
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText, Nothing
from parfocal.errors import ConfigError, DataError, DialectError, FrameError
from parfocal.predict.peers import PEERS
from parfocal.predict.protocol import AnyPredictor, Conversation

WRITERS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "kosmos-2", "florence2", "paligemma"]
DETECTORS = ["grounding-dino", "owlv2"]
SAME_CLASS = {"qwen3_vl_moe": "qwen3_vl", "mm-grounding-dino": "grounding-dino"}

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
BOX = [30.0, 27.0, 90.0, 81.0]  # 0.2, 0.3, 0.6, 0.9 of the picture


def reads(monkeypatch, peer, output=""):
    """Capture what the model reads, decoded and with runs of image tokens as one; script a reply.

    Returns:
        A list that gets the rows' texts.
    """
    import torch

    tokenizer, seen = peer.processor.tokenizer, []

    def generate(input_ids, attention_mask, **_):
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            text = tokenizer.decode(ids[mask.bool()], skip_special_tokens=False)
            seen.append(re.sub(r"(<[^<>]+>)\1+", r"\1", text))
        start = torch.full((len(input_ids), 1), 2) if encodes(peer) else input_ids
        said = tokenizer(output, add_special_tokens=False, return_tensors="pt")["input_ids"].long()
        end = torch.full((1, 1), peer.settings.eos_token_id)
        said = torch.cat([said, end], dim=1).expand(len(input_ids), -1)
        return torch.cat([start, said], dim=1)

    monkeypatch.setattr(peer.model, "generate", generate)
    return seen


def encodes(peer):
    return peer.model.config.is_encoder_decoder


# every family


def test_every_family_is_tested():
    assert {*WRITERS, *DETECTORS, *SAME_CLASS} == set(PEERS)
    assert all(PEERS[other] == PEERS[family] for other, family in SAME_CLASS.items())


@pytest.mark.parametrize("family", [*WRITERS, *DETECTORS])
def test_load_gives_a_predictor(family, peer, peer_folder):
    loaded = peer(family)
    assert isinstance(loaded, AnyPredictor)
    assert type(loaded).__name__ in PEERS[family]
    assert loaded.name == str(peer_folder(family))
    assert not loaded.model.training


NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
PROBLEM = {
    "type": "object",
    "properties": {"kind": {"type": "string"}, "detail": {"type": "string"}},
    "required": ["kind", "detail"],
    "additionalProperties": False,
}
LOCATED = {
    "type": "object",
    "properties": {
        "schema": {"const": "parfocal.answer/1"},
        "image": {"const": {"width": 150, "height": 90}},
        "model": {"type": "string"},
        "results": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "phrase": {"const": "red car"},
                    "boxes": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"xyxy": NUMBERS, "score": {"type": ["number", "null"]}},
                            "required": ["xyxy", "score"],
                            "additionalProperties": False,
                        },
                    },
                    "problems": {"type": "array", "items": PROBLEM},
                },
                "required": ["phrase", "boxes", "problems"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["schema", "image", "model", "results"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("family", [*WRITERS, *DETECTORS])
def test_the_command_line_locates(family, peer_folder, street, tmp_path, capsys):
    street.save(tmp_path / "street.png")
    words = ["locate", tmp_path / "street.png", "red car", "--json", "--device", "cpu"]
    code = main([str(word) for word in [*words, "--model", peer_folder(family)]])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    validate(json.loads(captured.out), LOCATED)


# what a model reads

LOCATES = {
    "qwen2_vl": f"{SYSTEM}<|im_start|>user\n{QWEN_IMAGE}"
    f"Locate <|object_ref_start|>red car<|object_ref_end|>{ANSWER}",
    "qwen2_5_vl": f"{SYSTEM}<|im_start|>user\n{QWEN_IMAGE}"
    f"Locate red car in this image and output the bbox coordinates in JSON format.{ANSWER}",
    "qwen3_vl": f"<|im_start|>user\n{QWEN_IMAGE}"
    'Locate every object that matches the description "red car" in the image. '
    f"Report bbox coordinates in JSON format.{ANSWER}",
    "internvl": "<|im_start|>user\n<img><IMG_CONTEXT></img>\n"
    "Please provide the bounding box coordinate of the region this sentence describes: "
    f"<ref>red car</ref>{ANSWER}",
    "kosmos-2": "<s><image>IMAGE</image><grounding><phrase> red car</phrase>",
    "florence2": "<image><s>Locate the phrases in the caption: red car</s>",
    "paligemma": "<image><bos>detect red car\n",
}
DESCRIBES_BOX = {
    "qwen2_vl": "Describe <|box_start|>(200,300),(600,900)<|box_end|>",
    "qwen2_5_vl": 'Describe the region {"bbox_2d": [22, 17, 67, 50]} in this image.',
    "qwen3_vl": 'What is inside {"bbox_2d": [200, 300, 600, 900]}?',
    "internvl": "Please describe the region <box>[[200, 300, 600, 900]]</box> in the image.",
    "kosmos-2": "<grounding><phrase> It</phrase><object><patch_index_0294><patch_index_0915>"
    "</object> is",
    "florence2": "What does the region <loc_200><loc_300><loc_600><loc_900> describe?",
    "paligemma": "caption <loc0307><loc0205><loc0921><loc0614>",
}


@pytest.mark.parametrize("family", WRITERS)
def test_locate_reads_as_the_family_was_taught(family, peer, street, monkeypatch):
    seen = reads(monkeypatch, peer(family))
    peer(family).locate(street, "red car")
    if family == "kosmos-2":  # its image tokens are ids that spell nothing
        seen = [re.sub(r"(<image>).*(</image>)", r"\1IMAGE\2", seen[0], flags=re.DOTALL)]
    assert seen == [LOCATES[family]]


@pytest.mark.parametrize("family", WRITERS)
def test_the_user_s_box_is_read_in_the_family_s_numbers(family, peer, street, monkeypatch):
    seen = reads(monkeypatch, peer(family), "a red car")
    answers = peer(family).describe(street, [BOX, [0, 0, 150, 90]])
    assert len(answers) == 2
    assert DESCRIBES_BOX[family] in seen[0]
    assert seen[0] != seen[1]
    assert [answer.regions.to_json() for answer in answers] == [[BOX], [[0, 0, 150, 90]]]
    assert str(answers[0]) == "a red car"


@pytest.mark.parametrize(
    ("family", "question", "read"),
    [
        ("qwen2_5_vl", "What is it?", f"What is it?{ANSWER}"),
        ("internvl", "What is it?", f"</img>\nWhat is it?{ANSWER}"),
        ("kosmos-2", "What is it?", "<grounding> Question: What is it? Answer:"),
        ("kosmos-2", "<grounding> In the sky,", "<grounding> In the sky,"),
        ("florence2", "<OD>", "Locate the objects with category name in the image.</s>"),
        ("florence2", "<OPEN_VOCABULARY_DETECTION>a car", "Locate a car in the image.</s>"),
        ("paligemma", "What is it?", "<bos>answer en What is it?\n"),
        ("paligemma", "detect cat ; dog", "<bos>detect cat ; dog\n"),
    ],
)
def test_ask_puts_a_question_into_the_family_s_layout(
    family, question, read, peer, street, monkeypatch
):
    seen = reads(monkeypatch, peer(family))
    peer(family).ask(street, question)
    assert seen[0].endswith(read)


def test_a_box_of_a_question_stands_where_it_is_named(peer, street, monkeypatch):
    seen = reads(monkeypatch, peer("qwen3_vl"))
    peer("qwen3_vl").ask(street, "Is [region 0] red?", [BOX])
    assert '>Is {"bbox_2d": [200, 300, 600, 900]} red?<' in seen[0]


def test_florence_takes_one_box_right_behind_its_task(peer, street, monkeypatch):
    seen = reads(monkeypatch, peer("florence2"))
    peer("florence2").ask(street, "<REGION_TO_CATEGORY>", [BOX])
    assert "What is the region <loc_200><loc_300><loc_600><loc_900>?" in seen[0]


# what a model writes

WRITES = {
    "qwen2_vl": (
        "<|object_ref_start|>red car<|object_ref_end|><|box_start|>(200,300),(600,900)<|box_end|>",
        BOX,
    ),
    # 150x90 becomes 112x56: the two sides have different scales
    "qwen2_5_vl": (
        '```json\n[\n\t{"bbox_2d": [28, 14, 56, 42], "label": "red car"}\n]\n```',
        [37.5, 22.5, 75.0, 67.5],
    ),
    "qwen3_vl": (
        '```json\n[\n\t{"bbox_2d": [200, 300, 600, 900], "label": "red car"}\n]\n```',
        BOX,
    ),
    "internvl": ("<ref>red car</ref><box>[[200, 300, 600, 900]]</box>", BOX),
    "kosmos-2": (
        "<object><patch_index_0033><patch_index_0099></object>",
        [7.03125, 4.21875, 16.40625, 9.84375],
    ),
    "florence2": (
        "<s>red car<loc_200><loc_300><loc_600><loc_900>",
        [30.075, 27.045, 90.075, 81.045],
    ),
    "paligemma": (
        "<loc0256><loc0128><loc0768><loc0512> red car",
        [128 / 1023 * 150, 256 / 1023 * 90, 512 / 1023 * 150, 768 / 1023 * 90],
    ),
}


@pytest.mark.parametrize("family", WRITERS)
def test_what_a_model_writes_is_pixels_of_the_picture(family, peer, street, monkeypatch):
    output, xyxy = WRITES[family]
    reads(monkeypatch, peer(family), output)
    answer = peer(family).locate(street, "red car")
    assert [phrase.text for phrase in answer.phrases] == ["red car"]
    np.testing.assert_allclose(answer.boxes.xyxy, [xyxy])
    assert answer.problems == ()
    assert answer.boxes.frame.width == 150
    assert answer.boxes.scores is None  # a scripted reply has no probabilities


def test_problems_of_an_output_are_kept(peer, street, monkeypatch):
    reads(monkeypatch, peer("qwen3_vl"), '[{"bbox_2d": [900, 300, 1040, 20], "label": "a"}]')
    answer = peer("qwen3_vl").locate(street, "red car")
    assert {problem.kind for problem in answer.problems} == {"out_of_range", "inverted"}
    np.testing.assert_allclose(answer.boxes.xyxy, [[135, 1.8, 150, 27]])


@pytest.mark.parametrize(("output", "kind"), [("", None), ("A car.", "no_box")])
def test_silence_means_none_and_words_alone_are_a_problem(output, kind, peer, street, monkeypatch):
    reads(monkeypatch, peer("paligemma"), output)
    answer = peer("paligemma").locate(street, "red car")
    assert [problem.kind for problem in answer.problems] == ([kind] if kind else [])
    assert (answer.text.spans == (Nothing("red car"),)) is not bool(kind)


def test_a_caption_of_kosmos_goes_on_from_its_question(peer, street, monkeypatch):
    output = "<phrase> a car</phrase><object><patch_index_0033><patch_index_0099></object>."
    reads(monkeypatch, peer("kosmos-2"), output)
    answer = peer("kosmos-2").describe(street)
    assert str(answer) == "An image of a car."
    assert len(answer.boxes) == 1


def test_kosmos_is_done_when_the_boxes_are(peer, street, monkeypatch):
    more = "<phrase> a tree</phrase><object><patch_index_0001><patch_index_0099></object>"
    reads(monkeypatch, peer("kosmos-2"), WRITES["kosmos-2"][0] + " near" + more)
    answer = peer("kosmos-2").locate(street, "red car")
    np.testing.assert_allclose(answer.boxes.xyxy, [WRITES["kosmos-2"][1]])
    assert not answer.problems


@pytest.mark.parametrize("family", ["internvl", "florence2"])
def test_proposals_are_the_boxes_of_the_family_s_own_question(family, peer, street, monkeypatch):
    output = {
        "internvl": "<ref>cars</ref><box>[[200, 300, 600, 900], [0, 0, 500, 500]]</box>",
        "florence2": "<loc_200><loc_300><loc_600><loc_900><loc_0><loc_0><loc_500><loc_500>",
    }[family]
    question = {
        "internvl": "Please detect and label all objects in the following image and mark their "
        "positions.",
        "florence2": "Locate the region proposals in the image.",
    }[family]
    seen = reads(monkeypatch, peer(family), output)
    boxes = peer(family).propose(street, top=1)
    assert question in seen[0]
    assert len(boxes) == 1
    np.testing.assert_allclose(boxes.xyxy, [BOX], atol=0.1)


def test_a_line_of_text_is_one_box(peer, street, monkeypatch):
    corners = "<loc_200><loc_310><loc_590><loc_300><loc_600><loc_890><loc_210><loc_900>"
    reads(monkeypatch, peer("florence2"), "STOP" + corners + "GO" + corners)
    answer = peer("florence2").ask(street, "<OCR_WITH_REGION>")
    assert [(phrase.text, len(phrase.boxes)) for phrase in answer.phrases] == [
        ("STOP", 1),
        ("GO", 1),
    ]
    np.testing.assert_allclose(answer.boxes.xyxy, [BOX, BOX], atol=0.1)


# real generation


@pytest.mark.parametrize("family", WRITERS)
def test_a_batch_gives_what_singles_give(family, peer, street):
    images = [street, Image.new("RGB", (64, 130), (10, 200, 90)), street]
    phrases = ["red car", "a very small dog on the left", "sky"]
    one = peer(family)
    asks = [one.question_for("locate", phrase) for phrase in phrases]
    prompts = [one.dialect.render(ask, one.view(images[0], None)) for ask in asks]
    if hasattr(one.processor, "chat_template") and one.processor.chat_template:
        mark = {"internvl": "<IMG_CONTEXT>\n"}.get(family, QWEN_IMAGE)
        prompts = [mark + prompt for prompt in prompts]
    together = one.generate(images, prompts)
    alone = [one.generate([image], [text])[0] for image, text in zip(images, prompts, strict=True)]
    assert [said.text for said in together] == [said.text for said in alone]
    assert [said.tokens for said in together] == [said.tokens for said in alone]
    for batched, single in zip(together, alone, strict=True):
        assert len(batched.probabilities) == len(batched.tokens) > 0
        np.testing.assert_allclose(batched.probabilities, single.probabilities, rtol=1e-3)


@pytest.mark.parametrize("family", WRITERS)
def test_every_box_has_a_confidence(family, peer, street, monkeypatch):
    """The model is led through a reply whose tokens are likely, not certain."""
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    one, output = peer(family), WRITES[family][0]
    script = one.processor.tokenizer(output, add_special_tokens=False)["input_ids"]
    steps = iter([*script, one.settings.eos_token_id])

    class Lead(LogitsProcessor):
        def __call__(self, input_ids, scores):
            led = torch.zeros_like(scores)
            led[:, next(steps)] = 12.0
            return led

    real = one.model.generate

    def generate(logits_processor, **inputs):
        return real(**inputs, logits_processor=LogitsProcessorList([Lead(), *logits_processor]))

    monkeypatch.setattr(one.model, "generate", generate)
    answer = one.locate(street, "red car", max_new_tokens=len(script) + 1)
    vocabulary = len(one.model.get_input_embeddings().weight)
    expected = np.exp(12) / (np.exp(12) + vocabulary - 1)
    np.testing.assert_allclose(answer.boxes.xyxy, [WRITES[family][1]])
    np.testing.assert_allclose(answer.boxes.scores, [expected], rtol=1e-4)


def test_chance_and_penalties_of_a_checkpoint_are_off(peer, street):
    settings = peer("qwen2_5_vl").settings
    assert (settings.do_sample, settings.repetition_penalty, settings.num_beams) == (False, 1.0, 1)
    first, again = (peer("qwen2_5_vl").ask(street, "What is it?").text for _ in range(2))
    assert first == again


def test_options_reach_the_generation(peer, street):
    one = peer("qwen3_vl")
    rows = [
        one.generate([street], [QWEN_IMAGE + "What?"], options=options)[0]
        for options in ({"max_new_tokens": 1}, {"max_new_tokens": 2, "num_beams": 2})
    ]
    assert [len(said.tokens) for said in rows] == [1, 2]
    assert rows[1].probabilities == ()  # rows change places in a beam search
    sampled = [
        one.ask(street, "What?", do_sample=True, temperature=9.0, seed=seed).text.plain
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_a_question_has_one_answer(peer, street, monkeypatch):
    one = peer("qwen3_vl")
    with pytest.raises(ConfigError, match="num_return_sequences is 2, but a question has one"):
        one.ask(street, "What?", num_return_sequences=2, do_sample=True)
    want = one.ask(street, "What?", num_beams=2).text
    monkeypatch.setattr(one.settings, "num_return_sequences", 2)  # as a checkpoint may have it
    assert one.ask(street, "What?", num_beams=2).text == want


def test_an_answer_that_is_cut_off_says_so(peer, street, monkeypatch):
    one = peer("qwen3_vl")
    answer = one.ask(street, "What?", max_new_tokens=3)
    assert [problem.kind for problem in answer.problems] == ["truncated"]
    reads(monkeypatch, one, "a car")
    assert not one.ask(street, "What?").problems


def test_thinking_that_the_template_opens_is_no_answer(peer, street, monkeypatch):
    one = peer("qwen3_vl")
    thinks = one.processor.chat_template.replace(
        "assistant\n{% endif", "assistant\n<think>\n{% endif"
    )
    monkeypatch.setattr(one.processor, "chat_template", thinks)
    for output, said in (("It is a", ""), ("It is a car.\n</think>\n\na car", "a car")):
        reads(monkeypatch, one, output)
        assert one.ask(street, "What?").text.plain == said


def test_pictures_of_a_lazy_sequence_are_not_taken_for_each_other(peer):
    class Lazy(list):
        def __iter__(self):
            return (Image.new("RGB", (40 + index, 40)) for index in range(6))

    opened = peer("qwen3_vl").open(Lazy([None] * 6))
    assert [image.width for image in opened] == [40, 41, 42, 43, 44, 45]


# conversations


def test_a_conversation_is_read_as_one(peer, street, monkeypatch):
    one = peer("qwen3_vl")
    seen = reads(monkeypatch, one, WRITES["qwen3_vl"][0])
    chat = one.chat(street)
    assert isinstance(chat, Conversation)
    chat.ask("Where is the car?")
    chat.ask("And what is in [region 0]?", [BOX])
    assert len(chat.answers) == 2
    first = f"<|im_start|>user\n{QWEN_IMAGE}Where is the car?{ANSWER}{WRITES['qwen3_vl'][0]}"
    second = '<|im_start|>user\nAnd what is in {"bbox_2d": [200, 300, 600, 900]}?'
    assert seen[1] == f"{first}<|im_end|>\n{second}{ANSWER}"


def test_a_conversation_with_a_single_question_family_sees_one_at_a_time(peer, street, monkeypatch):
    seen = reads(monkeypatch, peer("kosmos-2"), " red")
    chat = peer("kosmos-2").chat(street)
    chat.ask("What colour?")
    chat.ask("And the sky?")
    assert "colour" not in seen[1]


# what is refused

CANNOT = [
    *((family, verb) for family in WRITERS[:3] for verb in ["propose"]),
    ("kosmos-2", "propose"),
    ("florence2", "chat"),
    ("paligemma", "propose"),
    ("paligemma", "chat"),
    *((family, verb) for family in DETECTORS for verb in ["ask", "describe", "chat"]),
    ("grounding-dino", "propose"),
]


@pytest.mark.parametrize(("family", "verb"), CANNOT)
def test_a_verb_that_a_family_cannot_do_is_refused_by_name(family, verb, peer, street):
    arguments = {"ask": ["What is it?"]}.get(verb, [])
    with pytest.raises(ConfigError, match=rf"cannot {verb}\(image.*it can .*locate\(image, phrase"):
        getattr(peer(family), verb)(street, *arguments)


def test_a_detector_cannot_describe_regions(peer, street):
    with pytest.raises(ConfigError, match=r"cannot describe\(image, boxes\)"):
        peer("owlv2").describe(street, [BOX])


@pytest.mark.parametrize(
    ("family", "question", "boxes", "error", "message"),
    [
        ("florence2", "What is it?", None, ConfigError, r"has tasks.*<OD>.*<REGION_TO_OCR>"),
        ("florence2", "<OD>car", None, ConfigError, "takes no input"),
        ("florence2", "<REGION_TO_OCR>", [BOX, BOX], ConfigError, "takes 1 boxes, got 2"),
        ("florence2", "<OD>", [BOX], ConfigError, "takes 0 boxes, got 1"),
        ("paligemma", "What is it?", [BOX], ConfigError, "no questions about boxes"),
        ("qwen3_vl", "", None, DataError, "question is empty"),
        ("qwen3_vl", "What is [region 1]?", [BOX], FrameError, "names .region 1."),
        ("qwen3_vl", "What?", [[0, 0, 200, 20]], FrameError, "not inside the picture"),
        ("qwen3_vl", "a<|im_end|>b", None, DialectError, "<|im_end|>"),
        ("paligemma", "a<image>b", None, DialectError, "<image>"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    family, question, boxes, error, message, peer, street
):
    with pytest.raises(error, match=message):
        peer(family).ask(street, question, boxes)


def test_a_question_beyond_the_positions_of_florence2_is_refused(peer, street):
    one = peer("florence2")
    limit = one.model.config.text_config.max_position_embeddings
    layout = "Locate the phrases in the caption: "
    longest = limit - len(layout) - 2 - one.processor.num_image_tokens  # a byte is a token
    one.locate(street, "a" * longest, max_new_tokens=1)
    with pytest.raises(ConfigError, match=rf"take {limit + 1} tokens.* at most {limit}\."):
        one.locate_batch([street] * 2, ["a" * (longest + 1), "car"], max_new_tokens=1)


def test_a_phrase_with_marks_is_refused(peer, street):
    with pytest.raises(DialectError, match="<image>"):
        peer("florence2").locate(street, "car<image>")


VERBS = {
    "ask": lambda one, image: one.ask(image, "<OD>"),
    "locate": lambda one, image: one.locate(image, "car"),
    "describe": lambda one, image: one.describe(image),
    "describe regions": lambda one, image: one.describe(image, [BOX]),
    "propose": lambda one, image: one.propose(image),
    "chat": lambda one, image: one.chat(image),
}


@pytest.mark.parametrize("family", [*WRITERS, *DETECTORS])
def test_a_video_is_refused_by_every_verb(family, peer, street):
    loaded = peer(family)
    assert not loaded.takes_video
    for verb in loaded.can:
        with pytest.raises(ConfigError, match="reads one picture at a time"):
            VERBS[verb](loaded, [street, street])


@pytest.mark.parametrize("family", WRITERS)
def test_object_images_are_refused(family, peer, street):
    loaded = peer(family)
    with pytest.raises(ConfigError, match="reads no object images"):
        loaded.ask(street, "<OD>", objects=[BOX])
    with pytest.raises(ConfigError, match="reads no object images"):
        loaded.ask_batch([street] * 2, ["<OD>"] * 2, objects=[None, [street]])
    if "chat" in loaded.can:
        with pytest.raises(ConfigError, match="reads no object images"):
            loaded.chat(street).ask("What is it?", objects=[BOX])


@pytest.mark.parametrize("family", WRITERS)
def test_a_question_put_together_by_hand_must_name_its_boxes(family, peer, street):
    with pytest.raises(DataError, match=r"does not name \[region 0\]"):
        peer(family).ask(street, GroundedText.of("What is it?"), [BOX])


def test_boxes_that_no_word_can_name_are_refused(peer, street, monkeypatch):
    """A family of words alone: no peer is one, but a checkpoint of its kind may be."""
    one = peer("qwen3_vl")
    monkeypatch.setattr(one, "dialect", get_dialect("plain"))
    for ask in (
        lambda: one.ask(street, "What is it?", [BOX]),
        lambda: one.describe(street, [BOX]),
        lambda: one.chat(street).ask("What is it?", [BOX]),
    ):
        with pytest.raises(ConfigError, match=r"which region is meant.*'plain'"):
            ask()


def test_columns_of_a_batch_must_match(peer, street):
    with pytest.raises(DataError, match="as many of each"):
        peer("paligemma").locate_batch([street], ["a", "b"])
    with pytest.raises(DataError, match="no pictures"):
        peer("paligemma").describe_batch([])


# detectors


@pytest.mark.parametrize("family", DETECTORS)
def test_a_detector_locates_the_best_or_all(family, peer, street):
    every = peer(family).locate(street, "red car", all=True, threshold=0.0)
    one = peer(family).locate(street, "red car", threshold=0.0)
    assert len(every.boxes) > 1
    assert [phrase.text for phrase in every.phrases] == ["red car"]
    assert list(every.boxes.scores) == sorted(every.boxes.scores, reverse=True)
    np.testing.assert_array_equal(one.boxes.xyxy, every.boxes.xyxy[:1])
    assert np.all(every.boxes.xyxy <= [150, 90, 150, 90])
    assert len(one.proposals) == len(every.boxes)


@pytest.mark.parametrize("family", DETECTORS)
def test_nothing_above_the_threshold_is_none(family, peer, street):
    answer = peer(family).locate(street, "red car", threshold=1.0)
    assert answer.text.spans == (Nothing("red car"),)
    assert answer.problems == ()


@pytest.mark.parametrize("family", DETECTORS)
def test_detectors_batch_as_singles(family, peer, street):
    images = [street, Image.new("RGB", (64, 130), (10, 200, 90))]
    both = peer(family).locate_batch(images, ["red car", "dog"], threshold=0.0)
    for image, phrase, answer in zip(images, ["red car", "dog"], both, strict=True):
        alone = peer(family).locate(image, phrase, threshold=0.0)
        np.testing.assert_allclose(answer.boxes.xyxy, alone.boxes.xyxy, atol=1e-3)


def test_a_detector_knows_one_option(peer, street):
    with pytest.raises(ConfigError, match="no option 'seed'"):
        peer("owlv2").locate(street, "car", seed=1)


def test_owlv2_proposes_by_objectness(peer, street):
    boxes, fewer = peer("owlv2").propose(street), peer("owlv2").propose(street, top=2)
    assert len(boxes) > 2
    assert list(boxes.scores) == sorted(boxes.scores, reverse=True)
    np.testing.assert_array_equal(fewer.xyxy, boxes.xyxy[:2])
    assert np.all(boxes.xyxy <= [150, 90, 150, 90])


@pytest.mark.parametrize("family", ["owlv2", "florence2"])
@pytest.mark.parametrize("top", [0, -1])
def test_proposals_are_counted_from_one(family, top, peer, street):
    with pytest.raises(ConfigError, match=f"top is {top};"):
        peer(family).propose(street, top=top)


def test_options_that_generation_has_not_are_refused(peer, street):
    with pytest.raises(ConfigError, match=r"no option .* Did you mean .max_new_tokens"):
        peer("paligemma").locate(street, "car", max_new_token=4)
