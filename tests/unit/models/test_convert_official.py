"""Official folders in every layout: converted, loaded, asked; and what does not fit is refused."""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, ResNetModel

from parfocal.errors import CheckpointError, ConfigError
from parfocal.models.checkpoints import groma, official
from parfocal.models.checkpoints.convert import convert as apply_map
from parfocal.models.checkpoints.groma import OfficialConstants, convert_groma, groma_config
from parfocal.models.checkpoints.mg_llava import MG_LLAVA
from parfocal.models.checkpoints.tokenizer_model import read_pieces, read_tokenizer
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import tiny
from parfocal.models.vision import backbone_config
from parfocal.predict import load

FIXTURES = Path(__file__).parents[2] / "fixtures"
GROMA, MG = FIXTURES / "groma" / "fixture_a", FIXTURES / "mg_llava" / "fixture_a"
BLANK = "\u2581"


def write_sentencepiece(path: Path, size: int) -> None:
    """Write a `tokenizer.model` of `size` pieces: special ones, letters, then pairs of letters."""
    special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    letters = [BLANK, *"abcdefghijklmnopqrstuvwxyz.:?!',-", *"ADEHIRSTUWGNO"]
    pairs = [first + second for first in letters[:16] for second in letters[1:16]]
    pieces = special + [(text, 1) for text in (letters + pairs)[: size - len(special)]]

    def message(fields: list[tuple[int, int, bytes]]) -> bytes:
        return b"".join(bytes([number << 3 | wire]) + value for number, wire, value in fields)

    def sized(value: bytes) -> bytes:
        assert len(value) < 128
        return bytes([len(value)]) + value

    content = [
        (1, 2, sized(message([
            (1, 2, sized(text.encode())), (2, 5, struct.pack("<f", -float(rank))),
            (3, 0, bytes([kind])),
        ])))
        for rank, (text, kind) in enumerate(pieces)
    ]  # fmt: skip
    path.write_bytes(message([*content, (2, 2, sized(message([(3, 0, b"\x02")])))]))


def write_weights(folder: Path, state: Mapping[str, Tensor], layout: str) -> None:
    """Lay a state dict out as official folders do."""
    folder.mkdir(exist_ok=True)
    if layout == "safetensors":
        save_file(dict(state), folder / "model.safetensors")
    elif layout == "bin":
        torch.save(dict(state), folder / "pytorch_model.bin")
    elif layout == "pth":
        content = {"state_dict": dict(state), "message_hub": argparse.Namespace(a=1), "meta": {}}
        torch.save(content, folder / "iter_7.pth")
    else:
        suffix, stem = ("bin", "pytorch_model") if layout == "sharded bin" else (
            "safetensors", "model")  # fmt: skip
        names, place = list(state), {}
        for shard in range(3):
            file = f"{stem}-{shard + 1:05}-of-00003.{suffix}"
            part = {name: state[name] for name in names[shard::3]}
            place.update(dict.fromkeys(part, file))
            write = torch.save if suffix == "bin" else save_file
            write(part, folder / file)
        index = {"metadata": {"total_size": 1}, "weight_map": place}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


LAYOUTS = ("safetensors", "sharded safetensors", "bin", "sharded bin", "pth")


def assert_equal_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        assert torch.equal(value.float(), other[name].float()), name


def picture() -> Image.Image:
    image = Image.new("RGB", (90, 60), (90, 120, 60))
    image.paste((250, 30, 10), (20, 10, 50, 45))
    return image


# Groma


def groma_constants() -> OfficialConstants:
    patch = json.loads((GROMA / "config.json").read_text())["region_encoder_patch"]
    return OfficialConstants(
        image_size=patch["roi_canvas"],
        roi_canvas=patch["roi_canvas"],
        roi_size=patch["roi_size"],
        norm_groups=patch["gn_groups"],
        region_size=patch["mid_dim"],
        position_size=patch["pos_hidden"],
    )


