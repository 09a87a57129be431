"""Every recipe fits its model and its processor; the papers' numbers; overrides reach the run."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

from parfocal import recipes
from parfocal.boxes import Boxes
from parfocal.data.mixing import task_views
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.scenes.catalogue import KINDS
from parfocal.data.views import apply, build_view
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.errors import ConfigError
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import PRESETS, get_preset, mini, vary
from parfocal.models.templates import QWEN2_5_CHAT, VICUNA
from parfocal.recipes import RECIPES, config_of, get_recipe, parts_of, run_recipe
from parfocal.recipes.mini import mini_processor
from parfocal.train.checks import check_stages
from parfocal.train.data import ConversationCollator, ConversationDataset
from parfocal.train.parameters import freeze, trainable_counts
from parfocal.train.recipe import Lora, Recipe, Stage
from parfocal.train.runtime import Runtime
from tests.unit.tiny_folders import byte_tokenizer

REPO = Path(__file__).parents[2]
PAPERS = [name for name in RECIPES if name != "mini"]


@pytest.fixture(scope="module")
def processor():
    """Mini's processor."""
    return parts_of(get_recipe("mini"))[1]


def model_of(recipe: Recipe) -> ParfocalForConditionalGeneration:
    """The model that the recipe trains, without memory for its weights."""
    with torch.device("meta"):
        return ParfocalForConditionalGeneration(parts_of(recipe)[0])


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_named_as_listed_and_can_be_saved(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.model in PRESETS
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert len({stage.name for stage in recipe.stages}) == len(recipe.stages)
    assert list(RECIPES) == sorted(RECIPES)


def test_minis_stages_come_out_even():
    for stage in get_recipe("mini").stages:
        assert stage.steps > stage.optim.warmup_steps
        assert stage.samples % stage.batch_size == 0
        assert stage.batch_size % 2 == 0  # two processes on a machine of two cores


def test_every_part_of_mini_is_trained_by_some_stage_and_every_prefix_names_one():
    recipe = get_recipe("mini")
    names = [key for key, _ in model_of(recipe).named_parameters()]
    trained = set()
    for stage in recipe.stages:
        for prefix in stage.trainable:
            under = {key for key in names if key == prefix or key.startswith(f"{prefix}.")}
            assert under, f"{stage.name}: {prefix}"
            trained |= under
    assert set(names) - trained == set()


def test_mini_learns_language_on_frozen_perception():
    recipe = get_recipe("mini")
    first, *others = recipe.stages
    assert first.objective == "detection"
    assert {"vision", "proposer"} <= set(first.trainable)
    for stage in others:
        assert stage.objective == "language"
        assert not set(first.trainable) & set(stage.trainable)


def test_minis_processor_fits_the_model(processor):
    model = model_of(get_recipe("mini"))
    settings, ids = processor.settings, processor.settings.token_ids
    assert settings.num_image_tokens == model.num_image_tokens
    assert settings.num_slots == model.num_slots
    assert settings.layout == model.config.regions.layout
    assert settings.vision.to_dict() == model.config.vision.to_dict()
    assert model.config.token_ids == ids
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    assert min(ids.image, ids.region, ids.ground_box, ids.region_feature) >= 0
    convert = processor.tokenizer.convert_tokens_to_ids
    for slot in range(model.num_slots):
        assert convert(f"<r{slot}>") == ids.first_region + slot


def test_mini_processor_is_always_the_same(processor):
    again = mini_processor(mini())
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again.settings == processor.settings


def test_overrides_of_the_model_reach_its_processor():
    changes = {"proposer": {"max_regions": 12}, "regions": {"layout": "interleaved"}}
    processor = mini_processor(vary(mini(), changes))
    assert (processor.settings.num_slots, processor.settings.layout) == (12, "interleaved")
    assert "<r11>" in processor.tokenizer.get_vocab()
    assert "<r12>" not in processor.tokenizer.get_vocab()


def test_mini_writes_every_name_in_few_tokens_and_reads_it_back(processor):
    tokenizer = processor.tokenizer
    lengths = []
    for kind in KINDS:
        for words in (f"the {kind.name}", f"3 {kind.plural}"):
            ids = tokenizer.encode(words, add_special_tokens=False)
            assert tokenizer.decode(ids) == words
            lengths.append(len(ids))
    assert sum(lengths) / len(lengths) < 5
    assert max(lengths) <= 10


def test_mini_processor_packs_what_mini_is_taught(processor, toy_bank):
    reader = SceneReader("train", 2, (64,), toy_bank)
    dataset = ConversationDataset(reader, processor.dialect, seed=0)
    text = ConversationCollator(processor)([dataset[0], dataset[1]])["text"]
    assert int(text.input_ids.max()) < len(processor.tokenizer)
    assert text.turn.max() >= 6
    assert text.input_ids.shape[1] < 1024


# The papers' recipes. A stage: samples a step, epochs, learning rate, weight decay, steps and share
# of warm-up, text tokens.

ALIGN = (128, 2, 1e-4, 0.0, 0, 0.03, 2048)
NUMBERS = {
    "groma": {
        "detection": (64, 12, 2e-4, 1e-4, 100, 0.0, 0),
        "alignment": ALIGN,
        "instruction": (128, 1, 1e-5, 0.0, 0, 0.03, 2048),
    },
    **{
        f"mg_llava_{name}": {
            "pretraining": (first, 1, first_lr, 0.0, 0, 0.03, 1472),
            "tuning": (second, 1, second_lr, 0.0, 0, 0.03, 1472),
        }
        for name, first, first_lr, second, second_lr in (
            ("phi3_3_8b", 256, 1e-3, 64, 2e-5),
            ("vicuna_7b", 256, 1e-3, 128, 2e-5),
            ("vicuna_13b", 256, 1e-3, 64, 2e-5),
            ("llama3_8b", 256, 1e-3, 64, 1e-5),
            ("yi1_5_34b", 512, 2e-3, 128, 2e-5),
            ("video_vicuna_7b", 256, 1e-3, 128, 2e-5),
        )
    },
    **{
        f"tiny_grounding_gpt_{size}": {
            "pretrain": (32, 1, 1e-3, 0.0, 0, 0.03, 2048),
            "finetune": (32, 1, 2e-5, 0.0, 0, 0.03, 2048),
            "alignment": (32, 1, 2e-5, 0.0, 0, 0.03, 2048),
            "global": (16, 2, 2e-5, 0.0, 0, 0.03, 2048),
        }
        for size in ("1_5b", "3b", "7b")
    },
}
TRAINED = {
    "groma": {
        "detection": ("proposer",),
        "alignment": ("projector", "regions", "text.model.embed_tokens", "text.lm_head"),
        "instruction": ("projector", "regions", "text"),
    },
    "mg_llava": {
        "pretraining": ("fusion", "projector", "regions"),
        "tuning": ("fusion", "projector", "regions", "text"),
    },
    "tiny_grounding_gpt": {
        "pretrain": ("projector",),
        "finetune": ("projector", "text"),
        "alignment": ("projector", "text"),
        "global": ("projector", "text"),
    },
}


def family(name: str) -> str:
    return next(known for known in TRAINED if name.startswith(known))


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_numbers(name):
    recipe, found = get_recipe(name), {}
    for stage in recipe.stages:
        optim = stage.optim
        found[stage.name] = (
            stage.batch_size, stage.epochs, optim.lr, optim.weight_decay, optim.warmup_steps,
            optim.warmup_ratio, stage.max_length,
        )  # fmt: skip
        assert (optim.betas, optim.max_grad_norm) == ((0.9, 0.999), 1.0)
        assert optim.final_lr_ratio == 0.0
        assert (stage.start_share, stage.region_loss_weight, stage.eval_samples) == (0.0, 1.0, 0)
    assert found == NUMBERS[name]
    assert {stage.name: stage.trainable for stage in recipe.stages} == TRAINED[family(name)]
    assert (recipe.budget, recipe.bf16, recipe.benchmarks) == ("full", True, ())


def test_groma_decays_everything_and_looks_around_slowly_while_it_learns_boxes():
    first, *others = get_recipe("groma").stages
    assert (first.objective, first.augment, first.optim.decay_all) == (
        "detection", "groma_detection", True
    )  # fmt: skip
    assert first.optim.lr_factors == {"attention.offsets": 0.1, "cross_attention.offsets": 0.1}
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(config_of(get_recipe("groma")))
    names = [name for name, _ in model.proposer.named_parameters() if ".offsets." in name]
    assert len(names) == 2 * 2 * 6
    assert all(first.optim.factor(f"model.proposer.{name}") == 0.1 for name in names)
    for stage in others:
        assert (stage.objective, stage.augment, stage.optim.lr_factors) == ("language", "none", {})
        assert stage.offer_ground_boxes
        assert not stage.optim.decay_all
    assert [stage.gradient_checkpointing for stage in others] == [False, True]
    assert [stage.first_row for stage in others] == [32_000, 0]


def test_what_only_some_papers_do():
    seeds = {name: get_recipe(name).seed for name in PAPERS}
    assert {seed for name, seed in seeds.items() if name.startswith("mg_llava")} == {2024}
    means = {family(name): get_recipe(name).loss_mean for name in PAPERS}
    assert means == {"groma": "process", "mg_llava": "process", "tiny_grounding_gpt": "step"}
    adapted = {name: [stage.lora for stage in get_recipe(name).stages] for name in PAPERS}
    lora = Lora(rank=512, alpha=256.0, dropout=0.05)
    assert adapted.pop("mg_llava_video_vicuna_7b") == [None, lora]
    assert not any(any(values) for values in adapted.values())
    for name in PAPERS:
        grouped = [stage.name for stage in get_recipe(name).stages if stage.group_by_length]
        assert grouped == (["tuning"] if name.startswith("mg_llava") else [])


@pytest.mark.parametrize("name", PAPERS)
def test_parts_start_from_public_weights(name):
    recipe = get_recipe(name)
    towers = len(get_preset(recipe.model).vision.towers)
    parts = ["text", *(f"vision.towers.{index}.backbone" for index in range(towers))]
    assert sorted(recipe.weights) == sorted(parts)
    assert all(source.count("/") == 1 for source in recipe.weights.values())


# What trains: all but the language model is as large as in the paper, which has one layer here.

LLAMA_LAYER, LLAMA = 202_383_360, 6_738_415_616
GROMA_TABLES = 2 * 32_114 * 4096
GROMA_UPPER = 33_562_624 + 288_653_056  # projector, region encoder
MG_UPPER = 20_979_712 + 28_581_888 + 6_085_121  # two projectors, fusion
QWEN_LAYER, QWEN = 46_797_824, 1_543_714_304
COUNTS = {
    "groma": {
        "detection": 11_377_833,
        "alignment": GROMA_UPPER + 2 * 114 * 4096,  # of the tables, rows of new tokens
        "instruction": GROMA_UPPER + GROMA_TABLES + LLAMA_LAYER + 4096,
    },
    "mg_llava_vicuna_7b": {"pretraining": MG_UPPER, "tuning": MG_UPPER + LLAMA - 31 * LLAMA_LAYER},
    "tiny_grounding_gpt_1_5b": {
        "pretrain": 5_508_096,
        **dict.fromkeys(("finetune", "alignment", "global"), 5_508_096 + QWEN - 27 * QWEN_LAYER),
    },
}


@cache
def shallow(name: str) -> ParfocalForConditionalGeneration:
    """The recipe's model with one layer of the language model, without memory for weights."""
    config = get_preset(get_recipe(name).model)
    text = {**config.text_config.to_dict(), "num_hidden_layers": 1}
    text.pop("layer_types", None)  # of all layers
    config = vary(config, {"text_config": text})
    with torch.device("meta"):
        return ParfocalForConditionalGeneration(config)


@pytest.mark.parametrize("name", COUNTS)
def test_so_many_parameters_train(name):
    model, found = shallow(name), {}
    for stage in get_recipe(name).stages:
        freeze(SimpleNamespace(model=model), stage)  # names are checked there as well
        found[stage.name] = trainable_counts(model, stage.first_row)[0]
        slow = [key for key, _ in model.named_parameters() if "attention.offsets" in key]
        assert len(slow) == (24 if name == "groma" else 0)
    assert found == COUNTS[name]


# Data

RATIOS = {
    ("alignment", "grit"): 0.1, ("alignment", "vg_single"): 0.2, ("instruction", "coco"): 0.5,
    ("instruction", "sharegpt4v"): 0.23,
}  # fmt: skip


def sources(recipe: Recipe) -> list:
    return [(stage, source) for stage in recipe.stages for source in stage.mixture.sources]


def test_gromas_data_is_that_of_table_1():
    recipe = get_recipe("groma")
    names = {
        stage.name: [source.name for source in stage.mixture.sources] for stage in recipe.stages
    }
    both = ["refcoco", "refcoco+", "refcocog", "coco", "flickr30k", "refcocog_captions"]
    assert names == {
        "detection": ["coco", "objects365", "openimages", "v3det", "sa1b"],
        "alignment": [
            "sharegpt4v_pretrain", *both[:3], "grit", *both[3:], "vg_single",
        ],
        "instruction": [
            *both, "vg_multi", "llava_conversation_reasoning", "sharegpt4v", "groma_instruct",
        ],
    }  # fmt: skip
    ratios = {
        (stage.name, source.name): source.ratio
        for stage, source in sources(recipe)
        if source.ratio != 1
    }
    assert ratios == RATIOS


def test_tiny_grounding_gpt_sees_as_many_pairs_as_the_paper():
    stage = get_recipe("tiny_grounding_gpt_3b").stages[2]
    assert stage.samples == 4_100_000 + 210_000 + 46_000
    assert stage.steps == 136_125


@pytest.mark.parametrize("name", PAPERS)
def test_files_have_a_place_and_documentation_says_how_to_make_them(name):
    text = (REPO / "docs" / "training.md").read_text("utf-8")
    for stage, source in sources(get_recipe(name)):
        task_views(stage.mixture)  # refuses what is no view
        assert f"`{source.path}`" in text
        assert not Path(source.path).is_absolute()
        assert source.images
        moved = stage.mixture.under("/data").sources
        assert all(item.path.startswith("/data/") for item in moved)
        assert all(item.images.startswith("/data") for item in moved)
    for stage in get_recipe(name).stages:
        assert f"| `{stage.name}` |" in text


IMAGE = ImageRef("a.jpg", 400, 300)
ROWS = [[0, 0, 60, 60], [100, 0, 160, 60], [200, 100, 300, 200]]
REGIONS = Boxes(ROWS, IMAGE.frame(), labels=["A Man", "a horse", "a tree"])
CAPTION = GroundedText.of(
    Phrase("A man", Boxes(ROWS[:1], IMAGE.frame())), " by ",
    Phrase("a tree", Boxes(ROWS[2:], IMAGE.frame())), ".",
)  # fmt: skip
CHAT = (
    Turn("user", GroundedText.of("Who is there?")), Turn("assistant", CAPTION),
    Turn("user", GroundedText.of("And now?")), Turn("assistant", GroundedText.of("Still.")),
)  # fmt: skip


def asked(stage: str, source: str, **annotated) -> list[list[str]]:
    """What the views of one of Groma's sources ask and answer, as a person reads it."""
    recipe = get_recipe("groma")
    (own,) = [s for t, s in sources(recipe) if (t.name, s.name) == (stage, source)]
    (view,) = own.views
    made = apply(Sample("1", (IMAGE,), **{"turns": (), **annotated}), build_view(view), seed=0)
    return [[turn.text.plain for turn in sample.turns] for sample in made]


class TestGromasViews:
    """As the official loaders, which see one thing of a row in an epoch."""

    def test_of_a_web_caption_one_phrase(self):
        ((question, answer),) = asked("alignment", "grit", turns=(Turn("assistant", CAPTION),))
        assert "A man" in question or "a tree" in question
        assert answer == ""

    @pytest.mark.parametrize("stage", ["alignment", "instruction"])
    def test_of_a_coco_picture_one_category(self, stage):
        regions = Boxes(ROWS, IMAGE.frame(), labels=["dog", "dog", "cat"])
        ((question, _),) = asked(stage, "coco", regions=regions)
        assert "dog" in question or "cat" in question

    def test_regions_in_one_conversation(self):
        (turns,) = asked("instruction", "vg_multi", regions=REGIONS)
        assert sorted(turns[1::2]) == ["A horse", "A man", "A tree"]

    def test_expressions_are_located_and_described_at_length(self):
        regions = REGIONS[:1]
        ((question, _),) = asked("instruction", "refcocog", regions=regions)
        assert "A Man" in question
        ((question, answer),) = asked("instruction", "refcocog_captions", regions=regions)
        assert "describe" in question or "description" in question
        assert answer == "A man"

    def test_a_mark_stands_before_what_is_to_be_grounded(self):
        ((question, answer),) = asked("alignment", "flickr30k", turns=(Turn("assistant", CAPTION),))
        assert question.startswith("[grounding]")
        assert answer == "A man by a tree."
        (turns,) = asked("instruction", "groma_instruct", turns=CHAT)
        assert turns == [
            "[grounding]Who is there?", "A man by a tree.", "[grounding]And now?", "Still.",
        ]  # fmt: skip

    def test_detection_knows_no_categories(self):
        recipe = get_recipe("groma")
        for source in recipe.stages[0].mixture.sources:
            (made,) = apply(Sample("1", (IMAGE,), (), REGIONS), build_view(*source.views), seed=0)
            assert set(made.regions.labels) == {"object"}


# Words of a language model


def words(folder: Path, *marks: str) -> str:
    """The config and the tokenizer of a language model of 300 rows, as a folder."""
    LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2,
    ).save_pretrained(folder)  # fmt: skip
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>"}
    byte_tokenizer(("<s>", "</s>", *marks), **roles).save_pretrained(folder)
    return f"weights.text={folder}"


