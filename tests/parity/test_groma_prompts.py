"""Groma's conversations, token by token, against recordings of the official loaders.

The official code tokenises a whole conversation at once, with `<sep>` around every answer, and
takes the `<sep>` out afterwards; ours tokenises piece by piece. Where a blank stands hangs on the
version of the Llama tokenizer (`legacy`), and an answer that starts with words must not gain or
lose one.
"""

from __future__ import annotations

import json
import re
import shutil
from functools import lru_cache
from typing import Any

import pytest

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects.grounded import GroundedText, Phrase, RegionRef, Span
from parfocal.models.building import build_processor, token_ids_of
from parfocal.models.checkpoints.official_groma import groma_template, groma_tokenizer
from parfocal.models.presets import groma_7b
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.text_batch import IGNORED
from tests.parity.conftest import recorded

FOLDER = recorded("groma/prompts")
ROWS = json.loads((FOLDER / "conversations.json").read_text(encoding="utf-8"))
STAGES = {"llava": "finetune", "default": "pretrain"}
FRAME = Frame("image", 160, 120)
UNIT = re.compile(
    r"(?:<p>(?P<words>.*?)</p>\s*)?<roi>(?P<boxes>(?:<ground_box>)+)</roi>"
    r"|<roi><refer_box></roi>(?P<refer><refer_feat>)|<p>(?P<alone>.*?)</p>"
)
TURN = re.compile(r"USER: (.*?) ASSISTANT: <sep>(.*?)<sep>", re.DOTALL)


@pytest.fixture(scope="module")
def processor_of(tmp_path_factory):
    """The processor of a stage, with the toy tokenizer in one of its versions."""

    @lru_cache
    def build(stage: str, legacy: bool) -> ParfocalProcessor:
        folder = tmp_path_factory.mktemp("tokenizer")
        shutil.copy(FOLDER / "tokenizer.model", folder)
        (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
        tokenizer, config = groma_tokenizer(folder, 100), groma_7b()
        config.token_ids = token_ids_of(tokenizer)
        return build_processor(tokenizer, config, groma_template(folder, stage), 4)

    return build


def grounded(text: str, regions: list[list[float]]) -> GroundedText:
    """The official markup as spans; a region that is referred to is added to `regions`."""
    spans: list[str | Span] = []
    place = 0
    for match in UNIT.finditer(text):
        spans.append(text[place : match.start()])
        place = match.end()
        if match["boxes"]:
            rows = [[1, 1, 20 + k, 20] for k in range(match["boxes"].count("<"))]
            spans.append(Phrase(match["words"] or "", Boxes(rows, FRAME)))
        elif match["refer"]:
            spans.append(RegionRef(len(regions)))
            regions.append([0, 0, 10 + len(regions), 10])
        else:
            spans.append(Phrase(match["alone"]))
    return GroundedText.of(*spans, text[place:])


def sample_of(row: dict[str, Any]) -> Sample:
    regions: list[list[float]] = []
    turns = []
    for question, answer in TURN.findall(row["turns"]):
        turns.append(Turn("user", grounded(question, regions)))
        turns.append(Turn("assistant", grounded(answer, regions)))
    boxes = Boxes(regions, FRAME) if regions else Boxes.empty(FRAME)
    image = ImageRef("a.png", 160, 120)
    return Sample("x", (image,), tuple(turns), boxes, "groma", "train", "", {})


def folded(processor: ParfocalProcessor, ids: list[int]) -> list[int]:
    """Places of one image token and one region token for all of them, as before they are filled."""
    settings = processor.settings
    image = ids.index(settings.token_ids.image)
    region = ids.index(settings.token_ids.first_region)
    after_image, after_region = image + settings.num_image_tokens, region + 2 * settings.num_slots
    return [
        *range(image + 1),
        *range(after_image, region),
        region + 1,
        *range(after_region, len(ids)),
    ]


def official(processor: ParfocalProcessor, ids: list[int]) -> list[int]:
    """Recorded ids; the k-th `<refer_box>`, which is filled in later, is the name of region k."""
    refer = processor.tokenizer.convert_tokens_to_ids("<refer_box>")
    names = iter(range(processor.settings.token_ids.first_region, len(processor.tokenizer)))
    return [next(names) if token == refer else token for token in ids]


def name_of(row: dict[str, Any]) -> str:
    return f"{row['template']} {'legacy' if row['legacy'] else 'not legacy'} {row['loader']}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_packed_conversation_has_the_recorded_ids_and_targets(row, processor_of):
    processor = processor_of(STAGES[row["template"]], row["legacy"])
    sample = sample_of(row)
    packed = processor.pack([sample], [Warp.to_unit(FRAME)])
    places = folded(processor, packed.input_ids[0].tolist())
    ids = packed.input_ids[0, places].tolist()
    assert ids == official(processor, row["ids"])
    learned = [k for k, label in enumerate(packed.labels[0, places].tolist()) if label != IGNORED]
    assert learned == [k for start, end in row["learned"] for k in range(start, end)]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_learned_answer_is_read_back_as_it_was_written(row, processor_of):
    processor = processor_of(STAGES[row["template"]], row["legacy"])
    view = processor.view(FRAME, Warp.to_unit(FRAME))
    runs = [official(processor, row["ids"])[start:end] for start, end in row["learned"]]
    answers = [turn.text for turn in sample_of(row).turns if turn.role == "assistant"]
    for ids, answer in zip(runs, answers, strict=True):
        said = processor.decode(ids, view).text.plain
        assert not said[:1].isspace()
        assert _words(said) == _words(answer.plain)


def _words(text: str) -> list[str]:
    """The words; a legacy tokenizer writes a blank between the mark of a phrase and a full stop."""
    return re.sub(r"\s+(?=[.,])", "", text).split()


@pytest.mark.parametrize("legacy", [True, False])
def test_a_question_ends_where_its_answer_starts_in_training(legacy, processor_of):
    """What is asked and then answered is what was packed."""
    processor = processor_of("finetune", legacy)
    rows = [row for row in ROWS if row["template"] == "llava" and row["legacy"] == legacy]
    row = next(row for row in rows if row["loader"] == "llava_instruct")
    sample, warp = sample_of(row), Warp.to_unit(FRAME)
    asked = processor.ask([sample.turns[0].text], [sample.regions], [warp]).input_ids[0].tolist()
    packed = processor.pack([sample], [warp]).input_ids[0].tolist()
    answer = processor.tokenizer.convert_ids_to_tokens(packed[len(asked)])
    assert packed[: len(asked)] == asked
    assert answer.startswith("\u2581") is legacy


def test_every_way_of_tokenising_is_recorded():
    kinds = {(row["template"], row["legacy"]) for row in ROWS}
    assert len(kinds) == 4
    several = [row for row in ROWS if len(TURN.findall(row["turns"])) > 1]
    assert {(row["template"], row["legacy"]) for row in several} == kinds
    plain = [row for row in ROWS if re.search(r"<sep>[A-Za-z]", row["turns"])]
    assert {(row["template"], row["legacy"]) for row in plain} == kinds
