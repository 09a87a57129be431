"""What a mixture is: which files, how much of each, in which order; as values or as a TOML file.

`parfocal.data.mixing.open_mixture` opens one and reads it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_type_hints

from parfocal.data.schedule import Interleave, Stop
from parfocal.errors import ConfigError, DataError

Kind = Literal["auto", "jsonl", "parquet", "webdataset", "hub"]
Leaks = Literal["refuse", "allow", "exclude"]

LOCAL_BUILDERS = ("json", "parquet")  # paths of kind "hub" that name no dataset but local files
SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
}


@dataclass(frozen=True)
class MixtureSource:
    """One set of rows.

    Attributes:
        name: unique in the mixture. The order of the rows and the subset that `ratio` draws depend
            on it and the seed, not on the other sources.
        path: a file, a folder of Parquet or tar shards, or a pattern such as "train-*.tar"; of kind
            "hub" the id of a dataset, or "json" or "parquet" for local `files`.
        kind: "auto" goes by the ending.
        images: folder of the pictures; "" for the folder that the data file is in, or, of kind
            "hub", for the working folder.
        ratio: share of the rows that is used at all: a random subset, drawn once from the seed.
        epochs: how often each row comes in an epoch of the mixture. 0.5 shows one half in the first
            epoch and the other in the second.
        weight: how likely a row is drawn from this source; for interleave "weighted" only.
        views: names of functions that turn a row into the Samples to train on, one after the other;
            none yields the row itself. Whoever opens the mixture gives the functions. Those of task
            views may have options: "rec(limit=1)".
        streaming: read rows in the order of the files, which are not opened at random places: for
            compressed tar files, for a hub, and for Parquet files of huge row groups.
        buffer: "streaming" only: rows in memory, which are shuffled among each other.
        rows: "streaming" only: how many rows to read; 0 asks the source, or counts.
        files: kind "hub" only: files of the dataset.
        split: kind "hub" only: split of the dataset.
        revision: kind "hub" only: commit or tag of the dataset.
    """

    name: str
    path: str
    kind: Kind = "auto"
    images: str = ""
    ratio: float = 1.0
    epochs: float = 1.0
    weight: float = 1.0
    views: tuple[str, ...] = ()
    streaming: bool = False
    buffer: int = 1000
    rows: int = 0
    files: tuple[str, ...] = ()
    split: str = "train"
    revision: str = ""

    def __post_init__(self) -> None:
        """Check every value and what goes together."""
        _check_types(self, f"source {self.name!r}")
        if not self.name or not self.path:
            raise ConfigError(f"source {self.name!r} needs both a name and a path.")
        _require(self, "ratio", "above 0 and at most 1", 0 < self.ratio <= 1)
        _require(self, "epochs", "above 0", 0 < self.epochs < math.inf)
        _require(self, "weight", "above 0", 0 < self.weight < math.inf)
        _require(self, "buffer", "at least 1", self.buffer >= 1)
        _require(self, "rows", "0 or more", self.rows >= 0)
        _require(self, "views", "different names", len(set(self.views)) == len(self.views))
        if self.kind == "hub" and not self.streaming:
            raise ConfigError(
                f"source {self.name!r} of kind 'hub' needs streaming = true: it may read from the "
                "network. Or convert the dataset to a local file first."
            )
        if self.kind != "hub" and (self.files or self.split != "train" or self.revision):
            raise ConfigError(
                f"source {self.name!r}: files, split and revision are for kind 'hub' only."
            )
        if not self.streaming and self.rows:
            raise ConfigError(f"source {self.name!r}: rows is for streaming = true only.")

    @property
    def format(self) -> Kind:
        """The kind, read from the ending if it is "auto"."""
        if self.kind != "auto":
            return self.kind
        path = self.path.lower().rstrip("/")
        for suffix, kind in SUFFIXES.items():
            if path.endswith(suffix):
                return kind
        folder = Path(self.path)
        if any(folder.glob("part-*.parquet")):
            return "parquet"
        if any(folder.glob("*.tar")):
            return "webdataset"
        raise ConfigError(
            f"source {self.name!r}: what {self.path} is cannot be told from its ending "
            f"({', '.join(SUFFIXES)}) or, for a folder, from part-*.parquet or *.tar in it. Set "
            f"kind to one of {', '.join(get_args(Kind)[1:])}."
        )


@dataclass(frozen=True)
class Mixture:
    """Sources and how they are mixed.

    Attributes:
        sources: at least one.
        seed: of everything that is drawn.
        interleave: the order of an epoch, see `parfocal.data.schedule.make_schedule`. "sequential"
            keeps the order of the files; with the others every source is shuffled.
        stop: interleave "weighted" only: when an epoch ends, see `make_schedule`.
        benchmarks: index files (.json, see `parfocal.data.leaks`) or Samples files of benchmarks,
            whose pictures must not be trained on.
        leaks: what to do with rows that show such a picture: "refuse" to start, "exclude" them, or
            "allow" them.
        skip_bad: how many rows that cannot be read, and in training Samples whose pictures cannot
            be opened or whose words cannot be written, each reading process may pass over in an
            epoch.
        cache: keep indexes of JSON Lines and tar files beside them, to start faster next time.

    Example:
        >>> mixture = Mixture((MixtureSource("refcoco", "refcoco.jsonl", ratio=0.5),), seed=3)
    """

    sources: tuple[MixtureSource, ...]
    seed: int = 0
    interleave: Interleave = "shuffle"
    stop: Stop = "all"
    benchmarks: tuple[str, ...] = ()
    leaks: Leaks = "refuse"
    skip_bad: int = 0
    cache: bool = False

    def __post_init__(self) -> None:
        """Check every value and what goes together."""
        _check_types(self, "the mixture")
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice or len(names) > 2**16:
            raise ConfigError(
                f"a mixture needs sources of different names, at most 65,536; "
                f"{f'{twice[0]!r} is there twice' if twice else f'there are {len(names)}'}. "
                "A source is a table [[sources]] with name and path."
            )
        if self.seed < 0 or self.skip_bad < 0:
            raise ConfigError(
                f"seed and skip_bad must be 0 or more, are {self.seed} and {self.skip_bad}."
            )
        if self.interleave != "weighted":
            weighted = [source.name for source in self.sources if source.weight != 1]
            if weighted or self.stop != "all":
                raise ConfigError(
                    f"weight and stop are for interleave = 'weighted' only, this one is "
                    f"{self.interleave!r}. To see a source more often, raise its epochs."
                )

    def under(self, folder: str | Path) -> Mixture:
        """The mixture with its relative paths in a folder."""
        return dataclasses.replace(
            self,
            sources=tuple(_placed(source, Path(folder)) for source in self.sources),
            benchmarks=tuple(str(Path(folder) / name) for name in self.benchmarks),
        )


def _placed(source: MixtureSource, folder: Path) -> MixtureSource:
    """The source with its relative paths in a folder; names of datasets of a hub stay."""
    places: dict[str, Any] = {}
    if source.images:
        places["images"] = str(folder / source.images)
    if source.kind != "hub":
        places["path"] = str(folder / source.path)
    if source.path in LOCAL_BUILDERS:
        places["files"] = tuple(
            name if "://" in name else str(folder / name) for name in source.files
        )
    return dataclasses.replace(source, **places)


def read_mixture(path: str | Path) -> Mixture:
    """Read a TOML file: the fields of `Mixture`, and `[[sources]]` with those of `MixtureSource`.

    Relative paths are relative to the file.

    Raises:
        DataError: if there is no such file.
        ConfigError: if it is not TOML, or a key or value is not possible.
    """
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except OSError as err:
        raise DataError(f"{file} cannot be opened: {err.strerror}. Give a TOML file.") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"{file} is not TOML: {err}. A mixture is a TOML file that names its sources in "
            "[[sources]], each with name and path."
        ) from err
    try:
        return _mixture(values, file.parent)
    except ConfigError as err:
        raise ConfigError(f"{file}: {err}") from err


def override(mixture: Mixture, leaks: str | None = None, benchmarks: Sequence[str] = ()) -> Mixture:
    """The mixture with another way to treat leaks, if given, and further benchmarks.

    Raises:
        ConfigError: if there is no such way.
    """
    return dataclasses.replace(
        mixture,
        leaks=mixture.leaks if leaks is None else cast("Leaks", leaks),
        benchmarks=(*mixture.benchmarks, *benchmarks),
    )


def _mixture(values: dict[str, Any], folder: Path) -> Mixture:
    rows = values.pop("sources", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError("sources must be tables: [[sources]], one each.")
    sources = [_source(row, number, folder) for number, row in enumerate(rows, start=1)]
    _check_keys(values, Mixture, "the mixture")
    mixture = Mixture(tuple(sources), **_tuples(values))
    names = tuple(str(folder / name) for name in mixture.benchmarks)
    return dataclasses.replace(mixture, benchmarks=names)


def _source(row: dict[str, Any], number: int, folder: Path) -> MixtureSource:
    where = f"source {row.get('name', number)!r}"
    _check_keys(row, MixtureSource, where)
    missing = [key for key in ("name", "path") if key not in row]
    if missing:
        raise ConfigError(f"{where} has no {missing[0]!r}.")
    values = _tuples(row)
    return _placed(MixtureSource(**values), folder)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}


def _check_keys(values: Mapping[str, Any], kind: type, where: str) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{where} has no key {key!r}.{hint} Its keys are {', '.join(known)}.")


def _check_types(value: Any, where: str) -> None:
    """Compare the fields of a dataclass with their annotations; whole numbers may be floats."""
    hints = get_type_hints(type(value))
    for field in dataclasses.fields(value):
        given, hint = getattr(value, field.name), hints[field.name]
        choices = get_args(hint)
        if choices and isinstance(choices[0], str):  # a Literal
            if given not in choices:
                raise ConfigError(
                    f"{where}: {field.name} is {given!r}, must be one of {', '.join(choices)}."
                )
        elif choices:  # tuple[X, ...]
            if not isinstance(given, tuple) or not all(isinstance(g, choices[0]) for g in given):
                raise ConfigError(
                    f"{where}: {field.name} is {given!r}, must be a list of {choices[0].__name__}."
                )
        elif not _fits(given, hint):
            raise ConfigError(f"{where}: {field.name} is {given!r}, must be {hint.__name__}.")


def _fits(given: object, hint: type) -> bool:
    if isinstance(given, bool) or hint is bool:
        return isinstance(given, bool) and hint is bool
    return isinstance(given, (int, float) if hint is float else hint)


def _require(source: MixtureSource, name: str, what: str, holds: bool) -> None:
    if not holds:
        raise ConfigError(
            f"source {source.name!r}: {name} is {getattr(source, name)!r}, must be {what}."
        )


def exact(value: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(str(value))
