"""Parts of different papers in one model: it is a config, and it builds, learns and answers."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects import get_dialect
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef
from parfocal.images import image_frame
from parfocal.models.building import build_processor
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.packing import additive, turn_mask, turn_positions
from parfocal.models.presets import groma_7b, mg_llava_vicuna_7b, vary
from parfocal.models.settings import PromptTemplate
from parfocal.models.tokenizers import END, train_tokenizer
from parfocal.predict.predictor import Predictor

# a region has no name in numbers: it stands in the text as its feature alone, on the ConvNeXt's
# levels, whose true strides the boxes are read with
REGIONS = {
    "kind": "multilevel_roi", "roi_boxes": "corners", "roi_canvas": 0, "roi_strides": (),
    "level_scales": (1, 1, 1), "layout": "bare", "depth": 2, "merge": "concat",
    "never_empty": False,
}  # fmt: skip
LOW = {
    "backbone": {
        "model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    },
    "image_size": 28, "token_layer": -2, "input_from": 1,
}  # fmt: skip
HIGH = {
    "backbone": {"model_type": "convnext", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "image_size": 64, "level_layers": (1, 2, 3, 4),
}  # fmt: skip
TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>", end=END)
FRAME = image_frame(Image.new("RGB", (80, 60)))
PLACE = Boxes([[8, 10, 40, 50]], FRAME)


def hybrid() -> ParfocalConfig:
    """Groma's proposer and regions, MG-LLaVA's towers and conv gate, TinyGroundingGPT's numbers."""
    groma, base = groma_7b(), mg_llava_vicuna_7b()
    return vary(base, {
        "proposer": {**groma.proposer.to_dict(), "pyramid_levels": 0},
        "regions": {**groma.regions.to_dict(), **REGIONS},
        "vision": {"whole_pixel_boxes": False},
        "dialect": "coordinates",
    })  # fmt: skip


@pytest.fixture
def pair():
    """The hybrid at a toy size, and its processor."""
    tokenizer = train_tokenizer(
        ["Output the coordinate of the red apple"] * 3, get_dialect("coordinates"), TEMPLATE, 0, 320
    )
    size = len(tokenizer)
    config = vary(hybrid(), {
        "vision": {"towers": [LOW, HIGH]},
        "proposer": {
            "hidden_size": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "points": 2,
            "ffn_size": 16, "queries": 12, "box_head_size": 16, "max_regions": 4,
            "score_threshold": 0.0,
        },
        "regions": {
            "roi_size": 2, "hidden_size": 16, "position_size": 8, "fuse_rounds": 2,
            "norm_groups": None,
        },
        "text_config": {
            "model_type": "llama", "vocab_size": size, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
            "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "token_ids": {"image": size, "region": size + 1},
    })  # fmt: skip
    torch.manual_seed(0)
    model = ParfocalForConditionalGeneration(config)
    for name, value in model.named_parameters():  # so that parts which start at zero do something
        if value.ndim > 1 and not name.startswith("proposer"):
            torch.nn.init.normal_(value, std=0.2)
    return model, build_processor(tokenizer, config, TEMPLATE, model.num_image_tokens)


def noise(seed: int, width: int = 80, height: int = 60) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (height, width, 3), generator=generator)
    return Image.fromarray(values.byte().numpy())


@pytest.mark.slow
def test_the_hybrid_is_a_difference_of_presets_and_builds_at_full_size():
    config = hybrid()
    assert (config.proposer.kind, config.fusion.kind) == ("deformable_detr", "conv_gate")
    assert (config.regions.kind, config.dialect) == ("multilevel_roi", "coordinates")
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(config)
    assert (model.num_image_tokens, model.num_slots) == (576, 100)


def test_the_hybrid_takes_a_training_step(pair):
    model, processor = pair
    samples = [
        Sample(str(index), (ImageRef(None, 80, 60, pixels=noise(index)),), (
            Turn("user", GroundedText.of("Output the coordinate of ", Phrase("the red apple"))),
            Turn("assistant", GroundedText.of(Phrase("", PLACE))),
        ), regions=PLACE)
        for index in range(2)
    ]  # fmt: skip
    pixels, warps = processor.pixel_values([sample.open_image() for sample in samples])
    batch = processor.pack(samples, warps)
    learned = processor.tokenizer.decode(batch.input_ids[0][batch.labels[0] != -100])
    assert learned == "[0.100, 0.250, 0.500, 0.750]" + END  # 10 pixels of padding above

    before = copy.deepcopy(model.state_dict())
    features = model.train().encode(pixels)
    regions = model.propose(features, batch.user_boxes, batch.user_mask)
    live = model.live_mask(batch.input_ids, batch.attention_mask, regions.mask)
    allowed, positions = turn_mask(batch.turn, live), turn_positions(batch.turn, live)
    output = model(
        input_ids=batch.input_ids,
        attention_mask=additive(allowed, torch.float32),
        position_ids=positions,
        labels=batch.labels,
        image_features=model.image_tokens(features, regions),
        region_features=regions.features,
    )
    detections = features.candidates.training
    (output.loss + detections.boxes.square().mean() + detections.scores.mean()).backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    moved = {
        key.split(".")[0]
        for key, value in model.named_parameters()
        if not torch.equal(value, before[key])
    }
    assert moved == {"vision", "fusion", "projector", "proposer", "regions", "text"}
    assert torch.isfinite(output.loss)


def test_the_hybrid_answers_in_pixels_with_its_proposals(pair, monkeypatch):
    model, processor = pair
    predictor = Predictor(model, processor, "hybrid")
    said = processor.tokenizer.encode("[0.100, 0.250, 0.500, 0.750]" + END)
    spoken = torch.tensor([said])

    class Says:
        """Forces the tokens, so that everything around the language model is what is tested."""

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            step = input_ids.shape[1] - self.start
            forced = torch.full_like(scores, float("-inf"))
            forced[:, spoken[0, step]] = 0
            return forced

    says = Says()
    generate = type(model).generate

    def forced(self, input_ids, logits_processor, **options):
        says.start = input_ids.shape[1]
        logits_processor.append(says)
        return generate(self, input_ids=input_ids, logits_processor=logits_processor, **options)

    monkeypatch.setattr(type(model), "generate", forced)
    answer = predictor.locate(noise(0), "the red apple")
    assert answer.problems == ()
    assert answer.boxes.to_json() == [pytest.approx([8, 10, 40, 50], abs=0.1)]
    assert [phrase.text for phrase in answer.phrases] == ["the red apple"]
    assert answer.question.plain == "Output the coordinate of the red apple"
    assert len(answer.proposals) == 4


def test_a_batch_of_the_hybrid_equals_each_alone(pair):
    predictor = Predictor(*pair, "hybrid")
    images = [noise(0), noise(1, 50, 70)]
    boxes = [[[5, 5, 40, 40]], None]
    about = GroundedText.of("What is ", RegionRef(0), "?")
    questions = [about, "What is there?"]
    together = predictor.ask_batch(images, questions, boxes, max_new_tokens=6)
    for answer, image, question, own in zip(together, images, questions, boxes, strict=True):
        alone = predictor.ask(image, question, own, max_new_tokens=6)
        assert answer.text == alone.text
        assert answer.proposals.xyxy == pytest.approx(alone.proposals.xyxy, abs=1e-3)
