"""What a row of a stage costs: work and memory, counted on a model that takes no memory itself.

Symbols: L tokens of a row, N weights of linear layers, F work of a forward pass (a multiply-add is
2), W attention heads times their width.

Work of the language model, by what trains in it:

- 2 N L forward; 2 N L more for gradients that pass through; 2 N L more for those of weights that
  train: 6 N L where all train, 4 N L where gradients only pass, 2 N L where nothing before trains.
  Adapters are linear layers that train.
- attention: 4 layers W L^2 forward, 12 layers W L^2 with gradients; pairs that a mask hides count.
- the head as a linear layer over the tokens that are learned.
- checkpointed layers are computed once more: 2 N L + 4 layers W L^2. That is part of what a device
  does and of what a stage takes, but no part of MFU, which `benchmarks/bench_train.py` measures
  without it, and HFU with it.

Work of any other part: F (1 + p + s) a picture; p is 1 if gradients pass, s the share of its
weights that train. F is counted by a run without memory (`parfocal.models.info`); of a transformer
it is 2 N patches + 4 layers W patches^2.

Memory of a process, in bytes:

- weights: 4 a parameter, whether it trains or not: they are float32, nothing is sharded. Those that
  are quantised (`Lora.quantize`) take 4.127 bits each.
- copies: with bfloat16, 2 a parameter of the parts that gradients pass through; where layers are
  checkpointed and frozen, fewer. Quantised layers are unpacked one at a time: the largest counts,
  in the numbers that are computed with.
- gradients: 4 a parameter that trains; twice that with several processes, for what they exchange.
- moments: AdamW's, 8 a parameter that trains; Muon's, 4.
- activations: what autograd keeps of a row, counted by a run without memory, times the rows at a
  time, all as long as the longest. On CPUs attention keeps all pairs; by turns, in truth, fewer.
  With bfloat16 half of it outside the language model, which runs
  in bfloat16. Checkpointed layers keep their float32 input and, one at a time, all else.

Left out: padding, that Samples can share rows, the objective's own heads, the class heads of
detection, RoIAlign, what an allocator wastes, and that frozen features can be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from parfocal.models.config import ParfocalConfig
from parfocal.models.info import part_modules
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.proposer import Regions
from parfocal.train import fused
from parfocal.train.optimizers import by_muon
from parfocal.train.quantize import BITS, linear_layers
from parfocal.train.recipe import Objective, Stage

Basis = Literal["measured", "max_length", "one_picture", "pictures"]

# part -> the parts before it, whose gradients pass through it
_BEFORE: Mapping[str, frozenset[str]] = {
    "vision": frozenset(),
    "pyramid": frozenset({"vision"}),
    "fusion": frozenset({"vision"}),
    "projector": frozenset({"vision", "fusion", "merge"}),
    "proposer": frozenset({"vision", "pyramid"}),
    "refiner": frozenset({"vision", "pyramid"}),
    "regions": frozenset({"vision", "pyramid"}),
    "merge": frozenset({"vision", "pyramid", "fusion", "regions"}),
    "text": frozenset({"vision", "pyramid", "fusion", "projector", "regions", "merge"}),
}
_DETECTION = ("vision", "pyramid", "proposer", "refiner", "regions")  # what that objective runs
_NO_LANGUAGE_LOSS = ("proposer", "refiner")  # boxes are chosen, and choices have no gradient
_OF_OBJECTS = ("vision", "pyramid", "fusion", "projector")  # what object images pass as well


@dataclass(frozen=True)
class Row:
    """A mean row of a stage, in tokens.

    Attributes:
        image: of pictures and object images.
        regions: of region slots, with their names.
        text: of all else.
        learned: of these, those that the loss is of.
        longest: of the longest row.
        pictures: how many it shows.
        objects: how many object images it shows.
        basis: `measured` on the first Samples; `max_length` where the text was not to be measured
            and is taken to be as long as it may be; `one_picture` where the Samples were not to be
            had either, and one picture stands for theirs; `pictures` for an objective without text.
    """

    image: float
    regions: float
    text: float
    learned: float
    longest: int
    pictures: float
    objects: float
    basis: Basis

    @property
    def tokens(self) -> float:
        """All of them."""
        return self.image + self.regions + self.text


@dataclass(frozen=True)
class Memory:
    """Bytes a process needs; the module says how they are estimated."""

    weights: int
    copies: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.copies + self.gradients + self.moments + self.activations

    def divided(self, states: Collection[str], world: int) -> Memory:
        """Where every process holds its part of some of it alone.

        Args:
            states: of `weights`, `gradients` and `moments`.
            world: number of processes.
        """
        return replace(self, **{name: math.ceil(getattr(self, name) / world) for name in states})


def meta_model(config: ParfocalConfig) -> ParfocalForConditionalGeneration:
    """Build a model that has shapes, but no numbers."""
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(config)
    model.train(False)
    return model


def slot_tokens(model: ParfocalForConditionalGeneration) -> int:
    """Return how many tokens the region slots of a picture are."""
    config = model.config
    if not config.regions.in_text:
        return 0
    return int(config.proposer.max_regions) * (2 if config.regions.layout == "interleaved" else 1)


def gradient_parts(model: ParfocalForConditionalGeneration, objective: Objective) -> set[str]:
    """Return the parts that gradients pass through: what trains, and what comes behind it.

    Args:
        model: with its frozen parameters marked as such.
        objective: decides what is computed at all.
    """
    parts = {
        name: part for name, part in part_modules(model).items() if _runs(name, part, objective)
    }
    trained = {name for name, part in parts.items() if _trained(part)}
    if objective == "language":
        parts = {name: part for name, part in parts.items() if name not in _NO_LANGUAGE_LOSS}
    kinds = {_kind(name) for name in trained}
    return {name for name in parts if name in trained or kinds & _BEFORE[_kind(name)]}


def row_flops(
    model: ParfocalForConditionalGeneration, stage: Stage, row: Row, forward: Mapping[str, int]
) -> dict[str, int]:
    """Return the work of a row, forward and backward, by part; the module has the formulas.

    Args:
        model: with its frozen parameters marked, and its adapters, if the stage has them.
        stage: its objective and whether activations are computed twice.
        row: the mean row.
        forward: work of one picture by part, of `prefill_flops`.
    """
    passed, found = gradient_parts(model, stage.objective), {}
    for name, part in part_modules(model).items():
        if not _runs(name, part, stage.objective):
            found[name] = 0
        elif name == "text":
            found[name] = _text_flops(model, row, name in passed, stage.gradient_checkpointing)
        else:
            shown = row.pictures + (row.objects if _kind(name) in _OF_OBJECTS else 0)
            factor = 1 + (1 + _share(part) if name in passed else 0)
            found[name] = round(forward[name] * shown * factor)
    return found


def _text_flops(
    model: ParfocalForConditionalGeneration, row: Row, passed: bool, checkpointed: bool
) -> int:
    config, head_layer = model.config.text_config, model.get_output_embeddings()
    table: Any = head_layer.weight
    weights = _linear_weights(model)
    count = sum(weight.numel() for weight in weights)
    share = sum(weight.numel() for weight in weights if weight.requires_grad) / max(1, count)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    layers, through = config.num_hidden_layers, int(passed)
    linear, attention = 2 * count * row.tokens, 4 * layers * width * row.tokens**2
    head = 2 * table.numel() * row.learned
    work = linear * (1 + through + share) + attention * (1 + 2 * through)
    work += head * (1 + through + int(table.requires_grad))
    if checkpointed and passed:
        work += linear + attention
    return int(work + 0.5)


def process_memory(
    model: ParfocalForConditionalGeneration,
    stage: Stage,
    row: Row,
    micro_batch: int,
    world: int,
    bf16: bool,
    attention: str = "sdpa",
) -> Memory:
    """Estimate what a process needs; the module has the formulas.

    Args:
        model: as in `row_flops`; its language model comes back in another type of number.
        stage: its objective and whether activations are computed twice.
        row: the mean row.
        micro_batch: rows at a time.
        world: number of processes.
        bf16: whether it computes in bfloat16.
        attention: of the language model, a name that Transformers knows.
    """
    parts, passed = part_modules(model), gradient_parts(model, stage.objective)
    packed = _quantized_sizes(model, stage)
    copied = sum(_size(parts[name]) for name in passed) if bf16 else 0
    if "text" in passed and bf16:
        copied -= sum(packed)
    trained = _trained(model)
    return Memory(
        weights=4 * (_size(model) - sum(packed)) + math.ceil(sum(packed) * BITS / 8),
        copies=2 * copied + max(packed, default=0) * (2 if bf16 else 4),
        gradients=4 * trained * (1 if world == 1 else 2),
        moments=8 * trained - 4 * _of_muon(model, stage),
        activations=micro_batch * _row_activations(model, stage, row, bf16, attention),
    )


def host_memory(model: nn.Module, memory: Memory | None, processes: int, cuda: bool) -> int | None:
    """Estimate what the memory of a machine itself holds of a stage, in bytes.

    Each process builds the whole model in float32, and divides or hands it on only then. At the end
    of a stage the main one builds another, beside what was trained if that is here and not on GPUs.

    Args:
        model: as in `row_flops`.
        memory: of a process; None where it is not known.
        processes: on the machine.
        cuda: they train on GPUs, which hold all else.
    """
    whole = 4 * _size(model)
    if cuda:
        return processes * whole
    return None if memory is None else max(processes * max(whole, memory.total), 2 * whole)


def _row_activations(
    model: ParfocalForConditionalGeneration, stage: Stage, row: Row, bf16: bool, attention: str
) -> int:
    seen = _kept(model, lambda: _look(model)) // (2 if bf16 else 1)
    kept = math.ceil(seen * (row.pictures + row.objects))
    if not row.longest:
        return kept
    kinds = {_kind(name) for name in gradient_parts(model, stage.objective)}
    table: Any = model.get_input_embeddings().weight
    leaves = bool(kinds & _BEFORE["text"]) or table.requires_grad
    text = model.text.to(torch.bfloat16 if bf16 else torch.float32).train()
    text.set_attn_implementation(fused.NAME if attention == "sdpa" else attention)
    body = _kept(model, lambda: _read(model, row.longest, leaves))
    if stage.gradient_checkpointing:
        config = model.config.text_config
        inputs = 4 * config.hidden_size * row.longest * config.num_hidden_layers
        body = min(body, inputs + body // config.num_hidden_layers)
    return kept + body + _kept(model, lambda: _answer(model, math.ceil(row.learned)))


def _kept(model: nn.Module, run: Callable[[], object]) -> int:
    """Count the bytes that autograd keeps of a run for the way back, the model's own left out."""
    own = {value.untyped_storage()._cdata for value in (*model.parameters(), *model.buffers())}
    held: dict[int, UntypedStorage] = {}

    def keep(value: Tensor) -> None:
        storage = value.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage

    def give(kept: Any) -> Any:
        return kept

    with torch.device("meta"), saved_tensors_hooks(keep, give):
        run()
    return sum(storage.nbytes() for storage in held.values())


