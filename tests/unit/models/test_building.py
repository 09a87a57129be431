"""What a tokenizer must have for a model's prompt, and ids that are not what they look like."""

from __future__ import annotations

import pytest
import torch

from parfocal.dialects import get_dialect
from parfocal.errors import ConfigError
from parfocal.models.building import build_processor, refuse_mismatch, token_ids_of
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import tiny, vary
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.settings import PromptTemplate
from parfocal.models.tokenizers import train_tokenizer
from tests.unit.models.builders import KINDS

TEMPLATE = PromptTemplate(user="<user>", assistant="<answer>")


def made(dialect: str, names: int, layout: str):
    """A tokenizer with names of so many regions, and the config of a model for six."""
    tokenizer = train_tokenizer(["Where is it?"], get_dialect(dialect), TEMPLATE, names, 320)
    config = vary(tiny(len(tokenizer)), {"dialect": dialect, "regions": {"layout": layout}})
    ids = {**token_ids_of(tokenizer).to_dict(), "region": len(tokenizer) + 1}
    return tokenizer, vary(config, {"token_ids": ids})


@pytest.mark.parametrize("layout", ["interleaved", "summed"])
@pytest.mark.parametrize(("dialect", "names"), [("coordinates", 0), ("region_tokens", 5)])
def test_a_layout_with_names_needs_one_a_region(dialect, names, layout):
    tokenizer, config = made(dialect, names, layout)
    with pytest.raises(
        ConfigError, match=rf"'{layout}'.*6 regions.*'<r5>' has the id None.*'bare'"
    ):
        build_processor(tokenizer, config, TEMPLATE, 4)


def test_names_of_other_ids_than_the_configs_are_refused():
    tokenizer, config = made("region_tokens", 6, "summed")
    config = vary(config, {"token_ids": {"first_region": config.token_ids.first_region + 1}})
    with pytest.raises(ConfigError, match=r"token_ids\.first_region"):
        build_processor(tokenizer, config, TEMPLATE, 4)


def test_a_bare_layout_needs_no_names():
    tokenizer, config = made("coordinates", 0, "bare")
    assert build_processor(tokenizer, config, TEMPLATE, 4).settings.num_slots == 6


def test_the_boxes_mark_of_kosmos_2_is_no_object_image():
    tokenizer, config = made("kosmos2", 0, "bare")
    mark = tokenizer.convert_tokens_to_ids("<object>")
    assert mark >= 0
    assert token_ids_of(tokenizer).object == -1
    config = vary(config, {"token_ids": {"object": mark}})  # as it was saved before
    model = ParfocalForConditionalGeneration(config).eval()
    row = [config.token_ids.image] * model.num_image_tokens + [mark]
    image = torch.zeros(1, model.num_image_tokens, config.text_config.hidden_size)
    found = model.embed(torch.tensor([row]), image, None)
    assert torch.equal(found[0, -1], model.get_input_embeddings().weight[mark])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_together_goes_together(kind, tmp_path):
    for part in KINDS[kind]():
        part.save_pretrained(tmp_path)
    model = ParfocalForConditionalGeneration.from_pretrained(tmp_path)
    refuse_mismatch(tmp_path, model, ParfocalProcessor.from_pretrained(tmp_path))
