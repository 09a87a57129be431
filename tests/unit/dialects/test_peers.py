"""What single families write, and how they read good and bad outputs."""

# ruff: noqa: E501 -- model outputs stay in one piece

import json

import pytest

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects import (
    GroundedText,
    Nothing,
    Phrase,
    RegionRef,
    Span,
    Text,
    View,
    get_dialect,
    read_detections,
    smart_resize,
)
from parfocal.errors import ConfigError, DialectError

SQUARE = Frame("image", 1000, 1000)
ROWS = [[100, 200, 300, 400], [500, 500, 900, 900]]
BOX, BOTH = Boxes(ROWS[:1], SQUARE), Boxes(ROWS, SQUARE)
POINT = Boxes([[250, 500, 250, 500]], SQUARE)
TEXTS = {
    "box": GroundedText.of(Phrase("a cat", BOX)),
    "boxes": GroundedText.of(Phrase("cats", BOTH)),
    "point": GroundedText.of(Phrase("a nose", POINT)),
    "words": GroundedText.of("I see ", Phrase("a cat", BOX), "."),
    "none": GroundedText.of(Nothing("dog")),
    "locate": GroundedText.of(),
}


def view_of(name: str) -> View:
    """Qwen2.5-VL sees the picture at 500 x 500, the others in their own frame."""
    warp = get_dialect(name).coordinate_frame(SQUARE)
    return View(SQUARE, Warp.resize(SQUARE, 500, 500) if name == "qwen2_5_vl" else warp, BOX)


WRITTEN = [
    ("qwen_vl", "boxes", "<ref>cats</ref><box>(100,200),(300,400)</box><box>(500,500),(899,899)</box>"),
    ("qwen_vl", "words", "I see<ref> a cat</ref><box>(100,200),(300,400)</box>."),
    ("qwen2_vl", "point", "<|object_ref_start|>a nose<|object_ref_end|><|box_start|>(250,500)<|box_end|>"),
    ("qwen2_5_vl", "box", '```json\n[\n\t{"bbox_2d": [50, 100, 150, 200], "label": "a cat"}\n]\n```'),
    ("qwen3_vl", "boxes", '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "cats"},\n\t{"bbox_2d": [500, 500, 900, 900], "label": "cats"}\n]\n```'),
    ("qwen3_vl", "words", 'I see {"bbox_2d": [100, 200, 300, 400], "label": "a cat"}.'),
    ("qwen3_vl", "point", '```json\n[\n\t{"point_2d": [250, 500], "label": "a nose"}\n]\n```'),
    ("qwen3_vl", "none", "```json\n[]\n```"),
    ("gemini", "box", '[\n  {"box_2d": [200, 100, 400, 300], "label": "a cat"}\n]'),
    ("gemini", "point", '[\n  {"point": [500, 250], "label": "a nose"}\n]'),
    ("internvl", "boxes", "<ref>cats</ref><box>[[100, 200, 300, 400], [500, 500, 900, 900]]</box>"),
    ("deepseek_vl2", "box", "<|ref|>a cat<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|>"),
    ("kosmos2", "words", "I see<phrase> a cat</phrase><object><patch_index_0195><patch_index_0393></object>."),
    ("kosmos2", "box", "<phrase> a cat</phrase><object><patch_index_0195><patch_index_0393></object>"),
    ("florence2", "boxes", "cats<loc_100><loc_200><loc_300><loc_400><loc_500><loc_500><loc_900><loc_900>"),
    ("paligemma", "boxes", "<loc0205><loc0102><loc0409><loc0307> cats ; <loc0512><loc0512><loc0921><loc0921> cats"),
    ("paligemma", "none", ""),
    ("groundinggpt", "boxes", "cats [0.1, 0.2, 0.3, 0.4][0.5, 0.5, 0.9, 0.9]"),
    ("shikra", "boxes", "cats[0.100,0.200,0.300,0.400;0.500,0.500,0.900,0.900]"),
    ("shikra", "point", "a nose[0.250,0.500]"),
    ("ferret", "boxes", "cats [100, 200, 300, 400][500, 500, 900, 900]"),
    ("cogvlm_grounding", "boxes", "cats [[100,200,300,400;500,500,900,900]]"),
    ("llava_1_5", "box", "a cat [0.1, 0.2, 0.3, 0.4]"),
    ("minigpt_v2", "boxes", "<p>cats</p> {<10><20><30><40>}<delim>{<50><50><90><90>}"),
    ("rex_omni", "boxes", "<|object_ref_start|>cats<|object_ref_end|><|box_start|><99><199><299><399>, <499><499><899><899><|box_end|>"),
    ("rex_omni", "none", "<|object_ref_start|>dog<|object_ref_end|><|box_start|>None<|box_end|>"),
    ("molmo", "box", '<point x="20.0" y="30.0" alt="a cat">a cat</point>'),
    ("molmo", "boxes", '<points x1="20.0" y1="30.0" x2="70.0" y2="70.0" alt="cats">cats</points>'),
    ("molmo", "none", "There are none."),
    ("molmo2", "boxes", '<points coords="1 1 200 300 2 700 700">cats</points>'),
    ("glamm", "words", "I see <p> a cat </p> [SEG]."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "written"), WRITTEN, ids=lambda value: str(value)[:24])
