"""The leak guard: which rows of a mixture show a picture of a benchmark.

The same pictures are in many datasets: those of RefCOCO are in COCO, in Visual Genome and in most
conversations. A picture is known by its names across datasets (`meta["image_key"]`, and
`meta["coco_id"]` of Visual Genome) and by what it shows: size and pixels of the decoded picture,
where its file is at hand. A scaled or recompressed copy without such a name is not recognised.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.files import read_samples
from parfocal.data.mixture import Mixture
from parfocal.data.mixture_sources import OpenSource, open_sources
from parfocal.data.outputs import atomic_file
from parfocal.data.permute import Ints
from parfocal.data.rows import Scanned
from parfocal.data.sample import ImageRef, Sample
from parfocal.errors import DataError, ParfocalError
from parfocal.images import image_digest, load_image

logger = logging.getLogger(__name__)

SCHEMA = "parfocal.leaks/1"
EXAMPLES = 5  # of each source and benchmark in a report

_NAMES = re.compile(rb'"(?:image_key|coco_id)"\s*:\s*("(?:[^"\\]|\\.)*"|\d+)')
_ESCAPED = re.compile(rb"\\u00[2-7]")  # ASCII written as an escape: the pattern above would miss it


@dataclass(frozen=True)
class Benchmark:
    """The pictures of a benchmark.

    Attributes:
        rows: how many rows were read.
        keys: names across datasets.
        contents: "WIDTHxHEIGHT:" and the digest of the decoded picture.
    """

    rows: int
    keys: frozenset[str]
    contents: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LeakIndex:
    """The pictures of benchmarks, by name and by content.

    Attributes:
        benchmarks: by name.
    """

    benchmarks: Mapping[str, Benchmark]
    _owners: dict[str, list[str]] = field(init=False, repr=False, compare=False)
    _sizes: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Turn the tables round: from a picture to the benchmarks that have it."""
        owners: dict[str, list[str]] = {}
        for name, benchmark in sorted(self.benchmarks.items()):
            for mark in benchmark.keys | benchmark.contents:
                owners.setdefault(mark, []).append(name)
        contents = [mark for b in self.benchmarks.values() for mark in b.contents]
        object.__setattr__(self, "_owners", owners)
        object.__setattr__(self, "_sizes", frozenset(m.partition(":")[0] for m in contents))

    @classmethod
    def load(cls, path: str | Path) -> LeakIndex:
        """Read what `save` wrote; DataError if it is anything else."""
        try:
            row = json.loads(Path(path).read_text("utf-8"))
            if row["schema"] != SCHEMA:
                raise ValueError(f"its schema is {row['schema']!r}")
            return cls(
                {
                    name: Benchmark(
                        int(entry["rows"]),
                        frozenset(map(str, entry["keys"])),
                        frozenset(
                            f"{size}:{digest}"
                            for size, digests in entry["contents"].items()
                            for digest in digests
                        ),
                    )
                    for name, entry in row["benchmarks"].items()
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
            reason = f"{type(err).__name__}: {err}"
            reason = str(err.strerror or err) if isinstance(err, OSError) else reason
            reason = f"it lacks {err}" if isinstance(err, KeyError) else reason
            raise DataError(
                f"{path} is no index of benchmark pictures ({reason}). Make one "
                "with parfocal.data.leaks.build_index(...).save(...), or name the benchmark's own "
                "file of samples (.jsonl, .parquet)."
            ) from err

    def save(self, path: str | Path) -> None:
        """Write the index as JSON, sorted; DataError if the folder cannot be written."""
        rows = {}
        for name, benchmark in sorted(self.benchmarks.items()):
            contents: dict[str, list[str]] = {}
            for mark in sorted(benchmark.contents):
                size, _, digest = mark.partition(":")
                contents.setdefault(size, []).append(digest)
            keys = sorted(benchmark.keys)
            rows[name] = {"rows": benchmark.rows, "keys": keys, "contents": contents}
        with atomic_file(path) as file:
            file.write(json.dumps({"schema": SCHEMA, "benchmarks": rows}, indent=1).encode())

    def merged(self, other: LeakIndex) -> LeakIndex:
        """Both together; of a benchmark that is in both, the pictures of both."""
        found = dict(self.benchmarks)
        for name, more in other.benchmarks.items():
            own = found.get(name, Benchmark(0, frozenset()))
            found[name] = Benchmark(
                own.rows + more.rows, own.keys | more.keys, own.contents | more.contents
            )
        return LeakIndex(found)

    def likely(self, text: bytes) -> bool:
        """Whether the JSON text of a row may name one of the pictures; quick, and never misses."""
        if self._sizes or b'"image_keys"' in text or _ESCAPED.search(text):
            return True
        for match in _NAMES.finditer(text):
            value = match[1].strip(b'"')
            if b"\\" in value:
                return True
            name = value.decode(errors="replace")
            if name in self._owners or (name.isdigit() and f"coco:{int(name)}" in self._owners):
                return True
        return False

    def find(self, meta: Mapping[str, Any]) -> dict[str, str]:
        """Benchmark -> the name by which it has the picture of a row with this meta."""
        return self._found(picture_keys(meta))

    def find_picture(self, image: ImageRef) -> dict[str, str]:
        """Benchmark -> the content by which it has this picture; nothing if it cannot be opened."""
        if f"{image.width}x{image.height}" not in self._sizes:
            return {}
        mark = _mark_of_file(image.path) if image.pixels is None else _mark_of(image)
        return self._found([mark] if mark else [])

    def maybe_pictured(self, images: Iterable[object]) -> bool:
        """Whether pictures of a row have the size of one of the pictures."""
        sizes = (f"{i.get('width')}x{i.get('height')}" for i in images if isinstance(i, dict))
        return any(size in self._sizes for size in sizes)

    def find_sample(self, sample: Sample) -> dict[str, str]:
        """Benchmark -> name or content by which it has a picture of the Sample."""
        found = self.find(sample.meta)
        for image in sample.images:
            if image.parent is None:
                found = {**self.find_picture(image), **found}
        return found

    def _found(self, marks: Iterable[str]) -> dict[str, str]:
        return {name: mark for mark in marks for name in self._owners.get(mark, ())}


def picture_keys(meta: Mapping[str, Any]) -> list[str]:
    """The names across datasets of the pictures of a row.

    Example:
        >>> picture_keys({"image_key": "vg:2317429", "coco_id": 391895})
        ['vg:2317429', 'coco:391895']
    """
    several = meta.get("image_keys")
    named = [meta.get("image_key"), *(several if isinstance(several, list) else ())]
    keys = list(dict.fromkeys(key for key in named if isinstance(key, str)))
    coco = meta.get("coco_id")
    if isinstance(coco, int | str) and not isinstance(coco, bool) and str(coco).isdigit():
        keys.append(f"coco:{int(coco)}")
    return keys


def build_index(
    benchmarks: Mapping[str, Sequence[str | Path]], images: str | Path | None = None
) -> LeakIndex:
    """Index the pictures of benchmarks.

    Args:
        benchmarks: name -> files of Samples.
        images: folder of the pictures; the folder of each file if None. Pictures that are not there
            are known by their names alone.

    Raises:
        DataError: if a file cannot be read, or a benchmark has rows of which nothing tells the
            picture.
    """
    found = {}
    for name, paths in benchmarks.items():
        rows, unknown, keys, contents = 0, 0, set[str](), set[str]()
        for path in paths:
            root = Path(images) if images else _folder(Path(path))
            for sample in read_samples(path):
                own = picture_keys(sample.meta)
                marks = [mark for mark in _marks(sample, root) if mark]
                keys.update(own)
                contents.update(marks)
                rows += 1
                unknown += bool(sample.images) and not own and not marks
        if unknown:
            raise DataError(
                f"of {unknown} of the {rows} rows of {name!r} nothing tells which picture they "
                "show: they have no meta.image_key, and the picture is not in the folder "
                f"{images or 'of the file'}. Give the folder of the pictures (images=...)."
            )
        found[name] = Benchmark(rows, frozenset(keys), frozenset(contents))
    return LeakIndex(found)


def load_benchmarks(paths: Sequence[str | Path]) -> LeakIndex:
    """Read index files (.json) and files of Samples, each a benchmark of the file's name.

    Raises:
        DataError: if one cannot be read.
    """
    index = LeakIndex({})
    for path in map(Path, paths):
        if path.suffix.lower() == ".json":
            index = index.merged(LeakIndex.load(path))
        else:
            index = index.merged(build_index({path.stem: [path]}))
    return index


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _marks(sample: Sample, root: Path) -> Iterator[str | None]:
    for image in sample.images:
        if image.parent is None and image.path is not None:
            yield _mark_of_file(str(root / image.path))


@lru_cache(maxsize=1024)  # rows of one picture mostly stand together
def _mark_of_file(path: str | None) -> str | None:
    """The content of a picture; None if the file is not there or no picture."""
    try:
        picture = load_image(path or "")
    except ParfocalError:
        return None
    return f"{picture.width}x{picture.height}:{image_digest(picture)}"


def _mark_of(image: ImageRef) -> str | None:
    if image.pixels is None:
        return None
    return f"{image.width}x{image.height}:{image_digest(image.pixels)}"


@dataclass(frozen=True)
class Leak:
    """A row that shows a picture of a benchmark.

    Attributes:
        source: name of the source.
        benchmark: name of the benchmark.
        where: "file:line" of the row.
        mark: the name or content that both have.
    """

    source: str
    benchmark: str
    where: str
    mark: str

    def __str__(self) -> str:
        return f"{self.where} shows {self.mark}"


@dataclass(frozen=True)
class LeakReport:
    """What `check` found.

    Attributes:
        checked: rows in use that were looked at, each source.
        counts: source -> benchmark -> rows that show one of its pictures.
        examples: the first few of each source and benchmark.
        rows: source -> the numbers of these rows in its files, ascending.
        benchmarks: the names of the benchmarks that were looked for.
        unchecked: sources that are looked at only as they are read, as they come over the network.
    """

    checked: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    examples: tuple[Leak, ...]
    rows: Mapping[str, Ints] = field(compare=False, repr=False)
    benchmarks: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if nothing was found."""
        return not self.counts

    @property
    def num_rows(self) -> int:
        """Rows that show a picture of any benchmark."""
        return sum(len(rows) for rows in self.rows.values())

    def __str__(self) -> str:
        parts = []
        for source, found in self.counts.items():
            for benchmark, count in found.items():
                own = [e for e in self.examples if (e.source, e.benchmark) == (source, benchmark)]
                shown = "; ".join(map(str, own[:3]))
                parts.append(f"{source} has {count} of {benchmark} ({shown})")
        return "; ".join(parts) or "no picture of a benchmark"

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "checked": dict(self.checked),
            "rows": {name: len(rows) for name, rows in self.rows.items() if len(rows)},
            "counts": {name: dict(found) for name, found in self.counts.items()},
            "examples": [vars(example) for example in self.examples],
            "benchmarks": list(self.benchmarks),
            "unchecked": list(self.unchecked),
        }


def check(mixture: Mixture | Sequence[OpenSource], index: LeakIndex | None = None) -> LeakReport:
    """Look for pictures of benchmarks in the rows that a mixture uses.

    Args:
        mixture: a mixture, or its sources as `open_sources` opened them.
        index: the pictures; of the mixture's own benchmarks if None.

    Raises:
        DataError: if a file cannot be read.
    """
    if isinstance(mixture, Mixture):
        index = index or load_benchmarks(mixture.benchmarks)
        mixture = open_sources(mixture)
    index = index or LeakIndex({})
    searches = [_Search(source, index) for source in mixture]
    local = [search for search in searches if not search.source.remote]
    for search in local:
        search.run()
    return LeakReport(
        {search.source.name: len(search.source) for search in local},
        {search.source.name: search.counts for search in local if search.counts},
        tuple(example for search in local for example in search.examples),
        {search.source.name: np.array(search.rows, np.int64) for search in local},
        tuple(sorted(index.benchmarks)),
        tuple(search.source.name for search in searches if search.source.remote),
    )


class _Search:
    """Looks through one source."""

    def __init__(self, source: OpenSource, index: LeakIndex) -> None:
        self.source, self.index = source, index
        self.counts: dict[str, int] = {}
        self.examples: list[Leak] = []
        self.rows: list[int] = []

    def run(self) -> None:
        if not self.index.benchmarks:
            return
        for scanned in self.source.rows.scan(self.index.likely):
            found = self._marks(scanned)
            if found and self.source.uses(np.array([scanned.number]))[0]:
                self.rows.append(scanned.number)
                for benchmark, mark in sorted(found.items()):
                    self._count(Leak(self.source.name, benchmark, scanned.where, mark))

    def _marks(self, scanned: Scanned) -> dict[str, str]:
        meta, images = scanned.row.get("meta"), scanned.row.get("images")
        found = self.index.find(meta) if isinstance(meta, dict) else {}
        if isinstance(images, list) and self.index.maybe_pictured(images):
            found = {**self._pictures(scanned), **found}
        return found

    def _pictures(self, scanned: Scanned) -> dict[str, str]:
        try:
            return self.index.find_sample(self.source.placed(scanned.read(), scanned.where))
        except ParfocalError:
            return {}  # it is an error when its turn comes

    def _count(self, leak: Leak) -> None:
        count = self.counts.get(leak.benchmark, 0)
        self.counts[leak.benchmark] = count + 1
        if count < EXAMPLES:
            self.examples.append(leak)
