"""The wiring: slots, padding, batching, caching, saving, generation modes, packed turns."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

import parfocal.models  # noqa: F401  registers the Auto classes
from parfocal.boxes import Boxes
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError, ShapeError
from parfocal.images import image_frame
from parfocal.models.config import ParfocalConfig
from parfocal.models.matching import match_boxes
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.packing import additive, turn_mask, turn_positions
from parfocal.models.presets import tiny, vary
from parfocal.models.proposer import Candidates, Regions, select_regions

QUESTIONS = [
    "Where is the red apple?",
    "What do you see?",
    "Where is it, is it there, or where?",
    "?",
]


def _encoded(pair, pictures, questions):
    model, processor = pair
    pixel_values, warps = processor.pixel_values(pictures)
    features = model.encode(pixel_values)
    regions = model.propose(features)
    empty = [Boxes.empty(image_frame(picture)) for picture in pictures]
    text = processor.ask([GroundedText.of(question) for question in questions], empty, warps)
    mask = model.live_mask(text.input_ids, text.attention_mask, regions.mask)
    return model, text, mask, features, regions


def _logits(model, ids, mask, features, regions):
    with torch.inference_mode():
        return model(
            input_ids=ids,
            attention_mask=mask,
            image_features=features.image,
            region_features=regions.features,
        ).logits


def test_batch_equals_singles_token_for_token(tiny_predictor, pictures):
    together = tiny_predictor.ask_batch(pictures, QUESTIONS, max_new_tokens=12)
    alone = [
        tiny_predictor.ask(picture, question, max_new_tokens=12)
        for picture, question in zip(pictures, QUESTIONS, strict=True)
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text or one.text.plain == other.text.plain
        assert one.proposals.xyxy == pytest.approx(other.proposals.xyxy, abs=1e-4)
        assert one.proposals.scores == pytest.approx(other.proposals.scores, abs=1e-5)


def test_batch_order_does_not_matter(tiny_predictor, pictures):
    forwards = tiny_predictor.ask_batch(pictures, QUESTIONS, max_new_tokens=8)
    backwards = tiny_predictor.ask_batch(pictures[::-1], QUESTIONS[::-1], max_new_tokens=8)
    assert [str(a) for a in forwards] == [str(a) for a in backwards[::-1]]


def test_batch_with_user_boxes_equals_singles(tiny_predictor, pictures):
    boxes = [[[5, 5, 40, 40]], None, [[1, 2, 30, 60], [10, 50, 45, 100]], None]
    together = tiny_predictor.ask_batch(pictures, QUESTIONS, boxes, max_new_tokens=8)
    for answer, picture, question, own in zip(together, pictures, QUESTIONS, boxes, strict=True):
        alone = tiny_predictor.ask(picture, question, own, max_new_tokens=8)
        assert str(answer) == str(alone)
        if own:
            assert answer.proposals.xyxy[: len(own)] == pytest.approx(
                torch.tensor(own).double().numpy(), abs=1e-3
            )


def test_batch_padding_side_does_not_change_logits(tiny_pair, pictures):
    model, text, mask, features, regions = _encoded(tiny_pair, pictures, QUESTIONS)
    left = _logits(model, text.input_ids, mask, features, regions)
    lengths = text.attention_mask.sum(1).tolist()
    width = text.input_ids.shape[1]
    moved = [torch.arange(width).roll(int(length)) for length in lengths]
    index = torch.stack(moved)  # left padding -> right padding
    right = _logits(
        model, text.input_ids.gather(1, index), mask.gather(1, index), features, regions
    )
    for row, length in enumerate(lengths):
        live = mask[row, width - length :].bool()
        assert torch.allclose(
            left[row, width - length :][live], right[row, :length][live], atol=1e-5
        )


def test_dead_slots_leave_no_trace(tiny_pair, pictures):
    """A row with masked slots gives the logits of the row without them."""
    model, text, mask, features, regions = _encoded(tiny_pair, pictures[:1], QUESTIONS[:1])
    dead = Regions(regions.boxes, regions.scores, regions.mask.clone(), regions.features)
    dead.mask[:, 3:] = False
    mask = model.live_mask(text.input_ids, text.attention_mask, dead.mask)
    assert int((mask == 0).sum()) == int((~dead.mask).sum()) > 0
    full = _logits(model, text.input_ids, mask, features, dead)
    compact_ids = text.input_ids[mask.bool()][None]
    compact = Regions(dead.boxes, dead.scores, dead.mask, dead.features[:, : int(dead.mask.sum())])
    short = _logits(model, compact_ids, torch.ones_like(compact_ids), features, compact)
    assert torch.allclose(full[mask.bool()], short[0], atol=1e-5)


def test_wrong_number_of_placeholders_is_refused(tiny_pair, pictures):
    model, text, mask, features, regions = _encoded(tiny_pair, pictures[:1], QUESTIONS[:1])
    with pytest.raises(ShapeError, match="placeholders"):
        _logits(model, text.input_ids[:, 2:], mask[:, 2:], features, regions)


def test_parts_that_were_changed_and_no_longer_fit_make_no_model(tmp_path):
    tiny().save_pretrained(tmp_path)
    config = ParfocalConfig.from_pretrained(tmp_path, regions={"kind": "none"})
    with pytest.raises(ConfigError, match=r"set regions\.kind, which is 'none'"):
        ParfocalForConditionalGeneration(config)
    config.proposer = {"kind": "none", "refine": False}  # one after the other
    assert ParfocalForConditionalGeneration(config).num_slots == 0


def test_save_and_load_are_equal(tiny_pair, pictures, tmp_path):
    model, processor = tiny_pair
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(again, ParfocalForConditionalGeneration)
    config = AutoConfig.from_pretrained(tmp_path)
    assert all(getattr(config, name) == getattr(model.config, name) for name in _PARTS)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.settings == processor.settings
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    results = []
    for pair in ((model, processor), (again, loaded)):
        found, text, mask, features, regions = _encoded(pair, pictures, QUESTIONS)
        results.append(_logits(found, text.input_ids, mask, features, regions))
    assert torch.equal(*results)


_PARTS = ("vision", "fusion", "projector", "proposer", "regions", "token_ids", "dialect")


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"do_sample": True, "temperature": 0.8, "seed": 3},
        {"num_beams": 2, "do_sample": True, "seed": 1},
    ],
    ids=["beams", "sampling", "sampled beams"],
)
def test_generation_modes_run_and_repeat(tiny_predictor, pictures, options):
    first, second = (
        tiny_predictor.ask_batch(pictures, QUESTIONS, max_new_tokens=6, **options) for _ in range(2)
    )
    assert [str(answer) for answer in first] == [str(answer) for answer in second]


def test_streaming_gives_the_same_tokens(tiny_predictor, pictures):
    class Collect:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.reshape(-1).tolist()

        def end(self) -> None:
            self.ended = True

    stream = Collect()
    answer = tiny_predictor.ask(pictures[0], QUESTIONS[0], max_new_tokens=6, streamer=stream)
    assert stream.ended
    view = tiny_predictor.processor.view(image_frame(pictures[0]), None, answer.proposals)
    said = tiny_predictor.processor.decode(stream.tokens[-6:], view).text
    assert said.plain == answer.text.plain


def test_packed_turns_equal_turns_alone(tiny_pair, pictures):
    model, text, _, features, regions = _encoded(tiny_pair, pictures[:1], QUESTIONS[:1])
    prefix = len(tiny_pair[1].prefix_ids())
    asked = [
        tiny_pair[1].tokenizer.encode(question, add_special_tokens=False)
        for question in QUESTIONS[:3]
    ]
    row = text.input_ids[0, :prefix].tolist() + [token for own in asked for token in own]
    turn = [0] * prefix + [number + 1 for number, ids in enumerate(asked) for _ in ids]
    ids, turns = torch.tensor([row]), torch.tensor([turn])
    live = model.live_mask(ids, torch.ones_like(ids), regions.mask)
    allowed, positions = turn_mask(turns, live), turn_positions(turns, live)
    with torch.inference_mode():
        packed = model(
            input_ids=ids, attention_mask=additive(allowed, torch.float32), position_ids=positions,
            image_features=features.image, region_features=regions.features,
        ).logits  # fmt: skip
    start = prefix
    for own in asked:
        single = torch.tensor([row[:prefix] + own])
        alone = _logits(
            model,
            single,
            model.live_mask(single, torch.ones_like(single), regions.mask),
            features,
            regions,
        )
        assert torch.allclose(packed[0, start : start + len(own)], alone[0, prefix:], atol=1e-5)
        start += len(own)


def test_gradient_reaches_every_part(make_tiny, pictures):
    model, processor = make_tiny()
    model.train()
    model, text, mask, features, regions = _encoded((model, processor), pictures, QUESTIONS)
    labels = text.input_ids.masked_fill(mask == 0, -100)
    model(
        input_ids=text.input_ids,
        attention_mask=mask,
        labels=labels,
        image_features=features.image,
        region_features=regions.features,
    ).loss.backward()
    parts = {
        name.split(".")[0]
        for name, value in model.named_parameters()
        if value.grad is not None and value.grad.abs().sum() > 0
    }
    assert parts == {
        "vision",
        "projector",
        "regions",
        "text",
    }  # the proposer learns from boxes, not from words


def test_user_boxes_survive_in_order_and_push_overlapping_proposals_aside():
    config = vary(
        tiny(),
        {"proposer": {**tiny().proposer.to_dict(), "score_threshold": 0.1, "nms_threshold": 0.5}},
    ).proposer
    same = [0.5, 0.5, 0.2, 0.2]
    candidates = Candidates(
        torch.tensor([[same, [0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]]),
        torch.tensor([[0.9, 0.05, 0.6]]),
        None,
    )
    user = torch.tensor([[[0.51, 0.5, 0.2, 0.2], same]])
    regions = select_regions(candidates, user, torch.ones(1, 2, dtype=torch.bool), config)
    assert regions.mask[0].tolist() == [True, True, True, False, False, False]
    assert torch.equal(regions.boxes[0, :2], user[0])  # both stay although they overlap
    assert regions.boxes[0, 2].tolist() == pytest.approx(
        [0.8, 0.8, 0.1, 0.1]
    )  # 0.9 is a user's box, 0.05 is too weak


def test_too_many_user_boxes_are_refused():
    config = tiny().proposer
    many = torch.full((1, config.max_regions + 1, 4), 0.5)
    with pytest.raises(ShapeError, match="slots"):
        select_regions(None, many, torch.ones(many.shape[:2], dtype=torch.bool), config)


def test_match_boxes_takes_the_best_live_slot():
    regions = Regions(
        torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.21, 0.2], [0.1, 0.1, 0.1, 0.1]]]),
        torch.ones(1, 3),
        torch.tensor([[True, False, True]]),
    )
    boxes = torch.tensor([[[0.5, 0.5, 0.21, 0.2], [0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]]])
    assert match_boxes(boxes, torch.tensor([[True, True, False]]), regions).tolist() == [
        [0, -1, -1]
    ]


def test_match_boxes_without_a_floor_gives_every_box_a_live_slot():
    box, point = [0.5, 0.5, 0.2, 0.2], [0.7, 0.7, 0.0, 0.0]
    regions = Regions(
        torch.tensor([[point, box, point]]), torch.ones(1, 3), torch.tensor([[False, True, True]])
    )
    touched = [0.65, 0.5, 0.2, 0.2]  # IoU 1/7 with `box`
    boxes = torch.tensor([[touched, [0.1, 0.1, 0.1, 0.1], point, touched]])
    mask = torch.tensor([[True, True, True, False]])
    assert match_boxes(boxes, mask, regions, 0.0).tolist() == [[1, 1, 1, -1]]
    assert match_boxes(boxes, mask, regions, 0.15).tolist() == [[-1] * 4]
    nothing = Regions(regions.boxes, regions.scores, torch.zeros(1, 3, dtype=torch.bool))
    assert match_boxes(boxes, mask, nothing, 0.0).tolist() == [[-1] * 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusoin": {"kind": "none"}}, "fusion"),
        ({"vision": {"resiz": "pad"}}, "resize"),
        ({"fusion": {"kind": "gate"}}, "choose one of"),
        ({"fusion": {"kind": "concat"}}, "two"),
        ({"proposer": {"kind": "dense"}, "regions": {"kind": "none"}}, "regions.kind"),
        ({"regions": {"kind": "multilevel_roi", "level_scales": (4, 2, 1)}}, "level_scales"),
    ],
    ids=[
        "misspelt part",
        "misspelt field",
        "unknown choice",
        "one tower to concat",
        "proposals unread",
        "too few levels",
    ],
)
def test_config_refuses(change, message):
    with pytest.raises(ConfigError, match=message):
        vary(tiny(), change)
