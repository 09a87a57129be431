"""RAM++ on disk: the official layout, strict loading, and what must not be unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from parfocal.detectors.ram_plus import RamPlus, RamPlusConfig, RamPlusTagger
from parfocal.detectors.ram_plus_files import (
    convert_state,
    load_ram_plus,
    official_state,
    read_tags,
    read_thresholds,
    save_ram_plus,
)
from parfocal.errors import CheckpointError, DataError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "ram_plus"


@pytest.fixture
def official(ram_plus: RamPlusTagger, tmp_path: Path) -> Any:
    """Write a checkpoint like the released one beside its lists; gives the path of the file."""
    (tmp_path / "ram_tag_list.txt").write_text("\n".join(ram_plus.tags))
    (tmp_path / "ram_tag_list_threshold.txt").write_text("0.0195\n" * 5)
    state = official_state(ram_plus.model.state_dict())
    state["visual_encoder.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    state["visual_encoder.layers.1.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)

    def write(change: Any = lambda state: None, name: str = "ram.pth", **extra: Any) -> Path:
        changed = dict(state)
        change(changed)
        path = tmp_path / name
        if name.endswith(".safetensors"):
            save_file(changed, path)
        else:
            torch.save({"model": changed, "optimizer": {}, "config": {}, "epoch": 7, **extra}, path)
        return path

    return write


def load(path: Path, like: RamPlusTagger) -> RamPlusTagger:
    return load_ram_plus(path, config=like.model.config, device="cpu")


@pytest.mark.parametrize("name", ["ram.pth", "ram.safetensors"])
def test_the_official_layout_loads(
    official: Any, ram_plus: RamPlusTagger, photos: list, name: str
) -> None:
    loaded = load(official(name=name), ram_plus)
    assert loaded.identity == ram_plus.identity
    torch.testing.assert_close(loaded.probabilities(photos), ram_plus.probabilities(photos))


def test_files_of_before_zip_archives_load(official: Any, ram_plus: RamPlusTagger) -> None:
    path = official()
    content = torch.load(path, weights_only=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert load(path, ram_plus).identity == ram_plus.identity


def test_the_older_name_of_the_decoder_is_known(official: Any, ram_plus: RamPlusTagger) -> None:
    def rename(state: dict) -> None:
        for name in [name for name in state if name.startswith("tagging_head")]:
            state[name.replace("tagging_head", "vision_multi")] = state.pop(name)

    assert load(official(rename), ram_plus).identity == ram_plus.identity


def test_everything_that_does_not_fit_is_named(official: Any, ram_plus: RamPlusTagger) -> None:
    def spoil(state: dict) -> None:
        state["fc.wieght"] = state.pop("fc.weight")
        del state["visual_encoder.layers.0.blocks.0.attn.qkv.bias"]
        state["image_proj.weight"] = torch.zeros(3, 4)
        state["visual_encoder.layers.1.blocks.0.attn.qkv.weight"] = torch.zeros(9, 2)

    with pytest.raises(CheckpointError) as caught:
        load(official(spoil), ram_plus)
    for words in (
        "fc.wieght is not a weight",
        "fc.weight is missing",
        "visual_encoder.layers.0.blocks.0.attn.qkv.bias is missing",
        "image_proj.weight has shape (3, 4), not (12, 16)",
        "visual_encoder.layers.1.blocks.0.attn.qkv.weight has shape (9, 2), not (48, 16)",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update({"decoder.0.query.weight": s["fc.weight"]}), "not a weight"),
        (lambda s: s.update({"text_encoder.x": torch.zeros(2)}), "not a weight"),
        (lambda s: s.update({"fc.bias": torch.zeros(1, dtype=torch.long)}), "not floating point"),
        (
            lambda s: s.update({"vision_multi.encoder.layer.0.output.dense.bias": torch.zeros(16)}),
            "under two names",
        ),
    ],
    ids=["our own name", "unknown", "integers", "twice"],
)
def test_strays_are_refused(
    official: Any, ram_plus: RamPlusTagger, change: Any, words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        load(official(change), ram_plus)


class Command:
    """What a hostile checkpoint would hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(__file__).parent / "was_run",))


