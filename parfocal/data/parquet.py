"""Samples as Parquet: the rows of `sample.schema.json` in columns, for large sets.

Columns mirror the JSON fields; a field that a row does not have is null. `meta` may hold anything
and is kept as JSON text. Needs pyarrow, which comes with `parfocal[train]`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from parfocal.data.jsonl import render_line
from parfocal.data.outputs import atomic_file
from parfocal.data.sample import Sample
from parfocal.errors import ConfigError, DataError

BATCH_ROWS = 1000  # rows held in memory at a time, and rows a Parquet row group


def write_parquet(samples: Iterable[Sample], path: str | Path) -> int:
    """Write samples as they come into one file, all or nothing.

    Returns:
        How many were written.

    Raises:
        DataError: if a sample cannot be written or the folder does not exist.
        ConfigError: if pyarrow is not installed.
    """
    arrow, parquet = import_pyarrow()
    schema = _arrow_schema(arrow)
    iterator, count = iter(samples), 0
    with (
        atomic_file(path) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while batch := list(itertools.islice(iterator, BATCH_ROWS)):
            rows = [_to_columns(sample) for sample in batch]
            try:
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            except UnicodeEncodeError:  # half of a pair of surrogates
                for sample in batch:
                    render_line(sample)  # says whose
                raise
            count += len(rows)
    return count


def write_parquet_shards(
    samples: Iterable[Sample], folder: str | Path, rows_per_shard: int = 10_000
) -> list[Path]:
    """Write `part-00000.parquet`, `part-00001.parquet`, ... into a folder, which is made if needed.

    Raises:
        ConfigError: if rows_per_shard is below 1, pyarrow is not installed or the folder already
            has shards.
        DataError: if a sample cannot be written.
    """
    if rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard is {rows_per_shard}, must be at least 1.")
    root = Path(folder)
    if root.is_dir() and any(root.glob("part-*.parquet")):
        raise ConfigError(f"{root} already has shards, they would be mixed: give an empty folder.")
    root.mkdir(parents=True, exist_ok=True)
    iterator, paths = iter(samples), list[Path]()
    for first in iterator:
        shard = itertools.chain([first], itertools.islice(iterator, rows_per_shard - 1))
        paths.append(root / f"part-{len(paths):05d}.parquet")
        write_parquet(shard, paths[-1])
    return paths


def read_parquet(path: str | Path) -> Iterator[Sample]:
    """Samples of a file, or of all shards of a folder in order, one at a time.

    Raises:
        DataError: at the first bad row, naming file and row (from 1), or if there is no readable
            file.
        ConfigError: if pyarrow is not installed.
    """
    for where, row in read_rows(path):
        yield Sample.from_json(row, where)


def read_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:row", JSON row) of every row, not yet checked; see `read_parquet`."""
    arrow, parquet = import_pyarrow()
    root = Path(path)
    for file in parquet_files(root):
        number = 0
        try:
            with parquet.ParquetFile(file) as reader:
                for batch in reader.iter_batches(BATCH_ROWS):
                    for columns in batch.to_pylist():
                        number += 1
                        yield f"{file}:{number}", row_of_columns(columns)
        except (OSError, arrow.ArrowException) as err:
            raise DataError(f"{file} is not a readable Parquet file: {err}") from err


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or the shards of a folder in order; DataError if there is none."""
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a Parquet file or a folder of shards.")
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path} holds no part-*.parquet. Give a .jsonl or .parquet file, or a folder of "
            "Parquet shards."
        )
    return files


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet; ConfigError if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise ConfigError(
            "Parquet files need pyarrow, which is not installed: pip install 'parfocal[data]'."
        ) from err
    return pyarrow, pyarrow.parquet


def _arrow_schema(arrow: Any) -> Any:
    text, whole, box = arrow.string(), arrow.int64(), arrow.list_(arrow.float64())
    boxes = arrow.list_(box)
    image = {"path": text, "width": whole, "height": whole, "parent": whole, "crop": box}
    image["video_frame"] = whole
    span = {
        "type": text,
        "text": text,
        "boxes": boxes,
        "image": whole,
        "scores": box,
        "index": whole,
        "phrase": text,
    }
    turn = {"role": text, "spans": arrow.list_(arrow.struct(span))}
    return arrow.schema(
        {
            "id": text,
            "images": arrow.list_(arrow.struct(image)),
            "regions": boxes,
            "region_labels": arrow.list_(text),
            "turns": arrow.list_(arrow.struct(turn)),
            "source": text,
            "split": text,
            "licence": text,
            "meta": text,
        }
    )


def _to_columns(sample: Sample) -> dict[str, Any]:
    row = sample.to_json()
    try:
        return row | {"meta": json.dumps(row["meta"], allow_nan=False)}
    except (TypeError, ValueError) as err:
        raise DataError(f"sample {sample.id!r}: meta cannot be written as JSON: {err}.") from err


def row_of_columns(columns: dict[str, Any]) -> dict[str, Any]:
    """The JSON row: nulls are fields that are not there, except the path of a crop.

    Columns of other types stay as they are, and so does a `meta` that is not JSON text: whatever
    checks the row refuses them.
    """
    row: dict[str, Any] = _without_nulls(columns)
    images = row.get("images")
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict):
            image.setdefault("path", None)
    with suppress(TypeError, ValueError):
        row["meta"] = json.loads(row.get("meta", "{}"))
    return row


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
