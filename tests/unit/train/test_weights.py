"""Parts of a model start from folders as they are published, or from models of ours; all of them.

The folders are written by Transformers, at toy sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from parfocal.errors import CheckpointError, ConfigError
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.vision import backbone_config
from parfocal.train.weights import load_parts
from tests.unit.models.builders import build_dense, build_groma, build_mg_llava
from tests.unit.tiny_folders import fill

LOW, HIGH = "vision.towers.0.backbone", "vision.towers.1.backbone"


@pytest.fixture(scope="module")
def groma() -> ParfocalForConditionalGeneration:
    """Groma's plan: DINOv2, a deformable DETR, a Llama whose head is no token table."""
    return build_groma()[0]


@pytest.fixture(scope="module")
def mg_llava() -> ParfocalForConditionalGeneration:
    """MG-LLaVA's plan: CLIP beside ConvNeXt, a Llama."""
    return build_mg_llava()[0]


@pytest.fixture(scope="module")
def dense() -> ParfocalForConditionalGeneration:
    """Mini's plan: the head of its Qwen2 is the token table."""
    return build_dense()[0]


def language_model(
    model: ParfocalForConditionalGeneration, folder: Path, fewer: int = 0
) -> nn.Module:
    """A language model of the model's own kind, with so many rows fewer, in a folder."""
    config = copy.deepcopy(model.config.text_config)
    config.vocab_size -= fewer
    made = fill(AutoModelForCausalLM.from_config(config), 1)
    made.save_pretrained(folder)
    return made


def backbone(model: ParfocalForConditionalGeneration, index: int, folder: Path) -> nn.Module:
    """A backbone of the kind of one of the model's towers, in a folder."""
    made = fill(AutoModel.from_config(backbone_config(model.config.vision.towers[index])), 2)
    made.save_pretrained(folder)
    return made


def loaded(model: ParfocalForConditionalGeneration, /, **weights: Path) -> dict[str, Tensor]:
    """What a copy of the model holds after `load_parts`; `low` and `high` are its towers."""
    parts = {"low": LOW, "high": HIGH}
    changed = copy.deepcopy(model)
    load_parts(changed, {parts.get(part, part): str(path) for part, path in weights.items()})
    return changed.state_dict()


def assert_filled(state: dict[str, Tensor], part: str, expected: dict[str, Tensor]) -> None:
    """The part holds what is expected, and nothing else."""
    names = {name.removeprefix(f"{part}.") for name in state if name.startswith(f"{part}.")}
    assert names == set(expected)
    for name in names:
        assert torch.equal(state[f"{part}.{name}"], expected[name]), name


def assert_kept(state: dict[str, Tensor], model: nn.Module, *parts: str) -> None:
    """All but the parts is as in the model."""
    for name, value in model.state_dict().items():
        if not name.startswith(parts):
            assert torch.equal(state[name], value), name


def test_towers_and_language_model_are_filled_and_nothing_else(groma, tmp_path):
    text = language_model(groma, tmp_path / "text")
    dino = backbone(groma, 0, tmp_path / "dino")
    state = loaded(groma, text=tmp_path / "text", low=tmp_path / "dino")
    assert_filled(state, "text", text.state_dict())
    assert_filled(state, LOW, dino.state_dict())
    assert_kept(state, groma, "text.", LOW)


