"""How much packing and cached features save, as ratios in one process; what a GPU makes of 7B.

    python benchmarks/bench_train.py [--pictures 64] [--repeats 5] [--out results.json]
    python benchmarks/bench_train.py --preset groma_7b --lora --compile
    python benchmarks/bench_train.py --preset tiny_grounding_gpt_1_5b --compile

The first form trains mini on seeded scenes, on this machine's processor:

- packing: all questions about a picture in one row, against a row each. Tokens a second are those
  of questions and answers, which are the same in both; pictures and slots do not count.
- shared_rows: Samples that share rows, `row_length` of a stage, against a row a Sample, each padded
  to the longest of its batch, both under a mask, as on GPUs. One in four Samples has all questions
  about a picture, one has one, and two are in words alone. Tokens a second are all but padding,
  which are the same in both.
- features: mini's language stage with a frozen language model, as Groma's alignment has one, on a
  caption a picture, read from files, against features kept on disk.

The second form takes steps of a preset with random weights on random tokens, on a GPU. It trains
the projector and the language model, or adapters of rank 64 in it with `--lora`, and compares

- packing: `--turns` questions about a picture in one row (`packed`), against a row each (`single`),
  as many at a time, accumulated to one step of the same questions and answers.
- compile, where asked for: the language model compiled, against as it is.

Of each it says two shares of `--peak-tflops`, F FLOPs of a row, M rows a step, t seconds a step:

- mfu = M F / (t peak), F without what checkpointed layers compute again: work that has to be done.
- hfu = M F / (t peak), F with it: work that is done. The same where `--keep-activations`.

F is of all parts, forward and backward; parfocal/train/costs.py has the formulas.

Source of both shares: Chowdhery et al., 2022, PaLM (arXiv:2204.02311), appendix B.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from parfocal.boxes import Boxes
from parfocal.data.jsonl import read_jsonl, write_jsonl
from parfocal.data.readers.scenes import SceneReader
from parfocal.data.sample import Sample, Turn
from parfocal.data.scenes.turns import with_turns
from parfocal.dialects import GroundedText, Phrase
from parfocal.models.config import ParfocalConfig
from parfocal.models.info import prefill_flops
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import get_preset, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.text_batch import IGNORED, TextBatch
from parfocal.recipes import get_recipe, parts_of
from parfocal.train.adapters import add_adapters
from parfocal.train.costs import Row, meta_model, row_flops
from parfocal.train.data import AnswerCollator
from parfocal.train.feature_cache import FeatureCache, fill
from parfocal.train.language import LanguageObjective
from parfocal.train.parameters import freeze
from parfocal.train.recipe import Lora, Stage
from parfocal.train.runtime import attention
from parfocal.train.turn_attention import attention_for

BATCH = 8
TALK = get_recipe("mini").stages[1]
ALIGN = dataclasses.replace(  # mini has no such stage: its language model has to learn first
    TALK, name="alignment",
    trainable=tuple(prefix for prefix in TALK.trainable if prefix != "text"),
)  # fmt: skip


def mini(stage: Stage) -> tuple[LanguageObjective, torch.optim.Optimizer, ParfocalProcessor]:
    """Build mini's objective as a stage trains it, with new weights."""
    config, processor = parts_of(get_recipe("mini"))
    torch.manual_seed(0)
    model = ParfocalForConditionalGeneration(config)
    model.text.set_attn_implementation(attention_for(config.text_config.model_type))
    return *prepared(LanguageObjective(model), stage), processor


def prepared(
    objective: LanguageObjective, stage: Stage
) -> tuple[LanguageObjective, torch.optim.Optimizer]:
    """Freeze what the stage does not train, and make an optimiser of the rest."""
    freeze(objective, stage)
    trained = [value for value in objective.parameters() if value.requires_grad]
    return objective.train(), torch.optim.AdamW(trained, lr=1e-4)


