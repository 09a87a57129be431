"""Groma (arXiv:2404.13013): detection pretraining, alignment pretraining, instruction finetuning.

The files of the mixtures lie in the run's data folder; docs/training.md says how to make them.

Source: Groma, section 3.3, Table 1 and section 5.1; what they leave open, the official training
scripts and loaders at d3a95b6.
Deviates, for all stages: the official sampler draws what one GPU sees in a step from one dataset,
here rows of all are shuffled; frozen parts are in evaluation mode, where the official proposer
keeps its dropout; TF32, which the official scripts switch on, stays off: it is for products of
float32 matrices, and under the autocast to bfloat16 no weight is in one.
"""

from __future__ import annotations

from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.train.recipe import Optim, Recipe, Stage

GROUNDING = "mark=[grounding]"  # before questions whose answers tie words to boxes


def groma(budget: str = "full") -> Recipe:
    """Return Groma's recipe: DINOv2-L, a new proposer and region encoder, Vicuna-7B.

    Losses are means over what one process computes at a time, as in the official code, so they are
    the official ones only where that is as much: 8, 2 and 16 Samples on each of 8 GPUs in the three
    stages. A process takes all of its part of a step, here 8, 16 and 16, or what `--micro-batch`
    says for all stages that train now: give the second one by itself, on top of the first
    (`--resume --stage alignment`), 2.

    Args:
        budget: "full", the only one.
    """
    return Recipe(
        "groma", "groma_7b", (detection(), alignment(), instruction()),
        weights={
            "text": "lmsys/vicuna-7b-v1.5", "vision.towers.0.backbone": "facebook/dinov2-large",
        },
        loss_mean="process", budget=budget,
    )  # fmt: skip


def detection() -> Stage:
    """Detection Pretraining (section 3.3): the proposer learns boxes without categories.

    The image encoder is frozen. 8 pictures on each of 8 GPUs; 12 epochs (section 5.1).
    """
    # of SA-1B two million pictures, which GLEE filtered; its boxes, of parts of things as well,
    # train a score head of their own
    sources = tuple(
        _source(name, f"class_agnostic_{name}", images=name, views=("detect",))
        for name in ("coco", "objects365", "openimages", "v3det", "sa1b")
    )
    return Stage(
        "detection", "detection", trainable=("proposer",), samples=0, batch_size=64,
        mixture=Mixture(sources), epochs=12, augment="groma_detection", eval_samples=0,
        optim=Optim(
            # weight decay on everything; a tenth of the rate where attention learns where to look
            lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4, decay_all=True,
            warmup_steps=100, warmup_ratio=0.0, final_lr_ratio=0.0, max_grad_norm=1.0,
            lr_factors={"attention.offsets": 0.1, "cross_attention.offsets": 0.1},
        ),
    )  # fmt: skip


def alignment() -> Stage:
    """Alignment Pretraining (section 3.3): the projector and the region encoder meet the words.

    2 Samples on each of 8 GPUs, 8 times a step; 2 epochs (section 5.1).

    Of the token table and the head, the rows of new tokens train, which come after Vicuna's 32,000.

    Deviates: the prompt is that of the last stage, whose answers end with a mark: one run has one
    processor. The official prompt of this stage has none, and no answer is learned to end.
    """
    sources = (
        # image caption
        _source("sharegpt4v_pretrain", "sharegpt4v_pretrain"),
        # REC
        *_referring(),
        _source("grit", "grit", images="grit", ratio=0.1, views=("rec(limit=1)",)),
        _source("coco", "coco", images="coco", views=("ground_all(limit=1)",)),
        # grounded caption, region caption
        *_captions(),
        _source("vg_single", "vg_single", images="vg", ratio=0.2, views=("region_caption",)),
    )
    return Stage(
        "alignment", "language",
        trainable=("projector", "regions", "text.model.embed_tokens", "text.lm_head"),
        samples=0, batch_size=128, mixture=Mixture(sources), epochs=2, max_length=2048,
        first_row=32_000, offer_ground_boxes=True, eval_samples=0, optim=_optim(1e-4),
    )  # fmt: skip


def instruction() -> Stage:
    """Instruction Finetuning (section 3.3): the best of the data, and the language model as well.

    16 Samples on each of 8 GPUs; 1 epoch (section 5.1).
    """
    sources = (
        # REC
        *_referring(),
        _source("coco", "coco", images="coco", ratio=0.5, views=("ground_all(limit=1)",)),
        # grounded caption, region caption
        *_captions(),
        _source("vg_multi", "vg_multi", images="vg", views=("region_caption(rounds=10, limit=1)",)),
        # instruction following
        _source("llava_conversation_reasoning", "llava_conversation_reasoning"),
        _source("sharegpt4v", "sharegpt4v", ratio=0.23),
        _source(
            "groma_instruct", "groma_instruct", images="vg", views=(f"conversation({GROUNDING})",)
        ),
    )
    return Stage(
        "instruction", "language", trainable=("projector", "regions", "text"),
        samples=0, batch_size=128, mixture=Mixture(sources), epochs=1, max_length=2048,
        offer_ground_boxes=True, gradient_checkpointing=True, eval_samples=0, optim=_optim(1e-5),
    )  # fmt: skip


def _referring() -> tuple[MixtureSource, ...]:
    """Referring expressions of the three RefCOCOs, each with the box that it means."""
    names = ("refcoco", "refcoco+", "refcocog")
    return tuple(_source(name, name, images="coco", views=("rec",)) for name in names)


def _captions() -> tuple[MixtureSource, ...]:
    """Captions of both stages: of pictures, their phrases with boxes, and of regions."""
    grounded, detailed = f"grounded_caption({GROUNDING})", "region_caption(wording=groma_detail)"
    return (
        _source("flickr30k", "flickr30k", images="flickr30k", views=(grounded,)),
        _source("refcocog_captions", "refcocog", images="coco", views=(detailed,)),
    )


def _source(
    name: str, file: str, *, images: str = ".", ratio: float = 1.0, views: tuple[str, ...] = ()
) -> MixtureSource:
    """One file of Samples; `images` is the folder of its pictures, "." for that of all data."""
    return MixtureSource(name, f"groma/{file}.jsonl", images=images, ratio=ratio, views=views)


def _optim(lr: float) -> Optim:
    """Cosine to nothing after 3 % of the steps, no weight decay; the rest is the Trainer's."""
    return Optim(
        lr=lr, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, warmup_ratio=0.03,
        final_lr_ratio=0.0, max_grad_norm=1.0,
    )  # fmt: skip
