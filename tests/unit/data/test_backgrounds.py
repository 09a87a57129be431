"""Backgrounds: a function of their seed, of every family, never shared by two splits."""

from __future__ import annotations

import numpy as np
import pytest

from parfocal.data.scenes import backgrounds, compose
from parfocal.data.scenes.backgrounds import make_background


def test_same_seed_same_pixels():
    one, other = make_background((1, 2), 48), make_background((1, 2), 48)
    assert one.shape == (48, 48, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, other)


def test_it_ignores_the_global_generator():
    first = make_background((1, 3), 32)
    np.random.seed(99)
    assert np.array_equal(first, make_background((1, 3), 32))


def test_different_seeds_different_pixels():
    made = {make_background((1, number), 32).tobytes() for number in range(60)}
    assert len(made) == 60


@pytest.mark.parametrize("family", ["_gradient", "_blobs", "_noise", "_stripes", "_checks"])
def test_every_family_is_drawn_and_varies_across_the_picture(family, monkeypatch):
    drawn = []
    original = getattr(backgrounds, family)

    def spy(rng, side):
        canvas = original(rng, side)
        drawn.append(canvas.copy())
        return canvas

    monkeypatch.setattr(backgrounds, family, spy)
    for number in range(60):
        make_background((5, number), 32)
    assert len(drawn) >= 3
    for canvas in drawn:
        assert canvas.shape == (32, 32, 3)
        assert np.isfinite(canvas).all()
    assert max(np.ptp(canvas) for canvas in drawn) > 10


def test_splits_share_no_background(toy_bank, monkeypatch):
    seeds: dict[str, set[tuple[int, ...]]] = {}
    for split in compose.SPLITS:
        used: set[tuple[int, ...]] = set()

        def record(seed, side, used=used):
            used.add(seed)
            return np.zeros((side, side, 3), np.uint8)

        compose._stored_background.cache_clear()
        monkeypatch.setattr(compose, "make_background", record)
        style = compose.SceneStyle(side=48, num_objects=(2, 2))
        for index in range(20):
            compose.make_scene(toy_bank, split, index, style)
        seeds[split] = used
    compose._stored_background.cache_clear()  # forget the black ones
    assert all(len(used) > 8 for used in seeds.values())
    train, heldout, validation = (seeds[name] for name in ("train", "heldout", "validation"))
    assert not train & heldout
    assert not train & validation
    assert not heldout & validation