def step(objective: nn.Module, optimizer: torch.optim.Optimizer, *batches: dict[str, Any]) -> None:
    """Take one step in mixed precision; gradients of several batches are accumulated."""
    device = next(objective.parameters()).device
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16):
            loss = objective(**batch).loss
        loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def alternate(
    first: Callable[[], None], second: Callable[[], None], repeats: int
) -> tuple[float, float]:
    """Median seconds of two functions, called in turn so that both meet the same machine."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for function in (first, second):
        function()  # what only the first call needs
    for _ in range(repeats):
        for function, kept in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            function()
            kept.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def bench_packing(pictures: int, repeats: int) -> dict[str, float]:
    """Compare rows of all questions about a picture with rows of one question."""
    objective, optimizer, processor = mini(TALK)
    reader = SceneReader("train", pictures, get_recipe("mini").sides)
    samples = [
        with_turns(reader[index], processor.dialect, np.random.default_rng(index))
        for index in range(pictures)
    ]
    alone = [
        dataclasses.replace(sample, turns=sample.turns[start : start + 2])
        for sample in samples
        for start in range(0, len(sample.turns), 2)
    ]
    collate = AnswerCollator(processor)
    packed, single = batches(samples, collate), batches(alone, collate)
    tokens = [sum(int((batch["text"].turn > 0).sum()) for batch in rows) for rows in
              (packed, single)]  # fmt: skip
    if tokens[0] != tokens[1]:
        raise AssertionError(f"the two hold {tokens} tokens, which must be the same")

    def train(rows: list[dict[str, Any]]) -> None:
        for batch in rows:
            step(objective, optimizer, batch)

    on, off = alternate(lambda: train(packed), lambda: train(single), repeats)
    return {
        "questions_a_picture": len(alone) / len(samples),
        "packed_tokens_per_second": tokens[0] / on,
        "single_tokens_per_second": tokens[0] / off,
        "ratio": off / on,
    }


def bench_shared_rows(pictures: int, repeats: int, row_length: int) -> dict[str, float]:
    """Compare rows that Samples share with a row a Sample, on Samples of uneven length."""
    objective, optimizer, processor = mini(TALK)
    objective.model.text.set_attn_implementation(attention())  # by turns there is no padding
    samples = uneven(pictures, processor)
    shared = batches(samples, AnswerCollator(processor, row_length=row_length))
    single = batches(samples, AnswerCollator(processor))
    tokens = sum(int(batch["text"].attention_mask.sum()) for batch in single)

    def train(rows: list[dict[str, Any]]) -> None:
        for batch in rows:
            step(objective, optimizer, batch)

    on, off = alternate(lambda: train(shared), lambda: train(single), repeats)
    read = sum(batch["text"].places.numel() for batch in shared)
    padded = sum(batch["text"].input_ids.numel() for batch in single)
    return {
        "row_length": row_length,
        "rows_a_sample": sum(len(batch["text"].places) for batch in shared) / len(samples),
        "shared_padding": 1 - tokens / read,
        "single_padding": 1 - tokens / padded,
        "shared_tokens_per_second": tokens / on,
        "single_tokens_per_second": tokens / off,
        "ratio": off / on,
    }


def uneven(count: int, processor: ParfocalProcessor) -> list[Sample]:
    """Samples of a mixture: one in four with all questions, one with one, two in words alone."""
    reader, rows = SceneReader("train", count, get_recipe("mini").sides), []
    for index in range(count):
        sample = with_turns(reader[index], processor.dialect, np.random.default_rng(index))
        if index % 4 == 1:
            sample = dataclasses.replace(sample, turns=sample.turns[:2])
        elif index % 4 > 1:
            said = GroundedText.of(" ".join(turn.text.plain for turn in sample.turns[:2]))
            sample = Sample(sample.id, (), (Turn("user", said), Turn("assistant", said)))
        rows.append(sample)
    return rows


def batches(
    samples: Sequence[Sample], collate: Callable[[Sequence[Sample]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Collate Samples, `BATCH` at a time."""
    return [collate(samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)]


def bench_features(pictures: int, repeats: int) -> dict[str, float]:
    """Compare an epoch of alignment on files with one on features that were kept."""
    objective, optimizer, processor = mini(ALIGN)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = captions(folder, pictures)
        cache = FeatureCache(folder / "features", objective.model, bf16=True)
        started = time.perf_counter()
        fill(cache, objective.model, processor, samples)
        filled = time.perf_counter() - started
        plain, cached = AnswerCollator(processor), AnswerCollator(processor, cache=cache)

        def train(collate: AnswerCollator) -> None:
            for start in range(0, len(samples), BATCH):
                step(objective, optimizer, collate(samples[start : start + BATCH]))

        off, on = alternate(lambda: train(plain), lambda: train(cached), repeats)
        size = sum(path.stat().st_size for path in (folder / "features").rglob("*.safetensors"))
    return {
        "plain_samples_per_second": pictures / off,
        "cached_samples_per_second": pictures / on,
        "ratio": off / on,
        "filling_samples_per_second": pictures / filled,
        "megabytes_a_picture": size / pictures / 1e6,
    }