class TestWords:
    def test_groma_adds_tokens_and_rows(self, tmp_path):
        changes = ["model_overrides.proposer.max_regions=12", words(tmp_path)]
        config, processor = parts_of(get_recipe("groma", changes))
        known, ids = processor.tokenizer.get_vocab(), config.token_ids
        assert config.text_config.hidden_size == 16
        assert config.text_config.vocab_size == 300  # of which the tokenizer needs 284
        assert len(known) == 256 + 2 + 14 + 12
        assert (ids.image, ids.first_region) == (known["<image>"], known["<r0>"])
        assert processor.settings.token_ids == ids
        assert (processor.settings.num_slots, processor.settings.num_image_tokens) == (12, 256)
        assert processor.settings.template.end == "</s>"
        assert processor.settings.template.opening.endswith("Image:")

    def test_mg_llava_adds_none(self, tmp_path):
        config, processor = parts_of(get_recipe("mg_llava_vicuna_7b", [words(tmp_path)]))
        ids = config.token_ids
        assert (config.text_config.vocab_size, ids.image, ids.region) == (300, 300, 301)
        assert processor.settings.template == VICUNA
        assert processor.settings.num_image_tokens == 576
        assert config.fusion.kind == "conv_gate"

    def test_tiny_grounding_gpt_reads_object_images(self, tmp_path):
        name, own = "tiny_grounding_gpt_1_5b", words(tmp_path, "<|im_start|>", "<|im_end|>")
        changes = [own, 'model_overrides={"text_config": {"attention_dropout": 0.5}}']
        config, processor = parts_of(get_recipe(name, changes))
        ids = config.token_ids
        assert (ids.image, ids.object, ids.region) == (300, 301, -1)
        assert processor.settings.template == QWEN2_5_CHAT
        assert processor.settings.num_object_tokens == 36
        assert config.text_config.attention_dropout == 0.5

    def test_without_a_folder_the_message_says_what_to_pass(self):
        with pytest.raises(ConfigError, match=r"'lmsys/vicuna.*--set weights\.text=FOLDER"):
            parts_of(get_recipe("groma"))

    def test_a_language_model_is_needed(self):
        with pytest.raises(ConfigError, match=r"no language model.*--set weights\.text=FOLDER"):
            parts_of(get_recipe("groma", ["weights={}"]))