@pytest.fixture
def constants(monkeypatch) -> OfficialConstants:
    """The numbers of the fixture's code, in the place of the published ones."""
    found = groma_constants()
    for module in (groma, official):
        monkeypatch.setattr(module, "OfficialConstants", lambda: found)
    return found


@pytest.fixture(scope="module")
def groma_state() -> dict[str, Tensor]:
    return load_file(GROMA / "state_dict.safetensors")


def official_values() -> dict[str, Any]:
    return json.loads((GROMA / "config.json").read_text())["official_config"]


def groma_folder(
    folder: Path, state: Mapping[str, Tensor], layout: str = "safetensors", legacy: bool = True
) -> Path:
    write_weights(folder, state, layout)
    (folder / "config.json").write_text(json.dumps(official_values()))
    write_sentencepiece(folder / "tokenizer.model", 200)
    (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
    return folder


def detector_folder(folder: Path, state: Mapping[str, Tensor]) -> Path:
    inner = {
        name.removeprefix("perceiver."): value
        for name, value in state.items()
        if name.startswith("perceiver.")
    }
    write_weights(folder, inner, "bin")
    (folder / "config.json").write_text(
        json.dumps({**official_values()["perceiver_cfg"], "model_type": "ddetr"})
    )
    return folder


def in_memory(state: Mapping[str, Tensor], constants: OfficialConstants) -> dict[str, Tensor]:
    config = groma_config(official_values(), constants)
    with torch.device("meta"):
        targets = ParfocalForConditionalGeneration(config).state_dict()
    return convert_groma(state, config, targets).state


def language_model(folder: Path, rows: int = 200, width: int = 64, **more: Any) -> Path:
    """A small Llama in a folder, with its tokenizer."""
    config = LlamaConfig(
        vocab_size=rows, hidden_size=width, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=512, **more,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    write_sentencepiece(folder / "tokenizer.model", 200)
    return folder


class TestGroma:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_convert_then_load_is_converting_in_memory(
        self, layout, groma_state, constants, tmp_path
    ):
        source = groma_folder(tmp_path / "src", groma_state, layout)
        report = official.convert(source, tmp_path / "dst", constants=constants)
        assert (report.family, len(report.used)) == ("Groma", len(groma_state))
        assert not report.dropped and not report.kept
        loaded = load(tmp_path / "dst")
        state = loaded.model.state_dict()
        assert report.parameters == sum(value.numel() for value in state.values())
        assert_equal_states(state, in_memory(groma_state, constants))

    def test_an_official_folder_loads_directly_and_answers_the_same(
        self, groma_state, constants, tmp_path
    ):
        source = groma_folder(tmp_path / "src", groma_state, "sharded bin")
        official.convert(source, tmp_path / "dst", constants=constants)
        answers = [
            load(folder).ask(picture(), "Where is it?", max_new_tokens=6)
            for folder in (source, tmp_path / "dst")
        ]
        assert answers[0].text == answers[1].text
        assert answers[0].proposals == answers[1].proposals
        assert len(answers[0].proposals) > 0

    def test_types_of_numbers_stay_or_become_what_is_asked(self, groma_state, constants, tmp_path):
        source = groma_folder(tmp_path / "src", groma_state)
        for name, dtype in (("same", None), ("other", torch.bfloat16)):
            official.convert(source, tmp_path / name, constants=constants, dtype=dtype)
            written = load_file(tmp_path / name / "model.safetensors")
            assert {value.dtype for value in written.values()} == {dtype or torch.float16}

    def test_misfits_are_all_named_and_nothing_is_written(self, groma_state, constants, tmp_path):
        state = dict(groma_state)
        state["llm.model.nrom.weight.x"] = state.pop("llm.model.norm.weight")
        del state["img_txt_bridge.2.bias"]
        state["region_encoder.roi_align.updims.bias"] = torch.zeros(3)
        source = groma_folder(tmp_path / "src", state)
        with pytest.raises(CheckpointError) as caught:
            official.convert(source, tmp_path / "dst", constants=constants)
        for name in ("llm.model.nrom.weight.x", "projector.layers.2.bias", "regions.lift.bias"):
            assert name in str(caught.value)
        assert not (tmp_path / "dst").exists()

    def test_the_detector_alone_proposes_and_does_not_answer(
        self, groma_state, constants, tmp_path
    ):
        source = detector_folder(tmp_path / "src", groma_state)
        predictor = load(source)
        whole = load(groma_folder(tmp_path / "whole", groma_state))
        assert predictor.propose(picture()) == whole.propose(picture())
        for verb in (predictor.ask, predictor.locate):
            with pytest.raises(ConfigError, match=r"detector only.*parfocal convert"):
                verb(picture(), "the dog")
        with pytest.raises(CheckpointError, match=r"detector only.*--text"):
            official.convert(source, tmp_path / "dst", constants=constants)

    def test_the_detector_joined_to_a_language_model(self, groma_state, constants, tmp_path):
        source = detector_folder(tmp_path / "src", groma_state)
        words = language_model(tmp_path / "words")
        report = official.convert(source, tmp_path / "dst", text=words, constants=constants)
        assert {name.split(".")[0] for name in report.kept} == {"projector", "regions"}
        state = load(tmp_path / "dst").model.state_dict()
        whole = in_memory(groma_state, constants)
        for name, value in whole.items():
            if name.startswith(("vision.", "proposer.")):
                assert torch.equal(state[name].float(), value.float()), name
        old = LlamaForCausalLM.from_pretrained(words).state_dict()
        table = state["text.model.embed_tokens.weight"]
        assert torch.equal(table[:200], old["model.embed_tokens.weight"])
        mean = old["model.embed_tokens.weight"].mean(0)
        torch.testing.assert_close(table[200:], mean.expand(114, -1))
        assert torch.equal(state["text.lm_head.weight"][:200], old["lm_head.weight"])

    def test_the_language_model_of_a_detector_keeps_its_whole_config(
        self, groma_state, constants, tmp_path
    ):
        """CodeLlama's base of positions is another than Llama's."""
        source = detector_folder(tmp_path / "src", groma_state)
        rope = {"rope_type": "default", "rope_theta": 1e6}
        words = language_model(tmp_path / "words", rope_parameters=rope, attention_bias=True)
        text = official.read_official(source, text=words, constants=constants).config.text_config
        assert (text.rope_parameters["rope_theta"], text.attention_bias) == (1e6, True)
        assert (text.vocab_size, text.pad_token_id) == (314, 200)

    def test_stages_differ_in_the_prompt(self, groma_state, constants, tmp_path):
        source = groma_folder(tmp_path / "src", groma_state)
        templates = [
            official.read_official(source, stage=stage).processor.settings.template
            for stage in ("finetune", "pretrain")
        ]
        assert [template.end for template in templates] == ["</s>", ""]
        assert [template.ready.endswith("</s>") for template in templates] == [True, False]
        with pytest.raises(CheckpointError, match="not the detector's folder"):
            official.read_official(source, stage="detector")
        with pytest.raises(CheckpointError, match=r"no stage 'first'.*'finetune'"):
            official.read_official(source, stage="first")

    @pytest.mark.parametrize("legacy", [True, False])
    def test_the_prompt_has_the_ids_of_the_whole_string(
        self, legacy, groma_state, constants, tmp_path
    ):
        source = groma_folder(tmp_path / "src", groma_state, legacy=legacy)
        processor = official.read_official(source).processor
        whole = read_tokenizer(source, "always" if legacy else "first", official_groma_tokens())
        ids, settings = processor.prefix_ids(), processor.settings
        template = settings.template
        slots = [
            token
            for slot in range(settings.num_slots)
            for token in (settings.token_ids.first_region + slot, settings.token_ids.region)
        ]
        images = [settings.token_ids.image] * settings.num_image_tokens
        text = template.opening.strip() + "<image>" + template.between + "<region>" + template.ready
        expected = whole.encode(text, add_special_tokens=False)
        at, region = (expected.index(settings.token_ids.image),
                      expected.index(settings.token_ids.region))  # fmt: skip
        expected = [1, *expected[:at], *images, *expected[at + 1 : region], *slots,
                    *expected[region + 1 :]]  # fmt: skip
        assert ids == expected

    def test_another_tokenizer_is_refused(self, groma_state, constants, tmp_path):
        source = groma_folder(tmp_path / "src", groma_state)
        write_sentencepiece(source / "tokenizer.model", 190)
        with pytest.raises(CheckpointError, match="not of the same checkpoint"):
            official.read_official(source)


def official_groma_tokens() -> tuple[str, ...]:
    from parfocal.models.checkpoints.official_groma import groma_tokens

    return groma_tokens()


# MG-LLaVA


@pytest.fixture(scope="module")
def mg_state() -> dict[str, Tensor]:
    return load_file(MG / "state_dict.safetensors")


TRAINED = ("llm.", "projector.", "bbox_projector.", "fuse_module.")


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def mg_words(folder: Path) -> Path:
    """The language model's config and tokenizer."""
    folder.mkdir(exist_ok=True)
    values = json.loads((MG / "config.json").read_text())["llm_config"]
    text = {**values, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    text = {key: value for key, value in text.items() if key != "transformers_version"}
    (folder / "config.json").write_text(json.dumps(text))
    for file in (MG / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def clip_folder(folder: Path, state: Mapping[str, Tensor], whole: bool = True) -> Path:
    """A whole CLIP as it is published, text side and all."""
    inner = part_of(state, "visual_encoder.")
    if whole:
        inner["text_model.embeddings.token_embedding.weight"] = torch.zeros(4, 2)
        inner["logit_scale"] = torch.ones(1)
    write_weights(folder, inner, "bin")
    recorded = json.loads((MG / "config.json").read_text())["clip_vision_config"]
    vision = {key: value for key, value in recorded.items() if key != "visual_select_layer"}
    config = {"model_type": "clip", "vision_config": vision} if whole else vision
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def open_clip_folder(folder: Path, state: Mapping[str, Tensor]) -> Path:
    folder.mkdir()
    renamed = {
        f"visual.trunk.{name.removeprefix('vision_')}": value
        for name, value in part_of(state, "visual_encoder_aux.").items()
    }
    renamed["visual.trunk.norm_pre.weight"] = torch.ones(2)
    renamed["visual.head.mlp.fc1.weight"] = torch.ones(2, 2)
    renamed["transformer.resblocks.0.ln_1.weight"] = torch.ones(2)
    torch.save(renamed, folder / "open_clip_pytorch_model.bin")
    return folder


def released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith(TRAINED)}


def mg_in_memory(state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        targets = ParfocalForConditionalGeneration(config).state_dict()
    return apply_map(state, MG_LLAVA, targets).state


class TestMgLlava:
    @pytest.fixture
    def encoders(self, mg_state, tmp_path) -> list[Path]:
        return [
            open_clip_folder(tmp_path / "convnext", mg_state),  # the order does not matter
            clip_folder(tmp_path / "clip", mg_state),
        ]

    def test_a_released_file_and_its_encoders(self, mg_state, encoders, tmp_path):
        write_weights(tmp_path / "src", released(mg_state), "pth")
        words = mg_words(tmp_path / "words")
        target = tmp_path / "dst"
        report = official.convert(tmp_path / "src", target, vision=encoders, text=words)
        assert len(report.used) == len(mg_state)
        assert len(report.dropped) == 5
        predictor = load(target)
        config = predictor.model.config
        assert [tower.image_size for tower in config.vision.towers] == [42, 96]
        assert tuple(config.vision.towers[1].backbone["hidden_sizes"]) == (8, 16, 32, 64)
        assert_equal_states(predictor.model.state_dict(), mg_in_memory(mg_state, config))
        answer = predictor.ask(picture(), "What is it?", boxes=[[20, 10, 50, 45]], max_new_tokens=3)
        assert answer.model == str(target)

    def test_the_file_may_be_named_itself(self, mg_state, encoders, tmp_path):
        write_weights(tmp_path / "src", released(mg_state), "pth")
        words = mg_words(tmp_path / "words")
        made = official.read_official(tmp_path / "src" / "iter_7.pth", None, encoders, words)
        assert_equal_states(made.state, mg_in_memory(mg_state, made.config))

    def test_a_language_model_beside_the_rest(self, mg_state, encoders, tmp_path):
        source = mg_words(tmp_path / "src")
        write_weights(source, part_of(mg_state, "llm."), "sharded safetensors")
        rest = {name: value for name, value in released(mg_state).items() if name[:4] != "llm."}
        torch.save({"state_dict": rest}, source / "yi_nollm.pth")
        made = official.read_official(source, vision=encoders)
        assert_equal_states(made.state, mg_in_memory(mg_state, made.config))

    def test_a_first_stage_file_with_the_language_model_elsewhere(
        self, mg_state, encoders, tmp_path
    ):
        rest = {name: value for name, value in released(mg_state).items() if name[:4] != "llm."}
        write_weights(tmp_path / "src", rest, "pth")
        words = mg_words(tmp_path / "words")
        write_weights(words, part_of(mg_state, "llm."), "bin")
        made = official.read_official(tmp_path / "src", vision=encoders, text=words)
        assert_equal_states(made.state, mg_in_memory(mg_state, made.config))

    def test_folders_named_after_the_parts_load_directly(self, mg_state, tmp_path):
        source = tmp_path / "src"
        source.mkdir()
        for part in ("projector", "bbox_projector", "fuse_module", "visual_encoder_aux"):
            write_weights(source / part, part_of(mg_state, f"{part}."), "safetensors")
        write_weights(mg_words(source / "llm"), part_of(mg_state, "llm."), "sharded bin")
        clip_folder(source / "visual_encoder", mg_state, whole=False)
        predictor = load(source)
        assert_equal_states(
            predictor.model.state_dict(), mg_in_memory(mg_state, predictor.model.config)
        )

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_whole_state_dict_in_any_layout(self, layout, mg_state, tmp_path):
        source = mg_words(tmp_path / "src")
        write_weights(source, mg_state, layout)
        clip = clip_folder(source / "visual_encoder", {}, whole=False)
        (clip / "pytorch_model.bin").unlink()  # its config alone tells the number of heads
        made = official.read_official(source, "mg_llava")
        assert len(made.report.used) == len(mg_state)
        assert_equal_states(made.state, mg_in_memory(mg_state, made.config))

    def test_missing_encoders_are_named_with_their_hub_ids(self, mg_state, encoders, tmp_path):
        write_weights(tmp_path / "src", released(mg_state), "pth")
        words = mg_words(tmp_path / "words")
        with pytest.raises(CheckpointError, match=r"low-resolution.*--vision.*clip-vit-large"):
            official.read_official(tmp_path / "src", vision=encoders[:1], text=words)
        with pytest.raises(CheckpointError, match=r"high-resolution.*convnext_large_d_320"):
            official.read_official(tmp_path / "src", vision=encoders[1:], text=words)
        with pytest.raises(CheckpointError, match="there already"):
            official.read_official(tmp_path / "src", vision=encoders * 2, text=words)
        with pytest.raises(CheckpointError, match="neither a CLIP ViT"):
            official.read_official(tmp_path / "src", vision=[tmp_path / "src"], text=words)

    def test_misfits_are_all_named(self, mg_state, encoders, tmp_path):
        state = released(mg_state)
        state["fuse_module.gate.9.bias"] = state.pop("fuse_module.gate.2.bias")
        del state["projector.model.0.bias"]
        state["llm.model.norm.weight"] = torch.ones(5)
        write_weights(tmp_path / "src", state, "pth")
        words = mg_words(tmp_path / "words")
        with pytest.raises(CheckpointError) as caught:
            official.read_official(tmp_path / "src", vision=encoders, text=words)
        for name in ("gate.9.bias", "projector.layers.0.bias", "text.model.norm.weight"):
            assert name in str(caught.value)

    def test_what_the_official_converter_writes_is_not_enough(self, mg_state, tmp_path):
        source = mg_words(tmp_path / "src")
        write_weights(source, part_of(mg_state, "llm."), "bin")
        with pytest.raises(CheckpointError, match="keeps the language model only"):
            official.read_official(source, "mg_llava")

    def test_the_template_is_that_of_the_tokenizers_family(self):
        from parfocal.models.checkpoints.official_mg_llava import template_name

        base = PreTrainedTokenizerFast(tokenizer_file=str(MG / "tokenizer" / "tokenizer.json"))
        assert template_name(base) == "vicuna"
        for mark, name in (("<|end|>", "phi3_chat"), ("<|eot_id|>", "llama3_chat")):
            base.add_tokens([AddedToken(mark, special=True)])
            assert template_name(base) == name


# presets from public parts


class TestPublicParts:
    def test_a_preset_starts_from_a_tower_and_a_language_model(self, tmp_path):
        tower = tiny().vision.towers[0]
        backbone = ResNetModel(backbone_config(tower))
        backbone.save_pretrained(tmp_path / "tower")
        words = language_model(tmp_path / "words", width=32)
        report = official.convert("tiny", tmp_path / "dst", vision=[tmp_path / "tower"], text=words)
        predictor = load(tmp_path / "dst")
        state = predictor.model.state_dict()
        for name, value in backbone.state_dict().items():
            assert torch.equal(state[f"vision.towers.0.backbone.{name}"], value), name
        table = LlamaForCausalLM.from_pretrained(words).model.embed_tokens.weight
        assert torch.equal(state["text.model.embed_tokens.weight"][:200], table)
        assert {name.split(".")[0] for name in report.kept} == {
            "vision", "projector", "proposer", "refiner", "regions",
        }  # fmt: skip
        assert all("pyramid" in name for name in report.kept if name.startswith("vision"))
        assert predictor.model.config.text_config.model_type == "llama"
        predictor.locate(picture(), "a dog", max_new_tokens=3)

    def test_the_words_of_a_model_of_ours_are_taken(self, tiny_pair, tmp_path):
        model, processor = tiny_pair
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        made = official.read_official("tiny", text=tmp_path)
        old = model.state_dict()
        for name in (name for name in old if name.startswith("text.")):
            assert torch.equal(made.state[name], old[name]), name
        assert made.processor.settings.template == processor.settings.template
        assert made.config.token_ids == model.config.token_ids
        with pytest.raises(CheckpointError, match="fewer than the 20 regions"):
            official.read_official("mini", text=tmp_path)

    def test_new_parts_are_the_same_every_time(self, tmp_path):
        words = language_model(tmp_path / "words", width=32)
        made = [official.read_official("tiny", text=words).state for _ in range(2)]
        assert_equal_states(*made)

    def test_a_tied_head_is_the_token_table(self, tmp_path):
        words = language_model(tmp_path / "words", width=32, tie_word_embeddings=True)
        state = official.read_official("tiny", text=words).state
        table = state["text.model.embed_tokens.weight"]
        assert table.shape[0] == 200 + 14 + 6
        assert torch.equal(state["text.lm_head.weight"], table)

    def test_a_tower_of_another_size_is_refused(self, tmp_path):
        tower = tiny().vision.towers[0]
        config = backbone_config(tower)
        config.hidden_sizes = [8, 8, 24]
        ResNetModel(config).save_pretrained(tmp_path / "tower")
        words = language_model(tmp_path / "words", width=32)
        with pytest.raises(CheckpointError, match=r"does not fit vision tower 1.*misshapen"):
            official.read_official("tiny", vision=[tmp_path / "tower"], text=words)

    def test_a_language_model_is_needed(self):
        with pytest.raises(CheckpointError, match=r"preset 'tiny' needs a language model.*--text"):
            official.read_official("tiny")

    @pytest.mark.parametrize("config", ['{"model_type": "unheard_of"}', "{}", "{"])
    def test_a_language_model_that_is_none_is_refused(self, config, tmp_path):
        words = language_model(tmp_path / "words", width=32)
        (words / "config.json").write_text(config)
        with pytest.raises(CheckpointError, match=r"words"):
            official.read_official("tiny", text=words)

    def test_more_towers_than_there_are_are_refused(self, tmp_path):
        words = language_model(tmp_path / "words", width=32)
        with pytest.raises(CheckpointError, match=r"has 1 vision tower\(s\), 2 were given"):
            official.read_official("tiny", vision=[words, words], text=words)


class TestRecognise:
    def test_families(self, groma_state, mg_state, tmp_path):
        groma_folder(tmp_path / "groma", groma_state)
        write_weights(tmp_path / "mg", released(mg_state), "pth")
        (tmp_path / "empty").mkdir()
        found = [official.recognise(tmp_path / name) for name in ("groma", "mg", "empty", "none")]
        assert found == ["groma", "mg_llava", None, None]

    def test_our_own_folders_are_not_official(self, tiny_pair, tmp_path):
        model, processor = tiny_pair
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        assert official.recognise(tmp_path) is None

    def test_what_is_neither_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(CheckpointError, match=r"'bert'.*--family"):
            official.read_official(tmp_path)
        with pytest.raises(CheckpointError, match=r"no family 'grom'.*'groma'"):
            official.read_official(tmp_path, "grom")

    def test_a_target_that_is_there_is_not_touched(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(CheckpointError, match="is there already"):
            official.convert("tiny", tmp_path)
        with pytest.raises(CheckpointError, match="is there already"):
            official.convert("tiny", tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"


class TestTokenizerModel:
    def test_pieces_are_read_in_order(self, tmp_path):
        write_sentencepiece(tmp_path / "tokenizer.model", 60)
        pieces = read_pieces(tmp_path / "tokenizer.model")
        assert [piece.text for piece in pieces[:5]] == ["<unk>", "<s>", "</s>", BLANK, "a"]
        assert [piece.kind for piece in pieces[:4]] == [2, 3, 3, 1]
        assert (len(pieces), pieces[4].score) == (60, -4.0)

    @pytest.mark.parametrize("content", [b"", b"hello world", b"\x0a\xff\x01"])
    def test_other_files_are_refused(self, content, tmp_path):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(CheckpointError, match="no SentencePiece model"):
            read_pieces(tmp_path / "tokenizer.model")

    @pytest.mark.parametrize(
        ("start", "text", "expected"),
        [
            ("always", "a <p> b </p>c", [BLANK, "a", "<p>", BLANK, "b", "</p>", BLANK, "c"]),
            ("first", "a <p> b </p>c", [BLANK, "a", "<p>", "b", "</p>", "c"]),
            ("never", "a <p> b </p>c", ["a", "<p>", "b", "</p>", "c"]),
        ],
    )
    def test_blanks_around_added_tokens(self, start, text, expected, tmp_path):
        write_sentencepiece(tmp_path / "tokenizer.model", 50)
        tokenizer = read_tokenizer(tmp_path, start, ("[PAD]", "<p>", "</p>"))
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.convert_ids_to_tokens(ids) == expected
        assert tokenizer.pad_token_id == 50

    def test_words_stay_apart_when_they_are_read_back(self, tmp_path):
        write_sentencepiece(tmp_path / "tokenizer.model", 60)
        tokenizer = read_tokenizer(tmp_path, "never", ("<p>", "</p>", "<roi>", "</roi>"))
        ids = tokenizer.encode("see <p>a dog</p> or <p>a cat</p><roi></roi> and.")
        assert tokenizer.decode(ids) == "see <p>a dog</p> or <p>a cat</p><roi></roi> and."
