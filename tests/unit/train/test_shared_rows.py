"""Samples that share rows of the language model: each is learned from as in a row of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects import GroundedText, Phrase
from parfocal.dialects.grounded import ObjectRef, RegionRef
from parfocal.models.packing import in_rows, row_places, share_rows
from parfocal.models.text_batch import IGNORED
from parfocal.train.data import AnswerCollator, ConversationCollator
from parfocal.train.language import LanguageObjective
from parfocal.train.stages import build_language_objective
from parfocal.train.turn_attention import NAME
from tests.unit.models.builders import (
    build_dense,
    build_groma,
    build_mg_llava,
    build_tiny_grounding_gpt,
    pictures,
)
from tests.unit.train.test_videos import make_video, talk

BOX, OTHER = [8, 4, 20, 25], [2, 10, 18, 28]


def shown(index: int, *turns: Turn, regions: tuple[list[float], ...] = ()) -> Sample:
    """A Sample about a picture of noise; its id is not that of another one."""
    picture = pictures()[index % 3]
    image = ImageRef(None, *picture.size, pixels=picture)
    boxes = Boxes(list(regions), image.frame()) if regions else Boxes.empty(image.frame())
    return Sample(f"picture{index}", (image,), turns, boxes)


def words(count: int) -> Sample:
    return Sample(f"words{count}", (), talk("what is it? " * count, "it is " * count))


def pointing(index: int, *boxes: list[float]) -> Sample:
    """Two questions: where things are, and what the user's second region is."""
    sample = shown(index, regions=(OTHER, BOX))
    frame = sample.images[0].frame()
    phrases = [Phrase("it", Boxes([box], frame)) for box in boxes]
    told = talk("what is it?", "it"), talk(RegionRef(1), "is it")
    turns = (told[0][0], Turn("assistant", GroundedText.of(*phrases, "is")), *told[1])
    return replace(sample, turns=turns)


def objects(index: int, count: int) -> Sample:
    """A question that shows object images, the last one first."""
    sample = shown(index)
    images = [sample.images[0], *(shown(index + step + 1).images[0] for step in range(count))]
    marks = [ObjectRef(number) for number in range(count, 0, -1)]
    question = Turn("user", GroundedText.of(*marks))
    return replace(sample, images=tuple(images), turns=(question, talk("", "red apple")[1]))


@cache
def case(kind: str) -> tuple:
    """Model, processor and Samples of very different lengths."""
    if kind == "crop":
        rows = [objects(0, 2), words(5), objects(1, 1), shown(2, *talk(), *talk("it?", "is")),
                words(1)]  # fmt: skip
        return *build_tiny_grounding_gpt(packing="parallel"), rows
    if kind == "conv_gate":
        video = make_video([[BOX], [], [OTHER, BOX]])
        rows = [shown(0, *talk(), regions=(BOX, OTHER)), words(4), video, words(1),
                shown(1, *talk("it?", "is"))]  # fmt: skip
        return *build_mg_llava(), rows
    model, processor = build_dense() if kind == "dense" else build_groma()
    rows = [pointing(0, BOX), words(6), pointing(1, OTHER, BOX), words(1), pointing(2)]
    if kind == "dense":
        vision = replace(processor.settings.vision, video="pad")
        settings = replace(processor.settings, vision=vision)
        processor = type(processor)(processor.tokenizer, settings)
        video = make_video([[BOX], [OTHER]], seed=2)
        named = Phrase("it", Boxes([BOX], video.images[0].frame()))
        rows.insert(1, replace(video, turns=talk("what is it?", named)))
    return model, processor, rows


KINDS = ["dense", "groma", "conv_gate", "crop"]


def objective_of(kind: str) -> LanguageObjective:
    objective = LanguageObjective(case(kind)[0], region_weight=3.0).eval()
    objective.offer_ground_boxes = kind in ("dense", "groma")  # so that answers can be named
    return objective


def batches(kind: str) -> tuple[dict, dict]:
    """The same Samples in rows of their own, and in rows that they share."""
    _, processor, rows = case(kind)
    alone = AnswerCollator(processor)(rows)
    lengths = alone["text"].attention_mask.sum(1).tolist()
    room = 2 * max(lengths)
    shared = AnswerCollator(processor, row_length=room)(rows)
    assert 1 < len(shared["text"].places) < len(rows)
    return alone, shared


def only(batch: dict, index: int) -> dict:
    """Learn from one Sample of a batch."""
    labels = torch.full_like(batch["text"].labels, IGNORED)
    labels[index] = batch["text"].labels[index]
    return {**batch, "text": replace(batch["text"], labels=labels)}


def gradients(objective: LanguageObjective, batch: dict) -> dict[str, torch.Tensor]:
    objective.zero_grad()
    objective(**batch).loss.backward()
    return {
        name: value.grad.clone()
        for name, value in objective.named_parameters()
        if value.grad is not None
    }


@pytest.mark.parametrize("kind", KINDS)
def test_each_sample_has_the_loss_that_it_has_alone(kind):
    objective, (alone, shared) = objective_of(kind), batches(kind)
    assert objective.counts(shared) == objective.counts(alone)
    one, other = objective(**alone), objective(**shared)
    assert other.loss.item() == pytest.approx(one.loss.item(), rel=1e-5)
    assert other.terms.keys() == one.terms.keys()
    for index in range(len(alone["seeds"])):
        found = objective(**only(shared, index)).loss.item()
        assert found > 0
        assert found == pytest.approx(objective(**only(alone, index)).loss.item(), rel=1e-5)


