from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.data.drawing import slot_colour
from parfocal.data.page import SHOWN_SIDE, PageItem, Panel, render_fragment, render_page
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef
from parfocal.errors import FrameError

FRAME = Frame("image", 80, 60)
EVIL = "<script>alert('1')</script> & \"quoted\" $title"
VOID = {"meta", "link", "img", "input", "br", "circle"}


class Tree(HTMLParser):
    """Fails on tags that do not nest; keeps every element's (name, attributes)."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.elements, self.words = [], [], []
        self.feed(html)
        self.close()
        assert self.stack == [], "elements left open"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute stands twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)

    def of_class(self, *names):
        return [a for _, a in self.elements if {*names} <= {*a.get("class", "").split()}]


def boxes(*rows, **more):
    return Boxes(list(rows), FRAME, **more)


def make_item(**more):
    text = GroundedText.of(
        "I see ",
        Phrase("a dog", boxes([5, 5, 20, 20], scores=[0.913])),
        " and ",
        Phrase("two cats", boxes([30, 5, 50, 30], [30, 35, 50, 55], scores=[0.8, 0.7])),
        " and ",
        Phrase("A dog", boxes([60, 5, 75, 20])),
        " in ",
        RegionRef(0),
        ", ",
        Nothing("bird"),
        ".",
    )
    question = GroundedText.of("Is there ", Phrase("an owl"), "?")
    return PageItem(
        Image.new("RGB", (80, 60), "#336699"),
        [("user", question), ("assistant", text)],
        regions=boxes([1, 1, 79, 59]),
        **more,
    )


@pytest.fixture(params=["page", "fragment"])
def render(request):
    if request.param == "page":
        return lambda item: render_page([item, item], item.title or "A page")
    return lambda item: render_fragment(item) + render_fragment(item)


def test_is_well_formed_and_says_everything(render):
    tree = Tree(render(make_item(title="scene-7", caption="mini, 0.2 s", notes=["Look here."])))
    for words in ("I see ", "two cats", "no bird", "region 0", "an owl", "scene-7", "mini, 0.2 s"):
        assert words in tree.text
    assert "0.91" in tree.text
    assert "Look here." in tree.text


def test_fetches_nothing(render):
    html = render(make_item())
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", html))
    for tag, attributes in Tree(html).elements:
        assert tag not in {"script", "iframe", "object"}
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")


def test_everything_is_escaped(render):
    one = boxes([5, 5, 20, 20], labels=[EVIL])
    text = GroundedText.of(EVIL, Phrase(EVIL, one), Nothing(EVIL), Phrase(EVIL + "2"))
    item = PageItem(
        Image.new("RGB", (80, 60)),
        [(EVIL, text)],
        regions=one,
        title=EVIL,
        caption=EVIL,
        notes=[EVIL],
        problems=[Problem(EVIL, EVIL)],
        panels=[Panel(Image.new("RGB", (80, 60)), EVIL)],
    )
    html = render(item)
    assert "<script" not in html
    tree = Tree(html)
    assert tree.text.count(EVIL) >= 2 * 9
    assert any(EVIL in a.get("aria-label", "") for a in tree.of_class("pf-box"))


def test_ids_are_unique():
    tree = Tree(render_page([make_item()] * 3, "A page"))
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert ids == ["item-1", "item-2", "item-3"]
    assert not any(
        "id" in attributes for _, attributes in Tree(render_fragment(make_item())).elements
    )


def test_same_item_same_html():
    assert render_fragment(make_item()) == render_fragment(make_item())


def test_a_phrase_and_its_boxes_share_key_colour_and_number():
    tree = Tree(render_fragment(make_item()))
    chips = tree.of_class("pf-phrase")
    assert [chip["data-key"] for chip in chips] == ["k0", "k1", "k0", "r0"]
    assert len(tree.of_class("pf-box", "k0")) == 2
    assert len(tree.of_class("pf-box", "k1")) == 2
    assert len(tree.of_class("pf-box", "r0", "pf-region")) == 1
    for part in tree.of_class("k1"):
        assert slot_colour(1) in part["style"]


def test_each_key_has_a_rule_that_lights_it():
    html = render_page([make_item()], "A page")
    for key in ("k0", "k1", "r0"):
        assert f".pf-item:not([data-pin]):has(.{key}:hover,.{key}:focus-visible) .{key}" in html
        assert f'.pf-item[data-pin="{key}"] .{key}' in html
    assert ".k2" not in html


def test_phrases_can_be_reached_and_read_without_a_mouse():
    tree = Tree(render_fragment(make_item()))
    for chip in tree.of_class("pf-phrase"):
        assert chip["tabindex"] == "0"
        assert chip["role"] == "button"
        assert chip["aria-pressed"] == "false"
    labels = [chip["aria-label"] for chip in tree.of_class("pf-phrase")]
    assert labels == [
        "a dog, score 0.91",
        "two cats, 2 boxes, score 0.80, 0.70",
        "A dog",
        "region 0",
    ]


def test_boxes_are_placed_in_percent_and_cut_at_the_edge():
    text = GroundedText.of(Phrase("a", boxes([-8, 15, 40, 120])))
    tree = Tree(render_fragment(PageItem(Image.new("RGB", (80, 60)), [("assistant", text)])))
    style = tree.of_class("pf-box")[0]["style"]
    assert style.startswith("left:0.000%;top:25.000%;width:50.000%;height:75.000%")


def test_small_boxes_lie_above_large_ones():
    text = GroundedText.of(
        Phrase("small", boxes([5, 5, 9, 9])), Phrase("large", boxes([0, 0, 80, 60]))
    )
    tree = Tree(render_fragment(PageItem(Image.new("RGB", (80, 60)), [("assistant", text)])))
    assert [box["data-key"] for box in tree.of_class("pf-box")] == ["k1", "k0"]


def test_problems_are_shown_and_can_be_filtered_for():
    good, bad = make_item(), make_item(problems=[Problem("no_box", "said <nothing>")])
    tree = Tree(render_page([good, bad, bad], "A page"))
    assert tree.text.count("no boxsaid <nothing>") == 2
    assert len(tree.of_class("pf-flagged")) == 2
    assert "Flagged 2" in tree.text
    for same in ([good, good], [bad, bad]):
        assert "Flagged" not in Tree(render_page(same, "A page")).text


def test_proposals_are_hidden_until_asked_for():
    tree = Tree(render_fragment(make_item(proposals=boxes([1, 2, 30, 40], [5, 6, 70, 50]))))
    assert len(tree.of_class("pf-proposal")) == 2
    assert "show 2 proposals" in tree.text
    assert "proposals" not in Tree(render_fragment(make_item())).text


def test_panels_draw_the_boxes_of_their_frame():
    second = Frame("image1", 30, 30)
    text = GroundedText.of(
        Phrase("a dog", boxes([5, 5, 20, 20])), Phrase("a dog", Boxes([[1, 1, 9, 9]], second))
    )
    panels = [
        Panel(Image.new("RGB", (80, 60)), "first", "image"),
        Panel(Image.new("RGB", (30, 30)), "second", "image1"),
    ]
    html = render_fragment(PageItem(None, [("assistant", text)], panels=panels))
    first, second_half = html.split("<figcaption>second")
    assert len(re.findall('class="pf-box', first)) == 1
    assert len(re.findall('class="pf-box', second_half)) == 1


def test_boxes_of_another_picture_are_refused():
    wrong = Boxes([[0, 0, 1, 1]], Frame("unit", 1, 1))
    image = Image.new("RGB", (80, 60))
    for item in (
        PageItem(image, [("assistant", GroundedText.of(Phrase("a", wrong)))]),
        PageItem(image, regions=wrong),
        PageItem(image, proposals=wrong),
    ):
        with pytest.raises(FrameError, match="'unit'"):
            render_fragment(item)


def test_an_item_needs_no_picture():
    tree = Tree(render_page([PageItem(None, [("user", GroundedText.of("Hello?"))])], "A page"))
    assert "Hello?" in tree.text
    assert "1 item" in tree.text
    assert not [tag for tag, _ in tree.elements if tag == "img"]


def embedded(html):
    uri = next(a["src"] for tag, a in Tree(html).elements if tag == "img")
    kind, _, data = uri.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_small_pictures_are_embedded_exactly_and_large_ones_smaller():
    pixels = np.arange(80 * 60 * 3, dtype=np.uint64).reshape(60, 80, 3).astype(np.uint8)
    kind, shown = embedded(render_fragment(PageItem(Image.fromarray(pixels))))
    assert kind == "data:image/png"
    assert (np.asarray(shown) == pixels).all()
    large = Image.new("RGB", (3000, 1500))
    kind, shown = embedded(render_fragment(PageItem(large)))
    assert kind == "data:image/jpeg"
    assert shown.size == (SHOWN_SIDE, SHOWN_SIDE // 2)
    assert large.size == (3000, 1500)


LABELS = [
    "a dog",
    EVIL,
    "the man who " + "walks and " * 60 + "stops",
    "\u05d4\u05db\u05dc\u05d1 \u05d4\u05e9\u05d7\u05d5\u05e8",
    "",
]


def labelled_item(labels=LABELS, image=None, **more):
    rows = [[1 + 12 * k, 10, 9 + 12 * k, 40 + k] for k in range(len(labels))]
    return PageItem(image, regions=boxes(*rows, labels=labels), **more)


class Spoken(HTMLParser):
    """The words inside every element that carries a key, by (class, key)."""

    def __init__(self, html):
        super().__init__()
        self.found, self.open = {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        key = (attrs.get("class", "").partition(" ")[0], attrs.get("data-key"))
        if tag not in VOID:
            self.open.append(key)
        if key[1]:
            self.found.setdefault(key, []).append("")

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        for key in self.open:
            if key[1]:
                self.found[key][-1] += data


def test_every_label_is_listed_and_on_its_box(render):
    image = Image.new("RGB", (80, 60))
    html = render(labelled_item(image=image))
    assert "<script" not in html
    tree, spoken = Tree(html), Spoken(html).found
    for k, label in enumerate(LABELS):
        words = label or f"region {k}"
        assert spoken["pf-phrase", f"r{k}"] == [f"R{k}\u2060{words}"] * 2, "in the list"
        assert all(tag.endswith(words) for tag in spoken["pf-tag", f"r{k}"]), "on the box"
        assert len(spoken["pf-tag", f"r{k}"]) == 2
        for part in tree.of_class("pf-box", f"r{k}") + tree.of_class("pf-tag", f"r{k}"):
            assert label in part["title"], "in full where it is cut"
        (style,) = {part["style"].partition("--c:")[2] for part in tree.of_class(f"r{k}")}
        assert style, "a box and its words have one colour"
    assert tree.text.count("5 regions") == 2


def test_labels_are_listed_without_a_picture_too():
    assert Spoken(render_fragment(labelled_item())).found["pf-phrase", "r0"] == ["R0\u2060a dog"]


def test_regions_without_labels_make_no_list():
    html = render_fragment(PageItem(None, regions=boxes([1, 1, 9, 9], [2, 2, 9, 9])))
    assert "pf-regions" not in html.partition("</style>")[2]
    html = render_fragment(labelled_item(["", " "]))
    assert "pf-regions" not in html.partition("</style>")[2]


def test_a_region_has_the_colour_of_the_phrase_of_its_words():
    text = GroundedText.of("I see ", Phrase("an owl", boxes([1, 1, 5, 5])), Phrase("A  dog"))
    item = labelled_item(["A dog", "an OWL", "a dog", ""], turns=[("assistant", text)])
    tree = Tree(render_fragment(item))
    colours = [tree.of_class("pf-phrase", f"r{k}")[0]["style"][4:11] for k in range(4)]
    assert colours[0] == colours[2] == slot_colour(1)
    assert colours[1] == slot_colour(0) == tree.of_class("pf-phrase", "k0")[0]["style"][4:11]
    assert colours[3] not in colours[:3]


def test_scores_of_regions_are_listed():
    regions = boxes([1, 1, 9, 9], scores=[0.25], labels=["a dog"])
    found = Spoken(render_fragment(PageItem(None, regions=regions))).found
    assert found["pf-phrase", "r0"] == ["R0\u2060a dog0.25"]


def tags(*rows, size_wh=(400, 300), **more):
    frame = Frame("image", *size_wh)
    regions = Boxes(list(rows), frame, **more)
    html = render_fragment(PageItem(Image.new("RGB", size_wh), regions=regions))
    return {tag["data-key"]: tag for tag in Tree(html).of_class("pf-tag")}


def test_words_are_shown_at_once_where_there_is_room():
    alone = tags([50, 100, 200, 250], labels=["a dog"])["r0"]
    assert "pf-wide" in alone["class"]
    assert alone["style"].startswith("left:12.500%;bottom:66.667%;--m:"), "above the box's corner"
    crowd = [[10 + 3 * k, 10, 390, 290 - 2 * k] for k in range(60)]
    found = tags(*crowd, labels=["the man in a red shirt"] * 60)
    assert len(found) == 60
    wide = ["pf-wide" in tag["class"] for tag in found.values()]
    assert any(wide) and not all(wide)
    assert all("the man in a red shirt" in tag["title"] for tag in found.values())


def test_words_that_name_nothing_wait_until_lit():
    assert "pf-wide" not in tags([50, 100, 200, 250])["r0"]["class"]


def test_tags_of_long_words_leave_the_picture_in_sight():
    (tag,) = tags([10, 100, 200, 250], labels=["very " * 100]).values()
    share = re.search(r"--m:([0-9.]+)%", tag["style"])
    assert float(share[1]) < 50