def test_overrides_reach_parts_sources_and_factors():
    recipe = get_recipe(
        "groma",
        [
            "weights.vision.towers.0.backbone=7",
            "stages.alignment.mixture.sources.grit.ratio=0.2",
            'stages.alignment.mixture.sources.grit.views=["rec"]',
            "stages.instruction.optim.lr=3e-5",
            "stages.instruction.optim.lr_factors.text.model=1",
        ],
    )
    before = get_recipe("groma")
    assert recipe.weights == {**before.weights, "vision.towers.0.backbone": "7"}
    grit = {source.name: source for source in recipe.stages[1].mixture.sources}["grit"]
    assert (grit.ratio, grit.views) == (0.2, ("rec",))
    instruction: Stage = recipe.stages[2]
    assert (instruction.optim.lr, instruction.optim.lr_factors) == (3e-5, {"text.model": 1.0})
    assert recipe.stages[0] == before.stages[0]
    with pytest.raises(ConfigError, match="'slow' is not of type float"):
        get_recipe("groma", ["stages.instruction.optim.lr_factors.text=slow"])


@pytest.mark.parametrize("name", ["minni", "", "Mini"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ConfigError, match=r"choose one of \['groma', .*'mini'"):
        get_recipe(name)


@pytest.fixture
def started(monkeypatch) -> list:
    """What would have been trained."""
    calls: list = []

    def start(recipe, config, processor, out, resume, runtime, accelerate, *, begin, overrides):
        calls.append((recipe, config, processor, out, resume, runtime))
        return out / "model"

    monkeypatch.setattr(recipes, "start_run", start)
    monkeypatch.setattr(recipes, "finished", lambda recipe, out: True)
    monkeypatch.setattr(recipes, "load", lambda name: name)
    monkeypatch.setattr(recipes, "run_benchmark", lambda *words: calls.append(words) or {})
    return calls


def test_overrides_reach_recipe_and_model(started, tmp_path):
    assignments = [
        "seed=7",
        "stages.language.samples=64",
        'model_overrides={"proposer": {"score_threshold": 0.5}}',
    ]
    model = run_recipe("mini", assignments, tmp_path, runtime=Runtime(processes=1))
    assert model == tmp_path / "model"
    (recipe, config, processor, out, resume, runtime), evaluated = started
    assert evaluated == ("scenes", str(model), tmp_path / "eval" / "scenes", None)
    assert (recipe.seed, recipe.stages[1].steps, out) == (7, 2, tmp_path)
    assert (resume, runtime) == (False, Runtime(processes=1))
    assert config.proposer.score_threshold == 0.5
    assert config.proposer.max_regions == mini().proposer.max_regions
    assert config.text_config.vocab_size == len(processor.tokenizer)
    assert config.token_ids == processor.settings.token_ids


def test_the_documented_variant_of_mini_can_train():
    text = (REPO / "docs" / "adding.md").read_text(encoding="utf-8")
    changes = re.findall(r"--set '([^']+)'", text[text.index("parfocal train mini --set") :])
    assert len(changes) == 2
    for given in (changes, changes[:1]):
        recipe = get_recipe("mini", given)
        config, _ = parts_of(recipe)
        assert config.proposer.kind == "deformable_detr"
        check = partial(check_stages, recipe, recipe.stages, config, Runtime(processes=2))
        if given == changes:
            check()
        else:  # the list names a part of the other proposer, and the message says what to set
            with pytest.raises(ConfigError, match=r"'proposer\.stem'.* Set stages\.perception\.op"):
                check()


def test_a_run_goes_on_with_its_own_words_and_recipe(started, tmp_path, monkeypatch):
    config, processor = parts_of(get_recipe("mini"))
    config.save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")
    saved = get_recipe("mini", ["seed=3", "benchmarks=[]"])
    (tmp_path / "recipe.json").write_text(saved.to_json(), encoding="utf-8")
    monkeypatch.setattr(recipes, "parts_of", None)
    run_recipe("mini", [], tmp_path, resume=True)
    ((recipe, found, words, *_),) = started
    assert recipe == saved
    assert found.to_dict() == ParfocalConfig.from_pretrained(tmp_path / "start").to_dict()
    assert words.settings == processor.settings
    with pytest.raises(ConfigError, match="a run of the recipe 'mini', not of 'groma'"):
        run_recipe("groma", [], tmp_path, resume=True)


def test_a_budget_is_a_size_of_the_same_recipe(started, tmp_path):
    full, smoke = get_recipe("mini"), get_recipe("mini", ["seed=1", "budget=smoke"])
    assert (full.budget, smoke.budget, smoke.seed) == ("full", "smoke", 1)
    assert smoke.benchmark_limit == 8
    for one, other in zip(full.stages, smoke.stages, strict=True):
        assert other.samples < one.samples / 50
        assert other.optim.warmup_steps < other.steps
        assert dataclasses.replace(other, samples=one.samples, optim=one.optim) == one
    with pytest.raises(ConfigError, match=r"no budget 'tiny'; choose one of \['full', 'smoke'\]"):
        run_recipe("mini", ["budget=tiny"], tmp_path)
    assert started == []


def test_an_evaluation_that_is_there_is_not_done_again(started, tmp_path):
    folder = tmp_path / "eval" / "scenes"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{}")
    run_recipe("mini", [], tmp_path)
    assert len(started) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('benchmarks=["scnes"]', r"no benchmark 'scnes' .* choose from \['scenes'\]"),
        ('benchmarks=["msvd_qa"]', r"no benchmark 'msvd_qa' that a recipe can run"),
        ("benchmark_limit=0", "benchmark_limit is 0, must be 1 or more"),
    ],
)
@pytest.mark.parametrize("begin", [True, False], ids=["trained", "prepared"])
def test_a_benchmark_that_cannot_run_is_refused_before_training(
    started, tmp_path, change, words, begin
):
    with pytest.raises(ConfigError, match=words):
        run_recipe("mini", [change], tmp_path, begin=begin)
    assert started == []


