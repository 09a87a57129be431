"""The papers' ablations at toy size: comparisons whose arms differ in one thing, on seeded scenes.

An arm is the base and a difference. The base is mini's plan with a language model of fewer layers:
one language stage on frozen perception, on scenes of few kinds of objects. All arms of a seed see
the same scenes, as many of them, in batches as large, for as many steps. An arm that stands in
several comparisons is run once.

Towers and language models of the papers were trained by others beforehand; here mini's own
perception and runs that all arms and seeds share stand for them (`SHARED`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parfocal.models.presets import get_preset, vary
from parfocal.recipes.mini import APPEARANCE, VOCAB_SIZE, mini
from parfocal.train.recipe import Recipe, Stage

SIGHT, DETAIL, WORDS = "sight", "detail", "words"
SHARED: Mapping[str, str] = {
    SIGHT: "the first tower with its pyramid, proposer and region appearance",
    DETAIL: "the second tower, which sees twice the resolution",
    WORDS: "a language model, learned beside connectors that are then thrown away",
}
"""Runs that arms take parts of, in the order in which they build on each other."""

_PERCEPTION, _LANGUAGE, _ = mini().stages
READS_REGIONS = _LANGUAGE.trainable
CONNECTORS = tuple(part for part in READS_REGIONS if part != "text")
FROM_SIGHT: Mapping[str, str] = dict.fromkeys(("vision", "proposer", "refiner", *APPEARANCE), SIGHT)
FROM_WORDS: Mapping[str, str] = {**FROM_SIGHT, "text": WORDS}


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: what differs from the base.

    Attributes:
        name: of its runs, the same in every comparison that it stands in.
        model: differences of the model, part by part, as in `Recipe.model_overrides`.
        detail: it has the second tower.
        trainable: what trains in the language stage.
        alignment_weight: of the language stage.
        weights: part -> shared run that it starts from; all else starts from the seed.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    detail: bool = False
    trainable: tuple[str, ...] = READS_REGIONS
    alignment_weight: float = _LANGUAGE.alignment_weight
    weights: Mapping[str, str] = field(default_factory=lambda: FROM_SIGHT)


@dataclass(frozen=True)
class Comparison:
    """A question, and the arms that answer it.

    Attributes:
        question: in words.
        arms: what it is called here -> arm.
        metrics: of `parfocal.recipes.ablation_score.METRICS`, the one that decides first.
        direction: the papers' answer, best first; `~` between what they find equal.
        source: where they say so, with their numbers.
        deviates: how this differs from what they did.
    """

    question: str
    arms: Mapping[str, Arm]
    metrics: tuple[str, ...]
    direction: str
    source: str
    deviates: str


@dataclass(frozen=True)
class Budget:
    """How large the models are, and how much each run sees.

    Attributes:
        preset: that the base varies.
        model: what the base changes in it.
        detail: the second tower; its token grid is that of the first.
        sight: bundled model that the run of this name is left out for; "": it is run.
        perception: pictures of the shared runs of towers.
        perception_batch: pictures a step of these.
        language: pictures of the language stage of every arm.
        language_batch: pictures a step of it.
        language_lr: its learning rate, of AdamW; where mini's stage has factors, times these.
        scenes: validation scenes that every arm is scored on.
        kinds: number of kinds of objects in scenes; 0: all.
        num_objects: fewest and most objects in one.
        sides: longer sides of training pictures, pixels, used in turn.
    """

    preset: str
    model: Mapping[str, Any]
    detail: Mapping[str, Any]
    sight: str
    perception: int
    perception_batch: int
    language: int
    language_batch: int
    language_lr: float
    scenes: int
    kinds: int
    num_objects: tuple[int, int]
    sides: tuple[int, ...] = (192, 256)


def _detail(image_size: int, sizes: tuple[int, ...], depths: tuple[int, ...]) -> dict[str, Any]:
    """A ConvNeXt whose last map has the first tower's token grid."""
    return {
        "backbone": {
            "model_type": "convnext", "hidden_sizes": list(sizes), "depths": list(depths),
            "layer_scale_init_value": 0.1,
        },
        "image_size": image_size, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.25, 0.25, 0.25),
        "token_layer": 4, "level_layers": (3, 4),
    }  # fmt: skip