def test_render(name: str, text: str, written: str) -> None:
    assert get_dialect(name).render(TEXTS[text], view_of(name)) == written


QUESTIONS = [
    ("qwen_vl", "<ref>the cup</ref><box>"),
    ("qwen2_vl", "Locate <|object_ref_start|>the cup<|object_ref_end|>"),
    ("qwen2_5_vl", "Locate the cup in this image and output the bbox coordinates in JSON format."),
    ("qwen3_vl", 'Locate every object that matches the description "the cup" in the image. Report bbox coordinates in JSON format.'),
    ("internvl", "Please provide the bounding box coordinate of the region this sentence describes: <ref>the cup</ref>"),
    ("deepseek_vl2", "<|ref|>the cup<|/ref|>."),
    ("kosmos2", "<grounding><phrase> the cup</phrase>"),
    ("florence2", "<CAPTION_TO_PHRASE_GROUNDING>the cup"),
    ("paligemma", "detect the cup"),
    ("groundinggpt", "Where is the cup in the image? Include the object positions in [x0, y0, x1, y1] format."),
    ("shikra", "Can you point out the cup in the image <image> and provide the coordinates of its location?"),
    ("ferret", "What is the location of the cup in the image?"),
    ("cogvlm_grounding", "Where is the cup? answer in [[x0,y0,x1,y1]] format."),
    ("llava_1_5", "Please provide the bounding box coordinate of the region this sentence describes: the cup."),
    ("minigpt_v2", "[refer] give me the location of the cup"),
    ("rex_omni", "Detect the cup. Output the bounding box coordinates in [x0, y0, x1, y1] format."),
    ("molmo", "Point to the cup."),
    ("molmo2", "Point to the cup\nPlease say 'There are none.' if it is not in the image."),
    ("glamm", "Please segment the cup in this image."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "written"), QUESTIONS, ids=[name for name, _ in QUESTIONS])
def test_locate_is_the_familys_question(name: str, written: str) -> None:
    assert get_dialect(name).render(get_dialect(name).locate("the cup"), view_of(name)) == written


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("qwen3_vl", 'What is inside {"bbox_2d": [100, 200, 300, 400]}?'),
        ("kosmos2", "<grounding><phrase> It</phrase><object><patch_index_0195><patch_index_0393></object> is"),
        ("florence2", "<REGION_TO_DESCRIPTION><loc_100><loc_200><loc_300><loc_400>"),
        ("paligemma", "caption <loc0205><loc0102><loc0409><loc0307>"),
        ("ferret", "What is the object [100, 200, 300, 400] <region_fea>?"),
        ("minigpt_v2", "[identify] what is this {<10><20><30><40>}"),
        ("glamm", "Can you provide me with a detailed description of the region in the picture marked by <bbox>?"),
    ],
)  # fmt: skip
def test_describe_region_holds_the_region(name: str, written: str) -> None:
    question = get_dialect(name).describe_region(0)
    assert RegionRef(0) in question.spans
    assert get_dialect(name).render(question, view_of(name)) == written