def test_a_wrong_override_stops_before_anything_starts(started, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'lr'"):
        run_recipe("mini", ["stages.perception.optim.lrr=1"], tmp_path / "new")
    assert started == []
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_not_evaluated(started, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "finished", lambda recipe, out: False)
    run_recipe("mini", [], tmp_path)
    assert len(started) == 1


def test_a_prepared_run_is_a_folder(started, tmp_path):
    assert run_recipe("mini", [], tmp_path, begin=False) == tmp_path
    assert len(started) == 1


OWN = """
from parfocal.recipes import RecipeEntry
from parfocal.recipes.mini import mini, mini_processor

RECIPE = RecipeEntry(mini, ("smoke",), mini_processor)
"""


def test_a_file_of_ones_own_is_a_recipe(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    assert get_recipe(str(path), ["budget=smoke", "seed=4"]).seed == 4


def test_a_file_that_changed_is_seen_when_its_run_goes_on(started, tmp_path):
    path, out = tmp_path / "own.py", tmp_path / "run"
    path.write_text(OWN, encoding="utf-8")
    given = ["budget=smoke", "seed=4"]
    saved = get_recipe(str(path), given)
    out.mkdir()
    (out / "recipe.json").write_text(saved.to_json(), encoding="utf-8")
    (out / "run.json").write_text(json.dumps({"overrides": given}), encoding="utf-8")
    assert recipes.recipe_of_run(str(path), [], out) == saved
    changed = "import dataclasses\n" + OWN.replace(
        "RecipeEntry(mini,",
        'RecipeEntry(lambda budget: dataclasses.replace(mini(budget), loss_mean="step"),',
    )
    path.write_text(changed, encoding="utf-8")
    recipes.find_entry.cache_clear()
    found = recipes.recipe_of_run(str(path), [], out)
    assert (found.seed, found.loss_mean) == (4, "step")
    path.unlink()
    recipes.find_entry.cache_clear()
    assert recipes.recipe_of_run(str(path), [], out) == saved


def built(stage: str, source: str = "'mini'", arguments: str = "budget") -> str:
    """A file whose recipe has a stage with one more word, and weights from a source."""
    return f"""
from pathlib import Path
from parfocal.recipes import RecipeEntry
from parfocal.train.recipe import Optim, Recipe, Stage

def build({arguments}):
    words = {{"samples": 4, "batch_size": 2, **dict({stage})}}
    talk = Stage("talk", "language", ("text",), **words)
    return Recipe("own", "tiny", (talk,), weights={{"model": {source}}})

RECIPE = RecipeEntry(build)
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file '.*own.py'"),
        ("x = 1", "does not define RECIPE, a parfocal.recipes.RecipeEntry; it is None"),
        ("RECIPE = missing", "cannot be run: NameError: name 'missing' is not defined"),
        (built("", arguments=""), "builds no recipe: TypeError: build.. takes 0 positional argum"),
        (built("lr=1e-4"), "builds no recipe: TypeError: .* unexpected keyword argument 'lr'"),
        (built("optim=Optim(lr='1e-4')"), "builds no recipe: TypeError: .*--debug shows the line"),
        (built("epochs=0"), "own.py: stage 'talk' has 0 epochs"),
        (built("batch_size='2'"), "builds no recipe: TypeError"),
        (built("eval_samples=2.5"), r"own.py: stages\.0\.eval_samples: 2\.5 is not of type int"),
        (built("", "Path('x')"), "builds no recipe: TypeError: .*Path is not JSON"),
    ],
)
def test_a_file_without_a_recipe_says_what_it_lacks(tmp_path, text, words):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        get_recipe(str(path))


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2", "zero3"])
def test_configurations_of_accelerate_are_shipped_and_valid(name):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(recipes.accelerate_file(name)))
    assert found.mixed_precision == "bf16"
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert found.distributed_type == kinds[name]
    if name.startswith("zero"):
        assert found.deepspeed_config["zero_stage"] == int(name[-1])


def test_a_configuration_that_is_not_there():
    with pytest.raises(ConfigError, match=r"'zero4'.*\['ddp', 'fsdp', 'zero2', 'zero3'\]"):
        recipes.accelerate_file("zero4")