class TestGrownTables:
    def test_new_rows_are_the_mean_and_new_outputs_a_usual_start(self, groma, tmp_path):
        text = language_model(groma, tmp_path, fewer=40)
        state = loaded(groma, text=tmp_path)
        table, head = state["text.model.embed_tokens.weight"], state["text.lm_head.weight"]
        old = text.model.embed_tokens.weight.detach()
        assert torch.equal(table[:-40], old)
        torch.testing.assert_close(table[-40:], old.mean(0).expand(40, -1))
        assert torch.equal(head[:-40], text.lm_head.weight)
        new, bound = head[-40:], head.shape[1] ** -0.5
        assert new.abs().max() <= bound
        assert new.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)  # uniform, as nn.Linear's

    @pytest.mark.parametrize("written", ["once", "twice"])
    def test_a_tied_head_is_the_grown_table(self, written, dense, tmp_path):
        text = language_model(dense, tmp_path, fewer=7)
        if written == "twice":
            state = load_file(tmp_path / "model.safetensors")
            state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
            save_file(state, tmp_path / "model.safetensors")
        model = copy.deepcopy(dense)
        load_parts(model, {"text": str(tmp_path)})
        table = model.text.model.embed_tokens.weight
        assert model.text.lm_head.weight is table
        assert torch.equal(table[:-7], text.model.embed_tokens.weight)
        torch.testing.assert_close(table[-7:].detach(), table[:-7].detach().mean(0).expand(7, -1))

    def test_a_stage_leaves_a_tied_table_under_one_name(self, dense, tmp_path):
        save_model(dense, str(tmp_path / "model.safetensors"))
        assert "text.model.embed_tokens.weight" not in load_file(tmp_path / "model.safetensors")
        model = copy.deepcopy(dense)
        torch.nn.init.zeros_(model.text.model.embed_tokens.weight)
        load_parts(model, {"text": str(tmp_path)})
        assert_filled(model.state_dict(), "text", dense.text.state_dict())
        assert model.text.lm_head.weight is model.text.model.embed_tokens.weight

    def test_a_table_does_not_shrink(self, groma, tmp_path):
        language_model(groma, tmp_path, fewer=-1)
        with pytest.raises(CheckpointError, match=r"misshapen text\.model\.embed_tokens\.weight"):
            loaded(groma, text=tmp_path)