BUDGETS: dict[str, Budget] = {
    # minutes an arm, with a ninth of the pictures of mini's language stage: half as wide a language
    # model names regions as well, and does not yet find them by name when this one does
    "small": Budget(
        "mini",
        {
            "text_config": {  # its words come with the tokenizer
                "model_type": "qwen2", "vocab_size": VOCAB_SIZE, "hidden_size": 256,
                "intermediate_size": 704, "num_hidden_layers": 3, "num_attention_heads": 4,
                "num_key_value_heads": 4, "max_position_embeddings": 1024,
                "tie_word_embeddings": True, "initializer_range": 256**-0.5,
            },
        },
        _detail(384, (24, 48, 96, 192), (1, 1, 2, 1)), sight="mini",
        perception=12_800, perception_batch=32, language=4_800, language_batch=8,
        language_lr=1.2e-3, scenes=200, kinds=24, num_objects=(2, 6),
    ),
    "smoke": Budget(  # seconds an arm: everything runs, nothing is learned
        "tiny", {}, _detail(192, (8, 8, 8, 16), (1, 1, 1, 1)), sight="",
        perception=16, perception_batch=4, language=16, language_batch=4, language_lr=1.2e-3,
        scenes=2, kinds=0, num_objects=(2, 10), sides=(96,),
    ),
}  # fmt: skip

NO_REGIONS: Mapping[str, Any] = {
    "dialect": "coordinates",
    "proposer": {"kind": "none", "refine": False},
    "regions": {"kind": "none"},
}
BASE = Arm("base")
READS_NO_REGIONS = Arm(
    "coordinates", NO_REGIONS, trainable=("projector", "text"), alignment_weight=0.0,
    weights={"vision": SIGHT},
)  # fmt: skip
TWO_TOWERS: Mapping[str, str] = {
    **dict.fromkeys(("vision.towers.0", "vision.pyramid"), SIGHT),
    **{part: SIGHT for part in FROM_SIGHT if part != "vision"},
    "vision.towers.1": DETAIL,
}


def _fused(name: str, kind: str, *trainable: str) -> Arm:
    """The base with both towers, fused in some way; further parts that train."""
    parts = (*READS_REGIONS, *trainable)
    return Arm(name, {"fusion": {"kind": kind}}, detail=True, trainable=parts, weights=TWO_TOWERS)


CONCAT = _fused("concat", "concat")


