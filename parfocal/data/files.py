"""Files of Samples by their names: JSON Lines, or Parquet and folders of its shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from parfocal.data.jsonl import read_jsonl, write_jsonl
from parfocal.data.parquet import read_parquet, write_parquet
from parfocal.data.sample import Sample
from parfocal.errors import ConfigError, DataError

SUFFIXES = (".jsonl", ".parquet")


def read_samples(path: str | Path) -> Iterator[Sample]:
    """Samples of a JSON Lines file, a Parquet file or a folder of Parquet shards, one at a time.

    Raises:
        DataError: at the first bad row, naming file and line.
    """
    source = Path(path)
    parquet = source.is_dir() or source.suffix.lower() == ".parquet"
    return read_parquet(source) if parquet else read_jsonl(source)


def write_samples(samples: Iterable[Sample], path: str | Path) -> int:
    """Write Samples to one file, all or nothing, and return how many.

    Raises:
        ConfigError: if the name ends neither in `.jsonl` nor in `.parquet`.
        DataError: if a Sample cannot be written or the folder does not exist.
    """
    parquet = check_output(path) == ".parquet"
    return (write_parquet if parquet else write_jsonl)(samples, path)


def check_output(path: str | Path, sources: Iterable[str | Path] = ()) -> str:
    """Refuse a file of Samples that could not be written, before hours go by.

    Args:
        path: of the file.
        sources: files that are read, none of which it may be.

    Returns:
        How its name ends, one of `SUFFIXES`.

    Raises:
        ConfigError: if the name ends otherwise, or the file is one of the sources.
        DataError: if the folder does not exist.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path} must end in {' or '.join(SUFFIXES)}.")
    if Path(path).resolve() in (Path(source).resolve() for source in sources):
        raise ConfigError(f"{path} is read to make the file to write: give another name for that.")
    if not Path(path).absolute().parent.is_dir():
        raise DataError(
            f"{path} cannot be written: the folder {Path(path).parent} does not exist. Make it "
            "first."
        )
    return suffix