def test_code_in_a_checkpoint_is_refused(
    official: Any, ram_plus: RamPlusTagger, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="runs no code"):
        load(official(config=Command()), ram_plus)
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps({"model": Command()}, protocol=2))
    with pytest.raises(CheckpointError):
        load(bare, ram_plus)
    assert not (Path(__file__).parent / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [({"state_dict": {}}, "no entry 'model'"), ({"model": {"fc.bias": 3}}, "not a tensor")],
)
def test_another_layout_is_refused(
    ram_plus: RamPlusTagger, tmp_path: Path, official: Any, content: dict, words: str
) -> None:
    path = official()
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=words):
        load(path, ram_plus)


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_damaged_file_is_refused(official: Any, ram_plus: RamPlusTagger, name: str) -> None:
    path = official().with_name(name)
    for content in (b"not a checkpoint", b""):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="broken"):
            load(path, ram_plus)


def test_missing_files_are_asked_for(tmp_path: Path, official: Any, ram_plus: Any) -> None:
    with pytest.raises(CheckpointError, match="nothing is fetched"):
        load_ram_plus(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds 0 files"):
        load_ram_plus(tmp_path)
    path = official()
    (tmp_path / "ram_tag_list_threshold.txt").unlink()
    with pytest.raises(CheckpointError, match=r"no ram_tag_list_threshold\.txt"):
        load(path, ram_plus)
    numbers = [0.1] * 5
    loaded = load_ram_plus(path, thresholds=numbers, config=ram_plus.model.config, device="cpu")
    assert loaded.thresholds.tolist() == pytest.approx(numbers)


def test_a_saved_tagger_loads_to_the_same_tagger(
    ram_plus: RamPlusTagger, tmp_path: Path, photos: list
) -> None:
    tagger = RamPlusTagger(ram_plus.model, ram_plus.tags, (0.1, 0.65, 1.0, 0.0195, 0.2), [3])
    save_ram_plus(tagger, tmp_path / "saved")
    loaded = load_ram_plus(tmp_path / "saved", device="cpu")
    assert loaded.tags == tagger.tags
    assert loaded.thresholds.tolist() == torch.tensor([0.1, 0.65, 1.0, 1.0, 0.2]).tolist()
    torch.testing.assert_close(loaded.probabilities(photos), tagger.probabilities(photos))


def test_a_spoilt_description_of_the_sizes_is_named(
    ram_plus: RamPlusTagger, tmp_path: Path
) -> None:
    save_ram_plus(ram_plus, tmp_path)
    (tmp_path / "ram_plus.json").write_text('{"image_size": "large"}')
    with pytest.raises(CheckpointError, match=r"ram_plus\.json"):
        load_ram_plus(tmp_path)


def test_tags_keep_blanks_and_refuse_doubles(tmp_path: Path) -> None:
    path = tmp_path / "tags.txt"
    path.write_text("cat \nDog\n")
    assert read_tags(path) == ["cat ", "Dog"]
    for text, words in (
        ("a\n\nb", "tags.txt:2: the tag '' is blank"),
        ("a\nb\na", "tags.txt:3: the tag 'a' stands twice"),
        ("", "is empty"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            read_tags(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_tags(tmp_path / "none.txt")


def test_thresholds_are_numbers_from_0_to_1(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.txt"
    path.write_text("0.65\n1\n0.8\n")
    assert read_thresholds(path) == [0.65, 1.0, 0.8]
    for text in ("0.5\nhigh\n", "0.5\n1.5\n", "0.5\nnan\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"thresholds.txt:2"):
            read_thresholds(path)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("cat\ndog\n", encoding="utf-8-sig")
    assert read_tags(path) == ["cat", "dog"]
    path.write_text("0.5\n1\n", encoding="utf-8-sig")
    assert read_thresholds(path) == [0.5, 1.0]


def test_names_and_shapes_are_those_of_the_released_checkpoint() -> None:
    recorded = json.loads((FIXTURES / "checkpoint_keys.json").read_text())
    with torch.device("meta"):
        network = RamPlus(RamPlusConfig())
        source = {
            name: torch.empty(shape, dtype=getattr(torch, dtype))
            for name, (dtype, shape) in recorded.items()
        }
    state, dropped = convert_state(source, network, "the released checkpoint")
    assert {n: v.shape for n, v in state.items()} == {
        n: v.shape for n, v in network.state_dict().items()
    }
    assert (len(recorded), len(dropped)) == (402, 35)
    written = official_state(network.state_dict())
    assert {n: list(v.shape) for n, v in written.items()} == {
        name: shape for name, (_, shape) in recorded.items() if name not in dropped
    }
