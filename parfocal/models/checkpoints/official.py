"""Official folders, public parts and presets to one of our model folders, or straight into memory.

A conversion is strict: every source tensor is used or dropped by name, every target is filled or
keeps a named initial value, and what does not fit is refused with the list of misfits. Weights are
read lazily and only their names and shapes are needed before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from parfocal.errors import CheckpointError
from parfocal.models.building import build_processor
from parfocal.models.checkpoints.convert import Conversion, Report
from parfocal.models.checkpoints.groma import OfficialConstants, convert_groma, groma_key_map
from parfocal.models.checkpoints.mg_llava import convert_mg_llava
from parfocal.models.checkpoints.official_groma import (
    DUMMY_TEXT,
    STAGES,
    config_values,
    detector_processor,
    groma_processor,
    is_detector,
    is_groma,
    official_config,
)
from parfocal.models.checkpoints.official_mg_llava import (
    is_mg_llava,
    lay_out,
    mg_llava_config,
    template_name,
)
from parfocal.models.checkpoints.public_parts import (
    Start,
    Words,
    initial_values,
    open_words,
    put_words,
    start_from_parts,
)
from parfocal.models.checkpoints.sources import local_folder, open_tensors
from parfocal.models.checkpoints.tokenizer_model import read_tokenizer
from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.presets import PRESETS
from parfocal.models.processing import FILE_NAME as OURS
from parfocal.models.processing import ParfocalProcessor
from parfocal.models.templates import PRESET_TEMPLATES, TEMPLATES

FAMILIES = ("groma", "mg_llava")


@dataclass(frozen=True)
class Converted:
    """A converted model, still in memory.

    Attributes:
        config: of the model.
        processor: that goes with it.
        state: name -> tensor, all of the model's.
        report: what became of the source.
        detector_only: it can propose boxes; its language model is a dummy.
    """

    config: ParfocalConfig
    processor: ParfocalProcessor
    state: dict[str, Tensor]
    report: Report
    detector_only: bool = False


def convert(
    source: str | Path,
    target: str | Path,
    family: str | None = None,
    vision: Sequence[str | Path] = (),
    text: str | Path | None = None,
    stage: str = "auto",
    dtype: torch.dtype | None = None,
    constants: OfficialConstants | None = None,
) -> Report:
    """Convert an official checkpoint, or start a preset from public parts, into a folder.

    Args:
        source: an official folder or file, a hub id in the local cache, or the name of a preset.
        target: folder to write, which must be empty or not exist.
        family: of an official checkpoint; None: recognised.
        vision: folders or cached hub ids of the vision towers, in their order.
        text: folder or cached hub id of the language model.
        stage: of a Groma folder; `auto` takes `detector` where the config says so, else `finetune`.
            `pretrain` has another prompt, without a mark at the end of answers.
        dtype: of the written weights; None: as in the source.
        constants: of a Groma model made with other numbers in the code than the published ones.

    Returns:
        The report: what was used, dropped and kept, by name.

    Raises:
        CheckpointError: if the source is incomplete or does not fit, with the list of misfits, or
            the target cannot be made.
    """
    target = Path(target)
    _check_target(target)
    made = read_official(source, family, vision, text, stage, constants)
    if made.detector_only:
        raise CheckpointError(
            f"{source} holds the detector only. Give the language model that training goes on "
            "with, such as --text lmsys/vicuna-7b-v1.5."
        )
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(made.config)
    state = made.state
    if dtype is not None:
        state = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in state.items()
        }
    model.load_state_dict(state, strict=True, assign=True)
    model.save_pretrained(target)
    made.processor.save_pretrained(target)
    return made.report


def _check_target(target: Path) -> None:
    """Refuse a folder that could not be written, before anything is read."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is there already; give the name of a new folder.")
    above = next(path for path in target.absolute().parents if path.exists())
    if not above.is_dir():
        raise CheckpointError(f"{target} cannot be made: {above} is a file. Give another folder.")


def recognise(source: str | Path) -> str | None:
    """Return the family of an official folder or file; None for anything else, ours included."""
    path = Path(source)
    if path.is_file():
        return "mg_llava" if path.suffix in (".pth", ".bin", ".safetensors") else None
    if not path.is_dir() or (path / OURS).is_file():
        return None
    if is_groma(config_values(path)):
        return "groma"
    return "mg_llava" if is_mg_llava(path) else None


def read_official(
    source: str | Path,
    family: str | None = None,
    vision: Sequence[str | Path] = (),
    text: str | Path | None = None,
    stage: str = "auto",
    constants: OfficialConstants | None = None,
) -> Converted:
    """Convert into memory; see `convert` for the arguments.

    A Groma detector without `text` becomes a model that can propose boxes and nothing else.
    """
    if family not in (None, *FAMILIES):
        raise CheckpointError(f"there is no family {family!r}; choose one of {list(FAMILIES)}.")
    if stage not in STAGES:
        raise CheckpointError(f"there is no stage {stage!r}; choose one of {list(STAGES)}.")
    if family is None and str(source) in PRESETS and not Path(source).exists():
        return _from_parts(str(source), vision, text)
    path = local_folder(source)
    family = family or recognise(path)
    if family == "groma":
        if vision:
            raise CheckpointError("Groma's folders hold their vision tower; leave --vision out.")
        return _groma(path, text, stage, constants)
    if family == "mg_llava":
        return _mg_llava(path, vision, text)
    raise CheckpointError(
        f"{path} is no official folder of {' or '.join(FAMILIES)}: its config.json has the "
        f"model_type {config_values(path).get('model_type')!r}. Name the family with --family if "
        f"it is one, or give a preset ({', '.join(PRESETS)}) and its parts."
    )


