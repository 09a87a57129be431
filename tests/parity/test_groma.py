"""Groma against the recorded numbers of the official code: every intermediate, every case.

Recordings: see fixtures/groma/README.md. A case is one call of the official model; `plain` also
holds what happens on the way. Official code shuffles the regions of each picture; the recorded
permutation is put on ours before texts are compared. Ours has a fixed number of region slots, so
what is compared is its live positions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from parfocal.models.checkpoints.convert import Conversion
from parfocal.models.checkpoints.groma import OfficialConstants, convert_groma, groma_config
from parfocal.models.deformable_attention import inverse_sigmoid, sine_positions
from parfocal.models.matching import match_boxes
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.projector import merge_tokens
from parfocal.models.proposer import Regions
from parfocal.train.detection_losses import DetectionTarget, SetWeights, set_prediction_loss
from tests.parity.conftest import fixture_folders

IGNORED = -100
FOLDERS = [
    folder for folder in fixture_folders("groma") if (folder / "state_dict.safetensors").is_file()
]
OFFICIAL_TERMS = {"score": "loss_ce", "l1": "loss_bbox", "giou": "loss_giou"}


@dataclasses.dataclass
class Recording:
    """One fixture folder: our model with the official weights, and the recorded tensors."""

    config: Mapping[str, Any]
    model: ParfocalForConditionalGeneration
    conversion: Conversion
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def rows(self, name: str, count: int) -> list[Tensor]:
        """Inputs such as refer boxes, one a row; empty where there are none."""
        nothing = torch.zeros(0, 4)
        return [self.inputs.get(f"{name}.{row}", nothing) for row in range(count)]


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


@cache
def recording(folder: Path) -> Recording:
    config = read_config(folder)
    patch = config["region_encoder_patch"]
    constants = OfficialConstants(
        image_size=config["image_size"],
        roi_canvas=patch["roi_canvas"],
        roi_size=patch["roi_size"],
        norm_groups=patch["gn_groups"],
        region_size=patch["mid_dim"],
        position_size=patch["pos_hidden"],
    )
    ours = groma_config(config["official_config"], constants)
    model = ParfocalForConditionalGeneration(ours).eval()
    weights = load_file(folder / "state_dict.safetensors")
    source = {name: weight.float() for name, weight in weights.items()}
    conversion = convert_groma(source, ours, model.state_dict())
    model.load_state_dict(conversion.state)
    inputs = load_file(folder / "inputs.safetensors")
    inputs["images"] = inputs["images"].float()
    return Recording(config, model, conversion, inputs, load_file(folder / "outputs.safetensors"))


def cases(wanted: str = "") -> list[Any]:
    """(folder, case) pairs: one kind of case, or all that are texts."""
    return [
        pytest.param(folder, name, id=f"{folder.name}-{name}")
        for folder in FOLDERS
        for name in read_config(folder)["cases"]
        if (name == wanted if wanted else name != "det")
    ]


def close(ours: Tensor, official: Tensor, what: str) -> None:
    torch.testing.assert_close(
        ours, official, atol=1e-4, rtol=1e-4, msg=lambda text: f"{what}: {text}"
    )


@dataclasses.dataclass
class Run:
    """One case run through our model up to the text's inputs."""

    found: Recording
    name: str
    pixels: Tensor
    features: Any
    chosen: Regions  # as ours orders them
    regions: Regions  # in the official order
    input_ids: Tensor  # left-padded, with all slots
    labels: Tensor
    live: Tensor

    def official(self, key: str) -> Tensor:
        return self.found.outputs[f"{self.name}.{key}"]

    def recorded(self, key: str) -> bool:
        return f"{self.name}.{key}" in self.found.outputs

    def compact(self, values: Tensor, row: int) -> Tensor:
        return values[row][self.live[row].bool()]


@pytest.fixture
def run(request, monkeypatch):
    """Return a function that runs a case; its thresholds hold, without gradients, in the test.

    A case is run once for all tests that only look at it.
    """

    def go(folder: Path, name: str) -> Run:
        found = recording(folder)
        case, model = found.config["cases"][name], found.model
        proposer = dataclasses.replace(
            model.config.proposer,
            score_threshold=case["box_score_thres"],
            nms_threshold=case["nms_thres"],
            max_regions=case["max_region_num"],
        )
        monkeypatch.setattr(model.config, "proposer", proposer)
        return run_case(found, name) if torch.is_grad_enabled() else run_once(folder, name)

    with torch.no_grad():
        yield go


