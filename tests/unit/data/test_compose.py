"""Scenes: functions of split, index and style; boxes are remeasured from the painted patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from parfocal.data.scenes import compose
from parfocal.data.scenes.catalogue import FAMILIES, KINDS
from parfocal.data.scenes.compose import SPLITS, Scene, SceneStyle, make_scene
from parfocal.data.scenes.sprites import MIP_SIDES, SpriteBank

SMALL = SceneStyle(side=96)


@dataclass
class Painting:
    """A patch as `make_scene` placed it."""

    left: int
    top: int
    opaque: np.ndarray  # bool[h, w]

    @property
    def box(self) -> tuple[int, int, int, int]:
        height, width = self.opaque.shape
        return self.left, self.top, self.left + width, self.top + height


@pytest.fixture
def white(monkeypatch):
    """White pictures instead of backgrounds: quick, and objects stand out."""
    monkeypatch.setattr(
        compose, "_background", lambda split, rng, w, h: np.full((h, w, 3), 255, np.uint8)
    )


@pytest.fixture
def watched(monkeypatch):
    """Paint a scene and also return every patch that went into it, in painting order."""
    paintings: list[Painting] = []
    original = compose._paint

    def spy(canvas, owner, patch, box, number, rng):
        paintings.append(Painting(*box[:2], patch[..., 3] > 127))
        return original(canvas, owner, patch, box, number, rng)

    monkeypatch.setattr(compose, "_paint", spy)

    def make(bank: SpriteBank, index: int, style: SceneStyle) -> tuple[Scene, list[Painting]]:
        paintings.clear()
        return make_scene(bank, "train", index, style), list(paintings)

    return make


def remeasure(scene: Scene, paintings: list[Painting]) -> list[tuple[tuple[int, ...], float]]:
    """The visible bounds and visible fraction of each patch, from masks alone."""
    height, width = scene.pixels.shape[:2]
    covered = np.zeros((height, width), bool)
    measured = []
    for painting in reversed(paintings):  # front first
        mask = np.zeros((height, width), bool)
        x1, y1, x2, y2 = painting.box
        mask[y1:y2, x1:x2] = painting.opaque
        seen = mask & ~covered
        covered |= mask
        columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if seen.any() else (0,) * 4
        measured.append((tuple(int(side) for side in box), seen.sum() / mask.sum()))
    return measured[::-1]


@pytest.mark.parametrize("split", SPLITS)
def test_same_arguments_same_scene(toy_bank, split):
    for index in range(3):
        one, other = (make_scene(toy_bank, split, index, SMALL) for _ in range(2))
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.objects, one.hidden) == (other.objects, other.hidden)
        assert (one.split, one.index) == (split, index)


def test_it_does_not_depend_on_scenes_painted_before(toy_bank):
    alone = make_scene(toy_bank, "train", 5, SMALL).pixels.copy()
    compose._stored_background.cache_clear()
    for index in (9, 4):
        make_scene(toy_bank, "heldout", index, SMALL)
        make_scene(toy_bank, "train", index, SMALL)
    assert np.array_equal(alone, make_scene(toy_bank, "train", 5, SMALL).pixels)


def test_splits_indices_and_styles_differ(toy_bank):
    layouts = {
        make_scene(toy_bank, split, index, SMALL).objects for split in SPLITS for index in range(4)
    }
    assert len(layouts) == 12
    sparse = SceneStyle(side=96, num_objects=(2, 3))
    scene, other = make_scene(toy_bank, "train", 0, SMALL), make_scene(toy_bank, "train", 0, sparse)
    assert scene.objects != other.objects


def test_picture_size_follows_the_style(toy_bank, white):
    shapes = {make_scene(toy_bank, "train", index, SMALL).pixels.shape for index in range(40)}
    assert {max(shape) for shape in shapes} == {96}
    assert {(96, 96, 3), (72, 96, 3), (96, 64, 3)} <= shapes


def black_bank() -> SpriteBank:
    """Discs of pure black: no light changes them, so on white their pixels can be read off."""
    yy, xx = np.mgrid[0:160, 0:160]
    disc = np.zeros((160, 160, 4), np.uint8)
    disc[..., 3] = 255 * ((xx - 80) ** 2 + (yy - 80) ** 2 < 78**2)
    full = Image.fromarray(disc, "RGBA").convert("RGBa")
    stack = tuple(full.resize((side, side)) for side in MIP_SIDES)
    return SpriteBank(KINDS[:12], (stack,) * 12)


def test_one_objects_box_is_tight_around_its_pixels(white):
    bank, style = black_bank(), SceneStyle(side=96, num_objects=(1, 1))
    for index in range(25):
        scene = make_scene(bank, "train", index, style)
        dark = scene.pixels[..., 0] < 128  # more than half covered
        columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        (placed,) = scene.objects
        assert placed.xyxy == box
        assert placed.visible == 1.0


def test_boxes_and_visible_fractions_are_remeasured(toy_bank, watched, white):
    for index in range(25):
        scene, paintings = watched(toy_bank, index, SMALL)
        kept = [
            (box, share) for box, share in remeasure(scene, paintings) if share >= SMALL.visible
        ]
        assert [item.xyxy for item in scene.objects] == [box for box, _ in kept]
        assert [item.visible for item in scene.objects] == pytest.approx([s for _, s in kept])
        assert len(scene.objects) + len(scene.hidden) == len(paintings)


def test_boxes_lie_inside_the_picture(toy_bank, white):
    for index in range(25):
        scene = make_scene(toy_bank, "train", index, SMALL)
        height, width = scene.pixels.shape[:2]
        for item in scene.objects:
            x1, y1, x2, y2 = item.xyxy
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


@pytest.mark.parametrize("limit", [0.0, 0.22, 0.6])
def test_no_two_placed_boxes_overlap_more_than_the_style_allows(toy_bank, watched, limit, white):
    most = 0.0
    for index in range(15):
        _, paintings = watched(toy_bank, index, SceneStyle(side=96, overlap=limit))
        for number, one in enumerate(paintings):
            for other in paintings[:number]:
                a, b = one.box, other.box
                across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
                down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
                share = across * down / min(one.opaque.size, other.opaque.size)
                assert share <= limit + 1e-9
                most = max(most, share)
    assert most >= limit / 2  # the bound is what keeps them apart


def test_mostly_covered_objects_are_hidden_not_annotated(toy_bank, watched, white):
    crowded = SceneStyle(side=96, overlap=1.0, visible=0.6, length=(0.4, 0.8))
    hidden = 0
    for index in range(15):
        scene, paintings = watched(toy_bank, index, crowded)
        shares = [share for _, share in remeasure(scene, paintings)]
        assert len(scene.hidden) == sum(share < 0.6 for share in shares)
        assert all(item.visible >= 0.6 for item in scene.objects)
        hidden += len(scene.hidden)
    assert hidden > 10


def test_two_to_ten_objects_and_twins_as_often_as_the_style_says(toy_bank, watched, white):
    counts, repeated = [], 0
    for index in range(120):
        scene, paintings = watched(toy_bank, index, SceneStyle(side=64, length=(0.1, 0.2)))
        counts.append(len(paintings))
        kinds = [item.kind for item in scene.objects]
        repeated += len(set(kinds)) < len(kinds)
    assert set(counts) == set(range(2, 11))  # small objects always find a place
    assert 0.4 <= repeated / 120 <= 0.75


def without(bank: SpriteBank, families: bool) -> SpriteBank:
    """The bank without kinds that share a noun, or with only one kind of every noun."""
    dropped = {name for family in FAMILIES.values() for name in family[0 if families else 1 :]}
    rows = [
        (kind, stack)
        for kind, stack in zip(bank.kinds, bank.mips, strict=True)
        if kind.name not in dropped
    ]
    return SpriteBank(tuple(kind for kind, _ in rows), tuple(stack for _, stack in rows))


def test_no_twins_when_the_style_wants_none(toy_bank, white):
    bank, style = without(toy_bank, families=True), SceneStyle(side=64, twins=0.0)
    for index in range(40):
        kinds = [item.kind for item in make_scene(bank, "train", index, style).objects]
        assert len(set(kinds)) == len(kinds)


def test_a_bank_with_half_a_family_still_makes_scenes(toy_bank, watched, white):
    style = SceneStyle(side=64, num_objects=(3, 3), length=(0.1, 0.2), twins=0.0)
    bank = without(toy_bank, families=False)
    assert {len(watched(bank, index, style)[1]) for index in range(40)} == {3}


def test_colours_of_one_noun_meet_more_often_than_by_chance(toy_bank, white):
    position = {kind.name: index for index, kind in enumerate(toy_bank.kinds)}
    families = [{position[name] for name in family} for family in FAMILIES.values()]
    style = SceneStyle(side=64, num_objects=(3, 3), twins=0.0)
    together = 0
    for index in range(80):
        kinds = {item.kind for item in make_scene(toy_bank, "train", index, style).objects}
        together += any(len(kinds & family) >= 2 for family in families)
    assert 4 <= together <= 24  # one scene in seven; by chance one in a hundred


def test_an_object_larger_than_the_picture_is_left_out(toy_bank):
    style = SceneStyle(side=64, length=(1.6, 1.8))
    scene = make_scene(toy_bank, "train", 0, style)
    assert (scene.objects, scene.hidden) == ((), ())


def test_light_and_place_vary_for_one_kind(toy_bank, white):
    bank = SpriteBank(toy_bank.kinds[:1], toy_bank.mips[:1])
    style = SceneStyle(side=64, num_objects=(1, 1))
    boxes = {make_scene(bank, "train", index, style).objects[0].xyxy for index in range(12)}
    assert len(boxes) == 12