def test_ferret_takes_commas_out_of_the_phrase() -> None:
    assert get_dialect("ferret").locate("a red, tall cup").plain.count(",") == 0


A, B = ROWS
READ: list[tuple[str, str, list[object], list[str]]] = [
    # boxes of a phrase: ("words", rows...); bare words: "words"
    ("qwen_vl", "(100,200),(300,400)", [("", [100.1, 200.2, 300.3, 400.4])], []),
    ("qwen_vl", "a cat(0,0),(999,999)", [("a cat", [0, 0, 1000, 1000])], []),
    ("qwen_vl", "<ref>a cat</ref><box>(0,0),(999,9", [("a cat",)], ["truncated_box"]),
    ("qwen_vl", "<ref>a cat</ref><box>(0,0)</box>", [("a cat",)], ["wrong_arity"]),
    ("qwen_vl", "<ref>a ca", [("a ca",)], ["truncated_box"]),
    ("qwen_vl", "a </ref> b", ["a  b"], ["format_drift"]),
    ("qwen2_vl", "a cat(100,200),(300,400)", [("a cat", A)], []),
    ("qwen2_vl", "<|box_start|>(0.1,0.2),(0.3,0.4)<|box_end|>", [], ["wrong_frame"]),
    ("qwen2_vl", "<|box_start|>(1,2),(3,4)", [("", [1, 2, 3, 4])], ["truncated_box"]),
    ("qwen2_vl", "<|box_start|>(100,200),(300,400)<|box_end|><|box_start|>(100,200),(300,400)<|box_end|>", [("", A)], ["repetition"]),
    ("qwen3_vl", '{"bbox_2d": [100, 200, 300, 400]}', [("", A)], []),
    ("qwen3_vl", 'Sure:\n```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]\n```', ["Sure:\n", ("cat", A)], []),
    ("qwen3_vl", '<think>[{"bbox_2d": [1, 2, 3, 4]}]</think>\n[{"bbox_2d": [100, 200, 300, 400]}]', [("", A)], []),
    ("qwen3_vl", '{"bbox_2d": [[100, 200, 300, 400], [500, 500, 900, 900]], "label": "cat"}', [("cat", A, B)], []),
    ("qwen3_vl", '[{"bbox": [100, 200, 300, 400], "label": "cat"}]', [("cat", A)], ["format_drift"]),
    ("qwen3_vl", '{"objects": [{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [1, 2', [("", A)], ["truncated_json"]),
    ("qwen3_vl", '[{"bbox_2d": [100, 200, 300, 400], "label": "it"s"}]', [("", A)], ["truncated_json"]),
    ("qwen3_vl", '[{"bbox_2d": [100, 200, 300, 400]}', [("", A)], ["truncated_json"]),
    ("qwen3_vl", 'A {"bbox_2d": [100, 200, 300, 400], "label": "cat"} and [{"bbox_2d": [500, 500, 900, 900], "label": "dog"}].', ["A ", ("cat", A), " and ", ("dog", B), "."], []),
    ("qwen3_vl", "It is at [100, 200, 300, 400].", ["It is at ", ("", A), "."], ["format_drift"]),
    ("qwen3_vl", '{"bbox_2d": [0.1, 0.2, 0.3, 0.4]}', [], ["wrong_frame"]),
    ("qwen3_vl", '{"bbox_2d": [NaN, 2, 3, 4]}', [], ["wrong_arity"]),
    ("qwen3_vl", '{"bbox_2d": "here", "label": "cat"}', [("cat",)], ["wrong_arity"]),
    ("qwen3_vl", '{"point_2d": [250, 500], "label": "nose"}', [("nose", [250, 500, 250, 500])], []),
    ("qwen3_vl", '{"bbox_2d": [100, 200, 300, 400], "label": 3}', [("3", A)], []),
    ("qwen3_vl", '[{"bbox_2d": [100, 200, 300, 400], "label": "a"}, {"bbox_2d": [100, 200, 300, 400], "label": "a"}]', [("a", A)], ["repetition"]),
    ("qwen3_vl", '[{"bbox_2d": [100, 200, 300, 400], "label": "a"}, {"bbox_2d": [100, 200, 300, 400], "label": "b"}]', [("a", A), ", ", ("b", A)], []),
    ("qwen2_5_vl", '{"bbox_2d": [50, 100, 150, 200]}', [("", A)], []),
    ("qwen2_5_vl", '{"bbox_2d": [100, 200, 300, 700]}', [], ["out_of_range"]),
    ("qwen2_5_vl", '<points x1="125" y1="250" alt="a nose">nose</points> here', [("nose", [250, 500, 250, 500]), " here"], []),
    ("qwen3_vl", "It is at [1, 2, 3, 4000].", ["It is at [1, 2, 3, 4000]."], ["out_of_range"]),
    ("qwen3_vl", '<think>x</think>```json\n{"rows": [{"a": 1}, {"b', ['```json\n{"rows": [{"a": 1}, {"b'], []),
    ("qwen3_vl", "<think>It is at [100, 200, 300, 400]", [], []),
    ("qwen3_vl", 'It is at "bbox_2d": [100, 200, 300, 400].', ['It is at "bbox_2d": ', ("", A), "."], ["format_drift"]),
    ("qwen3_vl", '```json\n"bbox_2d": [100, 200, 300, 400]\n```', ['"bbox_2d": ', ("", A), "\n"], ["format_drift"]),
    ("qwen3_vl", "```python\nx = {'a': 1}\n```", ["```python\nx = {'a': 1}\n```"], []),
    ("qwen3_vl", 'A "box" is:\n```\nx\n```', ['A "box" is:\n```\nx\n```'], []),
    ("gemini", '[{"box_2d": [200, 100, 400, 300], "label": "cat", "mask": "x"}]', [("cat", A)], []),
    ("gemini", '[{"bbox_2d": [200, 100, 400, 300]}]', [("", A)], ["format_drift"]),
    ("internvl", "a cat[[100, 200, 300, 400]]", [("a cat", A)], []),
    ("internvl", "[100, 200, 300, 400]", [("", A)], []),
    ("internvl", "The list is [1, 2, 3]", ["The list is [1, 2, 3]"], ["wrong_arity"]),
    ("internvl", "[1, 2, 3]", ["[1, 2, 3]"], ["wrong_arity"]),
    ("deepseek_vl2", "The list is [1, 2, 3].", ["The list is [1, 2, 3]."], ["wrong_arity"]),
    ("qwen2_vl", "from (1,2),(3,4000) on", ["from (1,2),(3,4000) on"], ["out_of_range"]),
    ("internvl", "<ref>cats</ref><box>[[100, 200, 300, 400], [500, 5", [("cats", A)], ["truncated_box"]),
    ("internvl", "<ref>a cat</ref><box>[[100, 200, 300, 400]]</ref>", [("a cat", A)], ["format_drift", "format_drift"]),
    ("internvl", "<ref>a cat</ref> sits", [("a cat",), " sits"], []),
    ("deepseek_vl2", "<|det|>[245,[234,543,542,744]]<|/det|>", [("", [234.234, 543.544, 542.543, 744.745])], ["format_drift"]),
    ("kosmos2", "<phrase> a cat</phrase><object><patch_index_0195> <patch_index_0393></object>", [("a cat", [109.375, 203.125, 296.875, 390.625])], ["token_spacing"]),
    ("kosmos2", "<grounding> I see<phrase> a cat</phrase> here", ["I see ", ("a cat",), " here"], []),
    ("kosmos2", "<phrase>a cat</phrase><object><patch_index_0195></object>", [("a cat",)], ["wrong_arity"]),
    ("florence2", "</s><s>cat<loc_100><loc_200><loc_300><loc", [("cat",), ", <loc"], ["wrong_arity"]),
    ("florence2", "cat<loc_100><loc_200><loc_300>", [("cat",)], ["truncated_box"]),
    ("florence2", "cat<poly><loc_100><loc_200><loc_300><loc_250><loc_200><loc_400></poly></s>", [("cat", [100.5, 200.5, 300.5, 400.5])], []),
    ("florence2", "a caption</s>", ["a caption"], []),
    ("paligemma", "<loc0205><loc0102><loc0409>", [], ["truncated_box"]),
    ("paligemma", "<loc0205> <loc0102><loc0409><loc0307> cat", [("cat", [99.707, 200.391, 300.098, 399.804])], ["token_spacing"]),
    ("paligemma", "<loc205><loc0102><loc0409><loc0307> cat<eos>", [("cat", [99.707, 200.391, 300.098, 399.804])], ["format_drift"]),
    ("shikra", "a cat [0.1, 0.2, 0.3, 0.4]", [("a cat", A)], ["format_drift"]),
    ("shikra", "a cat[0.100,0.200,0.300,0.400;0.500,0.500,0.9", [("a cat", A)], ["truncated_box"]),
    ("ferret", "a cat [100, 200, 300, 400] and a dog [500, 500, 900, 900].", [("a cat", A), " and ", ("a dog", B), "."], []),
    ("ferret", "a cat [100, 200, 300, 40", [("a cat",)], ["truncated_box"]),
    ("ferret", "cats [100, 200, 300, 400] [100, 200, 300, 400]", [("cats", A)], ["repetition"]),
    ("ferret", "a cat [0.1, 0.2, 0.3, 0.4]", [("a cat",)], ["format_drift", "wrong_frame"]),
    ("cogvlm_grounding", "[[100,200,300,400;500,500,900,9", [("", A)], ["truncated_box"]),
    ("cogvlm_grounding", "[100, 200, 300, 400]", [("", A)], ["format_drift"]),
    ("minigpt_v2", "<p>cat</p> {<10><20><30><4", [("cat",)], ["truncated_box"]),
    ("minigpt_v2", "<p>cat</p> {<10><20><30>}", [("cat",)], ["wrong_arity"]),
    ("rex_omni", "<|object_ref_start|>cat<|object_ref_end|><|box_start|><0><0><999><999>, <1><2", [("cat", [0, 0, 1000, 1000])], ["truncated_box"]),
    ("rex_omni", "<|box_start|><0><999><999><0><500><500><|box_end|>", [("", [0, 0, 1000, 1000])], []),
    ("rex_omni", "<|box_start|><1><2><3><|box_end|>", [], ["wrong_arity"]),
    ("molmo", "Click(25.0, 50.0)", [("", [250, 500, 250, 500])], []),
    ("molmo", '<point x="0.5" y="50.0" alt="a">a</point>', [("a", [5, 500, 5, 500])], []),
    ("molmo", '<point x="25.0" y="5', [], ["truncated_box"]),
    ("molmo2", '<points coords="1 1 250 500 2 300', [("", [250, 500, 250, 500])], ["truncated_box"]),
    ("molmo2", '<points coords="2 1 250 500">cat</points>', [("cat",)], ["wrong_frame"]),
    ("molmo2", '<point x="25.0" y="50.0" alt="cat">cat</point>', [("cat",)], ["wrong_frame"]),
    ("glamm", "<p> A cat </p> [SEG] and [SEG].", [("A cat", A), " and ", "."], ["unknown_region_index"]),
]  # fmt: skip