@cache
def run_once(folder: Path, name: str) -> Run:
    return run_case(recording(folder), name)


def run_case(found: Recording, name: str) -> Run:
    case, model = found.config["cases"][name], found.model
    pixels = found.inputs["images"][case["images"]]
    refer = padded(found.rows(f"{name}.refer_boxes", len(pixels)))
    ground = padded(found.rows(f"{name}.ground_boxes", len(pixels)))
    features = model.encode(pixels)
    chosen = model.propose(features, *refer, *ground)
    order = torch.arange(chosen.mask.shape[1]).repeat(len(pixels), 1)
    for row in range(len(pixels)):
        if f"{name}.perm.{row}" in found.outputs:
            permutation = found.outputs[f"{name}.perm.{row}"]
            order[row, : len(permutation)] = permutation
    regions = model.describe_regions(
        features,
        Regions(
            chosen.boxes.gather(1, order[..., None].expand(-1, -1, 4)),
            chosen.scores.gather(1, order),
            chosen.mask,
        ),
    )
    ids, labels = rendered(found, name, refer, ground, regions)
    live = model.live_mask(ids, (ids != found.config["token_ids"]["[PAD]"]).long(), regions.mask)
    return Run(found, name, pixels, features, chosen, regions, ids, labels, live)


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    boxes = torch.zeros(len(rows), max(len(row) for row in rows), 4)
    mask = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    for index, row in enumerate(rows):
        boxes[index, : len(row)], mask[index, : len(row)] = row, True
    return boxes, mask


def rendered(
    found: Recording,
    name: str,
    refer: tuple[Tensor, Tensor],
    ground: tuple[Tensor, Tensor],
    regions: Regions,
) -> tuple[Tensor, Tensor]:
    """Write the recorded prompt with our slots: ids and labels, int[B, L], left-padded."""
    model, tokens = found.model, found.config["token_ids"]
    ids = model.config.token_ids
    rows = []
    floor = model.config.proposer.match_threshold
    slots = [match_boxes(*boxes, regions, floor) for boxes in (refer, ground)]
    official = found.inputs[f"{name}.input_ids"]
    labels = found.inputs.get(f"{name}.labels", torch.full_like(official, IGNORED))
    for row, (line, wanted) in enumerate(zip(official.tolist(), labels.tolist(), strict=True)):
        boxes = {
            token: iter(found_slots[row].tolist())
            for token, found_slots in zip(("<refer_box>", "<ground_box>"), slots, strict=True)
        }
        pairs: list[tuple[int, int]] = []
        for token, label in zip(line, wanted, strict=True):
            if token == tokens["[PAD]"]:
                break
            if token == ids.image:
                pairs += [(token, IGNORED)] * model.num_image_tokens
            elif token == ids.region:
                for slot in range(model.num_slots):
                    pairs += [(ids.first_region + slot, IGNORED), (token, IGNORED)]
            elif token == tokens["<refer_box>"]:
                pairs.append((ids.first_region + next(boxes["<refer_box>"]), label))
            elif token == ids.ground_box:
                slot = ids.first_region + next(boxes["<ground_box>"])
                pairs.append((slot, slot if label == token else label))
            else:
                pairs.append((token, label))
        rows.append(pairs)
    width, pad = max(len(pairs) for pairs in rows), (tokens["[PAD]"], IGNORED)
    table = torch.tensor([[pad] * (width - len(pairs)) + pairs for pairs in rows])
    return table[..., 0], table[..., 1]