def as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt under the names of timm, with a head that the model does not have."""
    renames = (
        ("embeddings.patch_embeddings", "stem.0"), ("embeddings.layernorm", "stem.1"),
        ("encoder.stages", "stages"), ("downsampling_layer", "downsample"), ("layers", "blocks"),
        ("dwconv", "conv_dw"), ("pwconv", "mlp.fc"), ("layer_scale_parameter", "gamma"),
        ("layernorm", "norm"),
    )  # fmt: skip
    named = {}
    for name, value in state.items():
        for old, new in renames:
            name = name.replace(old, new)
        named["head." + name if name.startswith("norm.") else name] = value.contiguous()
    return named


class TestLayoutsOfTowers:
    @pytest.mark.parametrize("layout", ["transformers", "timm", "open_clip"])
    def test_convnext(self, layout, mg_llava, tmp_path):
        folder = tmp_path / "convnext"
        made = backbone(mg_llava, 1, folder)
        if layout != "transformers":
            prefix = "visual.trunk." if layout == "open_clip" else ""
            named = {prefix + name: value for name, value in as_timm(made.state_dict()).items()}
            if prefix:
                named["transformer.resblocks.0.ln_1.weight"] = torch.ones(2)
            save_file(named, folder / "model.safetensors")
        state = loaded(mg_llava, high=folder)
        kept = {k: v for k, v in made.state_dict().items() if not k.startswith("layernorm.")}
        assert_filled(state, HIGH, kept)
        assert_kept(state, mg_llava, HIGH)

    @pytest.mark.parametrize("layout", ["vision side", "whole", "without a prefix"])
    def test_clip(self, layout, mg_llava, tmp_path):
        folder = tmp_path / "clip"
        made = backbone(mg_llava, 0, folder)
        inner = {name: value.contiguous() for name, value in made.state_dict().items()}
        if layout == "without a prefix":
            save_file(inner, folder / "model.safetensors")
        if layout == "whole":
            named = {f"vision_model.{name}": value for name, value in inner.items()}
            named["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
            named["text_model.final_layer_norm.weight"] = torch.ones(3)
            named["logit_scale"] = torch.ones(1)
            save_file(named, folder / "model.safetensors")
        assert_filled(loaded(mg_llava, low=folder), LOW, made.state_dict())


class TestPartsOfOurs:
    def finished(self, model: nn.Module, folder: Path) -> dict[str, Tensor]:
        """Another model of the same kind, saved as a finished one is."""
        other = fill(copy.deepcopy(model), 3)
        other.save_pretrained(folder)
        return other.state_dict()

    def test_one_part(self, groma, tmp_path):
        other = self.finished(groma, tmp_path)
        state = loaded(groma, proposer=tmp_path)
        assert_kept(state, groma, "proposer.")
        for name in (name for name in state if name.startswith("proposer.")):
            assert torch.equal(state[name], other[name]), name
        assert not torch.equal(
            other["proposer.detr.query_content"], groma.state_dict()["proposer.detr.query_content"]
        )

    @pytest.mark.parametrize("kind", ["groma", "dense"])
    def test_all_of_a_finished_model(self, kind, request, tmp_path):
        model = request.getfixturevalue(kind)
        other = self.finished(model, tmp_path)
        state = loaded(model, model=tmp_path)
        assert set(state) == set(other)
        for name, value in other.items():
            assert torch.equal(state[name], value), name

    def test_what_a_stage_left(self, dense, tmp_path):
        other = fill(copy.deepcopy(dense), 3)
        save_model(other, str(tmp_path / "model.safetensors"))
        state = loaded(dense, model=tmp_path)
        for name, value in other.state_dict().items():
            assert torch.equal(state[name], value), name

    def test_words_of_ours_may_be_fewer(self, groma, tmp_path):
        text = language_model(groma, tmp_path / "plain", fewer=3)
        named = {f"text.{name}": value.contiguous() for name, value in text.state_dict().items()}
        (tmp_path / "ours").mkdir()
        save_file(named, tmp_path / "ours" / "model.safetensors")
        state, plain = (loaded(groma, text=tmp_path / name) for name in ("ours", "plain"))
        for name, value in plain.items():
            assert torch.equal(state[name], value), name

    def test_later_parts_win(self, groma, tmp_path):
        first = self.finished(groma, tmp_path / "whole")
        groma.save_pretrained(tmp_path / "before")
        state = loaded(groma, model=tmp_path / "whole", proposer=tmp_path / "before")
        assert_kept(state, groma, *{n for n in first if not n.startswith("proposer.")})
        assert torch.equal(state["projector.layers.0.weight"], first["projector.layers.0.weight"])


def drop(state: dict[str, Tensor], name: str) -> None:
    del state[name]


def widen(state: dict[str, Tensor], name: str) -> None:
    state[name] = torch.zeros(*state[name].shape[:-1], state[name].shape[-1] + 1)


def rename(state: dict[str, Tensor], name: str) -> None:
    state[f"{name}.more"] = torch.zeros(2)


class TestStrict:
    @pytest.mark.parametrize(
        ("change", "words"),
        [(drop, "missing"), (widen, "misshapen"), (rename, "the model has no")],
        ids=["missing", "shape", "unknown"],
    )
    @pytest.mark.parametrize(
        ("part", "name"),
        [("text", "model.norm.weight"), ("proposer", "proposer.detr.token_norm.bias")],
    )
    def test_misfits_are_named_and_nothing_is_changed(
        self, change: Callable, words, part, name, groma, tmp_path
    ):
        if part == "text":
            language_model(groma, tmp_path)
        else:  # as a stage leaves it
            save_model(groma, str(tmp_path / "model.safetensors"))
        state = load_file(tmp_path / "model.safetensors")
        change(state, name)
        save_file(state, tmp_path / "model.safetensors")
        model = copy.deepcopy(groma)
        fitting = rf"weights of '{part}' from .*(?s:.)*{words}.*{name.rpartition('.')[0]}"
        with pytest.raises(CheckpointError, match=fitting):
            load_parts(model, {part: str(tmp_path)})
        assert_kept(model.state_dict(), groma)

    def test_a_finished_model_that_lacks_a_weight(self, groma, tmp_path):
        groma.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        drop(state, "regions.lift.bias")
        save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"1 weights are missing \(such as 'regions.lift"):
            loaded(groma, proposer=tmp_path)

    def test_a_tower_of_another_size(self, groma, mg_llava, tmp_path):
        backbone(mg_llava, 0, tmp_path)
        with pytest.raises(CheckpointError, match=rf"weights of '{LOW}' from"):
            loaded(groma, low=tmp_path)

    def test_a_folder_without_the_part(self, groma, tmp_path):
        language_model(groma, tmp_path)
        with pytest.raises(CheckpointError, match="holds nothing of 'proposer'"):
            loaded(groma, proposer=tmp_path)

    def test_an_unknown_part(self, groma, tmp_path):
        with pytest.raises(ConfigError, match=r"no part 'propose'; choose one of \['model', 'vis"):
            loaded(groma, propose=tmp_path)

    def test_a_folder_that_is_not_here(self, groma):
        with pytest.raises(CheckpointError, match="hf download owner/name"):
            loaded(groma, text=Path("owner/name"))
