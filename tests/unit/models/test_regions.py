"""Region encoder: where it looks, which slots count, how levels fuse, what ranks say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from parfocal.errors import ConfigError
from parfocal.models.config_regions import RegionsConfig
from parfocal.models.proposer import Regions
from parfocal.models.regions import LevelFusion, MultilevelRoi, RankContext, build_regions

GROMA_LIKE = RegionsConfig(
    kind="multilevel_roi", roi_size=3, hidden_size=16, fuse_rounds=2, level_scales=(4, 2, 1)
)


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a fixed value that is not its initial one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def some_regions(live: tuple[int, ...] = (5, 3)) -> Regions:
    """Five slots an image of which the first `live` are used."""
    boxes = 0.2 + 0.5 * torch.rand(len(live), 5, 4)
    mask = torch.arange(5)[None] < torch.tensor(live)[:, None]
    return Regions(boxes * mask[..., None], torch.rand(len(live), 5) * mask, mask)


def some_levels(batch: int = 2, channels: int = 8, grid: int = 4) -> list[torch.Tensor]:
    return [torch.randn(batch, channels, grid, grid) for _ in range(3)]


@pytest.fixture(params=["none", "rank"])
def encoder(request) -> MultilevelRoi:
    config = RegionsConfig.from_dict({**GROMA_LIKE.to_dict(), "context": request.param})
    return fill(build_regions(config, (8, 8, 8), 12))


@torch.no_grad()
def test_dead_slots_are_zero_and_live_ones_are_not(encoder):
    regions = some_regions()
    features = encoder(some_levels(), regions)
    assert features.shape == (2, 5, 12)
    assert torch.isfinite(features).all()
    assert torch.equal(features.abs().sum(-1) > 0, regions.mask)


def test_boxes_in_a_mask_are_described_as_among_all(encoder):
    regions, levels = some_regions(), some_levels()
    maps = encoder.prepare(levels)
    whole = encoder.appearance(maps, regions.boxes)
    some = encoder.appearance(maps, regions.boxes, regions.mask)
    assert some.shape == (8, 16)
    torch.testing.assert_close(some, whole[regions.mask])
    none = encoder.appearance(maps, regions.boxes, torch.zeros_like(regions.mask))
    assert none.shape == (0, 16)


class TestOfficialRois:
    """Boxes as Groma's released weights were trained with: worked by hand on a ramp."""

    config = RegionsConfig.from_dict({
        **GROMA_LIKE.to_dict(), "roi_size": 4, "roi_boxes": "official_cxcywh", "roi_canvas": 16,
        "roi_strides": (0.5, 1.0, 2.0),
    })  # fmt: skip

    def cells(self, box: list[float]) -> list[float]:
        """Columns that the four cells of a row see of an 8 x 8 level that is read at stride 2."""
        encoder = build_regions(self.config, (8, 8, 8), 12)
        ramp = torch.arange(8.0).expand(1, 1, 8, 8)
        return encoder.cells(ramp, torch.tensor([[box]]), 2)[0, 0, 1].tolist()

    def test_centre_and_size_are_read_as_corners_at_the_named_stride(self):
        # (4, 4, 12, 12) on the canvas, 2 to 6 on the level; cells 1 wide, centres half a pixel less
        assert self.cells([0.25, 0.25, 0.75, 0.75]) == pytest.approx([2.0, 3.0, 4.0, 5.0])

    def test_a_box_whose_size_is_less_than_its_centre_is_read_backwards(self):
        assert self.cells([0.75, 0.75, 0.25, 0.25]) == pytest.approx([5.0, 4.0, 3.0, 2.0])

    def test_strides_without_a_canvas_are_refused(self):
        with pytest.raises(ConfigError, match="one stride a level"):
            RegionsConfig(roi_strides=(1.0, 2.0, 4.0))


@torch.no_grad()
def test_what_lies_in_a_dead_slot_does_not_matter(encoder):
    levels, regions = some_levels(), some_regions()
    junk = Regions(regions.boxes.clone(), regions.scores.clone(), regions.mask)
    junk.boxes[~regions.mask], junk.scores[~regions.mask] = 0.5, 0.9
    assert torch.allclose(encoder(levels, junk), encoder(levels, regions), atol=1e-6)


@torch.no_grad()
def test_permuting_regions_permutes_features_and_nothing_else(encoder):
    levels, regions, order = some_levels(), some_regions((5, 5)), [3, 0, 4, 2, 1]
    permuted = Regions(regions.boxes[:, order], regions.scores[:, order], regions.mask[:, order])
    expected = encoder(levels, regions)[:, order]
    assert torch.allclose(encoder(levels, permuted), expected, atol=1e-5)
    assert not torch.allclose(expected[:, 0], expected[:, 1], atol=1e-3)