@pytest.mark.parametrize(("folder", "name"), cases())
class TestEveryCase:
    def test_proposals_and_choice(self, folder, name, run):
        case = run(folder, name)
        candidates = case.features.candidates
        close(candidates.boxes, case.official("pred_boxes"), "pred_boxes")
        for head in case.found.model.config.proposer.score_heads:
            logits = candidates.training.layer_logits[head][-1]
            close(logits, case.official(f"logits_{head}").squeeze(-1), f"logits_{head}")
        for row, mask in enumerate(case.chosen.mask):
            scores, count = case.official(f"nms_scores.{row}"), candidates.scores.shape[1]
            close(candidates.scores[row], scores[:count], "nms_scores")
            pool = torch.cat([
                case.official("pred_boxes")[row],
                *(
                    case.found.rows(f"{name}.{kind}_boxes", row + 1)[row]
                    for kind in ("refer", "ground")
                ),
            ])  # fmt: skip
            kept = case.official(f"nms_inds.{row}")
            if len(kept) == 0:
                kept = scores.argmax()[None]
            close(case.chosen.boxes[row][mask], pool[kept], "kept boxes")
            close(case.chosen.scores[row][mask], scores[kept], "kept scores")
            selected = case.regions.boxes[row][mask]
            close(selected, case.official(f"selected_boxes.{row}"), "selected_boxes")

    def test_features(self, folder, name, run):
        case = run(folder, name)
        official = case.official("image_features")
        close(case.features.image[: len(official)], official, "image_features")
        for row, mask in enumerate(case.regions.mask):
            vectors = case.regions.features[row]
            close(vectors[mask], case.official(f"region_features.{row}"), "region_features")
            assert not vectors[~mask].any()

    def test_text(self, folder, name, run):
        case = run(folder, name)
        model, mask = case.found.model, case.official("attention_mask").bool()
        embeds = model.embed(case.input_ids, case.features.image, case.regions.features)
        output = model(
            inputs_embeds=embeds,
            attention_mask=case.live,
            labels=case.labels,
            output_hidden_states=True,
        )
        for row in range(len(mask)):
            ids = case.compact(case.input_ids, row)
            assert ids.tolist() == case.official("spliced_input_ids")[row][mask[row]].tolist()
            if row < len(case.official("inputs_embeds")):
                official = case.official("inputs_embeds")[row][mask[row]]
                close(case.compact(embeds, row), official, "inputs_embeds")
            self.check_logits(case, output.logits, row, mask[row])
        if case.recorded("logits_at_labels"):
            rows = range(len(mask))
            shifted = [case.compact(case.labels, row)[1:] != IGNORED for row in rows]
            logits = [case.compact(output.logits, row)[:-1] for row in rows]
            ours = torch.cat([row[kept] for row, kept in zip(logits, shifted, strict=True)])
            close(ours, case.official("logits_at_labels"), "logits_at_labels")
        if case.recorded("loss"):
            close(output.loss, case.official("loss").squeeze(), "loss")

    def check_logits(self, case: Run, logits: Tensor, row: int, mask: Tensor) -> None:
        """Compare all logits of a row, or those of its last four columns, where they are live."""
        ours = case.compact(logits, row)
        for key, first in (("logits", 0), ("logits_last4", len(mask) - 4)):
            if case.recorded(key) and row < len(case.official(key)):
                close(ours[first:], case.official(key)[row][mask[first:]], key)

    def test_labels(self, folder, name, run):
        case = run(folder, name)
        if not case.recorded("shift_labels"):
            assert (case.labels == IGNORED).all()
            return
        for row, official in enumerate(case.official("shift_labels")):
            ours = case.compact(case.labels, row)[1:]
            assert ours.tolist() == official[: len(ours)].tolist()
            assert (official[len(ours) :] == IGNORED).all()

    def test_greedy_tokens(self, folder, name, run):
        """Rows that official code padded are wrong there (its decoding masks nothing)."""
        case = run(folder, name)
        if not case.recorded("generated_ids"):
            pytest.skip("the case was recorded without generation")
        official = case.official("generated_ids")
        together, logits = generate(case, slice(None), official.shape[1])
        for row, mask in enumerate(case.official("attention_mask").bool()):
            if mask.all():
                assert together[row].tolist() == official[row].tolist()
                close(logits[row], case.official("generate_step_logits")[row], "step logits")
            alone, _ = generate(case, slice(row, row + 1), official.shape[1])
            assert together[row].tolist() == alone[0].tolist()


def generate(case: Run, rows: slice, steps: int) -> tuple[Tensor, Tensor]:
    """Return greedy ids int[B, steps] and logits float[B, steps, V]; nothing ends an answer."""
    ids = case.input_ids[rows]
    output = case.found.model.generate(
        input_ids=ids,
        attention_mask=case.live[rows],
        image_features=case.features.image[rows],
        region_features=case.regions.features[rows],
        do_sample=False,
        max_new_tokens=steps,
        min_new_tokens=steps,
        eos_token_id=None,
        pad_token_id=case.found.config["token_ids"]["[PAD]"],
        return_dict_in_generate=True,
        output_logits=True,
    )
    return output.sequences[:, ids.shape[1] :], torch.stack(output.logits, dim=1)


