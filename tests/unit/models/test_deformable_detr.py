"""The deformable DETR proposer against the official numbers, and its own promises."""

from __future__ import annotations

import dataclasses
import math
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parfocal.errors import ConfigError, ShapeError
from parfocal.models.deformable_attention import (
    DeformableAttention,
    initial_token_boxes,
    inverse_sigmoid,
    sine_features,
)
from parfocal.models.deformable_detr import DeformableDetrProposer
from parfocal.models.detr_settings import DetrSettings

FIXTURE = Path(__file__).parents[2] / "fixtures" / "groma"
OFFICIAL = runpy.run_path(str(FIXTURE / "official_detector.py"))
TINY = DetrSettings(
    in_channels=6,
    hidden_size=16,
    num_encoder_layers=1,
    num_decoder_layers=2,
    num_heads=2,
    ffn_size=24,
    num_points=2,
    num_queries=5,
    box_head_size=8,
)


@pytest.fixture(scope="module")
def official_case() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE / "detector_case.safetensors")


@pytest.fixture(scope="module")
def official_proposer() -> DeformableDetrProposer:
    return OFFICIAL["load_official"]()


def filled(settings: DetrSettings, seed: int = 0) -> DeformableDetrProposer:
    """A proposer whose every weight is non-zero and fixed."""
    proposer = DeformableDetrProposer(settings).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in proposer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return proposer