@torch.no_grad()
def test_a_picture_does_not_see_its_neighbour(encoder):
    levels, regions = some_levels(), some_regions()
    others = [torch.cat((level[:1], torch.randn_like(level[1:]))) for level in levels]
    one, other = encoder(levels, regions), encoder(others, regions)
    assert torch.allclose(one[0], other[0], atol=1e-6)
    assert not torch.allclose(one[1, 0], other[1, 0], atol=1e-3)


@torch.no_grad()
def test_levels_of_different_widths_work_without_fusion():
    config = RegionsConfig.from_dict({**GROMA_LIKE.to_dict(), "fuse_rounds": 0})
    levels = [torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4), torch.randn(1, 8, 2, 2)]
    assert MultilevelRoi(config, (4, 6, 8), 12)(levels, some_regions((5,))).shape == (1, 5, 12)


@torch.no_grad()
def test_pooling_reads_where_the_box_is():
    """On a map whose value is its own x, a grid cell holds the x of its centre."""
    config = RegionsConfig(
        "multilevel_roi", roi_size=2, hidden_size=4, fuse_rounds=0, level_scales=(1,)
    )
    encoder = MultilevelRoi(config, (1,), 4)
    (conv,) = encoder.pool
    conv.weight.zero_()
    conv.weight[0, 0, 1, 1] = 1.0
    conv.bias.zero_()
    encoder.flatten.weight.copy_(torch.eye(4))
    encoder.flatten.bias.zero_()
    centres = (torch.arange(16) + 0.5) / 16
    x_map, y_map = centres.expand(1, 1, 16, 16), centres[:, None].expand(1, 1, 16, 16)
    boxes = torch.tensor([[[0.5, 0.4, 0.4, 0.2]]])  # x 0.3 to 0.7, y 0.3 to 0.5
    x = encoder.appearance([x_map], boxes)[0, 0]
    y = encoder.appearance([y_map], boxes)[0, 0]
    assert x.tolist() == pytest.approx([0.4, 0.6, 0.4, 0.6], abs=1e-5)
    assert y.tolist() == pytest.approx([0.35, 0.35, 0.45, 0.45], abs=1e-5)


def test_no_encoder_without_a_kind():
    assert build_regions(RegionsConfig(), (8,), 12) is None


# Level fusion against specs/groma.md 1.7 a to c, written again with loops and einsum


def naive_resize(level: torch.Tensor, side: int) -> torch.Tensor:
    """Bilinear with corners aligned: output i reads position i * (n - 1) / (side - 1)."""
    count = level.shape[-1]
    weights = torch.zeros(side, count)
    for index in range(side):
        position = index * (count - 1) / (side - 1)
        low = min(int(position), count - 2)
        weights[index, low] += 1 - (position - low)
        weights[index, low + 1] += position - low
    return torch.einsum("ia,jb,ncab->ncij", weights, weights, level)


def naive_group_norm(x: torch.Tensor, groups: int, weight, bias) -> torch.Tensor:
    out = torch.empty_like(x)
    size = x.shape[1] // groups
    for start in range(0, x.shape[1], size):
        part = x[:, start : start + size]
        mean = part.mean(dim=(1, 2, 3), keepdim=True)
        variance = part.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
        out[:, start : start + size] = (part - mean) / (variance + 1e-5).sqrt()
    return out * weight[:, None, None] + bias[:, None, None]


def naive_fusion(
    fusion: LevelFusion, levels: list[torch.Tensor], groups: int
) -> list[torch.Tensor]:
    grid, width = levels[0].shape[-1], levels[0].shape[1]
    maps = []
    for conv, level, side in zip(fusion.inputs, levels, (4 * grid, 2 * grid, grid), strict=True):
        resized = naive_resize(level, side)
        ramp = torch.linspace(-1, 1, side)
        planes = torch.stack((ramp.repeat(side, 1), ramp[:, None].repeat(1, side)))
        extended = torch.cat((resized, planes.expand(len(level), 2, side, side)), dim=1)
        mixed = torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], extended)
        maps.append(mixed + conv.bias[:, None, None])
    quarter = width // 4
    for convolution, norm, _ in fusion.rounds:
        before, maps = maps, []
        for index, own in enumerate(before):
            side = own.shape[-1]
            coarser = naive_resize(before[min(index + 1, 2)][:, width - quarter :], side)
            finer_part = before[max(index - 1, 0)][:, width - 2 * quarter : width - quarter]
            finer = naive_resize(finer_part, side)
            joined = torch.cat((own[:, : width - 2 * quarter], coarser, finer), dim=1)
            filtered = F.conv2d(joined, convolution.weight, padding=1)
            maps.append(naive_group_norm(filtered, groups, norm.weight, norm.bias).clamp(min=0))
    return maps


