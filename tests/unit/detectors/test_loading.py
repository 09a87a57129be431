"""Detectors and taggers by name, folder or hub id; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parfocal.detectors.fixed import COCO_80, FixedTagger
from parfocal.detectors.florence2 import Florence2Tagger
from parfocal.detectors.grounding_dino import GroundingDinoDetector
from parfocal.detectors.loading import (
    DETECTORS,
    TAGGERS,
    _resolve,
    load_detector,
    load_finder,
    load_tagger,
)
from parfocal.detectors.owlv2 import Owlv2Detector
from parfocal.detectors.pipeline import MG_LLAVA, RegionSettings
from parfocal.detectors.ram_plus import RamPlusTagger
from parfocal.detectors.ram_plus_files import save_ram_plus
from parfocal.errors import CheckpointError, ConfigError, DataError

LOADING = "parfocal.detectors.loading"


def test_the_tables_name_classes_that_exist() -> None:
    for home in (DETECTORS | TAGGERS).values():
        assert isinstance(_resolve(home), type)


def test_a_folder_gives_the_detector_of_its_model_type(
    owlv2: Owlv2Detector, photos: list, saved: Any
) -> None:
    loaded = load_detector(saved(owlv2), device="cpu", threshold=0.24)
    assert isinstance(loaded, Owlv2Detector)
    assert loaded.identity == {**owlv2.identity, "threshold": 0.24}
    [theirs], [ours] = owlv2.detect(photos[:1], ["cat"]), loaded.detect(photos[:1], ["cat"])
    assert len(theirs) > 0
    np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=1e-4)


def test_grounding_dino_from_a_folder(
    grounding_dino: GroundingDinoDetector, photos: list, saved: Any
) -> None:
    loaded = load_detector(str(saved(grounding_dino)), device="cpu", threshold=0.69)
    assert isinstance(loaded, GroundingDinoDetector)
    assert loaded.identity == grounding_dino.identity
    [theirs], [ours] = (part.detect(photos[:1], ["cat"]) for part in (grounding_dino, loaded))
    assert len(theirs) > 0
    np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=1e-3)


def test_florence2_from_a_folder(florence2: Florence2Tagger, saved: Any) -> None:
    loaded = load_tagger(saved(florence2), device="cpu", num_beams=1, max_new_tokens=12)
    assert isinstance(loaded, Florence2Tagger)
    assert loaded.identity == florence2.identity


def test_ram_plus_from_a_folder_and_from_a_file(ram_plus: RamPlusTagger, tmp_path: Path) -> None:
    save_ram_plus(ram_plus, tmp_path)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        loaded = load_tagger(source, device="cpu")
        assert isinstance(loaded, RamPlusTagger)
        assert loaded.identity == ram_plus.identity
    loaded = load_tagger(tmp_path, device="cpu", batch_size=2, silenced=(1,))
    assert (loaded.batch_size, loaded.silenced) == (2, (1,))
    with pytest.raises(CheckpointError, match="nothing is fetched"):
        load_tagger("ram_plus")


def test_fixed_lists_by_name_and_by_file(tmp_path: Path) -> None:
    coco = load_tagger("coco80")
    assert isinstance(coco, FixedTagger)
    assert coco.tags == COCO_80
    path = tmp_path / "names.txt"
    path.write_text("apple\nworm\n")
    assert load_tagger(path).tag([]) == []
    assert load_tagger(path).identity["tags"] == ["apple", "worm"]
    for name in ("coco80", path):
        with pytest.raises(ConfigError, match=r"a fixed list.*no settings; got threshold\."):
            load_tagger(name, threshold=0.5)


def test_an_unknown_tagger_is_told_all_names_and_files() -> None:
    words = r"the names are ram_plus, florence2, coco80\. Files are \.txt .*\.pth and \.safetensors"
    with pytest.raises(CheckpointError, match=words):
        load_tagger("nothing")
    with pytest.raises(CheckpointError, match=r"owlv2, grounding_dino\.$"):
        load_detector("nothing")
    with pytest.raises(DataError, match=r"~nosuchuser/names\.txt cannot be read"):
        load_tagger("~nosuchuser/names.txt")


def test_a_finder_is_a_tagger_and_a_detector(
    owlv2: Owlv2Detector, photos: list, saved: Any, tmp_path: Path
) -> None:
    folder, names, cache = saved(owlv2), tmp_path / "names.txt", tmp_path / "boxes"
    names.write_text("cat\ndog\n")
    everything = RegionSettings(threshold=0.0)
    finder = load_finder(names, folder, cache, device="cpu", settings=everything)
    assert finder.tagger.tag(photos[:1]) == [("cat", "dog")]
    assert finder.detector.identity["weights"] == owlv2.identity["weights"]
    found = finder.find(photos[:1])
    assert len(found[0]) > 0
    assert {"cat", "dog"} >= set(found[0].labels)
    assert len(list(cache.rglob("*.json"))) == 2  # the settings and the picture
    assert load_finder("coco80", folder, device="cpu").settings == MG_LLAVA
    assert load_finder("coco80", folder, device="cpu").cache is None


def test_a_finder_names_the_part_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no 'nothing'.*florence2"):
        load_finder("nothing", "also nothing", device="cpu")
    with pytest.raises(CheckpointError, match=r"there is no 'also nothing'.*owlv2"):
        load_finder("coco80", "also nothing", device="cpu")


def test_a_detector_is_no_tagger(owlv2: Owlv2Detector, saved: Any) -> None:
    with pytest.raises(CheckpointError, match="model_type 'owlv2', which is none of florence2"):
        load_tagger(saved(owlv2))


@pytest.mark.parametrize("name", ["nothing/at/all", "./missing", "owl v2", "~nosuchuser/x"])
def test_what_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="owlv2, grounding_dino"):
        load_detector(name)


def test_a_name_is_looked_for_in_the_cache_only(
    owlv2: Owlv2Detector, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a hub id, Transformers asks the hub for adapters, whatever is in the cache."""
    seen: list[str] = []

    def from_pretrained(source: str, **others: Any) -> Any:
        seen.append(source)
        return real(source, **others)

    folder, real = saved(owlv2), Owlv2Detector.NETWORK.from_pretrained
    monkeypatch.setattr(Owlv2Detector.NETWORK, "from_pretrained", from_pretrained)
    monkeypatch.setattr(f"{LOADING}.cached_folder", {Owlv2Detector.HUB_ID: folder}.get)
    assert load_detector("owlv2", device="cpu").identity["kind"] == "owlv2"
    assert seen == [str(folder)]


