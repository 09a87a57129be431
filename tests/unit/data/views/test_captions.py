"""Captions of regions and of pictures, and detection without words."""

from __future__ import annotations

import pytest

from parfocal.boxes import Boxes, Frame, iou
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.views import get_view
from parfocal.data.views.region_caption import RegionCaption
from parfocal.data.views.wording import read_wordings
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef
from parfocal.errors import ConfigError

FRAME = Frame("image", 400, 300)
DOG = Phrase("A dog", Boxes([[1, 2, 30, 40]], FRAME))


def test_a_region_is_shown_and_described(annotate, make, asked):
    regions = [("A Red Car near the Tree ", [1, 2, 101, 52]), ("it", [0, 0, 9, 9])]
    made, skipped = make(annotate(regions), RegionCaption())
    ((question, answer),) = asked(made[0])
    assert "[region 0]" in question
    assert answer == "A red car near the tree"  # Groma: lower case, the first letter a capital
    assert made[0].regions == Boxes([[1, 2, 101, 52]], FRAME)
    assert skipped == {"regions whose label does not tell what they are": 1}


def test_detailed_wording(annotate, make):
    view = RegionCaption(wording="groma_detail")
    ((made,), _) = make(annotate([("a hat", [0, 0, 50, 50])]), view)
    wordings = read_wordings("groma_detail", {"question": ("region",)})["question"]
    assert made.turns[0].text in [wording.fill(region=RegionRef(0)) for wording in wordings]


def test_rounds_follow_gromas_suppression(annotate, make, asked):
    # b overlaps a by 0.9 and is suppressed or suppresses it; c overlaps nothing
    regions = [("a", [0, 0, 100, 100]), ("b", [0, 0, 100, 90]), ("c", [200, 0, 300, 100])]
    regions = [(f"thing {name}", box) for name, box in regions]
    seen = set()
    for seed in range(40):
        made, skipped = make(annotate(regions), RegionCaption(rounds=10, limit=1), seed)
        (sample,) = made
        overlaps = iou(sample.regions, sample.regions)
        assert (overlaps.sum(axis=1) - 1 <= 0.6).all()
        assert skipped == {"regions that overlap another one": 1}
        texts = [answer for _, answer in asked(sample)]
        for text, box in zip(texts, sample.regions.to_json(), strict=True):
            assert (text.lower(), box) in regions
        seen.add(tuple(texts))
    letters = {"".join(text[-1] for text in texts) for texts in seen}
    assert letters == {"ac", "ca", "bc", "cb"}


def test_at_most_so_many_rounds(annotate, make):
    sample = annotate([(f"thing {n}", [10 * n, 0, 10 * n + 9, 9]) for n in range(23)])
    (first,), _ = make(sample, RegionCaption(rounds=10, limit=1))
    assert len(first.turns) == 20
    made, _ = make(sample, RegionCaption(rounds=10))
    assert [len(item.regions) for item in made] == [10, 10, 3]
    with pytest.raises(ConfigError, match="max_iou"):
        RegionCaption(max_iou=2)


def test_a_caption_gets_its_question(annotate, make):
    caption = GroundedText.of(DOG, " runs.")
    sample = annotate([("dog", [1, 2, 30, 40])], caption, chains=["1"], object_ids=[5])
    (made,), _ = make(sample, get_view("grounded_caption")())
    assert made.turns[1].text == caption
    questions = read_wordings("groma_grounded_caption", {"question": ()})["question"]
    assert made.turns[0].text.plain in {question.text for question in questions}
    assert len(made.regions) == 0
    assert made.meta["chains"] == ["1"]  # of phrases, which are all there
    assert "object_ids" not in made.meta  # of regions, which are not


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ((), "samples without a caption"),
        ((Turn("assistant", GroundedText.of("A dog.")),), "captions without boxes"),
        (
            (Turn("user", GroundedText.of("What?")), Turn("assistant", GroundedText.of(DOG))),
            "captions that have a question",
        ),
        (
            (Turn("assistant", GroundedText.of(DOG, " like ", RegionRef(0))),),
            "captions that speak of a region or object image",
        ),
    ],
)
def test_captions_that_cannot_be_asked_for(make, turns, reason):
    image = ImageRef("a.jpg", 400, 300)
    sample = Sample("1", (image,), turns, Boxes([[0, 0, 9, 9]], FRAME))
    assert make(sample, get_view("grounded_caption")()) == ([], {reason: 1})


def test_detection_keeps_boxes_and_nothing_else(annotate, make):
    regions = [("dog", [1, 2, 30, 40]), ("cat", [5, 5, 50, 50])]
    sample = annotate(regions, GroundedText.of(DOG), relations=[[0, "near", 1]], chains=["1"])
    (made,), skipped = make(sample, get_view("detect")())
    assert made.regions == sample.regions.replace(labels=["object", "object"])
    assert made.turns == ()
    assert made.meta["relations"] == [[0, "near", 1]]
    assert "chains" not in made.meta
    assert not skipped
    assert make(annotate(), get_view("detect")())[1] == {"samples without regions": 1}