def captions(folder: Path, pictures: int) -> list[Sample]:
    """Scenes as files, each with a caption that names and points at all of its objects."""
    reader, rows = SceneReader("train", pictures, get_recipe("mini").sides), []
    for index in range(pictures):
        sample = reader[index]
        picture = folder / f"{index}.png"
        sample.open_image().save(picture)
        image = dataclasses.replace(sample.images[0], path=str(picture), pixels=None)
        boxes = sample.regions
        names = [Phrase(name, box) for name, box in zip(boxes.labels or (), boxes, strict=True)]
        turns = (
            Turn("user", GroundedText.of("Describe the picture.")),
            Turn("assistant", GroundedText.of(*names)),
        )
        empty = Boxes.empty(boxes.frame)
        rows.append(dataclasses.replace(sample, images=(image,), turns=turns, regions=empty))
    write_jsonl(rows, folder / "rows.jsonl")
    return list(read_jsonl(folder / "rows.jsonl"))


def bench_preset(args: argparse.Namespace) -> dict[str, Any]:
    """Compare ways to take a step of a preset, with random weights on random tokens."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stage = Stage(
        "bench", "language", ("projector", "text"), samples=1, batch_size=1,
        lora=Lora(rank=args.lora) if args.lora else None,
        gradient_checkpointing=not args.keep_activations,
    )  # fmt: skip
    objective, optimizer = preset(args.preset, stage, device)
    model, length = objective.model, args.text_tokens // args.turns
    ways = {"packed": [random_batch(model, args.rows, length, args.turns, device)]}
    if args.turns > 1:
        ways["single"] = [random_batch(model, args.rows, length, 1, device)] * args.turns

    def measured(batches: list[dict[str, Any]]) -> dict[str, float | None]:
        seconds, peak = timed(lambda: step(objective, optimizer, *batches), args.repeats, device)
        rows = args.rows * len(batches)
        tokens, words = batches[0]["text"].input_ids.shape[1], args.turns * length // len(batches)
        once, done = (rows * flops / seconds / 1e12 for flops in work(model, stage, tokens, words))
        return {
            "rows_a_step": rows, "tokens_a_row": tokens, "seconds_a_step": seconds,
            "tokens_per_second": rows * tokens / seconds,
            "text_tokens_per_second": rows * words / seconds,
            "mfu": once / args.peak_tflops, "hfu": done / args.peak_tflops,
            "peak_memory_gb": peak,
        }  # fmt: skip

    found = {name: measured(batches) for name, batches in ways.items()}
    if args.compile:
        model.text.base_model.compile(dynamic=False)  # what the objective calls
        found |= {f"{name}_compiled": measured(batches) for name, batches in ways.items()}
    settings = {name: getattr(args, name) for name in ("preset", "lora", "turns", "peak_tflops")}
    checkpointing = stage.gradient_checkpointing
    return {
        **settings, "device": str(device), "gradient_checkpointing": checkpointing, **found,
        "ratios": ratios({name: case["seconds_a_step"] for name, case in found.items()}),
    }  # fmt: skip


def preset(
    name: str, stage: Stage, device: torch.device
) -> tuple[LanguageObjective, torch.optim.Optimizer]:
    """Build a preset's objective on a device as a stage trains it, with new weights."""
    config = named(get_preset(name))
    torch.manual_seed(0)
    with device:
        model = ParfocalForConditionalGeneration(config)
    model.text.set_attn_implementation(attention_for(config.text_config.model_type))
    if stage.lora is not None:
        add_adapters(model.text, stage.lora)
    objective, optimizer = prepared(LanguageObjective(model).to(device), stage)
    if stage.gradient_checkpointing:
        model.text.activation_checkpointing_enable()
    return objective, optimizer


def timed(
    function: Callable[[], None], repeats: int, device: torch.device
) -> tuple[float, float | None]:
    """Median seconds of a function after three calls, and the most GB it holds on a GPU."""
    cuda, seconds = device.type == "cuda", []
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3 + repeats):
        started = time.perf_counter()
        function()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    return statistics.median(seconds[3:]), peak


def ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    """How many times faster a step is when packed and when compiled, all else alike."""
    pairs = {
        "packing": ("single", "packed"),
        "packing_compiled": ("single_compiled", "packed_compiled"),
        "compile": ("packed", "packed_compiled"),
        "compile_single": ("single", "single_compiled"),
    }
    return {
        name: seconds[slow] / seconds[fast]
        for name, (slow, fast) in pairs.items()
        if slow in seconds and fast in seconds
    }


