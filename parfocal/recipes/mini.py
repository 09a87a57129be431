"""mini: all of Groma's plan at toy size, on seeded scenes; language learns on frozen perception."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from parfocal.data.scenes import turns
from parfocal.data.scenes.catalogue import FAMILIES, KINDS, article
from parfocal.data.scenes.expressions import EXTREMES, SECONDS, SIDES
from parfocal.dialects import get_dialect
from parfocal.models.building import build_processor, token_ids_of
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import PromptTemplate
from parfocal.models.tokenizers import END, train_tokenizer
from parfocal.train.recipe import Optim, Recipe, Stage

TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>", end=END, independent_turns=True)
VOCAB_SIZE = 2048


APPEARANCE = (
    "regions.pool", "regions.flatten", "regions.context.identity", "regions.context.scale",
    "regions.context.threshold",
)  # fmt: skip
"""What of the region encoder describes what a box holds, not what the language model reads."""

# pictures of the three stages, and pictures of the benchmark at the end
BUDGETS: dict[str, tuple[int, int, int, int | None]] = {
    "full": (96_000, 44_000, 10_400, None),
    "smoke": (768, 384, 128, 8),  # minutes: everything runs, little is learned
}


def mini(budget: str = "full") -> Recipe:
    """Return mini's recipe: perception, then language, then its wording.

    Perception learns to find objects, to place their sides and to tell them apart; language to
    name, point, compare, count and refuse. Language is learned with most weight on pointing, which
    leaves slips in the words of captions; the wording stage takes them out.

    Both language stages keep towers, proposer and region appearance frozen: only what turns
    appearances into tokens trains.

    Perception stands for Groma's detection pretraining, with a tower and appearances that train as
    well and kinds that are told; language for alignment pretraining and instruction finetuning in
    one, as there is no language model to begin with that could stay frozen; wording has none of its
    own and ends the finetuning.

    Args:
        budget: key of `BUDGETS`.
    """
    seen, talked_about, polished, scored = BUDGETS[budget]
    perception = Stage(
        "perception", "detection", trainable=("vision", "proposer", "refiner", *APPEARANCE),
        samples=seen, batch_size=32,
        optim=Optim(
            lr=2e-3, weight_decay=0.02, warmup_steps=min(80, seen // 160), final_lr_ratio=0.01,
            max_grad_norm=5.0,
            muon=(
                "backbone.encoder", "vision.pyramid", "proposer.stem", "refiner.hidden", "regions",
            ),
        ),
    )  # fmt: skip
    language = Stage(
        "language", "language", samples=talked_about, batch_size=32, eval_samples=0,
        region_loss_weight=4.0,
        trainable=(
            "projector", "regions.position", "regions.context.project", "regions.balance",
            "regions.lift", "regions.norm", "text",
        ),
        optim=Optim(
            lr=1.6e-3, weight_decay=0.01, warmup_steps=min(100, talked_about // 160),
            final_lr_ratio=0.02, max_grad_norm=1.0,
            muon=("text.model.layers",), lr_factors={"text.model.layers": 2.0},
        ),
    )  # fmt: skip
    # all words of an answer alike, as captions need; the mean with its start points better
    wording = dataclasses.replace(
        language, name="wording", samples=polished, region_loss_weight=1.0, start_share=0.5,
        optim=dataclasses.replace(
            language.optim, lr=1e-3, warmup_steps=min(30, polished // 160)
        ),
    )  # fmt: skip
    return Recipe(
        "mini", "mini", (perception, language, wording),
        # a caption goes on from its last region, and only beams weigh a name by the region after it
        loss_mean="process", budget=budget, generation={"num_beams": 5},
        benchmarks=("scenes",), benchmark_limit=scored,
    )  # fmt: skip


def mini_processor(config: ParfocalConfig) -> ParfocalProcessor:
    """Build the processor of a model like mini, with a tokenizer that knows all it can meet.

    The tokenizer is learned from sentences that are always the same ones, so it is as well. It has
    names of regions for dialects that point by them. Placeholders that the dialect has no token
    for, and the model's regions need, are ids beyond the table.

    Args:
        config: of the model; its token ids and its vocabulary size do not matter.
    """
    dialect, regions = get_dialect(config.dialect), config.regions
    names = 0 if dialect.writes_boxes else config.proposer.max_regions
    tokenizer = train_tokenizer(_sentences(), dialect, TEMPLATE, names, VOCAB_SIZE)
    ids, beyond = token_ids_of(tokenizer).to_dict(), len(tokenizer)
    for name, needed in (("region", regions.in_text), ("object", regions.kind == "crop")):
        if needed and ids[name] < 0:
            ids[name], beyond = beyond, beyond + 1
    named = vary(config, {"token_ids": ids})
    with torch.device("meta"):
        shape = ParfocalForConditionalGeneration(config)
    return build_processor(tokenizer, named, TEMPLATE, shape.num_image_tokens)


def _sentences() -> list[str]:
    """Return every name in every wording, without markup."""
    dialect = get_dialect("region_tokens")
    canonical = [
        dialect.locate("{}"),
        dialect.locate_all("{}"),
        dialect.describe(),
        dialect.describe_region(0),
    ]
    patterns = [*turns.WHERE, *turns.EXISTS, *turns.COUNT, *turns.ALL]
    patterns += [*turns.NAME_REGION, *turns.CAPTION]
    patterns += [item.plain.replace("[grounding]", "") for item in canonical]
    patterns += ["Yes, {}.", "No, {} and {}", "{}, {}."]
    generator = np.random.default_rng(0)
    synonyms = [word for group in turns.SYNONYMS.values() for word in group]
    words = [*EXTREMES, *SECONDS, *SIDES, *synonyms, *FAMILIES]
    sentences = [f"the {word} {word}" for word in words] * 8
    sentences += [f"{number} {number}" for number in range(21)] * 8
    for kind in KINDS:
        names = [kind.name, kind.plural, f"the {kind.name}", f"{article(kind.name)} {kind.name}"]
        for name in names * 2:
            chosen = generator.choice(patterns, size=4)
            sentences += [pattern.replace("{}", name) for pattern in chosen] + [name]
    return sentences + patterns * 20