@torch.no_grad()
@pytest.mark.parametrize(("width", "groups"), [(64, 64), (16, 8)], ids=["64 groups", "narrow"])
def test_level_fusion_is_the_specified_one(width, groups):
    fusion = fill(LevelFusion(GROMA_LIKE, (width,) * 3))
    levels = some_levels(channels=width, grid=3)
    found = fusion(levels)
    expected = naive_fusion(fusion, levels, groups)
    assert [level.shape[-1] for level in found] == [12, 6, 3]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


# Ranks

COLUMNS = ("left", "right", "above", "below", "larger", "smaller")


def counts_of(
    boxes: list[list[float]], kinds: list[int], live: list[bool] | None = None
) -> torch.Tensor:
    """What RankContext counts, float[R, 13]: six among all, six of its kind, all of its kind."""
    context = RankContext(4, identity_size=4)
    context.project = nn.Identity()
    with torch.no_grad():
        context.identity.weight.copy_(torch.eye(4))
        context.identity.bias.zero_()
        context.scale.fill_(100.0)
    mask = torch.tensor([live or [True] * len(boxes)])
    scores = torch.linspace(0.1, 0.9, len(boxes))[None]
    regions = Regions(torch.tensor([boxes]), scores, mask)
    with torch.no_grad():
        values = context(torch.eye(4)[kinds][None], regions)[0]
    assert torch.allclose(values[:, -1], scores[0])
    steps = torch.arange(context.bins + 1.0)
    encoded = values[:, :-1].view(len(boxes), 13, context.bins + 1)
    assert torch.allclose(encoded.sum(-1), torch.ones(len(boxes), 13), atol=1e-4)
    return (encoded * steps).sum(-1)


def test_three_alike_in_a_row_count_zero_one_two_to_their_left():
    # three of kind 0 from left to right, going up and growing; one of kind 1 between the first two
    boxes = [
        [0.2, 0.8, 0.1, 0.1],
        [0.5, 0.5, 0.2, 0.2],
        [0.8, 0.2, 0.3, 0.3],
        [0.35, 0.65, 0.05, 0.05],
    ]
    counts = counts_of(boxes, [0, 0, 0, 1])
    among_all, of_its_kind = counts[:, :6], counts[:, 6:12]
    expected_all = {
        "left": [0, 2, 3, 1],
        "right": [3, 1, 0, 2],
        "above": [3, 1, 0, 2],
        "below": [0, 2, 3, 1],
        "larger": [2, 1, 0, 3],
        "smaller": [1, 2, 3, 0],
    }
    expected_kind = {
        "left": [0, 1, 2, 0],
        "right": [2, 1, 0, 0],
        "above": [2, 1, 0, 0],
        "below": [0, 1, 2, 0],
        "larger": [2, 1, 0, 0],
        "smaller": [0, 1, 2, 0],
    }
    for index, name in enumerate(COLUMNS):
        assert among_all[:, index].tolist() == pytest.approx(expected_all[name], abs=1e-3), name
        assert of_its_kind[:, index].tolist() == pytest.approx(expected_kind[name], abs=1e-3), name
    assert counts[:, 12].tolist() == pytest.approx([2, 2, 2, 0], abs=1e-3)


def test_dead_slots_are_nobodys_neighbours():
    boxes = [[0.2, 0.5, 0.1, 0.1], [0.6, 0.5, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]]
    counts = counts_of(boxes, [0, 0, 0], [True, True, False])
    assert counts[:2, 0].tolist() == pytest.approx([0, 1], abs=1e-3)
    assert counts[:2, 12].tolist() == pytest.approx([1, 1], abs=1e-3)


def test_counts_stop_at_the_last_bin_and_ties_count_half():
    row = [[0.07 * (index + 1), 0.5, 0.05, 0.05] for index in range(13)]
    counts = counts_of(row, [0] * 13)
    assert counts[:, 0].tolist() == pytest.approx([*range(11), 10, 10], abs=1e-2)
    pair = counts_of([[0.5, 0.2, 0.1, 0.1], [0.5, 0.8, 0.1, 0.1]], [0, 0])
    assert pair[:, 0].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