# The words of the papers' tables; the numbers stand in their order, best first or as printed.
COMPARISONS: dict[str, Comparison] = {
    # TinyGroundingGPT, section 3.1 (detailed local knowledge alignment): texts (T), coordinates
    # (C) and object images (I). What reads object images has no weights of its own.
    "alignment": Comparison(
        "Do questions that show object images help to connect words with coordinates?",
        {
            "T,C": READS_NO_REGIONS,
            "T,C,I": dataclasses.replace(
                READS_NO_REGIONS,
                name="object_images",
                model={**NO_REGIONS, "regions": {"kind": "crop", "merge_crops": 3}},
            ),
        },
        ("rec", "rec_iou", "name", "count"),
        direction="T,C,I > T,C",
        source="TinyGroundingGPT, Table 3: RefCOCO, RefCOCO+ and RefCOCOg averages, 3B 88.50, "
        "80.56, 83.69 against 87.35, 78.89, 83.25",
        deviates="two of a scene's questions show objects in place of others, so both arms are "
        "asked as much; the paper adds 256 K questions",
    ),
    # TinyGroundingGPT, section 3.3 and A.5.
    "towers": Comparison(
        "Does a second tower help, channels joined?",
        {"one": BASE, "two": CONCAT},
        ("rec", "rec_twins", "name", "count", "absent"),
        direction="two > one",
        source="TinyGroundingGPT, Table 10: CLIP and DINOv2 against CLIP, VQAv2 77.9 and 76.5, GQA "
        "62.2 and 61.4, POPE 87.6 and 85.8; SQA 63.1 and 64.8 the other way",
        deviates="regions read the first tower in both arms, so the second reaches image tokens "
        "alone",
    ),
    # MG-LLaVA, section 3.1. A conv gate starts with the second map at zero: where it does not
    # train, image tokens are the first tower's, in a model of the same size.
    "fusion": Comparison(
        "How should a second tower's tokens join the first's, beside object tokens?",
        {
            "none": _fused("not_fused", "conv_gate"),
            "concat": CONCAT,
            "conv_gate": _fused("conv_gate", "conv_gate", "fusion"),
        },
        ("rec", "rec_twins", "name", "count", "absent"),
        direction="conv_gate > none > concat",
        source="MG-LLaVA, Table 5a: MMBench-Dev 69.8, 69.2, 68.9; MMStar 34.5, 34.1, 32.6",
        deviates="regions read the low-resolution tower; the paper's read the other one",
    ),
    # MG-LLaVA, section 3.2. Boxes stand in the text as numbers: object tokens are only read.
    "object_tokens": Comparison(
        "Do object tokens beside the image tokens help a model that answers in words?",
        {
            "off": READS_NO_REGIONS,
            "on": Arm(
                "object_tokens",
                {
                    "dialect": "coordinates",
                    "regions": {"kind": "multiscale_mean", "roi_size": 14, "layout": "bare"},
                },
                trainable=("projector", "regions", "text"),
                alignment_weight=0.0,
                weights={part: run for part, run in FROM_SIGHT.items() if part not in APPEARANCE},
            ),
        },
        ("count", "name", "absent", "rec", "rec_iou"),
        direction="on > off",
        source="MG-LLaVA, Table 4, without fusion, Vicuna-7B: MMBench-Dev 69.2 and 68.2, SEED 65.0 "
        "and 64.6; TextVQA 56.5 and 56.7 the other way",
        deviates="boxes come from the shared proposer, not from RAM and OWLv2",
    ),
    # Groma, sections 1 and 3.3.
    "pointing": Comparison(
        "Should answers name proposed regions, or write coordinates?",
        {
            "proxy_aligned": BASE,
            "proxy": Arm("not_aligned", alignment_weight=0.0),
            "coordinates": READS_NO_REGIONS,
        },
        ("rec", "rec_iou", "rec_unique", "rec_twins", "name", "count"),
        direction="proxy > coordinates",
        source="Groma, Table 2: 86.52 on the REC benchmarks; Shikra-7B, which writes coordinates, "
        "82.93",
        deviates="the paper has no such ablation, and compares models of other data; "
        "proxy_aligned is proxy with mini's term that holds regions against words",
    ),
    # Groma, section 5.6 (token merge).
    "merge": Comparison(
        "Does merging 2 x 2 image tokens into one cost accuracy?",
        {"on": BASE, "off": Arm("not_merged", {"projector": {"merge": 1}})},
        ("rec", "rec_twins", "name", "count", "absent"),
        direction="off ~ on",
        source="Groma, Table 8: 86.55 without, 86.47 with, on the REC benchmarks",
        deviates="the projector of merged tokens has more weights, as in the paper",
    ),
    # Groma, section 5.6 (frozen LLM).
    "language_model": Comparison(
        "Does the language model have to train?",
        {
            "frozen": Arm("words_frozen", trainable=CONNECTORS, weights=FROM_WORDS),
            "trained": Arm("words_trained", weights=FROM_WORDS),
        },
        ("rec", "rec_twins", "name", "count", "absent"),
        direction="trained > frozen",
        source="Groma, Table 7: 86.52 unfrozen, 84.02 frozen, on the REC benchmarks",
        deviates="the language model was learned on the same scenes, asked otherwise, beside "
        "connectors of its own; the paper's knew no pictures",
    ),
}


def shared_runs(comparisons: Mapping[str, Comparison], budget: str) -> list[str]:
    """Return the shared runs that any arm takes parts of, in the order to run them in."""
    given = SIGHT if BUDGETS[budget].sight else None
    wanted = {run for item in comparisons.values() for arm in item.arms.values()
              for run in arm.weights.values()} - {given}  # fmt: skip
    return [run for run in SHARED if run in wanted]


def distinct_arms(comparisons: Mapping[str, Comparison]) -> list[Arm]:
    """Return the arms of all comparisons, each once."""
    arms = {arm.name: arm for item in comparisons.values() for arm in item.arms.values()}
    return list(arms.values())