def _look(model: ParfocalForConditionalGeneration) -> None:
    """Encode one picture and describe all its region slots."""
    towers = model.config.vision.towers
    features = model.encode(
        [torch.empty(1, 3, tower.image_size, tower.image_size) for tower in towers]
    )
    if model.regions is not None:
        slots = model.num_slots
        empty = Regions(
            torch.empty(1, slots, 4), torch.empty(1, slots), torch.ones(1, slots).bool()
        )
        model.image_tokens(features, model.describe_regions(features, empty))


def _read(model: ParfocalForConditionalGeneration, length: int, leaves: bool) -> None:
    """Run the language model over a row; `leaves`: gradients go on to what made its inputs."""
    width, dtype = model.config.text_config.hidden_size, model.text.dtype
    model.text.base_model(
        inputs_embeds=torch.empty(1, length, width, dtype=dtype).requires_grad_(leaves),
        position_ids=torch.arange(length)[None],
        attention_mask=torch.empty(1, 1, length, length),
        use_cache=False,
    )


def _answer(model: ParfocalForConditionalGeneration, learned: int) -> None:
    """Compute the loss of so many tokens from their last hidden states."""
    width, dtype = model.config.text_config.hidden_size, model.text.dtype
    hidden = torch.empty(learned, width, dtype=dtype).requires_grad_()
    logits = model.get_output_embeddings()(hidden)
    cross_entropy(logits.float(), torch.empty(learned, dtype=torch.long))


