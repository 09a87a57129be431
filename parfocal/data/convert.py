"""From a dataset's own files to one file of Samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_type_hints

from parfocal.data.files import check_output, write_samples
from parfocal.data.readers import READERS, get_reader
from parfocal.data.readers.base import Reader
from parfocal.data.sample import Sample
from parfocal.errors import ConfigError, DataError


@dataclass(frozen=True)
class ConvertReport:
    """What `convert` did.

    Attributes:
        rows: Samples written.
        boxes: of regions and phrases.
        turns: their turns.
        skipped: what was left out, by reason.
    """

    rows: int
    boxes: int
    turns: int
    skipped: dict[str, int]


@dataclass(frozen=True)
class ReaderCard:
    """What a person needs to know to use a reader.

    Attributes:
        name: key of `READERS`.
        files: the sources it wants, in order.
        what: one sentence.
        licence: of the dataset.
        options: of the reader itself, with their defaults.
    """

    name: str
    files: tuple[str, ...]
    what: str
    licence: str
    options: dict[str, str]


def describe_readers() -> list[ReaderCard]:
    """Return a card of every reader, by name."""
    cards = []
    for name, kind in sorted(READERS.items()):
        defaults = {item.name: item.default for item in fields(kind)}
        options = {option: str(defaults[option]) for option in reader_options(kind)}
        what = (kind.__doc__ or "").strip().splitlines()[0]
        cards.append(ReaderCard(name, kind.files, what, kind.licence, options))
    return cards


def convert(reader: Reader, out: str | Path, limit: int | None = None) -> ConvertReport:
    """Write the Samples of a reader as they come; the file appears when it is complete.

    Args:
        reader: the dataset.
        out: `.jsonl` or `.parquet`.
        limit: only the first so many Samples.

    Raises:
        ConfigError: if the name ends otherwise, or is that of one of the dataset's files.
        DataError: if the dataset's files are broken or give no rows, or the file cannot be written.
            What stood under its name before is left as it was.
    """
    check_output(out, reader.paths)
    counted = {"rows": 0, "boxes": 0, "turns": 0}

    def samples() -> Iterator[Sample]:
        for sample in islice(reader, limit):
            counted["boxes"] += len(sample.regions)
            counted["boxes"] += sum(
                len(phrase.boxes) for turn in sample.turns for phrase in turn.text.phrases
            )
            counted["turns"] += len(sample.turns)
            counted["rows"] += 1
            yield sample
        if not counted["rows"]:
            raise DataError(f"{out} would have no rows. {_why_empty(reader.skipped)}")

    write_samples(samples(), out)
    return ConvertReport(**counted, skipped=dict(sorted(reader.skipped.items())))


def _why_empty(skipped: Mapping[str, int]) -> str:
    if skipped:
        reasons = "; ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        return f"Everything was left out ({reasons}): check the files and --images."
    return "Nothing was found in the files: are they those of this dataset?"


def build_reader(
    name: str,
    sources: Sequence[str | Path],
    images: str | Path | None = None,
    split: str = "",
    options: Sequence[str] = (),
) -> Reader:
    """Build a reader from words, as the command line has them.

    Args:
        name: a key of `READERS`.
        sources: the dataset's files.
        images: folder of the pictures.
        split: what Samples say of their split.
        options: `name=value` of the reader's own options.

    Raises:
        ConfigError: for an unknown reader or option, or a value of the wrong type.
        DataError: if a file is not there.
    """
    kind = get_reader(name)
    return kind(sources, images=images, split=split, **_options(kind, options))


def reader_options(kind: type[Reader]) -> Mapping[str, Any]:
    """Return name -> type of the options that a reader has of its own."""
    hints = get_type_hints(kind)
    shared = {item.name for item in fields(Reader)}
    return {
        item.name: hints[item.name]
        for item in fields(kind)
        if item.init and item.name not in shared
    }


def _options(kind: type[Reader], words: Sequence[str]) -> dict[str, Any]:
    known, chosen = reader_options(kind), {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise ConfigError(f"option {word!r} is not of the form name=value.")
        if name not in known:
            have = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"the reader {kind.source!r} has no option {name!r}; {have}.")
        chosen[name] = _typed(name, value, known[name])
    return chosen


def _typed(name: str, value: str, hint: Any) -> Any:
    """Read a word as the type of an option: text, number, truth value, or one of some words."""
    choices = [item for item in get_args(hint) if item is not type(None)]
    if choices and all(isinstance(item, str) for item in choices):
        if value not in choices:
            raise ConfigError(f"{name}={value!r} is not one of {', '.join(choices)}.")
        return value
    kinds = [item for item in choices if isinstance(item, type)] or [hint]
    if bool in kinds:
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"{name}={value!r} must be true or false.")
        return value.lower() == "true"
    for kind in (int, float, Path):
        if kind in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
    if str in kinds:
        return value
    raise ConfigError(
        f"{name}={value!r} is not of type {' or '.join(item.__name__ for item in kinds)}."
    )