def named(config: ParfocalConfig) -> ParfocalConfig:
    """Give a preset whose tokenizer would name its placeholders some names."""
    if config.token_ids.image >= 0:
        return config
    words = config.text_config.vocab_size
    first = words - config.proposer.max_regions
    ids = {"image": words, "region": words + 1, "first_region": first}
    return vary(config, {"token_ids": ids})


def work(
    model: ParfocalForConditionalGeneration, stage: Stage, tokens: int, text_tokens: int
) -> tuple[int, int]:
    """FLOPs of a row of so many tokens without and with what is computed again.

    They are counted on a model without memory that trains what `model` does.
    """
    shape = meta_model(model.config)
    if stage.lora is not None:
        with torch.device("meta"):
            add_adapters(shape.text, stage.lora)
    trains = {name: value.requires_grad for name, value in model.named_parameters()}
    for name, value in shape.named_parameters():
        value.requires_grad_(trains[name])
    image = model.num_image_tokens
    row = Row(
        image=image, regions=tokens - image - text_tokens, text=text_tokens,
        learned=text_tokens / 2, longest=tokens, pictures=1, objects=0, basis="measured",
    )  # fmt: skip
    forward = prefill_flops(meta_model(model.config), 1)
    once = dataclasses.replace(stage, gradient_checkpointing=False)
    least, done = (row_flops(shape, kind, row, forward).values() for kind in (once, stage))
    return sum(least), sum(done)


def random_batch(
    model: ParfocalForConditionalGeneration,
    rows: int,
    length: int,
    turns: int,
    device: torch.device,
) -> dict[str, Any]:
    """Rows of a random picture and random words, half of which are learned from.

    Args:
        model: says which tokens stand for pictures and regions.
        rows: how many.
        length: text tokens of a turn.
        turns: packed into a row; 1 packs nothing.
        device: of the batch.
    """
    ids, config = model.config.token_ids, model.config
    prefix = [ids.image] * model.num_image_tokens
    for slot in range(model.num_slots if ids.region >= 0 else 0):
        named = config.regions.layout == "interleaved"
        prefix += [*([ids.first_region + slot] if named else []), ids.region]
    generator = torch.Generator().manual_seed(0)
    known = min(3000, config.text_config.vocab_size // 2)
    words = torch.randint(3, known, (rows, turns * length), generator=generator)
    input_ids = torch.cat((torch.tensor(prefix).expand(rows, -1), words), dim=1)
    turn = torch.cat(
        (torch.zeros(len(prefix)).long(), torch.arange(turns).repeat_interleave(length) + 1)
    ).expand(rows, -1)
    learned = (torch.arange(turns * length) % length) >= length // 2
    labels = input_ids.clone()
    labels[:, : len(prefix)] = IGNORED
    labels[:, len(prefix) :][:, ~learned] = IGNORED
    none = torch.zeros(rows, 0, 4)
    text = TextBatch(
        input_ids, torch.ones_like(input_ids), none, none[..., 0].bool(), labels, turn, none,
        none[..., 0].bool(),
    )  # fmt: skip
    pixels = [
        torch.randn(rows, 3, tower.image_size, tower.image_size, generator=generator).to(device)
        for tower in config.vision.towers
    ]
    return {"pixel_values": pixels, "text": text.to(device)}


def main() -> None:
    """Run what was asked for and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row-length", type=int, default=512, help="of rows that Samples share")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--preset")
    parser.add_argument(
        "--lora", type=int, nargs="?", const=64, default=0,
        help="rank of adapters, 64 if not said; all of the language model trains without it",
    )  # fmt: skip
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--text-tokens", type=int, default=768, help="of a packed row")
    parser.add_argument("--turns", type=int, default=8, help="questions packed into a row")
    parser.add_argument("--compile", action="store_true", help="measure compiled, too")
    parser.add_argument("--keep-activations", action="store_true")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="an H200 in bfloat16")
    args = parser.parse_args()
    if args.preset:
        found: dict[str, Any] = bench_preset(args)
    else:
        torch.set_num_threads(1)
        found = {
            "packing": bench_packing(args.pictures, args.repeats),
            "shared_rows": bench_shared_rows(args.pictures, args.repeats, args.row_length),
            "features": bench_features(args.pictures, args.repeats),
        }
    found["versions"] = {"torch": torch.__version__}
    text = json.dumps(found, indent=2)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
