"""Recipes as values: saved, read back, and changed by typed assignments."""

from __future__ import annotations

import dataclasses
import json

import pytest

from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.errors import ConfigError
from parfocal.train.overrides import override
from parfocal.train.recipe import Lora, Optim, Recipe, Stage

FIND = Stage("find", "detection", ("vision", "proposer"), samples=100, batch_size=8)
TALK = Stage("talk", "language", ("text",), samples=64, batch_size=4, optim=Optim(lr=2e-4))
RECIPE = Recipe(
    "demo", "tiny", (FIND, TALK), {"proposer": {"queries": 5}}, sides=(96, 128), seed=3, bf16=False
)


def test_json_round_trip():
    again = Recipe.from_json(RECIPE.to_json())
    assert again == RECIPE
    assert isinstance(again.stages[0].optim, Optim)
    assert again.stages[0].trainable == ("vision", "proposer")
    assert again.stages[1].optim.betas == (0.9, 0.98)
    assert again.sides == (96, 128)
    assert again.to_json() == RECIPE.to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(colour=1), "Recipe has no field 'colour'"),
        (lambda row: row["stages"][0].update(lr=1), "Stage has no field 'lr'"),
        (lambda row: row["stages"][0].update(objective="x"), "objective 'x'; choose one of"),
        (lambda row: row["stages"][1].update(start_share=1.0), "start_share 1.0, must be at least"),
        (lambda row: row["stages"][1]["optim"].update(momentum=1), "Optim has no field 'momentum'"),
        (lambda row: row["stages"][1].update(lora={"rank": "64"}), "rank: '64' is not of type int"),
        (lambda row: row.update(bf16="false"), "bf16: 'false' is not of type bool"),
        (lambda row: row.update(sides=[64, 0.5]), r"sides.1: 0.5 is not of type int"),
        (lambda row: row.update(kinds=10), "kinds 10, must be more than the 10 objects"),
        (lambda row: row.update(kinds=9999), "kinds 9999, must be .* no more than"),
        (lambda row: row.update(num_objects=[2, 999]), "must be more than the 999 objects"),
        (lambda row: row.update(num_objects=[1, 1]), "the most 2 or more"),
        (lambda row: row.update(num_objects=[2, 4, 6]), r"num_objects: \[2, 4, 6\] needs 2 values"),
    ],
    ids=[
        "recipe",
        "stage",
        "objective",
        "share",
        "optim",
        "text",
        "truth",
        "part",
        "few",
        "many",
        "crowd",
        "one",
        "three",
    ],
)
def test_unknown_keys_and_choices_are_refused(change, words):
    row = json.loads(RECIPE.to_json())
    change(row)
    with pytest.raises(ConfigError, match=words):
        Recipe.from_json(json.dumps(row))


def test_recipes_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPE.seed = 4


FILES = dataclasses.replace(
    TALK, name="files", samples=0, epochs=2.0, lora=Lora(rank=4, targets=("q_proj",)),
    mixture=Mixture((MixtureSource("a", "a.jsonl"), MixtureSource("b", "b.jsonl", ratio=0.5))),
    optim=Optim(warmup_steps=0, warmup_ratio=0.03, lr_factors={"vision": 0.1}),
)  # fmt: skip
BIG = dataclasses.replace(RECIPE, stages=(FIND, FILES), weights={"text": "folder"}, workers=3)


