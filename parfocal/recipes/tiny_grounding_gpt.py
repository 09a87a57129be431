"""TinyGroundingGPT: words and pictures, then objects as text, coordinates and images, then all.

The files of the mixtures lie in the run's data folder; docs/training.md says how to make them.

Source: TinyGroundingGPT, sections 3.1 and A.1, Tables 5 and 6. There is no official code.
Deviates: where the paper is silent, AdamW's moments and the clipping are those of the Trainer and
rows have at most LLaVA-1.5's 2048 tokens. Table 5 does not say whether its batch sizes are of one
GPU or of all eight; they are taken for all. Nor does it say what a GPU computes at a time: losses
are means over the whole step, which no `--micro-batch` changes. TF32, which it names beside
bfloat16, stays off: it is for products of float32 matrices, and under the autocast to bfloat16 no
weight is in one.
"""

from __future__ import annotations

from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.train.recipe import Optim, Recipe, Stage

TOWERS = ("openai/clip-vit-large-patch14-336", "facebook/dinov2-large")
# Tables 1, 2 and 9
LANGUAGE_MODELS: dict[str, str] = {
    "1_5b": "Qwen/Qwen2.5-1.5B-Instruct",
    "3b": "Qwen/Qwen2.5-3B-Instruct",
    "7b": "Qwen/Qwen2.5-7B-Instruct",
}
# Table 6: pairs of text and coordinates, image and coordinates, text and image
PAIRS = (4_100_000, 210_000, 46_000)


def tiny_grounding_gpt(size: str = "3b", budget: str = "full") -> Recipe:
    """Return TinyGroundingGPT's recipe; both towers are frozen throughout.

    Args:
        size: key of `LANGUAGE_MODELS`.
        budget: "full", the only one.
    """
    name = f"tiny_grounding_gpt_{size}"
    weights = {"text": LANGUAGE_MODELS[size]}
    weights |= {f"vision.towers.{index}.backbone": tower for index, tower in enumerate(TOWERS)}
    stages = (pretrain(), finetune(), alignment(), global_alignment())
    return Recipe(name, name, stages, weights=weights, budget=budget)


def pretrain() -> Stage:
    """Stage 1, pretrain (section 3.1): the projector alone; its loss ends at about 3.0 (A.1)."""
    return _stage("pretrain", ("projector",), _captions(), 32, 1e-3)


def finetune() -> Stage:
    """Stage 1, finetune (A.1): on the same captions, with the language model, down to about 1.5."""
    return _stage("finetune", ("projector", "text"), _captions(), 32, 2e-5)


def alignment() -> Stage:
    """Stage 2, local knowledge (section 3.1): an object's text, coordinates and image are one.

    Its length is the number of pairs that the paper has, whatever the views leave out.

    Deviates: the paper's image pairs are by a teacher from pictures that it does not name. Here
    they are asked about Visual Genome's objects and relations, by rule; limits and ratios keep the
    paper's numbers. Object images keep their colours.
    """
    sources = (
        # texts and coordinates: about 0.6 million of expressions, 3.5 million of regions
        *(
            _source(name, images="coco", views=("text_coordinates",))
            for name in ("refcoco", "refcoco+", "refcocog")
        ),
        _source("vg_regions", images="vg", views=("text_coordinates(limit=32)",)),
        # images and coordinates
        _source("vg_objects", images="vg", views=("image_coordinates(limit=2)",)),
        # texts and images
        _source("vg_relationships", images="vg", ratio=0.43, views=("text_image(limit=1)",)),
    )
    return _stage(
        "alignment", ("projector", "text"), Mixture(sources), 32, 2e-5, samples=sum(PAIRS)
    )


def global_alignment() -> Stage:
    """Stage 3, global knowledge (section 3.1): instructions, and several objects of one picture.

    Its conversations and descriptions are made by the paper's pipeline (section 3.2) of pictures of
    Flickr30k Entities; they are not published.
    """
    sources = (
        _source("sharegpt4v_mix665k"),  # LLaVA-1.5's mixture with ShareGPT4V's captions
        _source("grounding_conversations", images="flickr30k"),
        _source("grounding_descriptions", images="flickr30k"),
    )
    return _stage("global", ("projector", "text"), Mixture(sources), 16, 2e-5, epochs=2)


def _stage(
    name: str,
    trainable: tuple[str, ...],
    mixture: Mixture,
    batch_size: int,
    lr: float,
    *,
    epochs: float = 1,
    samples: int = 0,
) -> Stage:
    """What all stages have in common (Table 5): cosine, 3 % of warm-up, no weight decay."""
    optim = Optim(
        lr=lr, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, warmup_ratio=0.03,
        final_lr_ratio=0.0, max_grad_norm=1.0,
    )  # fmt: skip
    return Stage(
        name, "language", trainable=trainable, samples=samples, batch_size=batch_size,
        mixture=mixture, epochs=epochs, max_length=2048, gradient_checkpointing=True,
        eval_samples=0, optim=optim,
    )  # fmt: skip


def _captions() -> Mixture:
    """LLaVA-Pretrain, the 595 K of CC3M, each with an instruction to describe briefly."""
    return Mixture((_source("llava_pretrain"),))


def _source(
    name: str, *, images: str = ".", ratio: float = 1.0, views: tuple[str, ...] = ()
) -> MixtureSource:
    """One file of Samples; `images` is the folder of its pictures, "." for that of all data."""
    path = f"tiny_grounding_gpt/{name}.jsonl"
    return MixtureSource(name, path, images=images, ratio=ratio, views=views)