def _spans(expected: list[object]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for part in expected:
        if isinstance(part, str):
            spans.append(Text(part))
        else:
            words, *rows = part  # type: ignore[misc]
            spans.append(Phrase(words, Boxes(rows, SQUARE)))
    return GroundedText(tuple(spans)).spans


@pytest.mark.parametrize(
    ("name", "output", "expected", "problems"),
    READ,
    ids=[f"{name} {output[:40]!r}" for name, output, _, _ in READ],
)
def test_parse_recovers_and_reports(
    name: str, output: str, expected: list[object], problems: list[str]
) -> None:
    parsed = get_dialect(name).parse(output, view_of(name))
    spans = _spans(expected)
    assert [problem.kind for problem in parsed.problems] == problems
    assert [(type(s), getattr(s, "text", "")) for s in parsed.text.spans] == [
        (type(s), getattr(s, "text", "")) for s in spans
    ]
    wanted = [row for span in spans if isinstance(span, Phrase) for row in span.boxes.to_json()]
    assert parsed.text.boxes(SQUARE).to_json() == [pytest.approx(row, abs=0.01) for row in wanted]


def test_labels_of_json_may_hold_anything() -> None:
    label = 'a "big" cat\n{"x": [1]}'
    text = GroundedText.of(Phrase(label, BOX))
    written = get_dialect("qwen3_vl").render(text, view_of("qwen3_vl"))
    assert json.loads(written.strip("`json\n"))[0]["label"] == label
    assert get_dialect("qwen3_vl").parse(written, view_of("qwen3_vl")).text == text


def test_the_edge_of_a_cell_is_not_a_hair_inside_the_one_before() -> None:
    frame = Frame("image", 428, 428)
    text = GroundedText.of(Phrase("a cat", Boxes([[214, 0, 428, 214]], frame)))
    written = get_dialect("kosmos2").render(text, View(frame))
    assert written.endswith("<patch_index_0016><patch_index_0511></object>")  # row 15, column 31


def test_labels_of_points_may_hold_markup() -> None:
    text = GroundedText.of(Phrase('1 < 2 & "3"', POINT))
    for name in ("molmo", "molmo2"):
        written = get_dialect(name).render(text, view_of(name))
        assert get_dialect(name).parse(written, view_of(name)).text == text


def test_a_label_that_would_end_early_is_refused() -> None:
    with pytest.raises(DialectError, match="end a label"):
        get_dialect("paligemma").render(GroundedText.of(Phrase("a;b", BOX)), view_of("paligemma"))


def test_points_of_several_pictures_are_counted_on() -> None:
    second = Frame("image1", 500, 500)
    view = View(SQUARE, others=(second,))
    text = GroundedText.of(
        Phrase("dog", POINT), ", ", Phrase("dog", Boxes([[100, 100, 100, 100]], second))
    )
    written = get_dialect("molmo2").render(text, view)
    assert written == (
        '<points coords="1 1 250 500">dog</points>, <points coords="2 2 200 200">dog</points>'
    )
    assert get_dialect("molmo2").parse(written, view).text == text


def test_masks_are_named_in_order() -> None:
    parsed = get_dialect("glamm").parse("<p> A man </p> [SEG] on [SEG]", View(SQUARE, regions=BOTH))
    assert [phrase.text for phrase in parsed.text.phrases] == ["A man", ""]
    assert parsed.text.boxes(SQUARE) == BOTH


def test_detections_are_grouped_by_label_with_their_scores() -> None:
    boxes = Boxes([*ROWS, ROWS[0]], SQUARE, scores=[0.9, 0.8, 0.7], labels=["cat", "dog", "cat"])
    text = read_detections(boxes).text
    assert text.plain == "cat, dog"
    assert [phrase.boxes.scores.tolist() for phrase in text.phrases] == [[0.9, 0.7], [0.8]]  # type: ignore[union-attr]
    assert read_detections(Boxes.empty(SQUARE)).text.is_nothing


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        pytest.param((28, 28), (56, 56), id="grows to the least area"),
        pytest.param((10000, 10000), (3556, 3556), id="shrinks below the greatest"),
        pytest.param((70, 1000), (56, 1008), id="halves go to the even multiple"),
    ],
)
def test_smart_resize_stays_within_its_bounds(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert smart_resize(*size, factor=28, min_pixels=3136, max_pixels=12845056) == resized


def test_smart_resize_refuses_very_long_pictures() -> None:
    with pytest.raises(ConfigError, match="200 times"):
        smart_resize(2010, 10, factor=28, min_pixels=3136, max_pixels=12845056)


def test_the_same_text_is_another_box_in_every_frame() -> None:
    frame, text = Frame("image", 1920, 1080), '[{"bbox_2d": [100, 200, 500, 700]}]'
    found = {
        tuple(get_dialect(name).parse(text, View(frame, warp)).text.boxes(frame).xyxy[0].round(1))
        for name, warp in (
            ("qwen2_5_vl", Warp.resize(frame, 1932, 1092)),
            ("qwen2_5_vl", Warp.resize(frame, 1316, 728)),
            ("qwen3_vl", None),
            ("gemini", None),
        )
    }
    assert len(found) == 4
