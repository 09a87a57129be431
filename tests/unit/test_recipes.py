"""Every recipe fits its model and its processor; overrides reach the run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from parfocal import recipes
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.scenes.catalogue import KINDS
from parfocal.errors import ConfigError
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import mini, vary
from parfocal.recipes import RECIPES, get_recipe, parts_of, run_recipe
from parfocal.recipes.mini import mini_processor
from parfocal.train.data import ConversationCollator, ConversationDataset
from parfocal.train.recipe import Recipe


@pytest.fixture(scope="module")
def processors() -> dict:
    """Every recipe's processor, built once."""
    return {name: parts_of(get_recipe(name))[1] for name in RECIPES}


def model_of(recipe: Recipe) -> ParfocalForConditionalGeneration:
    """The model that the recipe trains, without memory for its weights."""
    with torch.device("meta"):
        return ParfocalForConditionalGeneration(parts_of(recipe)[0])


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_named_as_listed_and_can_be_saved(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert len({stage.name for stage in recipe.stages}) == len(recipe.stages)
    for stage in recipe.stages:
        assert stage.steps > stage.optim.warmup_steps
        assert stage.samples % stage.batch_size == 0
        assert stage.batch_size % 2 == 0  # two processes on a machine of two cores


@pytest.mark.parametrize("name", RECIPES)
def test_every_part_is_trained_by_some_stage_and_every_prefix_names_one(name):
    recipe = get_recipe(name)
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


@pytest.mark.parametrize("name", RECIPES)
def test_processor_fits_the_model(name, processors):
    processor, recipe = processors[name], get_recipe(name)
    model = model_of(recipe)
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


def test_mini_processor_is_always_the_same(processors):
    again = mini_processor(mini())
    assert again.tokenizer.get_vocab() == processors["mini"].tokenizer.get_vocab()
    assert again.settings == processors["mini"].settings


def test_overrides_of_the_model_reach_its_processor():
    changes = {"proposer": {"max_regions": 12}, "regions": {"layout": "interleaved"}}
    processor = mini_processor(vary(mini(), changes))
    assert (processor.settings.num_slots, processor.settings.layout) == (12, "interleaved")
    assert "<r11>" in processor.tokenizer.get_vocab()
    assert "<r12>" not in processor.tokenizer.get_vocab()


def test_mini_writes_every_name_in_few_tokens_and_reads_it_back(processors):
    tokenizer = processors["mini"].tokenizer
    lengths = []
    for kind in KINDS:
        for words in (f"the {kind.name}", f"3 {kind.plural}"):
            ids = tokenizer.encode(words, add_special_tokens=False)
            assert tokenizer.decode(ids) == words
            lengths.append(len(ids))
    assert sum(lengths) / len(lengths) < 5
    assert max(lengths) <= 10


def test_mini_processor_packs_what_mini_is_taught(processors, toy_bank):
    processor = processors["mini"]
    reader = SceneReader("train", 2, (64,), toy_bank)
    dataset = ConversationDataset(reader, processor.dialect, seed=0)
    text = ConversationCollator(processor)([dataset[0], dataset[1]])["text"]
    assert int(text.input_ids.max()) < len(processor.tokenizer)
    assert text.turn.max() >= 6
    assert text.input_ids.shape[1] < 1024


@pytest.mark.parametrize("name", ["minni", "", "Mini"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ConfigError, match=r"choose one of \['mini'"):
        get_recipe(name)


@pytest.fixture
def started(monkeypatch) -> list:
    """What would have been trained."""
    calls: list = []

    def start(recipe, config, processor, out, processes, resume):
        calls.append((recipe, config, processor, out, processes, resume))
        return out / "model"

    monkeypatch.setattr(recipes, "start_run", start)
    monkeypatch.setattr(recipes, "load", lambda name: name)
    monkeypatch.setattr(recipes, "run_benchmark", lambda *words: calls.append(words) or {})
    return calls


def test_overrides_reach_recipe_and_model(started, tmp_path):
    assignments = [
        "seed=7",
        "stages.language.samples=32",
        'model_overrides={"proposer": {"score_threshold": 0.5}}',
    ]
    model = run_recipe("mini", assignments, tmp_path, processes=1, resume=True)
    assert model == tmp_path / "model"
    (recipe, config, processor, out, processes, resume), evaluated = started
    assert evaluated == ("scenes", str(model), tmp_path / "eval" / "scenes", None)
    assert (recipe.seed, recipe.stages[1].steps, out) == (7, 2, tmp_path)
    assert (processes, resume) == (1, True)
    assert config.proposer.score_threshold == 0.5
    assert config.proposer.max_regions == mini().proposer.max_regions
    assert config.text_config.vocab_size == len(processor.tokenizer)
    assert config.token_ids == processor.settings.token_ids


def test_a_budget_is_a_size_of_the_same_recipe(started, tmp_path):
    full, smoke = get_recipe("mini"), get_recipe("mini", ["seed=1", "budget=smoke"])
    assert (full.budget, smoke.budget, smoke.seed) == ("full", "smoke", 1)
    assert smoke.benchmark_limit == 16
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


def test_a_wrong_override_stops_before_anything_starts(started, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'lr'"):
        run_recipe("mini", ["stages.perception.optim.lrr=1"], tmp_path / "new")
    assert started == []
    assert not (tmp_path / "new").exists()
