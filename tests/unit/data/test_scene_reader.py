"""The reader of seeded scenes: scenes as Samples, painted when asked for."""

from __future__ import annotations

import numpy as np
import pytest

from parfocal.data.readers import scenes
from parfocal.data.readers.scenes import LICENCE, SceneReader, scene_sample
from parfocal.data.scenes.compose import Placed, Scene, SceneStyle, make_scene


@pytest.fixture(scope="module")
def reader(toy_bank) -> SceneReader:
    return SceneReader("train", 6, (64, 96), toy_bank)


def test_a_sample_is_the_scene(reader, toy_bank):
    for index in range(len(reader)):
        scene = make_scene(toy_bank, "train", index, SceneStyle(side=(64, 96)[index % 2]))
        sample = reader[index]
        assert sample.id == f"scenes:train:{index}"
        assert (sample.source, sample.split, sample.licence) == ("scenes", "train", LICENCE)
        assert np.array_equal(np.asarray(sample.open_image()), scene.pixels)
        assert (sample.images[0].height, sample.images[0].width) == scene.pixels.shape[:2]
        assert sample.regions.xyxy.tolist() == [list(item.xyxy) for item in scene.objects]
        names = [toy_bank.kinds[item.kind].name for item in scene.objects]
        assert list(sample.regions.labels) == names
        assert sample.regions.frame == sample.images[0].frame(0)
        assert sample.meta["visible"] == pytest.approx(
            [item.visible for item in scene.objects], abs=1e-3
        )
        assert sample.turns == ()


def test_sides_are_used_in_turn(reader):
    assert [max(sample.open_image().size) for sample in reader] == [64, 96] * 3


def test_same_index_same_sample(reader, toy_bank):
    again = SceneReader("train", 6, (64, 96), toy_bank)
    assert again[3] == reader[3]
    assert again[3].open_image().tobytes() == reader[3].open_image().tobytes()
    other = SceneReader("validation", 6, (64, 96), toy_bank)
    assert other[3].open_image().tobytes() != reader[3].open_image().tobytes()


@pytest.mark.parametrize("index", [6, -1, 100])
def test_no_scene_outside_the_count(reader, index):
    with pytest.raises(IndexError, match=f"{index} of 6"):
        reader[index]


def test_hidden_kinds_are_named_and_an_empty_scene_is_a_sample(toy_bank):
    pixels = np.zeros((20, 30, 3), np.uint8)
    sample = scene_sample(Scene("train", 1, pixels, (), (4,)), toy_bank)
    assert len(sample.regions) == 0
    assert sample.regions.frame == sample.images[0].frame(0)
    assert sample.meta["hidden"] == [toy_bank.kinds[4].name]
    placed = Placed(7, (1.0, 2.0, 11.0, 12.0), 0.5)
    sample = scene_sample(Scene("train", 1, pixels, (placed,), ()), toy_bank)
    assert sample.regions.labels == (toy_bank.kinds[7].name,)
    assert sample.meta["visible"] == [0.5]


def test_the_art_is_loaded_only_when_no_bank_is_given(toy_bank, monkeypatch):
    loaded = []
    monkeypatch.setattr(scenes, "load_sprites", lambda: loaded.append(1) or toy_bank)
    SceneReader("train", 1, bank=toy_bank)
    assert not loaded
    assert SceneReader("train", 1).bank is toy_bank
    assert loaded == [1]