def shared_folder(out: Path, run: str) -> Path:
    """Where a shared run is."""
    return out / "shared" / run


def arm_folder(out: Path, arm: Arm, seed: int) -> Path:
    """Where an arm is."""
    return out / "arms" / arm.name / f"seed-{seed}"


def arm_recipe(arm: Arm, seed: int, budget: str, out: Path) -> Recipe:
    """Return the recipe of an arm.

    Args:
        arm: its difference from the base.
        seed: of the run.
        budget: key of `BUDGETS`.
        out: folder of all runs, where the shared ones are.
    """
    sizes = BUDGETS[budget]
    weights = {part: _source(run, sizes, out) for part, run in arm.weights.items()}
    stage = _sized(_LANGUAGE, sizes.language, sizes.language_batch)
    optim = dataclasses.replace(stage.optim, lr=sizes.language_lr)
    if "text" not in arm.trainable:  # whose layers Muon trains
        optim = dataclasses.replace(optim, muon=(), lr_factors={})
    stage = dataclasses.replace(
        stage, trainable=arm.trainable, alignment_weight=arm.alignment_weight, eval_samples=0,
        optim=optim,
    )  # fmt: skip
    name = f"ablate-{arm.name}"
    return _recipe(name, stage, _difference(arm, sizes), weights, seed, budget)


def shared_recipe(run: str, budget: str, out: Path) -> Recipe:
    """Return the recipe of a shared run; the other arguments are those of `arm_recipe`.

    The language model's is the base arm's with a seed that no arm has, so other questions and
    connectors.
    """
    if run == WORDS:
        recipe = arm_recipe(BASE, 1000, budget, out)
        return dataclasses.replace(recipe, name=f"ablate-{run}")
    sizes = BUDGETS[budget]
    stage = dataclasses.replace(
        _sized(_PERCEPTION, sizes.perception, sizes.perception_batch), eval_samples=sizes.scenes
    )
    difference = _difference(BASE, sizes)
    if run == DETAIL:
        towers = ("vision.towers.1", "vision.pyramid")
        others = tuple(part for part in stage.trainable if part != "vision")
        stage = dataclasses.replace(stage, trainable=(*towers, *others))
        difference = _difference(CONCAT, sizes)
        difference["vision"]["levels_from"] = 1
    return _recipe(f"ablate-{run}", stage, difference, {}, 0, budget)


def _source(run: str, sizes: Budget, out: Path) -> str:
    """Where the weights of a shared run are."""
    if run == SIGHT and sizes.sight:
        return sizes.sight
    stage = _LANGUAGE if run == WORDS else _PERCEPTION
    return str(shared_folder(out, run) / stage.name)


def _recipe(
    name: str,
    stage: Stage,
    difference: Mapping[str, Any],
    weights: Mapping[str, str],
    seed: int,
    budget: str,
) -> Recipe:
    sizes = BUDGETS[budget]
    return Recipe(
        name, sizes.preset, (stage,), model_overrides=difference, weights=weights,
        sides=sizes.sides, kinds=sizes.kinds, num_objects=sizes.num_objects, seed=seed,
        loss_mean="process", budget=budget,
    )  # fmt: skip


def _sized(stage: Stage, samples: int, batch_size: int) -> Stage:
    """One of mini's stages at another size, with warm-up for a twentieth of it."""
    warmup = max(1, min(80, samples // batch_size // 20))
    optim = dataclasses.replace(stage.optim, warmup_steps=warmup)
    return dataclasses.replace(stage, samples=samples, batch_size=batch_size, optim=optim)


def _difference(arm: Arm, sizes: Budget) -> dict[str, Any]:
    """What a budget and an arm change in the preset; the arm's word counts."""
    joined: dict[str, Any] = dict(sizes.model)
    for part, change in arm.model.items():
        joined[part] = {**joined.get(part, {}), **change} if isinstance(change, Mapping) else change
    if arm.detail:
        base = vary(get_preset(sizes.preset), sizes.model)
        towers = [base.vision.towers[0].to_dict(), dict(sizes.detail)]
        joined["vision"] = {**joined.get("vision", {}), "towers": towers}
    return joined