def groma_folder_config(
    folder: str | Path, constants: OfficialConstants | None = None
) -> ParfocalConfig | None:
    """Return the config of an official Groma folder, detector included; None for other folders."""
    values = config_values(Path(folder))
    return official_config(values, constants=constants) if is_groma(values) else None


def _targets(config: ParfocalConfig) -> tuple[dict[str, Tensor], int]:
    """Return the state dict of a model on the meta device, and its number of image tokens."""
    with torch.device("meta"):
        model = ParfocalForConditionalGeneration(config)
    return model.state_dict(), model.num_image_tokens


def _groma(
    path: Path, text: str | Path | None, stage: str, constants: OfficialConstants | None
) -> Converted:
    values = config_values(path)
    detector = is_detector(values)
    if stage != "auto" and (stage == "detector") != detector:
        raise CheckpointError(
            f"{path} is {'the' if detector else 'not the'} detector's folder by its config.json, "
            f"the stage given is {stage!r}; leave it out."
        )
    if detector:
        return _detector(path, text, constants)
    config = official_config(values, constants=constants)
    targets, image_tokens = _targets(config)
    done = convert_groma(open_tensors(path), config, targets)
    words = path if text is None else local_folder(text)
    processor = groma_processor(config, words, image_tokens, stage)
    return Converted(config, processor, done.state, done.report)


def _detector(
    path: Path, text: str | Path | None, constants: OfficialConstants | None
) -> Converted:
    """Read the first stage's detector, with the language model for the next stage or a dummy."""
    values = config_values(path)
    if text is None:
        small = replace(constants or OfficialConstants(), fuse_rounds=0, region_size=8)
        config = official_config(values, DUMMY_TEXT, small)
        targets, image_tokens = _targets(config)
        done = convert_groma(open_tensors(path), config, targets)
        _fill_kept(config, done)
        processor = detector_processor(config, image_tokens)
        return Converted(config, processor, done.state, done.report, detector_only=True)
    words, tensors = open_words(official_config(values, constants=constants), local_folder(text))
    key_map = groma_key_map(words.config.proposer.decoder_layers, detector_only=True)
    return _started(Start(words, open_tensors(path), key_map, tensors), "groma_7b")


def _started(start: Start, preset: str) -> Converted:
    """Fill a model of `preset`, or of a variant of it, from its parts."""
    config = start.words.config
    targets, image_tokens = _targets(config)
    done = start.fill(targets)
    _fill_kept(config, done)
    processor = _processor(start.words, preset, image_tokens)
    return Converted(config, processor, done.state, done.report)


def _fill_kept(config: ParfocalConfig, done: Conversion) -> None:
    done.state.update(initial_values(config, done.report.kept))
    done.report.parameters = sum(tensor.numel() for tensor in done.state.values())


def _mg_llava(path: Path, vision: Sequence[str | Path], text: str | Path | None) -> Converted:
    layout = lay_out(path, vision, text)
    config = mg_llava_config(layout)
    targets, image_tokens = _targets(config)
    done = convert_mg_llava(layout.tensors, targets)
    tokenizer = read_tokenizer(layout.words)
    template = TEMPLATES[template_name(tokenizer)]
    processor = build_processor(tokenizer, config, template, image_tokens)
    return Converted(config, processor, done.state, done.report)


def _from_parts(preset: str, vision: Sequence[str | Path], text: str | Path | None) -> Converted:
    if text is None:
        raise CheckpointError(
            f"preset {preset!r} needs a language model and its tokenizer to start from: give "
            "--text with a folder or a hub id in the local cache."
        )
    towers = [local_folder(name) for name in vision]
    return _started(start_from_parts(preset, towers, local_folder(text)), preset)


def with_language_model(
    config: ParfocalConfig, text: str | Path, preset: str
) -> tuple[ParfocalConfig, ParfocalProcessor]:
    """Put a language model's config, tokenizer and prompt into a model, without any weights.

    Args:
        config: of the model; its language model is replaced.
        text: folder or cached hub id of the language model.
        preset: key of `PRESETS` that the model is a variant of.

    Returns:
        The config, and the processor of a model of it.

    Raises:
        CheckpointError: if there is no language model, or no tokenizer beside it.
    """
    words = put_words(config, local_folder(text))
    return words.config, _processor(words, preset, _targets(words.config)[1])


def _processor(words: Words, preset: str, image_tokens: int) -> ParfocalProcessor:
    """Build a processor whose prompt is that of the tokenizer's family, as the preset has it."""
    template = words.template
    if template is None:
        template = TEMPLATES[template_name(words.tokenizer)]
        own = PRESET_TEMPLATES.get(preset, template)
        template = own if own.end == template.end else template
    return build_processor(words.tokenizer, words.config, template, image_tokens)