@pytest.mark.parametrize(("folder", "name"), cases("plain"))
class TestOnTheWay:
    """What only the plain case records."""

    def test_vision(self, folder, name, run):
        case = run(folder, name)
        tower = case.found.model.vision.towers[0]
        states = tower.backbone(case.pixels, output_hidden_states=True).hidden_states
        for layer in (-1, -2, -3, -4):
            close(states[layer], case.official(f"vis_hidden_{layer}"), f"vis_hidden_{layer}")
        first = case.official("vis_hidden_embeddings_cls_row")
        close(states[0][:, : first.shape[1]], first, "embeddings")
        maps = tower(case.pixels)
        close(maps.proposer[0], case.official("ddetr_inputs"), "ddetr_inputs")
        merged = merge_tokens(maps.tokens, case.found.model.config.projector.merge)
        close(merged, case.official("image_features_merged"), "image_features_merged")

    def test_detector(self, folder, name, run):
        case = run(folder, name)
        detr, outputs = case.found.model.proposer.detr, case.official
        maps = detr.project(case.found.model.vision([case.pixels]).proposer)
        for level, ours in enumerate(maps):
            close(ours, outputs(f"input_proj_{level}"), f"input_proj_{level}")
        assert not case.recorded(f"input_proj_{len(maps)}")
        sizes = [(ours.shape[-2], ours.shape[-1]) for ours in maps]
        width = detr.settings.hidden_size
        positions = [
            sine_positions(size, width, maps[0].device) + level
            for size, level in zip(sizes, detr.level_embedding, strict=True)
        ]
        official = outputs("enc_position_embeddings")[0]
        close(torch.cat(positions), official, "enc_position_embeddings")
        memory = detr.encode(maps)
        close(memory, outputs("encoder_last_hidden_state"), "encoder_last_hidden_state")
        logits, box_logits = detr.read_tokens(memory, sizes)
        close(logits, outputs("enc_outputs_class").squeeze(-1), "enc_outputs_class")
        close(box_logits, outputs("enc_outputs_coord_logits"), "enc_outputs_coord_logits")
        best = logits.sort(dim=1, descending=True, stable=True).indices
        assert torch.equal(best[:, : detr.settings.num_queries], outputs("topk_proposals"))
        initial = detr.select(logits, box_logits)
        close(initial, outputs("init_reference_points"), "init_reference_points")
        close(detr.position_of(initial), outputs("query_pos"), "query_pos")
        states = detr.decode(memory, initial, sizes)
        recorded = outputs("decoder_intermediate_hidden_states")
        close(torch.stack(states, dim=1), recorded, "decoder_intermediate_hidden_states")
        start = inverse_sigmoid(initial)
        references = [
            (head(state) + start).sigmoid() for head, state in zip(detr.boxes, states, strict=True)
        ]
        recorded = outputs("decoder_intermediate_reference_points")
        close(torch.stack(references, dim=1), recorded, "decoder_intermediate_reference_points")

    def test_region_encoder(self, folder, name, run):
        case = run(folder, name)
        regions, outputs = case.found.model.regions, case.official
        levels = case.found.model.vision([case.pixels]).levels
        boxes = case.regions.boxes[:, : int(case.regions.mask.sum())]
        fused = regions.prepare(levels)
        scales = regions.config.level_scales
        for index, (level, scale) in enumerate(zip(levels, scales, strict=True)):
            sized = interpolate(level, scale_factor=scale, mode="bilinear", align_corners=True)
            key = f"level{index}_img0_ch8"
            close(sized[:1, :8], outputs(f"mlvl_in_{key}"), f"mlvl_in_{key}")
            close(fused[index][:1, :8], outputs(f"mlvl_out_{key}"), f"mlvl_out_{key}")
            cells, key = regions.cells(fused[index], boxes, index), f"roi_feat_level{index}"
            close(cells[:1, :8], outputs(f"{key}_roi0_ch8"), f"{key}_roi0_ch8")
            close(cells.mean((1, 2, 3)), outputs(f"{key}_mean"), f"{key}_mean")
        passed = torch.cat((torch.zeros(len(boxes[0]), 1), boxes[0] * regions.config.roi_canvas), 1)
        close(passed, outputs("roi_boxes_as_passed"), "roi_boxes_as_passed")
        flat = regions.appearance(fused, boxes)[0]
        close(flat, outputs("region_flat"), "region_flat")
        close(regions.position(boxes[0]), outputs("region_pos_embed"), "region_pos_embed")

    def test_language_model(self, folder, name, run):
        case = run(folder, name)
        model = case.found.model
        embeds = model.embed(case.input_ids, case.features.image, case.regions.features)
        positions = (case.live.cumsum(-1) - 1).clamp(min=0)
        hidden = model.text.base_model(
            inputs_embeds=embeds, attention_mask=case.live, position_ids=positions
        ).last_hidden_state
        for row, official in enumerate(case.official("llm_last_hidden")):
            mask = case.official("attention_mask")[row].bool()
            close(case.compact(hidden, row), official[mask], "llm_last_hidden")