def test_what_is_nested_comes_back_as_it_was():
    again = Recipe.from_json(BIG.to_json())
    assert again == BIG
    assert isinstance(again.stages[1].mixture.sources[1], MixtureSource)
    assert isinstance(again.stages[1].lora, Lora)


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("workers=2", "workers", 2),
        ("workers=none", "workers", None),
        ("weights.text=other", "weights", {"text": "other"}),
        ("model_overrides.proposer.queries=7", "model_overrides", {"proposer": {"queries": 7}}),
        ("stages.files.lora.rank=8", "stages.1.lora.rank", 8),
        ("stages.files.lora=none", "stages.1.lora", None),
        ('stages.find.lora={"rank": 2}', "stages.0.lora", Lora(rank=2)),
        ("stages.files.row_length=512", "stages.1.row_length", 512),
        ("stages.files.mixture.sources.b.ratio=1", "stages.1.mixture.sources.1.ratio", 1.0),
        ("stages.files.optim.lr_factors.text=0.5", "stages.1.optim.lr_factors",
         {"vision": 0.1, "text": 0.5}),
        ("loss_mean=process", "loss_mean", "process"),
    ],
)  # fmt: skip
def test_overrides_reach_into_what_is_nested(assignment, path, value):
    assert get(override(BIG, [assignment]), path) == value


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("workers=two", "'two' is not of type int"),
        ("stages.find.lora.rank=2", "goes into something that is not set"),
        ("stages.files.lora.rnk=2", "Lora has no field 'rnk'. Did you mean 'rank'"),
        ('stages.files.lora={"rnk": 2}', "Lora has no field 'rnk'"),
        ('stages.files.mixture={"sources": [{"name": "a"}]}', "MixtureSource needs .* 'path'"),
        ('weights={"text": 5}', "text: 5 is not of type str"),
        ('stages.files.optim.lr_factors={"text": "1"}', "text: '1' is not of type float"),
        ("seed=-1", "seed is -1, must be 0 or more"),
        ("stages.files.mixture.sources.c.ratio=1", r"'c' is not one of \['a', 'b'\]"),
        ("loss_mean=mean", r"loss_mean is 'mean'; choose one of \['process', 'step'\]"),
        ("stages.files.optim.warmup_ratio=1", "warmup_ratio is 1.0, must be from 0 to below 1"),
        ("stages.files.optim.final_lr_ratio=-2", "final_lr_ratio is -2.0, must be from 0 to 1"),
        ("stages.files.samples=-5", "samples -5, must be 0 or more"),
        ("stages.files.save_every=-1", "save_every -1, must be 0 or more"),
        ("stages.files.region_loss_weight=0", "region_loss_weight 0.0, must be above 0"),
        ("stages.files.augment=groma_detection", "augment and the objective 'language'"),
        ("stages.find.gradient_checkpointing=true", "gradient_checkpointing and the objective"),
        ("stages.find.trainable=[]", "trains nothing: name parts"),
        ("stages.find.best=pointing_50", r"by 'pointing_50'; choose one of \['proposal_recall_50'"),
        ("stages.find.best=proposal_recall_50", "say with eval_every"),
        ("sides=[]", r"the sides \[\], must be one or more"),
        ("sides=[64, 0]", r"the sides \[64, 0\], must be"),
        ("stages.find.samples=0", "seeded scenes have no end"),
        ("stages.find.group_by_length=true", "group_by_length and no mixture"),
        ("stages.find.max_length=64", "max_length and no mixture"),
        ("stages.find.augment=groma_detection", "augment and no mixture"),
        ('stages.find.eval_mixture={"sources": [{"name": "a", "path": "a"}]}', "eval_mixture and"),
        ("stages.find.offer_ground_boxes=true", "offer_ground_boxes and no mixture"),
        ("stages.find.row_length=64", "row_length and the objective 'detection', which knows"),
        ("stages.files.row_length=-1", "row_length -1, must be 0 or more"),
    ],
)
def test_what_cannot_be_nested_is_refused(assignment, words):
    with pytest.raises(ConfigError, match=words):
        override(BIG, [assignment])


@pytest.mark.parametrize(("optim", "steps", "warm"), [
    (Optim(warmup_steps=7), 100, 7),
    (Optim(warmup_steps=0, warmup_ratio=0.03), 1000, 30),
    (Optim(warmup_steps=0, warmup_ratio=0.03), 101, 4),
    (Optim(), 1000, 30),
    (Optim(warmup_steps=7, warmup_ratio=0.5), 100, 7),
    (Optim(warmup_ratio=0.0), 100, 0),
])  # fmt: skip
def test_warm_up_is_a_number_of_steps_or_a_share_of_them(optim, steps, warm):
    assert optim.warmup(steps) == warm


@pytest.mark.parametrize(("samples", "batch", "steps"), [(100, 8, 12), (64, 4, 16), (9, 8, 1)])
def test_steps(samples, batch, steps):
    assert dataclasses.replace(FIND, samples=samples, batch_size=batch).steps == steps