@pytest.mark.parametrize("lacks", ["all", "model.safetensors", "tokenizer.json"])
def test_a_name_that_is_not_whole_in_the_cache_says_how_to_download_it(
    lacks: str, owlv2: Owlv2Detector, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(owlv2)
    if lacks != "all":
        (folder / lacks).unlink()
    found = None if lacks == "all" else folder
    monkeypatch.setattr(f"{LOADING}.cached_folder", lambda hub_id: found)
    advice = r"To download it, pass the hub id itself: 'google/owlv2-large-patch14-ensemble'\.$"
    with pytest.raises(CheckpointError, match=advice):
        load_detector("owlv2", device="cpu")


def test_a_hub_id_is_fetched_as_every_checkpoint_is(
    owlv2: Owlv2Detector, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"'someone/some-model' is not in the local .* cache"):
        load_detector("someone/some-model", device="cpu")
    folder, asked = saved(owlv2), []
    monkeypatch.setattr(f"{LOADING}.fetch", lambda x: asked.append(x) or folder)
    assert load_detector("someone/some-model", device="cpu").identity["kind"] == "owlv2"
    assert asked == ["someone/some-model"]


def test_missing_and_foreign_weights_are_refused(owlv2: Owlv2Detector, saved: Any) -> None:
    folder = saved(owlv2)
    weights = load_file(folder / "model.safetensors")
    bias = weights.pop("class_head.dense0.bias")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights are missing.*class_head\.dense0\.bias"):
        load_detector(folder, device="cpu")
    weights |= {"class_head.dense0.bias": bias, "stray": torch.zeros(1)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not of this model.*stray"):
        load_detector(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("processor_config.json", "[]"),
        ("tokenizer_config.json", '"x"'),
        ("tokenizer.json", "null"),
        ("tokenizer.json", '{"version": "9.9", "model": {"type": "none"}}'),
    ],
)
def test_a_damaged_processor_is_refused(
    name: str, content: str, owlv2: Owlv2Detector, saved: Any
) -> None:
    folder = saved(owlv2)
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=f"{folder} holds no processor that"):
        load_detector(folder, device="cpu")


@pytest.mark.parametrize("beside", ["nothing", "other weights"])
def test_pickled_weights_are_never_read(beside: str, owlv2: Owlv2Detector, saved: Any) -> None:
    folder = saved(owlv2)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    if beside == "other weights":
        save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_detector(folder, device="cpu")


@pytest.mark.parametrize("size", [4, 500])
def test_cut_weights_are_refused(size: int, owlv2: Owlv2Detector, saved: Any) -> None:
    folder = saved(owlv2)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="could not be loaded"):
        load_detector(folder, device="cpu")


def test_code_of_a_folder_is_never_run(owlv2: Owlv2Detector, saved: Any) -> None:
    folder = saved(owlv2)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('was run')")
    with pytest.raises(CheckpointError):
        load_detector(folder, device="cpu")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="'gpu' is not known"):
        load_detector("owlv2", device="gpu")
