"""MG-LLaVA (arXiv:2406.17770): pretraining and instruction tuning, on pictures or with videos.

The files of the mixtures lie in the run's data folder; docs/training.md says how to make them.

Source: MG-LLaVA, sections 3.3 and 4.1; what they leave open, or where they differ from what made
the released weights, the official configs at 3237152. Those of videos were removed before that and
are taken from its history.
Deviates, for all runs: the official second stage, whose batches are of samples of alike length, has
pictures and words alone in batches of their own, here a batch holds both where one kind ends in a
window, and lengths are of characters, not words; the frozen ConvNeXt has no stochastic depth, which
was on by oversight. Boxes are chosen when the files of data are made, not in training
(`parfocal.data.proposals.Proposals`): a picture keeps the 100 best where the official limits leave
more, and where the text is within 50 tokens of the longest, the official code keeps one box a
label, here all stay unless `crowded` says which Samples these are.
"""

from __future__ import annotations

from dataclasses import dataclass

from parfocal.data.mixture import Mixture, MixtureSource
from parfocal.models.checkpoints.official_mg_llava import ENCODERS
from parfocal.models.checkpoints.official_mg_llava import LANGUAGE_MODELS as HUB_IDS
from parfocal.train.recipe import Lora, Optim, Recipe, Stage

MAX_LENGTH = 2048 - 576  # text tokens beside those of the picture
SEED = 2024


@dataclass(frozen=True)
class Setting:
    """What differs between language models.

    Attributes:
        pretrain_batch: Samples a step of pretraining.
        pretrain_lr: its learning rate.
        tuning_batch: Samples a step of instruction tuning.
        tuning_lr: its learning rate.
    """

    pretrain_batch: int = 256
    pretrain_lr: float = 1e-3
    tuning_batch: int = 128
    tuning_lr: float = 2e-5


# Section 4.1 states 256 and 128 Samples, 1e-3 and 2e-5 for all. Official configs and scripts differ
# from it and from each other. Pretraining: what the iterations of their first stage come to, 256,
# and 512 for Yi. Tuning: batches times GPUs of the scripts; for Vicuna-13B the released iter_21000
# agrees (64), while iterations that the files name would be of 256 (Vicuna-7B) or 128 (13B).
LANGUAGE_MODELS: dict[str, Setting] = {
    "phi3_3_8b": Setting(tuning_batch=64),
    "vicuna_7b": Setting(),
    "vicuna_13b": Setting(tuning_batch=64),
    "llama3_8b": Setting(tuning_batch=64, tuning_lr=1e-5),
    "yi1_5_34b": Setting(pretrain_batch=512, pretrain_lr=2e-3),
}


def mg_llava(language_model: str = "vicuna_7b", budget: str = "full") -> Recipe:
    """Return MG-LLaVA's recipe on pictures.

    Losses are means over what one process computes at a time, as in the official code.

    Args:
        language_model: key of `LANGUAGE_MODELS`.
        budget: "full", the only one.
    """
    setting, name = LANGUAGE_MODELS[language_model], f"mg_llava_{language_model}"
    stages = (
        pretraining("mg_llava/pretrain.jsonl", setting.pretrain_batch, setting.pretrain_lr),
        tuning("mg_llava/instruct.jsonl", setting.tuning_batch, setting.tuning_lr),
    )
    return _recipe(name, name, stages, budget)


def mg_llava_video(budget: str = "full") -> Recipe:
    """Return MG-LLaVA's recipe with videos of 8 frames, on Vicuna-7B.

    The language model is tuned by adapters, of which the paper says nothing.

    Args:
        budget: "full", the only one.

    Deviates: an official batch holds pictures or videos, 32 pictures or 4 videos a GPU and 16 or 2;
        here all are of the paper's sizes, and both share them in pretraining. The official adapters
        are on weights of 4 bits, which here `stages.tuning.lora.quantize=nf4` asks for, as it needs
        bitsandbytes. Its first stage does not pad pictures, here it does as the second.
    """
    setting = LANGUAGE_MODELS["vicuna_7b"]
    stages = (
        pretraining("mg_llava_video/pretrain.jsonl", setting.pretrain_batch, setting.pretrain_lr),
        tuning(
            "mg_llava_video/instruct.jsonl", setting.tuning_batch, setting.tuning_lr,
            Lora(rank=512, alpha=256.0, dropout=0.05),
        ),
    )  # fmt: skip
    return _recipe("mg_llava_video_vicuna_7b", "mg_llava_vicuna_7b", stages, budget)


def pretraining(path: str, batch_size: int, lr: float) -> Stage:
    """Pretraining (section 3.3): the fusion and both projectors; encoders and LLM are frozen."""
    return Stage(
        "pretraining", "language", trainable=("fusion", "projector", "regions"),
        samples=0, batch_size=batch_size, mixture=_mixture(path), epochs=1,
        max_length=MAX_LENGTH, gradient_checkpointing=True, eval_samples=0, keep=2,
        optim=_optim(lr),
    )  # fmt: skip


def tuning(path: str, batch_size: int, lr: float, lora: Lora | None = None) -> Stage:
    """Instruction tuning (section 3.3): all but the visual encoders."""
    return Stage(
        "tuning", "language", trainable=("fusion", "projector", "regions", "text"),
        samples=0, batch_size=batch_size, mixture=_mixture(path), epochs=1,
        max_length=MAX_LENGTH, group_by_length=True, lora=lora, gradient_checkpointing=True,
        eval_samples=0, keep=1, optim=_optim(lr),
    )  # fmt: skip


def _recipe(name: str, preset: str, stages: tuple[Stage, ...], budget: str) -> Recipe:
    clip, convnext = ENCODERS
    weights = {
        "text": HUB_IDS[preset], "vision.towers.0.backbone": clip,
        "vision.towers.1.backbone": convnext,
    }  # fmt: skip
    return Recipe(
        name, preset, stages, weights=weights, seed=SEED, loss_mean="process", budget=budget
    )


def _mixture(path: str) -> Mixture:
    """All data of a stage in one file, as released, with the detector's boxes as regions."""
    return Mixture((MixtureSource("all", path, images="."),))


def _optim(lr: float) -> Optim:
    return Optim(
        lr=lr, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, warmup_ratio=0.03,
        final_lr_ratio=0.0, max_grad_norm=1.0,
    )  # fmt: skip
