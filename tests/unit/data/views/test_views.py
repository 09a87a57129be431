"""What holds for every view of the table, on any annotated Sample."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.boxes import Boxes
from parfocal.data.jsonl import read_jsonl, write_jsonl
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.views import VIEWS, QuestionView, apply, build_view, get_view
from parfocal.dialects import get_dialect
from parfocal.dialects.base import View
from parfocal.dialects.grounded import GroundedText, Nothing, ObjectRef, Phrase, RegionRef
from parfocal.errors import ConfigError

WIDTH, HEIGHT = 320, 240
IMAGE = ImageRef("a.jpg", WIDTH, HEIGHT)
LABELS = st.sampled_from(
    [
        "dog",
        "brown dog",
        "a dog on the grass",
        "grass",
        "Man",
        "red_hat",
        "hat",
        "it",
        "object",
        " ",
    ]
)
PREDICATES = st.sampled_from(["near", "riding", " ON", ""])
OPTIONS = {"absent": {"vocabulary": ("zebra", "dog", "hat", "yak")}, "ground_all": {"negatives": 1}}
NAMES = sorted(VIEWS)


@st.composite
def boxes(draw):
    x1, y1 = draw(st.integers(0, WIDTH - 4)), draw(st.integers(0, HEIGHT - 4))
    x2, y2 = draw(st.integers(x1 + 2, WIDTH)), draw(st.integers(y1 + 2, HEIGHT))
    return [x1, y1, x2, y2]


@st.composite
def samples(draw):
    """Any annotated Sample: regions, captions, relations and lists of names, each perhaps none."""
    rows = draw(st.lists(boxes(), max_size=7))
    labels = draw(st.lists(LABELS, min_size=len(rows), max_size=len(rows)))
    spans = []
    for text, own in draw(st.lists(st.tuples(LABELS, st.lists(boxes(), max_size=2)), max_size=3)):
        spans += [Phrase(f"{text}.", Boxes(own, IMAGE.frame())), " and "]
    meta = {"image_key": "coco:1"}
    if rows:
        row = st.integers(0, len(rows) - 1)
        triples = draw(st.lists(st.tuples(row, PREDICATES, row), max_size=4))
        meta["relations"] = [list(triple) for triple in triples]
    for key in ("neg_categories", "not_exhaustive_categories"):
        if draw(st.booleans()):
            meta[key] = draw(st.lists(st.sampled_from(["yak", "hat", "grass"]), max_size=2))
    turns = (Turn("assistant", GroundedText.of(*spans)),) if spans else ()
    regions = Boxes(rows, IMAGE.frame(), labels=labels)
    number = draw(st.integers(0, 10**6))
    return Sample(f"made:{number}", (IMAGE,), turns, regions, "made", "train", "CC0", meta)


def build(name, **more):
    return get_view(name)(**OPTIONS.get(name, {}), **more)


def known_boxes(sample):
    phrases = [phrase for turn in sample.turns for phrase in turn.text.phrases]
    placed = [row for phrase in phrases for row in phrase.boxes.to_json()]
    return {tuple(row) for row in [*sample.regions.to_json(), *placed]}


def test_the_table_is_sorted_and_named_as_its_views():
    assert list(VIEWS) == NAMES
    assert all(view.name == name for name, view in VIEWS.items())
    assert all(name in view.__module__ for name, view in VIEWS.items())  # a file a view
    with pytest.raises(ConfigError, match=r"no view 'recs'; there are absent, .*text_image"):
        get_view("recs")


def check_boxes(made, sample):
    """Every box is one of the annotated ones, and every object image shows one."""
    known = known_boxes(sample)
    for item in made:
        assert known_boxes(item) <= known
        for image in item.images[1:]:
            x1, y1, x2, y2 = image.crop
            assert 0 <= x1 < x2 <= WIDTH
            assert 0 <= y1 < y2 <= HEIGHT
            assert any(
                x1 <= a + 1e-6 and y1 <= b + 1e-6 and x2 >= c - 1e-6 and y2 >= d - 1e-6
                for a, b, c, d in known
            )


def check_form(made, sample, name, rounds):
    """Samples can be written, turns alternate, and every reference is there once."""
    assert [item.id for item in made] == [f"{sample.id}#{name}-{n}" for n in range(len(made))]
    for item in made:
        assert Sample.from_json(item.to_json()) == item
        assert [turn.role for turn in item.turns] == ["user", "assistant"] * (len(item.turns) // 2)
        assert len(item.turns) <= 2 * rounds
        asked = [span for turn in item.turns[::2] for span in turn.text.spans]
        said = [span for turn in item.turns[1::2] for span in turn.text.spans]
        objects = [span.image for span in asked if isinstance(span, ObjectRef)]
        assert objects == list(range(1, len(item.images)))
        if name != "detect":
            references = [span.index for span in asked if isinstance(span, RegionRef)]
            assert sorted(references) == list(range(len(item.regions)))
            assert item.regions.labels is None
        assert not any(isinstance(span, RegionRef | ObjectRef) for span in said)
        # a question never holds a box: what it points at is a region or an object image
        assert not any(isinstance(span, Phrase) and len(span.boxes) for span in asked)
        assert not any(isinstance(span, Nothing) for span in asked)


def check_view(name, sample, seed, rounds):
    more = {"rounds": rounds} if issubclass(VIEWS[name], QuestionView) else {}
    view, skipped = build(name, **more), Counter()
    made = apply(sample, view, seed, skipped)
    assert made or skipped
    assert all(count > 0 for count in skipped.values())
    check_boxes(made, sample)
    check_form(made, sample, name, rounds)
    assert apply(sample, view, seed) == made


PROPERTY = {"sample": samples(), "seed": st.integers(0, 10**9), "rounds": st.integers(1, 3)}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(**PROPERTY)
def test_boxes_in_are_boxes_out(name, sample, seed, rounds):
    check_view(name, sample, seed, rounds)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200)
@given(**PROPERTY)
def test_boxes_in_are_boxes_out_at_length(name, sample, seed, rounds):
    check_view(name, sample, seed, rounds)


@pytest.mark.parametrize("name", NAMES)
def test_views_travel_to_workers(name):
    view = build(name)
    assert pickle.loads(pickle.dumps(view)) == view


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"conversation", "detect"}))
def test_other_seeds_ask_otherwise(name):
    meta = {"relations": [[0, "riding", 1]], "neg_categories": ["yak", "hat"]}
    rows = [[0, 0, 60, 60], [100, 0, 160, 60], [200, 100, 300, 200]]
    regions = Boxes(rows, IMAGE.frame(), labels=["man", "horse", "tree"])
    caption = GroundedText.of(Phrase("a man", Boxes(rows[:1], IMAGE.frame())))
    sample = Sample("1", (IMAGE,), (Turn("assistant", caption),), regions, meta=meta)
    seeds = range(8)
    asked = [apply(sample, build(name), seed)[0].turns for seed in seeds]
    assert any(turns != asked[0] for turns in asked)
    other = replace(sample, id="2")
    assert asked != [apply(other, build(name), seed)[0].turns for seed in seeds]


def test_another_process_makes_the_same(tmp_path):
    rows = [[0, 0, 60, 60], [100, 0, 160, 60], [200, 100, 300, 200]]
    meta = {"relations": [[0, "riding", 1]], "neg_categories": ["yak", "hat"]}
    regions = Boxes(rows, IMAGE.frame(), labels=["man", "horse", "tree"])
    sample = Sample("\u00e9:1", (IMAGE,), (), regions, meta=meta)
    write_jsonl([sample], tmp_path / "in.jsonl")
    code = (
        "import json, sys\n"
        "from parfocal.data.jsonl import read_jsonl\n"
        "from parfocal.data.views import VIEWS, apply\n"
        "(sample,) = read_jsonl(sys.argv[1])\n"
        "views = [VIEWS[name]() for name in reversed(sorted(VIEWS))]\n"
        "made = [item.to_json() for view in views for item in apply(sample, view, 5)]\n"
        "print(json.dumps(made))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in.jsonl")],
        capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout  # fmt: skip
    (again,) = read_jsonl(tmp_path / "in.jsonl")
    here = [item.to_json() for name in reversed(NAMES) for item in apply(again, VIEWS[name](), 5)]
    assert json.loads(out) == here
    assert len(here) > 20


@pytest.mark.parametrize("dialect", ["coordinates", "region_tokens"])
@pytest.mark.parametrize("name", NAMES)
def test_dialects_can_write_whatever_is_made(name, dialect):
    rows = [[0, 0, 60, 60], [100, 0, 160, 60], [200, 100, 300, 200]]
    meta = {"relations": [[0, "riding", 1]], "neg_categories": ["yak"]}
    regions = Boxes(rows, IMAGE.frame(), labels=["man", "horse", "tree"])
    caption = GroundedText.of(Phrase("Two men", Boxes(rows[:2], IMAGE.frame())), " wait.")
    sample = Sample("1", (IMAGE,), (Turn("assistant", caption),), regions, meta=meta)
    speech, frame = get_dialect(dialect), IMAGE.frame()
    for seed in range(6):  # several wordings
        for item in apply(sample, build(name), seed):
            asking = View(frame, speech.coordinate_frame(frame), item.regions)
            for question, answer in zip(item.turns[::2], item.turns[1::2], strict=True):
                written = speech.render(question.text, asking)
                assert "{" not in written
                known = View(frame, speech.coordinate_frame(frame), Boxes(rows, frame))
                said = speech.render(answer.text, known)
                assert said
                read = speech.parse(said, known).text.boxes(frame)
                truth = answer.text.boxes(frame)
                assert read.xyxy == pytest.approx(truth.xyxy, abs=0.5)


def test_references_count_on_after_further_pictures():
    images = (IMAGE, ImageRef("b.jpg", 50, 50))
    regions = Boxes([[0, 0, 100, 100]], IMAGE.frame(), labels=["man"])
    sample = Sample("1", images, (), regions)
    (item,) = apply(sample, build("text_image", asks=["name"]), 0)
    assert [span.image for span in item.turns[0].text.spans if isinstance(span, ObjectRef)] == [2]
    assert item.images[2].parent == 0


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("rec", {}),
        (" rec( limit = 1 ) ", {"limit": 1}),
        ("rec(limit=1, rounds=3, mark=[grounding])", {"limit": 1, "rounds": 3,
                                                      "mark": "[grounding]"}),
        ("region_caption(wording=groma_detail)", {"wording": "groma_detail"}),
        ("text_image(asks=[\"which\", \"name\"], options=3)",
         {"asks": ["which", "name"], "options": 3}),
        ("rec()", {}),
    ],
)  # fmt: skip
def test_a_name_may_have_options(words, options):
    name = words.strip().partition("(")[0]
    assert build_view(words) == get_view(name)(**options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("recs(limit=1)", "no view 'recs'"),
        ("rec(limit", "not of the form NAME"),
        ("rec limit=1", "not of the form NAME"),
        ("rec(limit)", "'limit' is no OPTION=VALUE; 'rec' has the options .*rounds, limit, mark"),
        ("rec(limits=1)", "'limits=1' is no OPTION=VALUE"),
        ("detect(limit=1)", "'detect' has the options none"),
        ("rec(limit=many)", "limit is 'many', must be a whole number"),
        ("rec(wording=5)", "a value is of the wrong type"),
        ("text_image(rules=1)", "'rules=1' is no OPTION=VALUE"),
    ],
)
def test_wrong_names_and_options_are_told(words, message):
    with pytest.raises(ConfigError, match=message):
        build_view(words)


def test_a_mark_leads_every_question():
    regions = Boxes([[0, 0, 60, 60], [100, 0, 160, 60]], IMAGE.frame(), labels=["man", "horse"])
    sample = Sample("1", (IMAGE,), (), regions)
    plain, marked = (
        apply(sample, build("rec", rounds=2, mark=mark), 0)[0].turns for mark in ("", "[x]")
    )
    assert [turn.text.plain for turn in marked[::2]] == [
        f"[x]{turn.text.plain}" for turn in plain[::2]
    ]
    assert marked[1::2] == plain[1::2]
