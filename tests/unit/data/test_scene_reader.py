"""The reader of seeded scenes: scenes as Samples, painted when asked for."""

from __future__ import annotations

import numpy as np
import pytest

from parfocal.data.readers import scenes
from parfocal.data.readers.scenes import LICENCE, SceneReader, scene_sample
from parfocal.data.scenes.compose import Placed, Scene, SceneStyle, make_scene
from parfocal.data.scenes.heldout import annotate
from parfocal.data.scenes.turns import hidden_names, with_turns
from parfocal.dialects import get_dialect
from parfocal.errors import DataError


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


def test_scenes_of_few_kinds_ask_about_these_alone(toy_bank):
    reader = SceneReader("train", 120, (64,), toy_bank, kinds=7, num_objects=(3, 6))
    known = {kind.name for kind in reader.bank.kinds}
    assert len(known) == 7
    assert [*reader.bank.kinds] == sorted(reader.bank.kinds, key=toy_bank.kinds.index)
    dialect, absent = get_dialect("region_tokens"), set()
    for index, sample in enumerate(reader):
        assert set(sample.regions.labels or ()) <= known
        assert len(sample.regions) <= 6
        rng = np.random.default_rng(index)
        asked = with_turns(sample, dialect, rng, kinds=reader.bank.kinds)
        absent |= {turn.text.plain for turn in asked.turns if turn.text.is_nothing}
        row = annotate(reader.scene(index), reader.bank)
        missing = {item["text"].removeprefix("the ") for item in row["absent"]}
        missing |= {item["name"] for item in row["counts"]}
        assert missing <= known
    assert absent


@pytest.mark.parametrize("kinds", [2, 3])
def test_where_all_kinds_are_shown_others_are_missing(toy_bank, kinds):
    reader = SceneReader("train", 40, (64,), toy_bank, kinds=kinds, num_objects=(kinds, kinds))
    everything = 0
    for index, sample in enumerate(reader):
        shown = set(sample.regions.labels or ()) | hidden_names(sample)
        everything += len(shown) == kinds
        rng = np.random.default_rng(index)
        asked = with_turns(sample, get_dialect("region_tokens"), rng, kinds=reader.bank.kinds)
        assert len(asked.turns) % 2 == 0
        (missing,) = annotate(reader.scene(index), reader.bank)["absent"]
        assert missing["text"].removeprefix("the ") not in set(sample.regions.labels or ())
    assert everything


def test_more_objects_than_kinds_are_refused(toy_bank):
    with pytest.raises(DataError, match="up to 6 objects, of only 5 kinds"):
        SceneReader("train", 1, (64,), toy_bank, kinds=5, num_objects=(2, 6))


def test_kinds_are_spread_over_all_that_there_are(toy_bank):
    assert toy_bank.of(len(toy_bank.kinds) + 5).kinds == toy_bank.kinds
    few = toy_bank.of(4)
    quarter = len(toy_bank.kinds) / 4
    assert [toy_bank.kinds.index(kind) for kind in few.kinds] == [
        int(n * quarter) for n in range(4)
    ]
    assert few.mips[1] is toy_bank.mips[toy_bank.kinds.index(few.kinds[1])]