def maps_of(settings: DetrSettings, batch: int, sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    return [
        torch.randn(batch, channels, *size, generator=generator)
        for channels, size in zip(settings.channels, sizes, strict=True)
    ]


def close(ours: torch.Tensor, official: torch.Tensor) -> None:
    torch.testing.assert_close(ours, official, atol=1e-4, rtol=0)


class TestOfficialNumbers:
    """Every recorded intermediate of the official detector, within 1e-4."""

    @torch.no_grad()
    def test_input_and_encoder(self, official_proposer, official_case):
        maps = official_proposer.project([official_case["plain.ddetr_inputs"]])
        close(maps[0], official_case["plain.input_proj_0"])
        close(official_proposer.encode(maps), official_case["plain.encoder_last_hidden_state"])

    @torch.no_grad()
    def test_tokens_and_selection(self, official_proposer, official_case):
        memory = official_case["plain.encoder_last_hidden_state"]
        logits, box_logits = official_proposer.read_tokens(memory, [(8, 8)])
        close(logits, official_case["plain.enc_outputs_class"].squeeze(-1))
        close(box_logits, official_case["plain.enc_outputs_coord_logits"])
        order = logits.sort(dim=1, descending=True, stable=True).indices[:, :24]
        assert torch.equal(order, official_case["plain.topk_proposals"])
        initial = official_proposer.select(logits, box_logits)
        close(initial, official_case["plain.init_reference_points"])
        close(official_proposer.position_of(initial), official_case["plain.query_pos"])

    @torch.no_grad()
    def test_decoder_states(self, official_proposer, official_case):
        memory = official_case["plain.encoder_last_hidden_state"]
        initial = official_case["plain.init_reference_points"]
        states = torch.stack(official_proposer.decode(memory, initial, [(8, 8)]), dim=1)
        close(states, official_case["plain.decoder_intermediate_hidden_states"])

    @torch.no_grad()
    def test_whole_forward(self, official_proposer, official_case):
        output = official_proposer([official_case["plain.ddetr_inputs"]])
        close(output.boxes, official_case["plain.pred_boxes"])
        close(output.layer_logits["coco"][-1], official_case["plain.logits_coco"].squeeze(-1))
        close(output.layer_logits["sa1b"][-1], official_case["plain.logits_sa1b"].squeeze(-1))
        close(output.scores[0], official_case["plain.nms_scores.0"])
        references = official_case["plain.decoder_intermediate_reference_points"]
        close(output.layer_boxes[0], references[:, 0])


class TestPromises:
    def test_batch_equals_singles(self):
        proposer = filled(TINY)
        (maps,) = maps_of(TINY, 3, [(4, 5)])
        with torch.no_grad():
            together = proposer([maps])
            for row in range(3):
                alone = proposer([maps[row : row + 1]])
                torch.testing.assert_close(alone.boxes[0], together.boxes[row])
                torch.testing.assert_close(alone.scores[0], together.scores[row])
                torch.testing.assert_close(alone.token_boxes[0], together.token_boxes[row])

    def test_output_shapes_and_ranges(self):
        output = filled(TINY)(maps_of(TINY, 2, [(4, 5)]))
        assert output.boxes.shape == (2, 5, 4)
        assert output.scores.shape == (2, 5)
        assert output.layer_boxes.shape == (2, 2, 5, 4)
        assert {name: x.shape for name, x in output.layer_logits.items()} == {
            "coco": (2, 2, 5),
            "sa1b": (2, 2, 5),
        }
        assert output.token_boxes.shape == (2, 20, 4)
        assert output.token_logits.shape == (2, 20)
        assert torch.equal(output.boxes, output.layer_boxes[-1])
        for values in (output.boxes, output.scores, output.token_boxes):
            assert values.min() >= 0
            assert values.max() <= 1

    def test_scores_are_fused_from_the_last_layer(self):
        output = filled(TINY)(maps_of(TINY, 1, [(4, 4)]))
        coco, sa1b = (output.layer_logits[name][-1].sigmoid() for name in ("coco", "sa1b"))
        torch.testing.assert_close(output.scores, coco**0.4 * sa1b**0.6)

    @pytest.mark.parametrize(
        ("levels", "expected"),
        [
            (1, [(4, 6)]),
            (2, [(4, 6), (2, 3)]),
            (3, [(8, 12), (4, 6), (2, 3)]),
            (4, [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ],
    )
    def test_one_map_becomes_a_pyramid_finest_first(self, levels, expected):
        settings = dataclasses.replace(TINY, num_levels=levels)
        proposer = filled(settings)
        maps = maps_of(settings, 1, [(4, 6)])
        assert [x.shape[-2:] for x in proposer.project(maps)] == [torch.Size(x) for x in expected]
        assert proposer(maps).token_boxes.shape[1] == sum(h * w for h, w in expected)

    def test_levels_take_one_map_each(self):
        settings = dataclasses.replace(TINY, in_channels=(6, 3), input_kind="levels", num_levels=2)
        proposer = filled(settings)
        fine, coarse = maps_of(settings, 2, [(4, 6), (2, 3)])
        before = proposer([fine, coarse])
        assert before.token_boxes.shape == (2, 30, 4)
        after = proposer([fine, coarse + 1])  # the coarse map is used by every token
        assert not torch.allclose(before.boxes, after.boxes)

    def test_invalid_tokens_have_the_whole_box_and_one_score(self):
        settings = dataclasses.replace(TINY, in_channels=6, num_queries=3)
        proposer = filled(settings)
        memory = torch.randn(1, 100 * 2, 16, generator=torch.Generator().manual_seed(1))
        logits, boxes = proposer.read_tokens(memory, [(2, 100)])  # first centre at x = 0.005
        invalid = torch.zeros(2, 100, dtype=torch.bool)
        invalid[:, [0, 99]] = True
        assert torch.equal(boxes[0].isinf().all(-1), invalid.flatten())
        assert len(logits[0, invalid.flatten()].unique()) == 1
        best = proposer.select(torch.where(invalid.flatten(), 9.0, logits), boxes)
        assert torch.equal(best, torch.ones(1, 3, 4))

    def test_equal_scores_keep_token_order(self):
        proposer = filled(TINY)
        boxes = torch.arange(20.0)[None, :, None].expand(1, 20, 4) / 10
        chosen = proposer.select(torch.zeros(1, 20), boxes)
        assert torch.equal(chosen, boxes[:, :5].sigmoid())

    def test_second_layer_trains_the_first_box_head(self):
        proposer = filled(TINY)
        proposer(maps_of(TINY, 1, [(4, 4)])).layer_boxes[1].sum().backward()
        assert proposer.boxes[0][0].weight.grad.abs().sum() > 0

    def test_selection_stops_gradients(self):
        proposer = filled(TINY)
        proposer(maps_of(TINY, 1, [(4, 4)])).boxes.sum().backward()
        assert proposer.token_box[0].weight.grad is None

    def test_every_parameter_can_learn(self):
        settings = dataclasses.replace(TINY, num_levels=4, num_queries=40)
        proposer = filled(settings).train()
        output = proposer(maps_of(settings, 1, [(4, 4)]))
        (output.layer_boxes.sum() + output.scores.sum() + output.token_boxes.sum()).backward()
        without = {n for n, p in proposer.named_parameters() if p.grad is None}
        assert all(name.startswith(("scores.", "token_score.")) for name in without)
        assert all(p.grad.isfinite().all() for p in proposer.parameters() if p.grad is not None)

    def test_dropout_only_in_training(self):
        proposer = filled(TINY)
        maps = maps_of(TINY, 1, [(4, 4)])
        assert torch.equal(proposer(maps).boxes, proposer(maps).boxes)
        proposer.train()
        assert not torch.equal(proposer(maps).boxes, proposer(maps).boxes)


class TestLowPrecision:
    def test_bf16_autocast_keeps_boxes_in_float32(self):
        proposer = filled(TINY)
        maps = maps_of(TINY, 2, [(6, 6)])
        exact = proposer(maps)
        with torch.autocast("cpu", torch.bfloat16):
            rough = proposer(maps)
        assert rough.boxes.dtype == rough.scores.dtype == torch.float32
        assert rough.token_boxes.dtype == torch.float32
        # Tokens, unlike queries, keep their order whatever the rounding.
        torch.testing.assert_close(rough.token_boxes, exact.token_boxes, atol=0.05, rtol=0)

    def test_bf16_weights(self):
        proposer = filled(TINY).to(torch.bfloat16)
        output = proposer([x.bfloat16() for x in maps_of(TINY, 1, [(4, 4)])])
        assert output.boxes.dtype == torch.float32
        assert output.boxes.isfinite().all()


class TestInitialisation:
    def test_first_boxes_are_the_token_boxes(self):
        proposer = DeformableDetrProposer(TINY).eval()
        output = proposer(maps_of(TINY, 1, [(4, 4)]))
        torch.testing.assert_close(
            output.token_boxes[0], initial_token_boxes([(4, 4)], 0.05, torch.device("cpu"))
        )
        torch.testing.assert_close(output.layer_boxes[0], output.layer_boxes[1])

    def test_first_scores_are_near_the_prior(self):
        settings = dataclasses.replace(TINY, hidden_size=64, num_heads=4)
        output = DeformableDetrProposer(settings).eval()(maps_of(settings, 1, [(4, 4)]))
        for logits in (output.token_logits, *output.layer_logits.values()):
            assert abs(logits.mean() + math.log(99)) < 2

    def test_first_attention_is_uniform_on_rays(self):
        attention = (
            DeformableDetrProposer(dataclasses.replace(TINY, num_heads=4)).encoder[0].attention
        )
        rays = attention.offsets.bias.detach().view(4, 1, 2, 2)
        expected = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
        torch.testing.assert_close(rays[:, 0, 0], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(rays[:, 0, 1], 2 * expected, atol=1e-6, rtol=0)
        assert attention.weights.weight.abs().sum() == 0


class TestDeformableAttention:
    """One head and one point, with identity projections: the sample can be read off by hand."""

    @staticmethod
    def pointing(offset_xy: tuple[float, float]) -> DeformableAttention:
        settings = dataclasses.replace(TINY, hidden_size=4, num_heads=1, num_points=1)
        attention = DeformableAttention(settings.encoder)
        attention.reset_parameters()
        with torch.no_grad():
            attention.offsets.bias.copy_(torch.tensor(offset_xy))
            for linear in (attention.value, attention.output):
                linear.weight.copy_(torch.eye(4))
                linear.bias.zero_()
        return attention

    @pytest.mark.parametrize(
        ("reference", "offset", "expected"),
        [
            ((0.25, 0.5), (0.0, 0.0), 1.0),  # centre of the left cell
            ((0.25, 0.5), (1.0, 0.0), 3.0),  # one cell to the right
            ((0.25, 0.5), (0.5, 0.0), 2.0),  # half way
            ((0.25, 0.5), (-1.0, 0.0), 0.0),  # outside reads zero
            ((0.5, 0.5, 1.0, 1.0), (-0.5, 0.0), 1.0),  # a box: half its width times the offset
            ((0.5, 0.5, 0.5, 1.0), (1.0, 0.0), 3.0),
        ],
    )
    def test_reads_the_expected_place(self, reference, offset, expected):
        memory = torch.tensor([[[1.0] * 4, [3.0] * 4]])  # 1 row, 2 columns
        attention = self.pointing(offset)
        out = attention(torch.zeros(1, 1, 4), memory, torch.tensor([[reference]]), [(1, 2)])
        torch.testing.assert_close(out, torch.full((1, 1, 4), expected))


class TestGeometry:
    def test_token_boxes(self):
        boxes = initial_token_boxes([(1, 2), (1, 1)], 0.05, torch.device("cpu"))
        expected = [[0.25, 0.5, 0.05, 0.05], [0.75, 0.5, 0.05, 0.05], [0.5, 0.5, 0.1, 0.1]]
        torch.testing.assert_close(boxes, torch.tensor(expected))

    def test_sine_features(self):
        # wavelengths 1 and 10000^(1/2) = 100; 0.25 is a quarter turn
        found = sine_features(torch.tensor([0.25]), 4)
        slow = math.pi / 2 / 100
        expected = torch.tensor([[1.0, 0.0, math.sin(slow), math.cos(slow)]])
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(0.5, 0.0), (0.8, math.log(4)), (1.0, math.log(1e5)), (-1.0, -math.log(1e5))],
    )
    def test_inverse_sigmoid(self, value, expected):
        assert inverse_sigmoid(torch.tensor(value)).item() == pytest.approx(expected, abs=1e-5)


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"input_kind": "maps"}, "allowed: 'single_map_pyramid', 'levels'"),
            ({"hidden_size": 18}, "multiple of 4"),
            ({"num_heads": 3}, "num_heads"),
            ({"score_exponents": (1.0,)}, "same length"),
            ({"score_heads": (), "score_exponents": ()}, "at least one head"),
            ({"num_levels": 5}, "1 to 4"),
            ({"in_channels": (6, 6)}, "takes 1"),
            ({"in_channels": (6,), "num_levels": 2, "input_kind": "levels"}, "takes 2"),
        ],
    )
    def test_settings(self, changes, words):
        with pytest.raises(ConfigError, match=words):
            dataclasses.replace(TINY, **changes)

    def test_wrong_maps(self):
        proposer = filled(TINY)
        with pytest.raises(ShapeError, match=r"channels \(7,\), it was built for \(6,\)"):
            proposer([torch.zeros(1, 7, 4, 4)])
        with pytest.raises(ShapeError, match="4 tokens, fewer than num_queries"):
            proposer([torch.zeros(1, 6, 2, 2)])