@pytest.mark.parametrize(("folder", "name"), cases("train"))
def test_gradients_of_the_answer(folder, name, run):
    """Every trained parameter's gradient norm; detector and tower are frozen in official code."""
    model = recording(folder).model
    model.zero_grad()
    with torch.enable_grad():
        case = run(folder, name)
        output = model(
            input_ids=case.input_ids,
            attention_mask=case.live,
            labels=case.labels,
            image_features=case.features.image,
            region_features=case.regions.features,
        )
        output.loss.backward()
    recorded = case.found.config["cases"][name]["grad_norms"]
    check_gradients(case.found, {key: (key, norm) for key, norm in recorded.items()})
    model.zero_grad()


@pytest.mark.parametrize(("folder", "name"), cases("det"))
def test_detector_losses(folder, name):
    found = recording(folder)
    case, model = found.config["cases"][name], found.model
    pixels = found.inputs["images"][case["images"]]
    with torch.no_grad():
        maps = model.vision([pixels]).proposer
    for head in model.config.proposer.score_heads:
        model.zero_grad()
        output = model.proposer(maps).training
        boxes = found.rows(f"{name}.boxes", len(pixels))
        terms = set_prediction_loss(
            output,
            [DetectionTarget(box, head) for box in boxes],
            match_weights=weights(found, "{}_cost"),
            loss_weights=weights(found, "{}_loss_coefficient"),
        )
        close(terms["total"], found.outputs[f"{name}.{head}.loss"].squeeze(), f"{head} loss")
        layers = range(len(output.layer_boxes) - 1)
        prefixes = {"": "", "tokens.": "_enc", **{f"layer{n}.": f"_{n}" for n in layers}}
        for ours, official in prefixes.items():
            for term, key in OFFICIAL_TERMS.items():
                wanted = torch.tensor(case[head]["loss_dict"][key + official])
                close(terms[ours + term].detach(), wanted, f"{head} {key}{official}")
        terms["total"].backward()
        recorded = case[head]["grad_norms"].items()
        check_gradients(found, {f"perceiver.{key}": (key, norm) for key, norm in recorded})
    model.zero_grad()


def weights(found: Recording, key: str) -> SetWeights:
    """The recorded weights of matching or loss."""
    config = found.config["official_config"]["perceiver_cfg"]["ddetr_cfg"]
    score = "class" if key.endswith("cost") else "cls"
    return SetWeights(*(float(config[key.format(term)]) for term in (score, "bbox", "giou")))


def check_gradients(found: Recording, norms: Mapping[str, tuple[str, float]]) -> None:
    """Hold our gradients against recorded norms, by official name."""
    aliases, parameters = found.config["state_dict_aliases"], dict(found.model.named_parameters())
    base = found.config["llm_cfg"]["vocab_size"]
    rows = {"new_input_embs.weight": slice(base, None), "extra_lm_head.weight": slice(base, None)}
    rows |= {"llm.model.embed_tokens.weight": slice(base), "llm.lm_head.weight": slice(base)}
    assert norms
    for official, (name, norm) in norms.items():
        (target,) = found.conversion.report.used[aliases.get(official, official)]
        gradient = parameters[target].grad
        ours = 0.0 if gradient is None else gradient[rows.get(official, slice(None))].norm().item()
        assert ours == pytest.approx(norm, rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_converted_saved_and_loaded_it_is_the_same_model(folder, tmp_path):
    found = recording(folder)
    found.model.save_pretrained(tmp_path)
    again = ParfocalForConditionalGeneration.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        features = [model.encode(found.inputs["images"]) for model in (found.model, again)]
        regions = [
            model.propose(feature)
            for model, feature in zip((found.model, again), features, strict=True)
        ]
    assert torch.equal(features[0].image, features[1].image)
    assert torch.equal(regions[0].features, regions[1].features)
    weights_of = again.state_dict()
    assert all(torch.equal(x, weights_of[name]) for name, x in found.model.state_dict().items())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_official_tensor_is_used(folder):
    report = recording(folder).conversion.report
    assert not report.dropped
    assert not report.kept
    assert set(report.used) == set(load_file(folder / "state_dict.safetensors"))