def _kind(name: str) -> str:
    """The part without the number of the tower."""
    return name.split()[0]


def _runs(name: str, part: nn.Module, objective: Objective) -> bool:
    """Whether an objective computes a part; detection computes regions to teach them."""
    if objective == "language":
        return True
    return _kind(name) in _DETECTION and (name != "regions" or _trained(part) > 0)


def _size(part: nn.Module) -> int:
    return sum(value.numel() for value in part.parameters())


def _of_muon(model: nn.Module, stage: Stage) -> int:
    """How many weights Muon trains."""
    return sum(
        value.numel()
        for name, value in model.named_parameters()
        if value.requires_grad and by_muon(name, value, stage.optim)
    )


def _trained(part: nn.Module) -> int:
    return sum(value.numel() for value in part.parameters() if value.requires_grad)


def _share(part: nn.Module) -> float:
    return _trained(part) / max(1, _size(part))


def _quantized_sizes(model: ParfocalForConditionalGeneration, stage: Stage) -> list[int]:
    """Weights of each layer that the stage quantises."""
    if stage.lora is None or not stage.lora.quantized:
        return []
    return [layer.weight.numel() for layer in linear_layers(model.text).values()]


def _linear_weights(model: ParfocalForConditionalGeneration) -> list[Tensor]:
    """Weights of the language model's linear layers, adapters too, without the head."""
    head = model.get_output_embeddings()
    return [
        part.weight
        for part in model.text.modules()
        if isinstance(part, nn.Linear) and part is not head
    ]