def get(recipe: Recipe, path: str):
    value = recipe
    for name in path.split("."):
        value = value[int(name)] if isinstance(value, tuple) else getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("seed=11", "seed", 11),
        ("bf16=true", "bf16", True),
        ("name=other", "name", "other"),
        ("name=12", "name", "12"),
        ("model = mini ", "model", "mini"),
        ("sides=[64, 80]", "sides", (64, 80)),
        ("stages.find.samples=70", "stages.0.samples", 70),
        ("stages.talk.optim.lr=1e-5", "stages.1.optim.lr", 1e-5),
        ("stages.1.optim.lr=1", "stages.1.optim.lr", 1.0),
        ("stages.0.trainable=[\"text\"]", "stages.0.trainable", ("text",)),
        ("stages.0.optim.betas=[0.8, 0.9]", "stages.0.optim.betas", (0.8, 0.9)),
        ("model_overrides={\"fusion\": {\"kind\": \"none\"}}", "model_overrides",
         {"fusion": {"kind": "none"}}),
    ],
)  # fmt: skip
def test_override_is_typed_by_the_field(assignment, path, value):
    changed = override(RECIPE, [assignment])
    assert get(changed, path) == value
    assert type(get(changed, path)) is type(value)
    # nothing else moves
    flat, before = json.loads(changed.to_json()), json.loads(RECIPE.to_json())
    first = path.split(".")[0]
    assert {key for key in flat if flat[key] != before[key]} <= {first}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("best=proposal_recall_75", "eval_every=5"),
        ("samples=6", "batch_size=2"),
        ("trainable=[]", 'lora={"rank": 2}'),
    ],
)
def test_assignments_that_need_each_other_come_in_any_order(one, other):
    both = [f"stages.find.{one}", f"stages.find.{other}"]
    assert override(RECIPE, both) == override(RECIPE, both[::-1])
    with pytest.raises(ConfigError):
        override(RECIPE, both[:1])


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("bf16=True", "Write true or false"),
        ("seed=1.5", "Write a whole number"),
        ("stages.0.trainable=text", r"Write a list, such as \[64, 80\] or \[\"text\"\]"),
    ],
)
def test_a_value_of_another_type_says_what_to_write(assignment, words):
    with pytest.raises(ConfigError, match=words):
        override(RECIPE, [assignment])


def test_later_assignments_win_and_the_recipe_given_is_untouched():
    before = RECIPE.to_json()
    changed = override(RECIPE, ["seed=1", "stages.find.samples=9", "seed=2"])
    assert (changed.seed, changed.stages[0].samples) == (2, 9)
    assert changed.stages[1] == TALK
    assert RECIPE.to_json() == before
    assert override(RECIPE, []) == RECIPE


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("seed", r"'seed' is not of the form path=value"),
        ("sede=1", r"Recipe has no field 'sede'. Did you mean 'seed'\? .*'sides'"),
        ("xyzzy=1", r"no field 'xyzzy'\. Its fields are \['name', 'model', 'stages'"),
        ("stages.find.sampels=1", r"Stage has no field 'sampels'. Did you mean 'samples'\?"),
        ("stages.find.optim.lrr=1", r"Optim has no field 'lrr'. Did you mean 'lr'\? .*'betas'"),
        ("stages.think.samples=1", r"'think' is not one of \['find', 'talk'\]"),
        ("stages.2.samples=1", r"'2' is not one of \['find', 'talk'\]"),
        ("stages.find=1", r"names no field of it"),
        ("seed.deeper=1", r"goes deeper than there are fields"),
        ('stages.talk.lora={"rank": "64"}', r"stages.talk.lora.*rank: '64' is not of type int"),
        ("stages.talk.optim.warmup_steps=0.03", r"'0\.03' is not of type int"),
        ("seed=one", r"'one' is not of type int"),
        ("seed=1.5", r"'1\.5' is not of type int"),
        ("seed=true", r"'true' is not of type int"),
        ("bf16=1", r"'1' is not of type bool"),
        ("bf16=yes", r"'yes' is not of type bool"),
        ("stages.0.optim.lr=fast", r"'fast' is not of type float"),
        ("stages.0.optim.lr=true", r"'true' is not of type float"),
        ("sides=64", r"'64' is not of type tuple"),
        ('sides=[64, "a"]', r"is not of type int"),
        ("stages.0.optim.betas=[0.8]", r"needs 2 values"),
        ('stages.0.optim={"betas": [0.8]}', r"betas: \[0\.8\] needs 2 values"),
        ("stages.0.optim.betas=[0.9, 1.0]", r"betas are \(0\.9, 1\.0\), must be from 0 to below 1"),
        ("stages.0.optim.weight_decay=-0.1", r"weight_decay is -0\.1, must be 0 or more"),
        ("stages.0.optim.warmup_steps=-5", r"warmup_steps is -5, must be 0 or more"),
        ('stages.0.optim.lr_factors={"text": -2.0}', r"lr_factors\['text'\] is -2\.0, must be 0"),
        ("stages.0.eval_samples=-1", r"has eval_samples -1, must be 0 or more"),
        ("stages.0.objective=detect", r"objective 'detect'; choose one of \['detection'"),
    ],
)  # fmt: skip
def test_override_refuses(assignment, words):
    with pytest.raises(ConfigError, match=words):
        override(RECIPE, [assignment])