def test_the_first_token_of_a_sample_is_not_learned_behind_another():
    objective, losses = objective_of("crop"), []
    for batch in batches("crop"):
        text = batch["text"]
        labels = text.labels.clone()
        labels[:, 0] = text.input_ids[:, 0].clamp(max=9)
        losses.append(objective(**{**batch, "text": replace(text, labels=labels)}).loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_rows_of_their_own(kind):
    objective, (alone, shared) = objective_of(kind), batches(kind)
    one, other = gradients(objective, alone), gradients(objective, shared)
    assert one.keys() == other.keys()
    for name, value in one.items():
        gap = float((value - other[name]).abs().max())
        assert gap <= 1e-5 * max(1.0, float(value.abs().max())), name


@pytest.mark.parametrize("kind", KINDS)
def test_by_turns_only_live_tokens_are_read_and_the_same_is_learned(kind):
    objective, by_turns = objective_of(kind), copy.deepcopy(objective_of(kind))
    by_turns.model.set_attn_implementation(NAME)
    read = []
    by_turns.model.text.base_model.register_forward_pre_hook(
        lambda module, inputs, options: read.append(options["inputs_embeds"].shape[:2]),
        with_kwargs=True,
    )
    for batch in batches(kind):
        one, other = gradients(objective, batch), gradients(by_turns, batch)
        assert one.keys() == other.keys()
        for name, value in one.items():
            gap = float((value - other[name]).abs().max())
            assert gap <= 1e-5 * max(1.0, float(value.abs().max())), name
    with torch.no_grad():
        text, per_row = batch["text"], batch["pictures"]
        seen = objective._see(batch["pixel_values"], text, per_row, batch["seeds"])
    live = int(seen.live.sum())
    rounded = live + -live % 32  # a CPU meets few lengths, and compiles few products
    assert read == [(1, rounded)] * 2
    assert rounded < text.input_ids.numel()


def logits_of(objective: LanguageObjective, batch: dict, index: int) -> torch.Tensor:
    """The logits at the answers of one Sample."""
    seen = []
    head = objective.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        objective(**only(batch, index))
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_sample_holds_changes_no_other(kind):
    objective, (_, shared) = objective_of(kind), batches(kind)
    counts, changed = shared["pictures"], {**shared}
    first = next(index for index, count in enumerate(counts) if count)
    shown = slice(sum(counts[:first]), sum(counts[: first + 1]))
    changed["pixel_values"] = [values.clone() for values in shared["pixel_values"]]
    for values in changed["pixel_values"]:
        values[shown] = values[shown].flip(-1)
    text = shared["text"]
    ids = text.input_ids.clone()
    # the last two tokens of the first question change places
    end = int((text.labels[first] != IGNORED).nonzero()[0])
    ids[first, end - 2 : end] = ids[first, end - 2 : end].flip(0)
    changed["text"] = replace(text, input_ids=ids)
    for index in range(len(counts)):
        before, after = (logits_of(objective, batch, index) for batch in (shared, changed))
        assert torch.equal(before, after) == (index != first)


def test_scenes_are_aligned_as_in_rows_of_their_own(make_model, processor, toy_talk):
    objective = build_language_objective(make_model(), processor).eval()
    lengths = ConversationCollator(processor)(toy_talk)["text"].attention_mask.sum(1).tolist()
    outputs = []
    for row_length in (0, sum(lengths)):
        batch = ConversationCollator(processor, row_length)(toy_talk)
        assert batch["text"].places is None or len(batch["text"].places) == 1
        torch.manual_seed(0)  # slots are drawn from the process's generator
        outputs.append(objective(**batch))
    one, other = outputs
    assert other.terms.keys() == one.terms.keys() >= {"answer", "names", "comparisons"}
    for name, value in one.terms.items():
        assert float(other.terms[name]) == pytest.approx(float(value), rel=1e-5), name


# which Sample goes where


@pytest.mark.parametrize(
    ("lengths", "row_length", "rows"),
    [
        ([5, 4, 3, 12, 2], 8, [[0, 2], [1, 4], [3]]),  # the first row with room, not the last
        ([4, 4], 8, [[0, 1]]),  # exactly full
        ([9, 1], 8, [[0], [1]]),  # what is longer than a row shares it with nothing
        ([3, 3, 3], 1, [[0], [1], [2]]),
        ([2, 1, 3], 100, [[0, 1, 2]]),
    ],
)
def test_each_goes_to_the_first_row_with_room(lengths, row_length, rows):
    assert share_rows(lengths, row_length) == rows


def test_places_are_the_hand_worked_ones():
    places = row_places([2, 4, 1], 4)
    assert places.tolist() == [[0, 1, 8, -1], [4, 5, 6, 7]]
    values = torch.arange(24.0).view(3, 4, 2)
    moved = in_rows(values, places, fill=-1)
    assert moved[0].tolist() == [[0, 1], [2, 3], [16, 17], [-1, -1]]
    assert torch.equal(moved[1], values[1])


@pytest.mark.parametrize("make", [AnswerCollator, ConversationCollator])
def test_rows_are_always_the_same_and_hold_every_token_once(make, processor, toy_talk):
    collate: Callable = make(processor, row_length=300)
    text, again = collate(toy_talk)["text"], collate(toy_talk)["text"]
    assert torch.equal(text.places, again.places)
    held = text.places[text.places >= 0]
    tokens = text.attention_mask.flatten().nonzero()[:, 0]
    assert held.sort().values.tolist() == tokens.tolist()
